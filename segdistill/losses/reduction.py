"""The mean over valid places, by which losses that have a value at every place become a number."""

from torch import Tensor


def mean_valid(values: Tensor, target: Tensor, *, ignore_index: int) -> Tensor:
    """Mean of per-place values over the places whose label is not ignored.

    Args:
        values: (B, *spatial).
        target: (B, *spatial) int64.
        ignore_index: label of the places that carry no loss and no gradient.

    Returns:
        Scalar; 0, and still differentiable, if nothing is valid.
    """
    valid = target != ignore_index
    # masked_fill and not a product: 0 * inf would be NaN.
    return values.masked_fill(~valid, 0.0).sum() / valid.sum().clamp_min(1)
