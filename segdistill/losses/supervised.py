"""Learning from labels: cross-entropy and Dice.

Shapes: (B, C, *spatial); an image classifier is the case without spatial dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from segdistill.losses.reduction import mean_valid


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Pixel-wise cross-entropy, a mean over valid places.

        mean_valid w_y * ((1 - e) * -log p_y + e / C * sum_c -log p_c),   divided by the mean of w_y

    Args:
        logits: (B, C, *spatial).
        target: (B, *spatial) int64.
        ignore_index: places with this label carry no loss and no gradient.
        class_weights: (C,); the mean becomes a weighted mean, as in torch.
        label_smoothing: e in 0..1 (Szegedy et al., arXiv:1512.00567, sec. 7).

    Returns:
        Scalar in nats; 0, and still differentiable, if nothing is valid (torch's own gives NaN there).
    """
    log_p = F.log_softmax(logits, dim=1)
    safe = target.masked_fill(target == ignore_index, 0)
    nll = -log_p.gather(1, safe.unsqueeze(1)).squeeze(1)  # (B, *spatial)
    if label_smoothing:
        nll = (1 - label_smoothing) * nll - label_smoothing * log_p.mean(1)
    if class_weights is None:
        return mean_valid(nll, target, ignore_index=ignore_index)
    weights = class_weights[safe]
    mean_weight = mean_valid(weights, target, ignore_index=ignore_index)
    weighted = mean_valid(nll * weights, target, ignore_index=ignore_index)
    return weighted / mean_weight.clamp_min(torch.finfo(mean_weight.dtype).tiny)


def dice_loss(logits: Tensor, target: Tensor, *, ignore_index: int) -> Tensor:
    """Soft Dice loss over the batch, averaged over the classes that occur in its labels.

        1 - mean_c 2 sum_i p_ic y_ic / (sum_i p_ic + sum_i y_ic)      (Milletari et al., arXiv:1606.04797, eq. 1,
                                                                       without squares in the denominator)

    Args:
        logits: (B, C, *spatial).
        target: (B, *spatial) int64.
        ignore_index: places with this label carry no loss and no gradient.

    Returns:
        Scalar in 0..1; 0, and still differentiable, if nothing is valid.
    """
    num_classes = logits.shape[1]
    valid = target != ignore_index
    one_hot = F.one_hot(torch.where(valid, target, num_classes), num_classes + 1)[..., :num_classes]
    truth = one_hot.movedim(-1, 1).to(logits.dtype)  # (B, C, *spatial); zero where ignored
    probs = logits.softmax(1).masked_fill(~valid.unsqueeze(1), 0.0)
    places = [0, *range(2, logits.ndim)]
    overlap = (probs * truth).sum(places)  # (C,)
    truth_size = truth.sum(places)
    dice = 2 * overlap / (probs.sum(places) + truth_size).clamp_min(torch.finfo(logits.dtype).tiny)
    present = (truth_size > 0).to(logits.dtype)
    return ((1 - dice) * present).sum() / present.sum().clamp_min(1)
