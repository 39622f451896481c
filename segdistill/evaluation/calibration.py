"""Is a network right as often as it is sure? Counted in bins, so that memory does not grow with the images."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

BINS = 15  # as Guo et al. count


class Calibration(NamedTuple):
    """Labelled pixels by the network's confidence in them, in bins of equal width over 0..1.

    Attributes:
        pixels: (M,) int64, in each bin.
        hits: (M,) int64, those whose class is right.
        confidence: (M,) float64, the sum of their confidences.
    """

    pixels: Tensor
    hits: Tensor
    confidence: Tensor

    @property
    def error(self) -> float:
        """Expected calibration error in 0..1; NaN if no pixel was counted.

            sum_m |B_m| / n * |acc(B_m) - conf(B_m)|

        (Guo et al., arXiv:1706.04599, eq. 3.) With acc and conf as means over the bin, |B_m| cancels.
        """
        total = int(self.pixels.sum())
        return float((self.hits.double() - self.confidence).abs().sum()) / total if total else math.nan


class CalibrationMetric(Metric):
    """Counts `Calibration`, and sums it over processes. torchmetrics' own keeps every pixel of every image."""

    full_state_update = False
    pixels: Tensor
    hits: Tensor
    confidence: Tensor

    def __init__(self, *, bins: int = BINS) -> None:
        super().__init__()
        self.bins = bins
        self.add_state("pixels", torch.zeros(bins, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("hits", torch.zeros(bins, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("confidence", torch.zeros(bins, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, confidence: Tensor, right: Tensor) -> None:
        """
        Args:
            confidence: (N,) float in 0..1, of the classes predicted for N labelled pixels. Bin m of M holds
                (m / M, (m + 1) / M], as eq. 1 to 3 of Guo et al. have it.
            right: (N,) bool, whether these classes are the true ones.
        """
        edges = torch.arange(1, self.bins, device=confidence.device, dtype=confidence.dtype) / self.bins
        places = torch.bucketize(confidence, edges)
        self.pixels += torch.bincount(places, minlength=self.bins)
        self.hits += torch.bincount(places[right], minlength=self.bins)
        self.confidence += torch.bincount(places, weights=confidence.double(), minlength=self.bins)

    def compute(self) -> Calibration:
        return Calibration(self.pixels.cpu(), self.hits.cpu(), self.confidence.cpu())


def confidence_of(logits: Tensor) -> Tensor:
    """The largest softmax of logits (1, C, H, W) as (H, W), without holding the others."""
    return (logits.amax(1) - logits.logsumexp(1)).exp()[0]
