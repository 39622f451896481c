"""Moving maps between resolutions: padding to the encoder's stride, and the coarse grid of the dense losses.

Shapes: B images, C classes, H x W pixels, h x w grid cells, s = H / h = W / w (a whole number).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(maps: Tensor, multiple: int, *, value: float = 0.0) -> Tensor:
    """Pad right and bottom so that height and width become multiples of `multiple`.

    Args:
        maps: (..., H, W), any dtype.
        multiple: in pixels, usually the encoder's stride.
        value: what the border is filled with. 0 is the mean colour of a normalised image.

    Returns:
        (..., H', W') with H' and W' the next multiples; the input itself if nothing is to be added.
    """
    height, width = maps.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(maps, (0, right, 0, bottom), value=value) if bottom or right else maps


def fit_to(maps: Tensor, height: int, width: int) -> Tensor:
    """Bring feature maps (B, D, H, W) to (B, D, height, width): area average down, bilinear up."""
    if maps.shape[-2] > height:
        return F.adaptive_avg_pool2d(maps, (height, width))
    return upsample(maps, height, width)


def upsample(maps: Tensor, height: int, width: int) -> Tensor:
    """Bilinear (B, C, h, w) -> (B, C, height, width); nothing is done if that is their size."""
    if maps.shape[-2:] == (height, width):
        return maps
    return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)


class LabelGrid(NamedTuple):
    """Labels on cells of s x s pixels."""

    majority: Tensor  # (B, h, w) int64: most frequent label of the cell's valid pixels; ignore_index if none
    interior: Tensor  # (B, h, w) int64: the same, but ignore_index as soon as one pixel is ignored


def label_grid(labels: Tensor, *, stride: int, num_classes: int, ignore_index: int) -> LabelGrid:
    """Pool labels (B, H, W) onto cells of `stride` x `stride` pixels by majority (lowest class wins a tie)."""
    valid = labels != ignore_index
    one_hot = F.one_hot(torch.where(valid, labels, num_classes), num_classes + 1)[..., :num_classes]
    votes = F.avg_pool2d(one_hot.permute(0, 3, 1, 2).float(), stride)  # (B, C, h, w)
    share = votes.sum(1)  # of valid pixels in the cell
    majority = torch.where(share > 0, votes.argmax(1), ignore_index)
    # A whole cell sums to 1 up to rounding; one ignored pixel of s*s is missing at least 1 / s^2.
    interior = torch.where(share > 1 - 0.5 / stride**2, majority, ignore_index)
    return LabelGrid(majority, interior)


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
