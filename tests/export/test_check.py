"""What a file has to keep of the network."""

from typing import Any

import pytest

from segdistill.export.check import Check
from segdistill.export.parity import Parity

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("precision", "difference", "equal", "holds"),
    [
        ("fp32", 0.0, 1.0, True),
        ("fp32", 1e-4, 0.9999, True),
        ("fp32", 1.01e-4, 1.0, False),
        ("fp32", 0.0, 0.99989, False),
        ("fp32", NAN, 1.0, False),
        ("fp32", 0.0, NAN, False),
        ("fp32", INFINITY, 1.0, False),
        ("fp32", None, 0.9999, True),
        ("fp16", 0.3, 0.999, True),
        ("fp16", 0.3, 0.9989, False),
        ("int8", 3.0, 0.9, True),
    ],
)
def test_limits(precision: Any, difference: float | None, equal: float, holds: bool) -> None:
    check = Check(precision, Parity(5, equal, difference, 5.0))
    assert check.holds is check.computes_the_same is holds


@pytest.mark.parametrize(
    ("largest", "difference", "holds"),
    [
        (1.0, 1e-4, True),
        (1.0, 1.1e-4, False),
        (30.0, 6e-4, True),
        (30.0, 6.1e-4, False),
        (30.0, INFINITY, False),
    ],
)
def test_rounding_may_grow_with_large_logits(largest: float, difference: float, holds: bool) -> None:
    check = Check("fp32", Parity(5, 1.0, difference, largest))
    assert check.holds is holds
    assert (f"<= {2e-5 * max(5.0, largest):.1e}" in check.failures) is not holds


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(
    ("miou", "holds"), [(0.61, True), (0.6001, True), (0.5999, False), (0.6201, False), (NAN, False)]
)
def test_the_score_may_change_by_a_point(precision: Any, miou: float, holds: bool) -> None:
    check = Check(precision, Parity(5, 1.0, 0.0, 5.0), miou=miou, reference_miou=0.61)
    assert check.holds is holds
    assert ("mIoU" in check.failures) is not holds
    assert check.computes_the_same


def test_failures_give_the_numbers() -> None:
    check = Check("fp32", Parity(7, 0.98765, 0.0327, 5.0), miou=0.5, reference_miou=0.61)
    for part in ("3.3e-02", "<= 1.0e-04", "98.7650%", ">= 99.99%", "50.00 % (-11.00)", "61.00 %"):
        assert part in check.failures, check.failures
