"""What the mIoU would gain, by hand and by mending the prediction for real."""

import numpy as np
import pytest
import torch

from segdistill.evaluation.metrics import Scores
from segdistill.evaluation.mistakes import (
    ImageCounts,
    Mix,
    components,
    examples_of,
    gain,
    most_mixed_up,
    worst_images,
    worst_regions,
)

VOID = 255


def confusion_of(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int = 3) -> torch.Tensor:
    found = torch.zeros(classes, classes, dtype=torch.int64)
    for prediction, label in pairs:
        for true, guess in zip(label.ravel().tolist(), prediction.ravel().tolist(), strict=True):
            if true != VOID:
                found[true, guess] += 1
    return found


def counts_of(pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[ImageCounts]:
    return [
        ImageCounts.of(index, prediction, label, num_classes=3, ignore_index=VOID)
        for index, (prediction, label) in enumerate(pairs)
    ]


@pytest.fixture
def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    found = []
    for share in (0.05, 0.5, 0.0, 0.2):
        label = rng.choice([0, 1, 2, VOID], (9, 11), p=[0.5, 0.3, 0.1, 0.1]).astype(np.uint8)
        guess = rng.integers(0, 3, label.shape).astype(np.uint8)
        prediction = np.where((rng.random(label.shape) < share) | (label == VOID), guess, label)
        found.append((prediction.astype(np.uint8), label))
    return found


def test_an_images_counts_are_its_confusion(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    counts = counts_of(pairs)
    for one, pair in zip(counts, pairs, strict=True):
        assert one.confusion(3).tolist() == confusion_of([pair]).tolist()
        assert one.pixels.min() > 0
    assert sum(one.confusion(3) for one in counts).tolist() == confusion_of(pairs).tolist()


def test_the_worst_image_is_the_one_whose_mending_helps_most(
    pairs: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    total = confusion_of(pairs)
    expected = {}
    for index, (_, label) in enumerate(pairs):
        mended = [*pairs]
        mended[index] = (np.where(label == VOID, 0, label).astype(np.uint8), label)
        expected[index] = Scores(confusion_of(mended)).miou - Scores(total).miou
    found = worst_images(counts_of(pairs), total, most=9)
    assert [image.index for image, _ in found] == [1, 3, 0], "a perfect image is none of them"
    for image, value in found:
        assert value == pytest.approx(expected[image.index], abs=1e-15)
    assert [image.index for image, _ in worst_images(counts_of(pairs), total, most=1)] == [1]


def test_gain_by_hand() -> None:
    """IoUs 6/10 and 4/8 would become 8/10 and 4/6."""
    confusion = torch.tensor([[6, 4], [0, 4]])
    wrong = torch.tensor([[0, 2], [0, 0]])
    assert gain(confusion, wrong) == pytest.approx((8 / 10 + 4 / 6 - 6 / 10 - 4 / 8) / 2, abs=1e-15)
    assert gain(confusion, torch.tensor([[6, 0], [0, 4]])) == 0.0, "what is right cannot be mended"


def test_regions_are_of_one_confusion_and_in_the_order_of_their_gain() -> None:
    label = np.zeros((8, 10), np.uint8)
    label[:, 5:] = 1
    label[7, 9] = VOID
    prediction = label.copy()
    prediction[7, 9] = 0
    prediction[0:2, 0:3] = 1  # 6 pixels of 0 taken for 1
    prediction[2, 3] = 1  # touches them by a corner
    prediction[0:3, 3] = np.where(np.arange(3) == 2, 1, 2)  # 2 pixels of 0 taken for 2, beside them
    prediction[6, 6] = 0
    total = confusion_of([(prediction, label)])
    regions = worst_regions(prediction, label, total, ignore_index=VOID, most=9)
    found = {(region.true, region.predicted): region for region in regions}
    assert set(found) == {(0, 1), (0, 2), (1, 0)}
    assert (found[0, 1].pixels, found[0, 1].box) == (7, (0, 0, 3, 4))
    assert (found[0, 2].pixels, found[0, 2].box) == (2, (0, 3, 2, 4))
    assert (found[1, 0].pixels, found[1, 0].box) == (1, (6, 6, 7, 7))
    for (true, predicted), region in found.items():
        mended = prediction.copy()
        mended[(label == true) & (prediction == predicted)] = true
        value = Scores(confusion_of([(mended, label)])).miou - Scores(total).miou
        assert region.gain == pytest.approx(value, abs=1e-15)
    gains = [region.gain for region in regions]
    assert gains == sorted(gains, reverse=True)
    assert len(worst_regions(prediction, label, total, ignore_index=VOID, most=2)) == 2


def test_no_region_gains_more_than_its_image(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    total = confusion_of(pairs)
    for (prediction, label), counts in zip(pairs, counts_of(pairs), strict=True):
        regions = worst_regions(prediction, label, total, ignore_index=VOID, most=1000)
        assert all(region.gain <= gain(total, counts.confusion(3)) + 1e-15 for region in regions)
        assert sum(region.pixels for region in regions) == ((prediction != label) & (label != VOID)).sum()


def test_components_the_largest_first() -> None:
    mask = np.zeros((5, 9), bool)
    mask[0, 0] = mask[1, 1] = True
    mask[2:5, 4:8] = True
    assert components(mask) == [(12, (2, 4, 5, 8)), (2, (0, 0, 2, 2))]


def test_pairs_are_ranked_by_the_share_of_the_true_class() -> None:
    confusion = torch.tensor([[90, 10, 0], [6, 4, 0], [0, 0, 0]])
    assert most_mixed_up(confusion, most=9) == [Mix(1, 0, 6, 0.6), Mix(0, 1, 10, 0.1)]
    assert most_mixed_up(confusion, most=1) == [Mix(1, 0, 6, 0.6)]


def test_examples_are_the_images_with_the_most_pixels_of_the_pair() -> None:
    label = np.zeros((1, 6), np.uint8)
    pairs = [(np.array([[0] * (6 - wrong) + [1] * wrong], np.uint8), label) for wrong in (2, 0, 5, 3)]
    found = examples_of(counts_of(pairs), Mix(0, 1, 10, 0.4), num_classes=3, most=3)
    assert [image.index for image in found] == [2, 3, 0]
    assert len(examples_of(counts_of(pairs), Mix(0, 1, 10, 0.4), num_classes=3, most=9)) == 3
