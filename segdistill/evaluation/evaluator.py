"""Score predictors on a split, at the labels' own size."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from segdistill.data.loading import EvalItem
from segdistill.data.samples import LabelledImage
from segdistill.data.taxonomy import Taxonomy
from segdistill.evaluation.metrics import Scores, confusion_metric
from segdistill.evaluation.predictors import StreamLogits
from segdistill.resolution import upsample


def evaluate(
    predict: Callable[[Tensor], StreamLogits],
    items: Iterable[EvalItem],
    taxonomy: Taxonomy,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Scores]:
    """Predict every image, resize the logits to its label's size, count.

    Args:
        predict: (1, 3, h, w) normalised image -> logits of every stream.
        items: this process's share of the split, not empty; the counts of all processes are summed.
        taxonomy: classes and ignore index.
        progress: called with the number of images done.

    Returns:
        Scores by stream name.
    """
    metrics: dict[str, MulticlassConfusionMatrix] = {}
    for done, item in enumerate(items, 1):
        for name, logits in predict(item.image.unsqueeze(0)).items():
            if name not in metrics:
                metrics[name] = confusion_metric(
                    num_classes=taxonomy.num_classes, ignore_index=taxonomy.ignore_index
                ).to(logits.device)
            prediction = upsample(logits.float(), *item.labels.shape[-2:]).argmax(1)  # (1, H, W)
            metrics[name].update(prediction, item.labels.unsqueeze(0).to(logits.device))
        progress(done)
    assert metrics, "every process has an image: the others wait for its counts"
    return {name: Scores(metric.compute().cpu()) for name, metric in metrics.items()}


def score_classes(
    segment: Callable[[np.ndarray], np.ndarray], items: Iterable[LabelledImage], taxonomy: Taxonomy
) -> Scores:
    """Score something that turns images into class indexes.

    Args:
        segment: (H, W, 3) uint8 RGB -> (H, W) class indexes.
        items: the whole split.
        taxonomy: classes and ignore index.
    """
    metric = confusion_metric(num_classes=taxonomy.num_classes, ignore_index=taxonomy.ignore_index)
    for image, mask in items:
        classes = torch.from_numpy(segment(image).astype(np.int64))
        metric.update(classes[None], torch.from_numpy(mask.astype(np.int64))[None])
    return Scores(metric.compute())
