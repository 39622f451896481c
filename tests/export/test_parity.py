"""The proof that two predictors compute the same."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from segdistill.errors import ExportError
from segdistill.export.parity import MAX_LOGIT_DIFFERENCE, MIN_EQUAL_ARGMAX, Parity, compare, require

NAN = float("nan")


def logits() -> Tensor:
    """(2, 3, 10, 10); class 1 wins by 1 at every pixel."""
    return torch.tensor([0.0, 1.0, -1.0])[None, :, None, None].repeat(2, 1, 10, 10)


def predicts(one: Tensor) -> Callable[[Tensor], dict[str, Tensor]]:
    return lambda _images: {"primary": one, "ensemble": torch.zeros(1)}


def compared(reference: Tensor, exported: Tensor) -> Parity:
    return compare(predicts(reference), predicts(exported), [torch.zeros(2, 3, 10, 10)])


@pytest.mark.parametrize(
    ("difference", "equal", "holds"),
    [
        (0.0, 1.0, True),
        (1e-4, 0.9999, True),
        (1.01e-4, 1.0, False),
        (0.0, 0.99989, False),
        (NAN, 1.0, False),
        (0.0, NAN, False),
        (float("inf"), 1.0, False),
    ],
)
def test_limits(difference: float, equal: float, holds: bool) -> None:
    parity = Parity(difference, equal, 5)
    assert parity.holds is holds
    if holds:
        require(parity, file="model.onnx")
    else:
        with pytest.raises(ExportError):
            require(parity, file="model.onnx")


def test_the_limits_are_those_that_are_promised() -> None:
    assert (MAX_LOGIT_DIFFERENCE, MIN_EQUAL_ARGMAX) == (1e-4, 0.9999)


def test_error_gives_the_numbers() -> None:
    with pytest.raises(ExportError) as caught:
        require(Parity(0.0325, 0.98765, 7), file="runs/a/model.onnx")
    for part in ("runs/a/model.onnx", "3.25e-02", "1e-04", "98.7650%", "99.99%", "7 images"):
        assert part in str(caught.value)


def test_equal_predictors() -> None:
    assert compared(logits(), logits()) == Parity(0.0, 1.0, 2)


@pytest.mark.parametrize("change", [0.25, -0.25])
def test_one_changed_logit_is_seen(change: float) -> None:
    exported = logits()
    exported[1, 2, 4, 7] += change
    parity = compared(logits(), exported)
    assert parity == Parity(0.25, 1.0, 2)
    assert not parity.holds


def test_share_of_equal_classes() -> None:
    exported = logits()
    exported[0, 0, :3] = 5.0  # 30 of 200 pixels
    assert compared(logits(), exported) == Parity(5.0, 0.85, 2)


def test_all_batches_count() -> None:
    changed = logits()
    changed[:, 2] += 0.5
    by_batch = iter([logits(), changed, logits()])
    batches = [torch.zeros(2, 3, 10, 10)] * 3
    parity = compare(predicts(logits()), lambda _: {"primary": next(by_batch)}, batches)
    assert parity == Parity(0.5, 1.0, 6)


def test_each_predictor_gets_the_batch() -> None:
    batch = torch.randn(2, 3, 4, 4)
    parity = compare(
        lambda images: {"primary": images}, lambda images: {"primary": images + 0.125}, [batch, batch]
    )
    assert parity.max_logit_difference == pytest.approx(0.125)
    assert parity.images == 4


def test_no_images_is_no_proof() -> None:
    with pytest.raises(AssertionError, match="parity needs images"):
        compare(predicts(logits()), predicts(logits()), [])


@pytest.mark.parametrize("who", ["reference", "exported", "both"])
@pytest.mark.parametrize("where", [(slice(None),), (1, 1, 4, 7), (0, 0, 0, 0)])
def test_nan_never_passes(who: str, where: tuple[int | slice, ...]) -> None:
    reference, exported = logits(), logits()
    if who != "exported":
        reference[where] = NAN
    if who != "reference":
        exported[where] = NAN
    parity = compared(reference, exported)
    assert not parity.holds
    with pytest.raises(ExportError):
        require(parity, file="model.onnx")


def test_nan_in_a_later_batch_never_passes() -> None:
    broken = logits()
    broken[1, 1, 4, 7] = NAN  # argmax takes NaN for the largest, so the class is still 1
    by_batch = iter([logits(), broken, logits()])
    batches = [torch.zeros(2, 3, 10, 10)] * 3
    assert not compare(predicts(logits()), lambda _: {"primary": next(by_batch)}, batches).holds


def test_infinite_logits_never_pass() -> None:
    broken = logits()
    broken[:, 1] = float("inf")
    assert not compared(logits(), broken).holds
    assert not compared(broken, broken).holds


def test_as_dict_has_the_numbers() -> None:
    assert Parity(0.5, 0.9, 3).as_dict() == {"max_logit_difference": 0.5, "equal_argmax": 0.9, "images": 3}
