"""The coarse grid of the dense losses: what labels and maps are in cells of several pixels, some of them ignored.

Shapes: B images, C classes, D channels, H x W pixels, h x w grid cells, s = H / h = W / w (a whole number).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def label_votes(labels: Tensor, *, stride: int, num_classes: int, ignore_index: int) -> Tensor:
    """How many pixels of each class lie in every cell of `stride` x `stride` pixels.

    Args:
        labels: (B, H, W) int64 in 0..C-1 or the ignore index.
        stride: of the cells; divides H and W.
        num_classes: C.
        ignore_index: pixels with this label are not counted.

    Returns:
        (B, C, h, w) float; sums over C to the number of valid pixels in the cell.
    """
    classes = torch.where(labels == ignore_index, num_classes, labels).unsqueeze(1)
    pixels = F.pixel_unshuffle(classes, stride)  # (B, s*s, h, w)
    votes = torch.zeros(
        pixels.shape[0], num_classes + 1, *pixels.shape[-2:], device=labels.device, dtype=torch.float32
    )
    votes.scatter_add_(1, pixels, torch.ones_like(pixels, dtype=torch.float32))
    return votes[:, :num_classes]


def majority_labels(votes: Tensor, *, ignore_index: int) -> Tensor:
    """The most frequent label of every cell: votes (B, C, h, w) -> (B, h, w) int64.

    Of equally frequent labels the lowest; the ignore index where no pixel is valid.
    """
    return torch.where(votes.sum(1) > 0, votes.argmax(1), ignore_index)


def interior_labels(votes: Tensor, *, stride: int, ignore_index: int) -> Tensor:
    """`majority_labels`, but the ignore index as soon as one of the cell's stride x stride pixels is ignored."""
    return torch.where(votes.sum(1) == stride**2, votes.argmax(1), ignore_index)


def pool_valid(maps: Tensor, valid: Tensor, *, height: int, width: int) -> Tensor:
    """Average maps over the valid pixels of each cell, so that ignored pixels neither count nor get a gradient.

    Args:
        maps: (B, D, H, W).
        valid: (B, H, W) bool.
        height: of the grid, in cells; divides H.
        width: of the grid, in cells; divides W.

    Returns:
        (B, D, height, width); 0 in cells without a valid pixel.
    """
    stride = maps.shape[-2] // height
    assert maps.shape[-2:] == (height * stride, width * stride), "the grid divides the map"
    weight = valid.unsqueeze(1).to(maps.dtype)  # (B, 1, H, W)
    share = F.avg_pool2d(weight, stride)
    return F.avg_pool2d(maps * weight, stride) / share.clamp_min(0.5 / stride**2)


def any_valid(valid: Tensor, stride: int) -> Tensor:
    """Cells of `stride` x `stride` places with a valid one among them: (B, H, W) bool -> (B, h, w) bool."""
    return F.max_pool2d(valid.unsqueeze(1).float(), stride).squeeze(1) > 0
