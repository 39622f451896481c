"""Boundary IoU: the same IoU, of the pixels near the outline of a class alone.

Cheng et al., arXiv:2103.16562, eq. 2, per class over the whole split:

    |(G_d & G) & (P_d & P)| / |(G_d & G) | (P_d & P)|

with G and P the true and the predicted mask of a class, and G_d, P_d the pixels within d of their outlines.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

DIAGONAL_SHARE = 0.02  # d as a share of the image's diagonal, as the authors choose it for COCO-sized images
_NONE = 255  # void, in the arrays that are eroded


class Boundary(NamedTuple):
    """Labelled pixels near outlines, by class: (C,) int64 each.

    Attributes:
        both: near the outline of the true and of the predicted mask of the class.
        true: near the outline of the true mask.
        predicted: near the outline of the predicted mask.
        widths: smallest and largest d in pixels among the images.
    """

    both: Tensor
    true: Tensor
    predicted: Tensor
    widths: tuple[int, int]

    @property
    def iou(self) -> tuple[float, ...]:
        """The IoU by class; NaN for a class that neither has nor was given an outline."""
        union = (self.true + self.predicted - self.both).double()
        return tuple((self.both.double() / union).tolist())

    @property
    def miou(self) -> float:
        """The mean of the IoUs that exist."""
        known = [iou for iou in self.iou if not math.isnan(iou)]
        return sum(known) / len(known) if known else math.nan


class BoundaryMetric(Metric):
    """Counts `Boundary`, and sums it over processes."""

    full_state_update = False
    counts: Tensor
    narrowest: Tensor
    widest: Tensor

    def __init__(self, *, num_classes: int, ignore_index: int) -> None:
        super().__init__()
        assert num_classes < _NONE, "masks are uint8"
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.add_state("counts", torch.zeros(3, num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("narrowest", torch.tensor(2**31 - 1), dist_reduce_fx="min")
        self.add_state("widest", torch.tensor(0), dist_reduce_fx="max")

    def update(self, classes: np.ndarray, labels: np.ndarray) -> None:
        """
        Args:
            classes: (H, W) uint8, predicted.
            labels: (H, W) uint8, class or ignore index.
        """
        valid = labels != self.ignore_index
        distance = trimap_width(*labels.shape)
        true, predicted = (
            near_outlines(np.where(valid, mask, _NONE).astype(np.uint8), distance)
            for mask in (labels, classes)
        )
        both = true & predicted & (labels == classes)
        counts = [
            np.bincount(mask[band], minlength=self.num_classes)
            for mask, band in ((labels, both), (labels, true), (classes, predicted))
        ]
        self.counts += torch.from_numpy(np.stack(counts)).to(self.counts.device)
        self.narrowest.clamp_(max=distance)
        self.widest.clamp_(min=distance)

    def compute(self) -> Boundary:
        both, true, predicted = self.counts.cpu()
        return Boundary(both, true, predicted, (int(self.narrowest), int(self.widest)))


def trimap_width(height: int, width: int) -> int:
    """The width d of the trimap in pixels, at least 1."""
    return max(1, round(DIAGONAL_SHARE * math.hypot(height, width)))


def near_outlines(mask: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of every class that erosion by `distance` would take from its mask, all classes at once.

    A pixel stays if the (2 d + 1)-square around it holds no other class and lies inside the image, since the
    authors let an outline run along the image's border. Void is no other class: where a label ends in void,
    nobody knows whether there is an outline.

    Args:
        mask: (H, W) uint8, classes below 255; 255 is void.
        distance: d in pixels.

    Returns:
        (H, W) bool, false where the mask is void.
    """
    square = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    void = mask == _NONE
    lowest = cv2.erode(mask, square)  # beyond the border there is nothing: neither lower nor higher
    highest = cv2.dilate(np.where(void, 0, mask).astype(np.uint8), square)
    band = (lowest != mask) | (highest != mask)
    band[:distance] = band[-distance:] = True
    band[:, :distance] = band[:, -distance:] = True
    return band & ~void
