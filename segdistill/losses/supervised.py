"""Learning from labels: cross-entropy, Dice and Jaccard.

Shapes: (B, C, *spatial); an image classifier is the case without spatial dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from segdistill.losses.overlap import jaccard_distance
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
        label_smoothing: e in 0..1 (Szegedy et al., arXiv:1512.00567, sec. 7). With class weights too, torch
            weighs the smoothing part class by class, this by the label's weight.

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


def votes_cross_entropy(
    logits: Tensor, votes: Tensor, *, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of coarse logits with all the labels that lie in each of their cells.

        sum_cells sum_c w_c n_c ((1 - e) * -log p_c + e / C * sum_j -log p_j)  /  sum_cells sum_c w_c n_c

    It equals `cross_entropy` of the logits after nearest-neighbour upsampling to the labels' size, without
    the upsampling: sixteen times less work at stride 4.

    Args:
        logits: (B, C, h, w).
        votes: (B, C, h, w), valid pixels n_c of each class in the cell.
        class_weights: w (C,).
        label_smoothing: e in 0..1.

    Returns:
        Scalar in nats; 0, and still differentiable, if nothing is valid.
    """
    log_p = F.log_softmax(logits, dim=1)
    if class_weights is not None:
        votes = votes * class_weights.view(1, -1, *([1] * (votes.ndim - 2)))
    loss = -(votes * log_p).sum()
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * (votes.sum(1) * log_p.mean(1)).sum()
    total = votes.sum()
    return loss / torch.where(total > 0, total, 1.0)


def balancing_weights(votes: Tensor, *, power: float) -> Tensor:
    """Weights of the classes of a batch by how rare they are in it.

        w_c = n_c^-power,   so that a class weighs n_c^(1 - power) in all

    Args:
        votes: (B, C, *spatial), valid pixels of each class in the cell.
        power: 0 leaves every pixel its weight, 1 gives every class the same.

    Returns:
        (C,); 1 for a class that does not occur. Only their ratios matter to a weighted mean.
    """
    return votes.sum([0, *range(2, votes.ndim)]).clamp_min(1.0) ** -power


def dice_loss(logits: Tensor, votes: Tensor) -> Tensor:
    """Soft Dice loss over the batch, averaged over the classes that occur in its labels.

        1 - mean_c 2 sum_i p_ic n_ic / (sum_i p_ic n_i + sum_i n_ic)
        (Milletari et al., arXiv:1606.04797, sec. 3, without the squares)

    Args:
        logits: (B, C, *spatial).
        votes: (B, C, *spatial), valid pixels of each class in the cell; one-hot at label resolution.

    Returns:
        Scalar in 0..1; 0, and still differentiable, if nothing is valid.
    """
    places = [0, *range(2, logits.ndim)]
    valid = votes.sum(1, keepdim=True)  # n_i
    probs = logits.softmax(1)
    truth_size = votes.sum(places)  # (C,)
    overlap = (probs * votes).sum(places)
    dice = 2 * overlap / ((probs * valid).sum(places) + truth_size).clamp_min(torch.finfo(probs.dtype).tiny)
    present = (truth_size > 0).to(logits.dtype)
    return ((1 - dice) * present).sum() / present.sum().clamp_min(1)


def jaccard_loss(logits: Tensor, votes: Tensor) -> Tensor:
    """Jaccard distance from the labels over the batch, averaged over the classes that occur in them.

    Args:
        logits: (B, C, *spatial).
        votes: (B, C, *spatial), valid pixels of each class in the cell; one-hot at label resolution.

    Returns:
        Scalar in 0..1, see `jaccard_distance`; in a cell of several labels it asks for their shares.
    """
    valid = votes.sum(1, keepdim=True)
    present = votes.sum([0, *range(2, votes.ndim)]) > 0
    return jaccard_distance(logits.softmax(1) * valid, votes, present=present)
