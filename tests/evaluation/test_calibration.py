"""Expected calibration error: by hand, and as torchmetrics computes it from pixels that it keeps."""

import math

import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from segdistill.evaluation.calibration import BINS, Calibration, CalibrationMetric, confidence_of


def counted(confidence: torch.Tensor, right: torch.Tensor, bins: int = BINS) -> CalibrationMetric:
    metric = CalibrationMetric(bins=bins)
    metric.update(confidence, right)
    return metric


def test_by_hand() -> None:
    """Four bins. (0.25, 0.5]: two pixels of 0.5 and 0.4, one right: |0.5 - 0.45|. (0.75, 1]: three of 1.0, 0.8
    and 0.9, two right: |2/3 - 0.9|. (1/4 belongs to the first bin: |1 - 0.25|.)"""
    confidence = torch.tensor([0.5, 0.4, 1.0, 0.8, 0.9, 0.25], dtype=torch.float64)
    right = torch.tensor([True, False, True, True, False, True])
    found = counted(confidence, right, bins=4).compute()
    assert found.pixels.tolist() == [1, 2, 0, 3]
    assert found.hits.tolist() == [1, 1, 0, 2]
    expected = (1 * 0.75 + 2 * 0.05 + 3 * (0.9 - 2 / 3)) / 6
    assert found.error == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("seed", range(3))
def test_against_torchmetrics(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(1, 5, 40, 30, generator=generator)
    labels = torch.randint(0, 5, (40, 30), generator=generator)
    confidence = confidence_of(logits)
    assert torch.allclose(confidence, logits.softmax(1).amax(1)[0], atol=1e-6)
    right = logits.argmax(1)[0] == labels
    ours = counted(confidence.ravel(), right.ravel()).compute().error
    probs = logits.softmax(1).permute(0, 2, 3, 1).reshape(-1, 5)
    theirs = multiclass_calibration_error(probs, labels.ravel(), num_classes=5, n_bins=BINS, norm="l1")
    assert ours == pytest.approx(float(theirs), abs=1e-6)
    assert ours > 0.01


def test_pieces_add_up_to_the_whole_in_memory_that_stays() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence, right = torch.rand(1000, generator=generator), torch.rand(1000, generator=generator) < 0.5
    pieces = CalibrationMetric()
    for start in range(0, 1000, 10):
        pieces.update(confidence[start : start + 10], right[start : start + 10])
    found, whole = pieces.compute(), counted(confidence, right).compute()
    assert found.pixels.tolist() == whole.pixels.tolist()
    assert found.hits.tolist() == whole.hits.tolist()
    assert found.error == pytest.approx(whole.error, abs=1e-12)
    assert {tensor.numel() for tensor in pieces.metric_state.values()} == {BINS}


def test_nothing_counted() -> None:
    assert math.isnan(Calibration(*torch.zeros(3, BINS, dtype=torch.int64)).error)
