"""Which images and regions the page of errors shows."""

from pathlib import Path

import numpy as np
import torch
from tiny_models import TAXONOMY

from segdistill.commands.mistakes_page import worst_of
from segdistill.commands.subjects import Subject
from segdistill.data.samples import LabelledImage
from segdistill.evaluation.evaluator import Labelling
from segdistill.evaluation.mistakes import ImageCounts, worst_images

SHAPE = (40, 60)


class Stored:
    """Images whose labels are class 0 everywhere."""

    taxonomy = TAXONOMY

    def __len__(self) -> int:
        return 3

    def name(self, index: int) -> str:
        return f"image {index}"

    def load(self, index: int) -> LabelledImage:
        return LabelledImage(np.zeros((*SHAPE, 3), np.uint8), np.zeros(SHAPE, np.uint8))


def test_the_worst_region_may_lie_in_an_image_that_is_not_among_the_worst() -> None:
    """The worst image is wrong in 600 single pixels, the second in one block of 400, the last in one of 9."""
    said = np.zeros((3, *SHAPE), np.uint8)
    said[0, ::2, ::2] = 1
    said[1, :20, :20] = 1
    said[2, :3, :3] = 1
    counts = [
        ImageCounts.of(
            index,
            classes,
            np.zeros(SHAPE, np.uint8),
            num_classes=TAXONOMY.num_classes,
            ignore_index=TAXONOMY.ignore_index,
        )
        for index, classes in enumerate(said)
    ]
    total = sum(
        (one.confusion(TAXONOMY.num_classes) for one in counts[1:]), counts[0].confusion(TAXONOMY.num_classes)
    )
    looked_at = []

    def label(index: int, sample: LabelledImage) -> dict[str, Labelling]:
        looked_at.append(index)
        return {"primary": Labelling(torch.from_numpy(said[index]), None)}

    subject = Subject(samples=Stored(), label=label, protocol={}, target=Path("x.json"), workers=0)
    images, regions = worst_of(subject, worst_images(counts, total, most=3), total, most=1)
    assert [one.scene.name for one in images] == ["image 0"]
    assert [(scene.name, region.box, region.pixels) for scene, region in regions] == [
        ("image 1", (0, 0, 20, 20), 400)
    ]
    assert looked_at == [0, 1], "the last one gains less than the region found"
