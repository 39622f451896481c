"""The standard segmentation scores, from counts over a whole split."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from segdistill.evaluation.boundary import Boundary
from segdistill.evaluation.calibration import Calibration
from segdistill.streams import ENSEMBLE, PRIMARY


@dataclass(frozen=True)
class Scores:
    """Scores of one predictor on one split. Shares are in 0..1, in float64.

    Attributes:
        confusion: (C, C) int64, pixels; rows are true classes, columns predicted ones.
        calibration: of the confidences; None if they were not measured or are not known.
        boundary: None if it was not measured.
    """

    confusion: Tensor
    calibration: Calibration | None = None
    boundary: Boundary | None = None

    def __post_init__(self) -> None:
        assert not self.confusion.is_floating_point(), "pixels are counted, not weighed"

    @property
    def iou(self) -> tuple[float, ...]:
        """Intersection over union by class; NaN for a class with neither a true nor a predicted pixel."""
        counts = self.confusion.double()
        hits = counts.diagonal()
        union = counts.sum(0) + counts.sum(1) - hits
        return tuple((hits / union).tolist())  # 0 / 0 is NaN

    @property
    def miou(self) -> float:
        """Mean of the IoUs that exist, as cityscapesScripts takes it; NaN if no pixel was counted."""
        known = [iou for iou in self.iou if not math.isnan(iou)]
        return sum(known) / len(known) if known else math.nan

    @property
    def pixel_accuracy(self) -> float:
        """Share of labelled pixels with the right class; NaN if there are none."""
        total = int(self.confusion.sum())
        return int(self.confusion.diagonal().sum()) / total if total else math.nan

    @property
    def mean_accuracy(self) -> float:
        """Mean over the classes that occur of the share of their pixels that is found."""
        counts = self.confusion.double()
        recall = (counts.diagonal() / counts.sum(1)).tolist()
        known = [share for share in recall if not math.isnan(share)]
        return sum(known) / len(known) if known else math.nan

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean of the IoUs, each weighed by its class's share of the labelled pixels; NaN if there are none.

        (Long et al., arXiv:1411.4038, sec. 5.)
        """
        total = int(self.confusion.sum())
        frequencies = self.confusion.sum(1).tolist()
        known = [n * iou for n, iou in zip(frequencies, self.iou, strict=True) if n]
        return sum(known) / total if total else math.nan

    @property
    def normalised_confusion(self) -> Tensor:
        """(C, C) float64: each row the shares of a true class's pixels; NaN for a class that does not occur."""
        counts = self.confusion.double()
        return counts / counts.sum(1, keepdim=True)

    def as_dict(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Plain values for JSON; what does not exist is null, what was not measured is left out."""
        values: dict[str, Any] = {
            "miou": _or_none(self.miou),
            "frequency_weighted_iou": _or_none(self.frequency_weighted_iou),
            "pixel_accuracy": _or_none(self.pixel_accuracy),
            "mean_accuracy": _or_none(self.mean_accuracy),
            "iou": _by_name(names, self.iou),
        }
        if self.calibration is not None:
            values["expected_calibration_error"] = _or_none(self.calibration.error)
        if self.boundary is not None:
            values["boundary_miou"] = _or_none(self.boundary.miou)
            values["boundary_iou"] = _by_name(names, self.boundary.iou)
        return values


def _by_name(names: tuple[str, ...], values: tuple[float, ...]) -> dict[str, float | None]:
    return {name: _or_none(value) for name, value in zip(names, values, strict=True)}


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def confusion_metric(*, num_classes: int, ignore_index: int) -> MulticlassConfusionMatrix:
    """Counts pixels in int64 and sums over processes. Validation is off: it costs more than the counting,
    and the labels were checked before training."""
    return MulticlassConfusionMatrix(num_classes, ignore_index=ignore_index, validate_args=False)


def miou_by_stream(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """`{primary, branches: {...}, ensemble}`; null where there is no such stream or no score."""
    values = {name: None if math.isnan(one.miou) else one.miou for name, one in scores.items()}
    return {
        "primary": values.get(PRIMARY),
        "branches": {name: value for name, value in values.items() if name not in (PRIMARY, ENSEMBLE)},
        "ensemble": values.get(ENSEMBLE),
    }
