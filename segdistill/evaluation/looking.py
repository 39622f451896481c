"""How a network looks at an image: whole or through a sliding window, at several scales, mirrored.

Shapes: H x W pixels of the image, h x w pixels at which the network sees it, C classes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segdistill.data.loading import to_tensor
from segdistill.data.transforms import EvalTransform
from segdistill.evaluation.predictors import StreamLogits
from segdistill.normalisation import Normalisation
from segdistill.resolution import upsample


@dataclass(frozen=True)
class Window:
    """A window that slides over the image, in pixels of the scaled image.

    Attributes:
        size: (height, width); an image that is smaller is seen whole along that axis.
        stride: (down, right), at most `size`, so that no pixel is left out.
    """

    size: tuple[int, int]
    stride: tuple[int, int]

    def __post_init__(self) -> None:
        pairs = zip(self.stride, self.size, strict=True)
        assert all(0 < stride <= size for stride, size in pairs), "checked where the user is told"

    def within(self, height: int, width: int) -> tuple[int, int]:
        """Its (height, width) in an image that may be smaller."""
        return min(self.size[0], height), min(self.size[1], width)


@dataclass(frozen=True)
class View:
    """
    Attributes:
        size: (h, w) that images are resized to, at scale 1.
        window: None to look at the whole image.
        scales: factors of `size`, one pass each.
        flip: every pass again, mirrored left to right.
    """

    size: tuple[int, int]
    window: Window | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    @property
    def augments(self) -> bool:
        return self.scales != (1.0,) or self.flip

    @property
    def mode(self) -> str:
        """How images are looked at, in words, for the protocol."""
        seen = [self.seen_at(scale) for scale in self.scales]
        if self.window is None or seen == [self.size_at(scale) for scale in self.scales]:
            return "whole image"
        # A window is never larger than its image.
        largest = tuple(max(sides) for sides in zip(*seen, strict=True))
        size, stride = ("x".join(map(str, pair)) for pair in (largest, self.window.stride))
        return f"sliding window {size}, stride {stride}, logits blended with a linear taper"

    @property
    def augmentation(self) -> str | None:
        """The test-time augmentation in words, for the protocol; None without."""
        if not self.augments:
            return None
        scales = " ".join(f"{scale:g}" for scale in self.scales)
        return f"scales {scales}{', each also mirrored' if self.flip else ''}; softmax averaged at label size"

    def size_at(self, scale: float) -> tuple[int, int]:
        """(h, w) of the whole image at a scale."""
        height, width = (max(1, round(side * scale)) for side in self.size)
        return height, width

    def seen_at(self, scale: float) -> tuple[int, int]:
        """(height, width) of what the network gets at once."""
        height, width = self.size_at(scale)
        return (height, width) if self.window is None else self.window.within(height, width)


class Viewer:
    """An image of any size -> logits of every stream at its label's size."""

    def __init__(
        self, predict: Callable[[Tensor], StreamLogits], view: View, *, normalisation: Normalisation
    ) -> None:
        """
        Args:
            predict: (1, 3, h, w) normalised image -> logits of every stream.
            view: how to look.
            normalisation: of the image.
        """
        self._predict = predict
        self._view = view
        self._transforms = [
            EvalTransform(size=view.size_at(scale), normalisation=normalisation) for scale in view.scales
        ]

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, height: int, width: int) -> Iterator[tuple[str, Tensor]]:
        """
        Args:
            image: (H', W', 3) uint8, RGB.
            height: H of its label, in pixels.
            width: W of its label.

        Yields:
            Every stream with its logits (1, C, H, W) float32. After several passes they are the logarithms of
            the averaged probabilities, which are logits again: their softmax is that average.
        """
        if not self._view.augments:
            logits = self._look(to_tensor(self._transforms[0](image)).unsqueeze(0))
            for name, one in logits.items():  # one at a time: at full size they are large
                yield name, upsample(one.float(), height, width)
            return
        sums: StreamLogits = {}
        passes = 0
        for transform in self._transforms:
            pixels = to_tensor(transform(image)).unsqueeze(0)
            for mirrored in (False, True) if self._view.flip else (False,):
                passes += 1
                for name, logits_seen in self._look(pixels.flip(-1) if mirrored else pixels).items():
                    turned = logits_seen.flip(-1) if mirrored else logits_seen
                    probs = upsample(turned.float(), height, width).softmax(1)
                    sums[name] = sums[name].add_(probs) if name in sums else probs
        for name, total in sums.items():
            yield name, (total / passes).log()

    def _look(self, pixels: Tensor) -> StreamLogits:
        """(1, 3, h, w) -> (1, C, h, w), whole or through the window."""
        if self._view.window is None:
            return self._predict(pixels)
        return slide(self._predict, pixels, self._view.window)


def slide(predict: Callable[[Tensor], StreamLogits], pixels: Tensor, window: Window) -> StreamLogits:
    """Predict window by window and average the logits where windows overlap.

    A pixel's weight falls linearly from the middle of a window to its sides: near them a network sees padding
    instead of what is there, and equal weights would leave a seam where a window ends.

    Args:
        predict: (1, 3, h', w') -> logits (1, C, h', w') of every stream, for every size up to the window's.
        pixels: (1, 3, h, w), normalised.
        window: its size and stride; the last one of a row or column is shifted inward, so it is whole.

    Returns:
        (1, C, h, w) by stream. One window over all of the image gives exactly what `predict` does.
    """
    height, width = window.within(*pixels.shape[-2:])
    tops = starts(pixels.shape[-2], height, window.stride[0])
    lefts = starts(pixels.shape[-1], width, window.stride[1])
    if len(tops) == len(lefts) == 1:
        return predict(pixels)
    weight = taper(height)[:, None] * taper(width)  # (h', w')
    total = pixels.new_zeros(pixels.shape[-2:])
    sums: StreamLogits = {}
    for top in tops:
        for left in lefts:
            rows, columns = slice(top, top + height), slice(left, left + width)
            total[rows, columns] += weight
            for name, logits in predict(pixels[..., rows, columns]).items():
                if name not in sums:
                    sums[name] = logits.new_zeros(*logits.shape[:2], *total.shape, dtype=torch.float32)
                sums[name][..., rows, columns] += logits.float() * weight.to(logits.device)
    return {name: logits / total.to(logits.device) for name, logits in sums.items()}


def starts(length: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along an axis, all of them inside and together covering it."""
    return [*range(0, length - window, stride), length - window]


def taper(length: int) -> Tensor:
    """(length,): 1 in the middle, falling linearly to the ends, where it is not yet 0."""
    to_the_end = torch.minimum(torch.arange(1, length + 1), torch.arange(length, 0, -1))
    return to_the_end / to_the_end.max()
