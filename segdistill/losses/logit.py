"""Learning from each other's logits."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segdistill.losses.overlap import jaccard_distance
from segdistill.losses.reduction import mean_valid


def ensemble_logits(logits: Sequence[Tensor]) -> Tensor:
    """The ensemble's logits: the mean of the sub-models', without gradient. All (B, C, *spatial)."""
    return torch.stack([one.detach() for one in logits]).mean(0)


def logit_distillation(
    logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    temperature: float,
    ignore_index: int,
    gate: Tensor | None = None,
) -> Tensor:
    """KL divergence from the teacher (the ensemble, usually) to one sub-model, per valid place.

        T^2 * mean_valid gate * sum_c p_c (log p_c - log q_c)
        p = softmax(teacher / T), q = softmax(logits / T)

    T^2 keeps gradients comparable across T (Hinton et al., arXiv:1503.02531, sec. 2).

    Args:
        logits: (B, C, *spatial), a sub-model's, unnormalised.
        teacher_logits: (B, C, *spatial); no gradient reaches it.
        target: (B, *spatial) int64; only its ignored places matter here.
        temperature: T > 0, dimensionless.
        ignore_index: places with this label carry no loss and no gradient.
        gate: (B, *spatial) bool; places where it is false count as 0 in the mean.

    Returns:
        Scalar in nats; 0, and still differentiable, if nothing is valid.
    """
    log_p = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    log_q = F.log_softmax(logits / temperature, dim=1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(1)  # (B, *spatial)
    if gate is not None:
        divergence = divergence.masked_fill(~gate, 0.0)
    return temperature**2 * mean_valid(divergence, target, ignore_index=ignore_index)


def channel_distillation(
    logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    temperature: float,
    ignore_index: int,
    gate: Tensor | None = None,
) -> Tensor:
    """KL divergence from the teacher to one sub-model between places, a mean over images and classes.

        T^2 * mean_{b, c} sum_i p_i (log p_i - log q_i)
        p = softmax over the image's places of teacher_c / T, q likewise
        (channel-wise distillation, Shu et al., arXiv:2011.13256, eq. 3 and 4)

    Every class weighs the same however few its pixels are.

    Args:
        logits: (B, C, *spatial), a sub-model's, unnormalised.
        teacher_logits: (B, C, *spatial); no gradient reaches it.
        target: (B, *spatial) int64; only its ignored places matter here.
        temperature: T > 0, dimensionless.
        ignore_index: places with this label do not exist for the softmax.
        gate: (B, *spatial) bool; nor do places where it is false.

    Returns:
        Scalar in nats; 0, and still differentiable, if nothing is valid.
    """
    seen = target != ignore_index
    if gate is not None:
        seen = seen & gate
    seen = seen.reshape(len(seen), 1, -1)  # (B, 1, places)

    def log_softmax_over_places(maps: Tensor) -> Tensor:
        # A filler below all logits, and finite: an image without a valid place has a uniform distribution, and no NaN.
        scaled = (maps / temperature).reshape(*maps.shape[:2], -1)
        return F.log_softmax(scaled.masked_fill(~seen, torch.finfo(scaled.dtype).min / 2), dim=2)

    log_p = log_softmax_over_places(teacher_logits.detach())
    log_q = log_softmax_over_places(logits)
    divergence = (log_p.exp() * (log_p - log_q)).masked_fill(~seen, 0.0).sum(2)  # (B, C)
    return temperature**2 * divergence.mean()


def overlap_distillation(
    logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    temperature: float,
    ignore_index: int,
    gate: Tensor | None = None,
) -> Tensor:
    """Jaccard distance between the teacher's soft segmentation of the batch and one sub-model's.

        jaccard_distance(softmax(logits / T), softmax(teacher / T)),   over the classes the teacher sees somewhere
        (Wang et al., arXiv:2302.05666, sec. 3, distillation with active classes)

    A divergence pulls toward the frequent classes, away from what Dice does for the rare ones; here every class
    weighs the same and what is taught is overlap, as mIoU counts it.

    Args:
        logits: (B, C, *spatial), a sub-model's, unnormalised.
        teacher_logits: (B, C, *spatial); no gradient reaches it.
        target: (B, *spatial) int64; only its ignored places matter here.
        temperature: T > 0, dimensionless.
        ignore_index: places with this label do not count.
        gate: (B, *spatial) bool; nor do places where it is false.

    Returns:
        Scalar in 0..1; 0, and still differentiable, if nothing is valid.
    """
    seen = target != ignore_index
    if gate is not None:
        seen = seen & gate
    teacher_logits = teacher_logits.detach()
    num_classes = logits.shape[1]
    # Marked and not looked up: `torch.isin` sorts all places, and on a GPU the host waits for how many differ.
    marked = torch.zeros(num_classes + 1, dtype=torch.bool, device=logits.device)
    places = teacher_logits.argmax(1).masked_fill(~seen, num_classes)
    present = marked.index_fill_(0, places.flatten(), True)[:num_classes]
    hidden = ~seen.unsqueeze(1)
    probs, truth = (
        (maps / temperature).softmax(1).masked_fill(hidden, 0.0) for maps in (logits, teacher_logits)
    )
    return jaccard_distance(probs, truth, present=present)


def teacher_is_right(teacher_logits: Tensor, target: Tensor) -> Tensor:
    """Where the teacher's most likely class is the label: (B, C, *spatial), (B, *spatial) -> bool."""
    return teacher_logits.argmax(1) == target
