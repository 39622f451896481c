"""How far a file and the network are apart, and the images that show it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from networks import described
from torch import Tensor, nn

from segdistill.export.check import Check
from segdistill.export.onnx import Interface
from segdistill.export.parity import Parity, batches_of, compare

NAN, INFINITY = float("nan"), float("inf")


class Logits(nn.Module):
    """Gives one tensor, whatever it is fed."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = tensor

    def logits(self, batch: Tensor) -> Tensor:
        return self.tensor[: len(batch)]


def file_giving(description: Any, **outputs: Tensor) -> Any:
    arrays = {name: tensor.numpy() for name, tensor in outputs.items()}
    return SimpleNamespace(
        description=description,
        run=lambda batch: {name: array[: len(batch)] for name, array in arrays.items()},
    )


def logits() -> Tensor:
    """(2, 3, 10, 10); class 1 wins by 1 at every pixel."""
    return torch.tensor([0.0, 1.0, -1.0])[None, :, None, None].repeat(2, 1, 10, 10)


BATCH = np.zeros((2, 3, 10, 10), np.float32)


def test_the_largest_difference_and_the_share_of_equal_classes() -> None:
    exported = logits()
    exported[1, 0, 4, 5] = 1.5  # class 0 wins at one of 200 pixels, by a change of 1.5
    exported[0, 2, 0, 0] = -3.0  # a change of 2 that no argmax sees
    parity = compare(Logits(logits()), file_giving(described(), logits=exported), [BATCH])
    assert parity == Parity(2, 1 - 1 / 200, 2.0, 1.0)


def test_the_largest_logit_is_taken_over_all_batches_whatever_its_sign() -> None:
    ours = logits()
    ours[0, 2, 3, 3] = -30.0
    later = np.zeros((1, 3, 10, 10), np.float32)
    parity = compare(Logits(ours), file_giving(described(), logits=ours), [BATCH, later])
    assert parity == Parity(3, 1.0, 0.0, 30.0)


@pytest.mark.parametrize("bad", [NAN, INFINITY])
def test_a_non_finite_logit_is_an_infinite_difference(bad: float) -> None:
    exported = logits()
    exported[0, 0, 0, 0] = bad
    later = np.zeros((1, 3, 10, 10), np.float32)
    for batches in ([BATCH], [BATCH, later], [later, BATCH]):
        parity = compare(Logits(logits()), file_giving(described(), logits=exported), batches)
        assert parity.max_logit_difference == INFINITY
        assert not Check("fp32", parity).holds


def test_files_that_give_classes_are_compared_by_them() -> None:
    theirs = torch.ones(2, 10, 10, dtype=torch.uint8)
    theirs[0, :2] = 2
    file = file_giving(described(input="image"), class_index=theirs)
    assert compare(Logits(logits()), file, [BATCH]) == Parity(2, 0.9, None, 1.0)


def test_a_network_that_gives_nan_equals_no_classes() -> None:
    ours = logits()
    ours[0] = NAN  # whose argmax is class 0
    file = file_giving(described(input="image"), class_index=ours.argmax(1).to(torch.uint8))
    assert compare(Logits(ours), file, [BATCH]) == Parity(2, 0.5, None, 1.0)


def test_nothing_to_compare_is_no_proof() -> None:
    with pytest.raises(AssertionError, match="parity needs images"):
        compare(Logits(logits()), file_giving(described(), logits=logits()), [])


# ---- batches

IMAGES = [np.full((40 + index, 60, 3), index, np.uint8) for index in range(5)]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_batches_hold_every_image_another_size_and_a_pair(layout: Any) -> None:
    description = described(input="image", layout=layout)
    batches = list(batches_of(IMAGES, description, Interface()))
    if layout == "nchw":
        batches = [batch.transpose(0, 2, 3, 1) for batch in batches]
    assert [batch.shape for batch in batches] == [
        (2, 40, 60, 3),
        (1, 42, 60, 3),
        (1, 43, 60, 3),
        (1, 65, 65, 3),  # a pixel more than 44x60 are padded to
    ]
    assert {batch.dtype for batch in batches} == {np.dtype("uint8")}
    assert [sorted(np.unique(batch)) for batch in batches] == [[0, 1], [2], [3], [4]]


@pytest.mark.parametrize("count", [1, 2])
def test_few_images_are_enough_for_a_pair_and_for_another_size(count: int) -> None:
    batches = list(batches_of(IMAGES[:count], described(input="image", layout="nhwc"), Interface()))
    assert [batch.shape for batch in batches] == [(2, 40, 60, 3), (1, 65, 65, 3)]


def test_of_large_photos_a_part_is_compared() -> None:
    photos = [np.zeros((3000, 4000, 3), np.uint8)] * 3
    batches = list(batches_of(photos, described(input="image", layout="nhwc"), Interface()))
    assert [batch.shape for batch in batches] == [(2, 1280, 1280, 3), (1, 1281, 1281, 3)]


def test_fixed_shapes_are_kept() -> None:
    batches = list(batches_of(IMAGES, described(input="image", layout="nhwc"), Interface(3, (32, 64))))
    assert [batch.shape for batch in batches] == [(3, 32, 64, 3)] * 5


def test_tensors_are_normalised_and_of_the_networks_size() -> None:
    batches = list(batches_of(IMAGES[:3], described(), Interface()))
    assert [batch.shape for batch in batches] == [(2, 3, 64, 96), (1, 3, 65, 97)]
    assert {batch.dtype for batch in batches} == {np.dtype("float32")}
    # (0 - 0.5) / 0.25, (0 - 0.4) / 0.5, (0 - 0.3) / 0.75
    assert batches[0][0, :, 9, 9] == pytest.approx([-2.0, -0.8, -0.4])
