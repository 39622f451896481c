"""Every image once, logits resized to its label's own size."""

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segdistill.data.loading import EvalItem
from segdistill.data.samples import LabelledImage
from segdistill.data.taxonomy import Taxonomy
from segdistill.evaluation.evaluator import Labelling, evaluate, evaluate_images
from segdistill.evaluation.metrics import Scores

TAXONOMY = Taxonomy(("a", "b", "c"), ((1, 0, 0), (2, 0, 0), (3, 0, 0)), 255)
INPUT = (8, 12)
LABEL_SIZES = [(8, 12), (16, 24), (13, 31), (5, 7), (40, 9)]


def items() -> list[EvalItem]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for index, size in enumerate(LABEL_SIZES):
        labels = torch.randint(0, 3, size, generator=generator)
        labels[torch.rand(size, generator=generator) < 0.1] = 255
        found.append(EvalItem(index, torch.randn(3, *INPUT, generator=generator), labels))
    return found


def sharp(images: Tensor) -> Tensor:
    return images * 3


def shifted(images: Tensor) -> Tensor:
    return images.roll(1, dims=1)


def expected(logits_of: object, found: list[EvalItem]) -> list[list[int]]:
    counts = torch.zeros(3, 3, dtype=torch.int64)
    for item in found:
        logits = F.interpolate(
            logits_of(item.image[None]), size=item.labels.shape, mode="bilinear", align_corners=False
        )
        predicted = logits.argmax(1)[0]
        for true, guess in zip(item.labels.ravel().tolist(), predicted.ravel().tolist(), strict=True):
            if true != 255:
                counts[true, guess] += 1
    return counts.tolist()


def test_streams_are_resized_to_every_labels_size_and_counted() -> None:
    scores = evaluate(
        lambda images: {"primary": sharp(images), "branch3": shifted(images)}, items(), TAXONOMY
    )
    assert list(scores) == ["primary", "branch3"]
    assert scores["primary"].confusion.tolist() == expected(sharp, items())
    assert scores["branch3"].confusion.tolist() == expected(shifted, items())
    assert scores["primary"].confusion.tolist() != scores["branch3"].confusion.tolist()
    pixels = sum(int((item.labels != 255).sum()) for item in items())
    assert int(scores["primary"].confusion.sum()) == pixels


def test_logits_and_not_labels_are_resized() -> None:
    """Two cells (3, 0) and (0, 1): bilinear logits put the border where they cross, not half-way."""
    logits = torch.tensor([[[[3.0, 0.0]], [[0.0, 1.0]], [[-9.0, -9.0]]]])
    labels = torch.zeros(1, 8, dtype=torch.int64)
    scores = evaluate(
        lambda images: {"primary": logits}, [EvalItem(0, torch.zeros(3, 1, 2), labels)], TAXONOMY
    )
    # At (i + 0.5) / 4 - 0.5 =: t the classes are 3 - 3t and t; class 0 wins for t < 3/4, i.e. the first five.
    assert scores["primary"].confusion[0].tolist() == [5, 3, 0]


def test_one_image_at_a_time_each_once() -> None:
    seen: list[Tensor] = []

    def predict(images: Tensor) -> dict[str, Tensor]:
        seen.append(images)
        return {"primary": images}

    found = items()
    evaluate(predict, iter(found), TAXONOMY)
    assert [tuple(images.shape) for images in seen] == [(1, 3, *INPUT)] * len(found)
    assert all(torch.equal(images[0], item.image) for images, item in zip(seen, found, strict=True))


def test_half_precision_logits() -> None:
    scores = evaluate(lambda images: {"primary": images.bfloat16()}, items(), TAXONOMY)
    assert scores["primary"].confusion.tolist() == expected(lambda images: images.bfloat16().float(), items())


def test_scores_have_the_taxonomys_classes() -> None:
    (scores,) = evaluate(lambda images: {"primary": images}, items()[:1], TAXONOMY).values()
    assert isinstance(scores, Scores)
    assert scores.confusion.shape == (3, 3)
    assert set(scores.as_dict(TAXONOMY.names)["iou"]) == {"a", "b", "c"}


@pytest.mark.parametrize("ignore_index", [3, 255])
def test_ignored_pixels_do_not_count(ignore_index: int) -> None:
    taxonomy = Taxonomy(TAXONOMY.names, TAXONOMY.colours, ignore_index)
    labels = torch.tensor([[0, ignore_index], [1, ignore_index]])
    images = torch.zeros(3, 2, 2)
    images[2] = 1  # predicts class 2 everywhere
    (scores,) = evaluate(lambda images: {"primary": images}, [EvalItem(0, images, labels)], taxonomy).values()
    assert scores.confusion.tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]


def test_no_image_is_kept() -> None:
    """Memory does not grow with the images: each is gone when the next but one is scored."""
    arrays: list[weakref.ref[np.ndarray]] = []
    most_alive = 0

    def labelled() -> Iterator[tuple[int, LabelledImage, dict[str, Labelling]]]:
        nonlocal most_alive
        for index in range(12):
            mask = np.full((8, 8), index % 3, np.uint8)
            arrays.append(weakref.ref(mask))
            logits = torch.zeros(1, 3, 8, 8)
            yield (
                index,
                LabelledImage(np.zeros((8, 8, 3), np.uint8), mask),
                {"primary": Labelling.of(logits)},
            )
            most_alive = max(most_alive, sum(one() is not None for one in arrays))

    scores = evaluate_images(labelled(), TAXONOMY)["primary"]
    assert scores.confusion[:, 0].tolist() == [4 * 64] * 3
    assert most_alive <= 2
    assert scores.calibration is not None
    assert scores.calibration.error == pytest.approx(0, abs=1e-6), "a third is right, and a third is expected"


def test_watchers_see_every_image_with_what_was_said_of_it() -> None:
    seen: list[tuple[int, int, int]] = []
    mask = np.zeros((2, 2), np.uint8)
    sample = LabelledImage(np.zeros((2, 2, 3), np.uint8), mask)
    said = [{"a": Labelling(torch.full((2, 2), index), None)} for index in range(3)]
    scores = evaluate_images(
        ((index, sample, one) for index, one in enumerate(said)),
        TAXONOMY,
        watchers=[lambda index, sample, said: seen.append((index, id(sample), id(said)))],
    )
    assert seen == [(index, id(sample), id(one)) for index, one in enumerate(said)]
    assert scores["a"].confusion[0].tolist() == [4, 4, 4]
    assert scores["a"].calibration is None
