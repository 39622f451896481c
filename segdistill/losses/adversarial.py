"""Both games between the sub-models and the pixel-wise discriminator.

Shapes: K+1 sub-models (the primary first), B images, h x w cells, N = (K+1) * B maps, ordered by sub-model.
Each game has two sides: the generator loss is the sub-models', the discriminator loss its opponent's.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segdistill.losses.reduction import mean_valid


class Verdict(NamedTuple):
    """The discriminator's own result."""

    loss: Tensor  # scalar, nats
    accuracy: Tensor  # scalar, 0..1, without gradient


def real_maps(target: Tensor, *, num_classes: int, ignore_index: int, smoothing: float) -> Tensor:
    """Ground truth in the shape of a softmax map, what the label game calls real.

    Args:
        target: (B, h, w) int64.
        num_classes: C.
        ignore_index: those places get zeros.
        smoothing: e; the one-hot 1 becomes 1 - e and the rest share e, so that sharpness alone gives
            nothing away.

    Returns:
        (B, C, h, w) float.
    """
    valid = target != ignore_index
    one_hot = F.one_hot(target.masked_fill(~valid, 0), num_classes).movedim(-1, 1).float()
    smoothed = one_hot * (1 - smoothing) + (1 - one_hot) * (smoothing / max(num_classes - 1, 1))
    return smoothed * valid.unsqueeze(1)


def label_game_generator(judgement: Tensor, target: Tensor, *, ignore_index: int) -> Tensor:
    """The sub-models want their maps taken for ground truth (non-saturating loss; Hung et al.,
    arXiv:1802.07934, eq. 4).

        mean_valid -log sigmoid(D(map))

    Args:
        judgement: (N, 1, h, w) logits for the sub-models' maps.
        target: (N, h, w) int64; only its ignored places matter.
        ignore_index: places with this label carry no loss and no gradient.

    Returns:
        Scalar in nats.
    """
    return mean_valid(F.softplus(-judgement.squeeze(1)), target, ignore_index=ignore_index)


def label_game_discriminator(
    real_judgement: Tensor,
    fake_judgement: Tensor,
    real_target: Tensor,
    fake_target: Tensor,
    *,
    ignore_index: int,
) -> Verdict:
    """The discriminator tells ground truth from softmax maps; both sides count half, however many maps.

        (mean_valid -log sigmoid(D(real)) + mean_valid -log(1 - sigmoid(D(fake)))) / 2

    Args:
        real_judgement: (B, 1, h, w) logits for the ground truth.
        fake_judgement: (N, 1, h, w) logits for the sub-models' maps.
        real_target: (B, h, w) int64; only its ignored places matter.
        fake_target: (N, h, w) int64, likewise.
        ignore_index: places with this label carry no loss and no gradient.
    """

    def mean(values: Tensor, target: Tensor) -> Tensor:
        return mean_valid(values, target, ignore_index=ignore_index)

    real, fake = real_judgement.squeeze(1), fake_judgement.squeeze(1)
    loss = (mean(F.softplus(-real), real_target) + mean(F.softplus(fake), fake_target)) / 2
    accuracy = (mean((real > 0).float(), real_target) + mean((fake <= 0).float(), fake_target)) / 2
    return Verdict(loss, accuracy)


def peer_game_generator(judgement: Tensor, target: Tensor, *, ignore_index: int) -> Tensor:
    """The sub-models want it unclear which of them made a map: cross-entropy to the uniform distribution.

        mean_valid -1/(K+1) sum_k log softmax(D(map))_k,   at least log(K+1)

    Args:
        judgement: (N, K+1, h, w) logits.
        target: (N, h, w) int64; only its ignored places matter.
        ignore_index: places with this label carry no loss and no gradient.

    Returns:
        Scalar in nats.
    """
    return mean_valid(-F.log_softmax(judgement, dim=1).mean(1), target, ignore_index=ignore_index)


def peer_game_discriminator(judgement: Tensor, target: Tensor, *, ignore_index: int) -> Verdict:
    """The discriminator says which sub-model made each map.

        mean_valid -log softmax(D(map))_maker

    Args:
        judgement: (N, K+1, h, w) logits; map n is by sub-model n // B.
        target: (N, h, w) int64; only its ignored places matter.
        ignore_index: places with this label carry no loss and no gradient.
    """
    submodels = judgement.shape[1]
    batch = judgement.shape[0] // submodels
    maker = torch.arange(submodels, device=judgement.device).repeat_interleave(batch)
    maker_map = maker[:, None, None].expand_as(target)
    log_p = F.log_softmax(judgement, dim=1).gather(1, maker_map.unsqueeze(1)).squeeze(1)
    hits = (judgement.argmax(1) == maker_map).float()
    return Verdict(
        mean_valid(-log_p, target, ignore_index=ignore_index),
        mean_valid(hits, target, ignore_index=ignore_index),
    )
