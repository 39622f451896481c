"""Where the IoU is lost: images, regions and pairs of classes, by what the split's mIoU would gain.

Shapes: H x W pixels of an image, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from segdistill.evaluation.metrics import Scores


@dataclass(frozen=True)
class ImageCounts:
    """One image's confusion, of which few cells are not zero: some hundred bytes are kept of it.

    Attributes:
        index: of the image in its split.
        cells: (n,) int32, true class * C + predicted class.
        pixels: (n,) int64, in these cells.
    """

    index: int
    cells: np.ndarray
    pixels: np.ndarray

    @classmethod
    def of(
        cls, index: int, classes: np.ndarray, labels: np.ndarray, *, num_classes: int, ignore_index: int
    ) -> "ImageCounts":
        """classes and labels: (H, W) uint8."""
        valid = labels != ignore_index
        pairs = labels[valid].astype(np.int32) * num_classes + classes[valid]
        counts = np.bincount(pairs, minlength=num_classes**2)
        cells = np.flatnonzero(counts)
        return cls(index, cells.astype(np.int32), counts[cells])

    def confusion(self, num_classes: int) -> Tensor:
        """(C, C) int64"""
        counts = np.zeros(num_classes**2, np.int64)
        counts[self.cells] = self.pixels
        return torch.from_numpy(counts.reshape(num_classes, num_classes))


@dataclass(frozen=True)
class Region:
    """Pixels of one true class that were taken for one other class, connected by sides or corners.

    Attributes:
        true: class index.
        predicted: class index.
        pixels: how many.
        box: (top, left, bottom, right) in pixels; bottom and right are the first beyond it.
        gain: what the split's mIoU would gain if these pixels were right, 0..1.
    """

    true: int
    predicted: int
    pixels: int
    box: tuple[int, int, int, int]
    gain: float


@dataclass(frozen=True)
class Mix:
    """Two classes that are mixed up.

    Attributes:
        true: class index.
        predicted: class index.
        pixels: of the true class that were taken for the predicted one, in the split.
        share: of all pixels of the true class.
    """

    true: int
    predicted: int
    pixels: int
    share: float


def gain(confusion: Tensor, wrong: Tensor) -> float:
    """What mIoU would gain if some pixels were predicted right.

    Args:
        confusion: (C, C) int64, of the whole split.
        wrong: (C, C) int64, the cells of those pixels; pixels on its diagonal are right already.
    """
    mended = confusion - wrong + wrong.sum(1).diag()
    return Scores(mended).miou - Scores(confusion).miou


def worst_images(
    images: Sequence[ImageCounts], confusion: Tensor, *, most: int
) -> list[tuple[ImageCounts, float]]:
    """The images that cost the split the most mIoU, the worst first, with what it would gain if they were perfect."""
    size = len(confusion)
    gains = [(image, gain(confusion, image.confusion(size))) for image in images]
    return sorted((one for one in gains if one[1] > 0), key=lambda one: (-one[1], one[0].index))[:most]


def worst_regions(
    classes: np.ndarray, labels: np.ndarray, confusion: Tensor, *, ignore_index: int, most: int
) -> list[Region]:
    """The regions of an image (H, W) uint8 that cost the split the most mIoU, the worst first.

    Mending more never lowers an IoU, so no region gains more than its image.
    """
    wrong = (classes != labels) & (labels != ignore_index)
    size = len(confusion)
    pairs = np.where(wrong, labels.astype(np.int32) * size + classes, -1)
    found = []
    for pair in np.unique(pairs[wrong]).tolist():
        true, predicted = divmod(pair, size)
        for pixels, box in components(pairs == pair):
            cells = torch.zeros_like(confusion)
            cells[true, predicted] = pixels
            found.append(Region(true, predicted, pixels, box, gain(confusion, cells)))
    return sorted(found, key=lambda region: (-region.gain, region.box))[:most]


def components(mask: np.ndarray) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Pixels and box (top, left, bottom, right) of every connected part of a mask (H, W), the largest first."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    parts = [
        (area, (top, left, top + height, left + width))
        for left, top, width, height, area in stats[1:].tolist()  # the first is the background
    ]
    return sorted(parts, key=lambda part: (-part[0], part[1]))


def most_mixed_up(confusion: Tensor, *, most: int) -> list[Mix]:
    """Ordered pairs of classes by the share of the true class that is lost to the other one, the largest first."""
    shares = Scores(confusion).normalised_confusion
    pairs = [
        Mix(true, predicted, int(confusion[true, predicted]), float(shares[true, predicted]))
        for true in range(len(confusion))
        for predicted in range(len(confusion))
        if true != predicted and confusion[true, predicted]
    ]
    return sorted(pairs, key=lambda mix: (-mix.share, -mix.pixels, mix.true, mix.predicted))[:most]


def examples_of(images: Sequence[ImageCounts], mix: Mix, *, num_classes: int, most: int) -> list[ImageCounts]:
    """The images with the most pixels of a pair, the most first."""
    cell = mix.true * num_classes + mix.predicted

    def pixels(image: ImageCounts) -> int:
        return int(image.pixels[image.cells == cell].sum())

    ranked = sorted(images, key=lambda image: (-pixels(image), image.index))[:most]
    return [image for image in ranked if pixels(image)]
