"""Score predictors on a split, at the labels' own size."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from segdistill.data.loading import EvalItem
from segdistill.data.samples import LabelledImage
from segdistill.data.taxonomy import Taxonomy
from segdistill.evaluation.boundary import BoundaryMetric
from segdistill.evaluation.calibration import CalibrationMetric, confidence_of
from segdistill.evaluation.metrics import Scores, confusion_metric
from segdistill.evaluation.predictors import StreamLogits
from segdistill.resolution import upsample


class Labelling(NamedTuple):
    """What a stream says of an image: at the label's size, on one device."""

    classes: Tensor  # (H, W), whole numbers
    confidence: Tensor | None  # (H, W) float in 0..1, softmax of the class; None if it is not known

    @classmethod
    def of(cls, logits: Tensor) -> "Labelling":
        """(1, C, H, W) -> the likeliest classes and their probabilities."""
        return cls(likeliest(logits), confidence_of(logits))


def likeliest(logits: Tensor) -> Tensor:
    """(1, C, H, W) -> (H, W) int64, of equal logits the first class. On a CPU six times as fast as argmax."""
    return logits.max(1).indices[0]


class Tally:
    """Counts of one stream, image after image: their size does not depend on how many there are.

    `scores` sums them over all processes.
    """

    def __init__(self, taxonomy: Taxonomy, *, device: torch.device, thorough: bool) -> None:
        """
        Args:
            taxonomy: classes and ignore index.
            device: where the confusion is counted.
            thorough: also count what boundary IoU and calibration need.
        """
        self._ignore_index = taxonomy.ignore_index
        sizes = {"num_classes": taxonomy.num_classes, "ignore_index": taxonomy.ignore_index}
        self._confusion: MulticlassConfusionMatrix = confusion_metric(**sizes).to(device)
        self._boundary = BoundaryMetric(**sizes).to(device) if thorough else None
        self._calibration = CalibrationMetric().to(device) if thorough else None
        self._confidence_known = False

    def add(self, said: Labelling, labels: Tensor) -> None:
        """Count an image; labels (H, W) int64."""
        labels = labels.to(said.classes.device)
        self._confusion.update(said.classes[None], labels[None])
        if self._boundary is not None:
            self._boundary.update(*(mask.cpu().numpy().astype(np.uint8) for mask in (said.classes, labels)))
        if self._calibration is not None and said.confidence is not None:
            self._confidence_known = True
            valid = labels != self._ignore_index
            self._calibration.update(said.confidence[valid], said.classes[valid] == labels[valid])

    def scores(self) -> Scores:
        return Scores(
            self._confusion.compute().cpu(),
            calibration=self._calibration.compute() if self._calibration and self._confidence_known else None,
            boundary=self._boundary.compute() if self._boundary else None,
        )


class Tallies:
    """One tally for each stream, from when it is first heard of."""

    def __init__(self, taxonomy: Taxonomy, *, thorough: bool) -> None:
        """See `Tally`."""
        self._taxonomy, self._thorough = taxonomy, thorough
        self._of: dict[str, Tally] = {}

    def add(self, name: str, said: Labelling, labels: Tensor) -> None:
        """Count what a stream says of an image; labels (H, W) int64."""
        if name not in self._of:
            self._of[name] = Tally(self._taxonomy, device=said.classes.device, thorough=self._thorough)
        self._of[name].add(said, labels)

    def scores(self) -> dict[str, Scores]:
        """The scores by stream, summed over all processes."""
        assert self._of, "every process has an image: the others wait for its counts"
        return {name: tally.scores() for name, tally in self._of.items()}


def evaluate(
    predict: Callable[[Tensor], StreamLogits],
    items: Iterable[EvalItem],
    taxonomy: Taxonomy,
) -> dict[str, Scores]:
    """Predict every image, resize the logits to its label's size, count. The quick way, for each epoch.

    Args:
        predict: (1, 3, h, w) normalised image -> logits of every stream.
        items: this process's share of the split, not empty; the counts of all processes are summed.
        taxonomy: classes and ignore index.

    Returns:
        Scores by stream name.
    """
    tallies = Tallies(taxonomy, thorough=False)
    for item in items:
        labels = item.labels.long()
        for name, logits in predict(item.image.unsqueeze(0)).items():
            prediction = likeliest(upsample(logits.float(), *item.labels.shape[-2:]))  # (H, W)
            tallies.add(name, Labelling(prediction, None), labels)
    return tallies.scores()


Watcher = Callable[[int, LabelledImage, Mapping[str, Labelling]], None]


def evaluate_images(
    labelled: Iterable[tuple[int, LabelledImage, Mapping[str, Labelling]]],
    taxonomy: Taxonomy,
    *,
    watchers: Sequence[Watcher] = (),
) -> dict[str, Scores]:
    """Score, with boundary IoU and calibration, what was said of images at their own size. No image is kept.

    Args:
        labelled: this process's share of the split, not empty: every image with its index and what every stream
            says of it. The counts of all processes are summed.
        taxonomy: classes and ignore index.
        watchers: see every image with its index and what was said of it.

    Returns:
        Scores by stream name.
    """
    tallies = Tallies(taxonomy, thorough=True)
    for index, sample, said in labelled:
        labels = torch.from_numpy(sample.mask.astype(np.int64))
        for name, one in said.items():
            tallies.add(name, one, labels)
        for watch in watchers:
            watch(index, sample, said)
    return tallies.scores()


def score_classes(
    segment: Callable[[np.ndarray], np.ndarray], items: Iterable[LabelledImage], taxonomy: Taxonomy
) -> Scores:
    """Score something that turns images into class indexes.

    Args:
        segment: (H, W, 3) uint8 RGB -> (H, W) class indexes.
        items: the whole split.
        taxonomy: classes and ignore index.
    """
    tally = Tally(taxonomy, device=torch.device("cpu"), thorough=False)
    for image, mask in items:
        classes = torch.from_numpy(segment(image).astype(np.int64))
        tally.add(Labelling(classes, None), torch.from_numpy(mask.astype(np.int64)))
    return tally.scores()
