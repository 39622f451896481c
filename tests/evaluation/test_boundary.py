"""Boundary IoU against erosion class by class, as its authors define it, and by hand."""

import math

import numpy as np
import pytest
from scipy import ndimage

from segdistill.evaluation.boundary import BoundaryMetric, near_outlines, trimap_width

VOID = 255


def eroded_away(mask: np.ndarray, unknown: np.ndarray, distance: int) -> np.ndarray:
    """The authors' mask_to_boundary (a 3x3 erosion, `distance` times, with nothing beyond the image), with void
    counted as part of the mask, so that no outline runs where the label ends in it."""
    kept = ndimage.binary_erosion(mask | unknown, np.ones((3, 3)), iterations=distance, border_value=0)
    return mask & ~kept & ~unknown


def reference(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int, distance: int) -> np.ndarray:
    counts = np.zeros((3, classes), int)
    for prediction, label in pairs:
        unknown = label == VOID
        for c in range(classes):
            true = eroded_away(label == c, unknown, distance)
            predicted = eroded_away((prediction == c) & ~unknown, unknown, distance)
            counts[:, c] += (true & predicted).sum(), true.sum(), predicted.sum()
    return counts


def blobs(rng: np.random.Generator, shape: tuple[int, int], classes: int) -> np.ndarray:
    noise = [ndimage.gaussian_filter(rng.standard_normal(shape), 4) for _ in range(classes)]
    return np.argmax(noise, 0).astype(np.uint8)


@pytest.mark.parametrize("seed", range(3))
def test_against_the_authors_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = []
    for shape in [(60, 80), (61, 79)]:
        label, prediction = blobs(rng, shape, 4), blobs(rng, shape, 5)
        prediction = np.where(rng.random(shape) < 0.8, label, prediction).astype(np.uint8)
        label[20:30, 10:40] = VOID
        label[ndimage.binary_dilation(rng.random(shape) < 0.01)] = VOID
        pairs.append((prediction, label))
    metric = BoundaryMetric(num_classes=5, ignore_index=VOID)
    for prediction, label in pairs:
        metric.update(prediction, label)
    found, expected = metric.compute(), reference(pairs, 5, distance=2)
    assert trimap_width(60, 80) == trimap_width(61, 79) == 2
    assert [found.both.tolist(), found.true.tolist(), found.predicted.tolist()] == expected.tolist()
    assert expected[1, :4].min() > 0
    union = expected[1] + expected[2] - expected[0]
    np.testing.assert_allclose(found.iou, expected[0] / union, rtol=1e-15)
    assert found.miou == pytest.approx(np.mean(expected[0] / union), rel=1e-14)
    assert found.widths == (2, 2)


def test_by_hand() -> None:
    """d = 1. Of a 3x3 block inside another class its ring of 8 pixels is near the outline; moved one to the right
    the ring shares two columns of three, less the pixel that is in the middle of the other, twice."""
    label, prediction = np.zeros((2, 9, 9), np.uint8)
    label[3:6, 3:6] = 1
    prediction[3:6, 4:7] = 1
    metric = BoundaryMetric(num_classes=3, ignore_index=VOID)
    metric.update(prediction, label)
    found = metric.compute()
    assert (found.true[1], found.predicted[1], found.both[1]) == (8, 8, 4)
    assert found.iou[1] == 4 / 12
    assert math.isnan(found.iou[2])
    assert found.miou == pytest.approx((found.iou[0] + 1 / 3) / 2)


def test_no_outline_runs_along_void_but_one_does_along_the_images_border() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[:, 10:] = VOID
    band = near_outlines(mask, 2)
    assert not band[2:-2, 2:].any()
    assert band[:2, :10].all()
    assert band[:, :2].all()
    assert not band[:, 10:].any()


def test_a_perfect_prediction_scores_one_whatever_it_says_of_void() -> None:
    rng = np.random.default_rng(0)
    label = blobs(rng, (40, 50), 3)
    label[10:20, 10:20] = VOID
    prediction = np.where(label == VOID, rng.integers(0, 3, label.shape), label).astype(np.uint8)
    metric = BoundaryMetric(num_classes=3, ignore_index=VOID)
    metric.update(prediction, label)
    assert metric.compute().iou == (1.0, 1.0, 1.0)


def test_the_width_follows_the_diagonal() -> None:
    assert trimap_width(360, 480) == 12  # 0.02 * 600
    assert trimap_width(1024, 2048) == 46
    assert trimap_width(8, 8) == 1
    metric = BoundaryMetric(num_classes=2, ignore_index=VOID)
    for shape in [(60, 80), (360, 480), (30, 40)]:
        metric.update(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8))
    assert metric.compute().widths == (1, 12)
