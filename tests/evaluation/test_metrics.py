"""The standard scores, against a plain implementation and by hand."""

import json
import math

import numpy as np
import pytest
import torch

from segdistill.evaluation.metrics import Scores, confusion_metric

NAMES = ("a", "b", "c")


def reference(
    pairs: list[tuple[np.ndarray, np.ndarray]], classes: int, ignore: int
) -> dict[str, float | list[float]]:
    """As cityscapesScripts' evalPixelLevelSemanticLabeling computes it, pixel by pixel.

    Its getIouScoreForLabel: tp / (tp + fp + fn); false positives are counted over pixels whose true label is
    not ignored; NaN where the denominator is 0. Its getScoreAverage leaves NaN out.
    """
    confusion = [[0] * classes for _ in range(classes)]
    for prediction, label in pairs:
        for predicted, true in zip(prediction.ravel().tolist(), label.ravel().tolist(), strict=True):
            if true != ignore:
                confusion[true][predicted] += 1
    ious, recalls, hits, total = [], [], 0, 0
    for c in range(classes):
        tp = confusion[c][c]
        fn = sum(confusion[c]) - tp
        fp = sum(confusion[t][c] for t in range(classes)) - tp
        ious.append(tp / (tp + fp + fn) if tp + fp + fn else math.nan)
        recalls.append(tp / (tp + fn) if tp + fn else math.nan)
        hits, total = hits + tp, total + tp + fn

    def mean(values: list[float]) -> float:
        known = [value for value in values if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan

    return {
        "confusion": confusion,
        "iou": ious,
        "miou": mean(ious),
        "mean_accuracy": mean(recalls),
        "pixel_accuracy": hits / total if total else math.nan,
    }


def scored(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int, ignore: int) -> Scores:
    metric = confusion_metric(num_classes=classes, ignore_index=ignore)
    for prediction, label in pairs:
        metric.update(torch.from_numpy(prediction), torch.from_numpy(label))
    return Scores(metric.compute())


@pytest.mark.parametrize("ignore", [255, 11])
@pytest.mark.parametrize("seed", range(4))
def test_against_the_reference(seed: int, ignore: int) -> None:
    """Classes 3 and 7 are in neither labels nor predictions, 5 is predicted only, 9 occurs only in labels."""
    rng = np.random.default_rng(seed)
    in_labels = [0, 1, 2, 4, 6, 8, 9, 10, ignore]
    in_predictions = [0, 1, 2, 4, 5, 6, 8, 10]
    pairs = []
    for shape in [(1, 9, 13), (1, 20, 7), (2, 5, 5)]:
        label = rng.choice(in_labels, shape)
        guess = rng.choice(in_predictions, shape)
        agree = (rng.random(shape) < 0.6) & np.isin(label, in_predictions)
        pairs.append((np.where(agree, label, guess), label))
    scores, expected = scored(pairs, 11, ignore), reference(pairs, 11, ignore)
    assert scores.confusion.tolist() == expected["confusion"]
    np.testing.assert_allclose(scores.iou, expected["iou"], rtol=1e-15)
    for name in ("miou", "pixel_accuracy", "mean_accuracy"):
        assert getattr(scores, name) == pytest.approx(expected[name], rel=1e-14)
    assert math.isnan(scores.iou[3])
    assert math.isnan(scores.iou[7])
    assert scores.iou[5] == scores.iou[9] == 0.0
    known = [iou for iou in scores.iou if not math.isnan(iou)]
    assert len(known) == 9
    assert scores.miou == pytest.approx(sum(known) / 9)


def test_by_hand() -> None:
    label = np.array([[[0, 0, 0, 1], [1, 255, 255, 1]]])
    prediction = np.array([[[0, 0, 1, 1], [0, 0, 1, 1]]])
    scores = scored([(prediction, label)], 3, 255)
    assert scores.confusion.tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 0]]  # rows are the true classes
    assert scores.confusion.dtype == torch.int64
    assert scores.iou[:2] == (0.5, 0.5)  # 2 of 2 + 1 + 1
    assert math.isnan(scores.iou[2])
    assert scores.miou == 0.5
    assert scores.pixel_accuracy == pytest.approx(4 / 6)
    assert scores.mean_accuracy == pytest.approx(2 / 3)
    assert scores.frequency_weighted_iou == 0.5
    rows = scores.normalised_confusion
    np.testing.assert_allclose(rows[:2], [[2 / 3, 1 / 3, 0], [1 / 3, 2 / 3, 0]], rtol=1e-15)
    assert rows[2].isnan().all()


def test_frequency_weighted_iou_weighs_by_the_true_pixels() -> None:
    """IoUs 6/8, 1/3 and 0/2 of classes with 8, 2 and no true pixels."""
    scores = Scores(torch.tensor([[6, 1, 1], [0, 1, 1], [0, 0, 0]]))
    assert scores.iou == (6 / 8, 1 / 3, 0.0)
    assert scores.frequency_weighted_iou == pytest.approx((8 * 6 / 8 + 2 / 3) / 10, rel=1e-15)


def test_rows_are_true_and_columns_predicted() -> None:
    label, prediction = np.array([[[0, 0, 0]]]), np.array([[[0, 1, 1]]])
    scores = scored([(prediction, label)], 2, 255)
    assert scores.confusion.tolist() == [[1, 2], [0, 0]]
    assert scores.iou == (pytest.approx(1 / 3), 0.0)  # false positives in an absent class do count
    assert scores.miou == pytest.approx(1 / 6)
    assert scores.mean_accuracy == pytest.approx(1 / 3)  # over the classes that occur


def test_one_matrix_over_the_split_not_a_mean_over_images() -> None:
    perfect = (np.zeros((1, 1, 90), int), np.zeros((1, 1, 90), int))
    wrong = (np.ones((1, 1, 10), int), np.zeros((1, 1, 10), int))
    scores = scored([perfect, wrong], 2, 255)
    assert scores.iou == (0.9, 0.0)


@pytest.mark.parametrize("ignore", [3, 255])
def test_nothing_but_void(ignore: int) -> None:
    scores = scored([(np.zeros((1, 4, 4), int), np.full((1, 4, 4), ignore))], 3, ignore)
    assert int(scores.confusion.sum()) == 0
    assert math.isnan(scores.miou)
    assert math.isnan(scores.pixel_accuracy)
    assert math.isnan(scores.mean_accuracy)
    expected = {
        "miou": None,
        "frequency_weighted_iou": None,
        "pixel_accuracy": None,
        "mean_accuracy": None,
        "iou": {"a": None, "b": None, "c": None},
    }
    assert scores.as_dict(NAMES) == expected


def test_as_dict_is_json() -> None:
    scores = Scores(torch.tensor([[2, 1, 0], [1, 2, 0], [0, 0, 0]]))
    values = json.loads(json.dumps(scores.as_dict(NAMES), allow_nan=False))
    assert values["iou"] == {"a": 0.5, "b": 0.5, "c": None}
    assert values["miou"] == 0.5
    with pytest.raises(ValueError, match="zip"):
        scores.as_dict(("a", "b"))


def test_counts_stay_exact_beyond_what_float32_holds() -> None:
    """2^24 + 1 is the first whole number that float32 has not."""
    big = 2**24
    scores = Scores(torch.tensor([[big, 1], [0, big + 1]]))
    assert scores.iou == (big / (big + 1), (big + 1) / (big + 2))
    assert scores.iou[0] < scores.iou[1] < 1.0
    assert scores.pixel_accuracy == (2 * big + 1) / (2 * big + 2)
    huge = 2**40
    assert Scores(torch.tensor([[huge, 1], [0, 1]])).iou[0] == huge / (huge + 1)


def test_the_metric_counts_on_beyond_float32() -> None:
    metric = confusion_metric(num_classes=2, ignore_index=255)
    metric.update(torch.zeros(1, 1, 1, dtype=torch.int64), torch.zeros(1, 1, 1, dtype=torch.int64))
    metric.confmat[0, 0] = 2**24
    for _ in range(3):
        metric.update(torch.zeros(1, 1, 1, dtype=torch.int64), torch.zeros(1, 1, 1, dtype=torch.int64))
    assert metric.compute()[0, 0].item() == 2**24 + 3


def test_only_counts() -> None:
    with pytest.raises(AssertionError, match="counted"):
        Scores(torch.eye(3))
