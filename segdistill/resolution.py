"""Moving maps between resolutions: padding to the encoder's stride, up to the image and down to other maps.

Shapes: B images, C classes, D channels, H x W pixels, h x w cells.
"""

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
    """Bring feature maps (B, D, H, W) to (B, D, height, width): area average down, bilinear up.

    Down, the new size divides the old one.
    """
    if maps.shape[-2] > height:
        stride = maps.shape[-2] // height
        assert maps.shape[-2:] == (height * stride, width * stride), "the new size divides the old one"
        return F.avg_pool2d(maps, stride)
    return upsample(maps, height, width)


def upsample(maps: Tensor, height: int, width: int) -> Tensor:
    """Bilinear (B, C, h, w) -> (B, C, height, width); nothing is done if that is their size."""
    if maps.shape[-2:] == (height, width):
        return maps
    return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)


def resized_argmax(logits: Tensor, height: int, width: int) -> Tensor:
    """`upsample(logits, height, width).argmax(1)` one class at a time: at once, large images take gigabytes.

    Args:
        logits: (1, C, h, w), C at most 256.
        height: in pixels.
        width: in pixels.

    Returns:
        (height, width) uint8; of equal logits the lowest class.
    """
    best = upsample(logits[:, :1], height, width)
    classes = torch.zeros_like(best, dtype=torch.uint8)
    for index in range(1, logits.shape[1]):
        other = upsample(logits[:, index : index + 1], height, width)
        classes.masked_fill_(other > best, index)
        best = torch.maximum(best, other)  # not in place: `best` may be a view of the logits
    return classes[0, 0]
