"""How far two soft segmentations overlap, class by class: what mIoU measures, made smooth."""

import torch
from torch import Tensor


def jaccard_distance(probs: Tensor, truth: Tensor, *, present: Tensor) -> Tensor:
    """Jaccard distance between two soft segmentations of a batch, a mean over classes.

        mean_c 2 sum_i |x_ic - y_ic| / sum_i (x_ic + y_ic + |x_ic - y_ic|)
        (Jaccard metric loss, Wang et al., arXiv:2302.05666, JML1)

    With a truth of zeros and ones it is the soft Jaccard loss, 1 - intersection / union. With a soft one it is still
    smallest, 0, where both are the same, unlike soft Jaccard and Dice, which ask for certainty there.

    Args:
        probs: x (B, C, *spatial), not negative; 0 at places that do not count.
        truth: y, likewise.
        present: (C,) bool, classes to take the mean over.

    Returns:
        Scalar in 0..1; 0, and still differentiable, if no class is present.
    """
    places = [0, *range(2, probs.ndim)]
    apart = (probs - truth).abs().sum(places)  # (C,)
    union = (probs.sum(places) + truth.sum(places) + apart) / 2
    distance = apart / union.clamp_min(torch.finfo(probs.dtype).tiny)
    return distance.masked_fill(~present, 0.0).sum() / present.sum().clamp_min(1)
