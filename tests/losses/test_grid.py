"""Labels and maps in cells of several pixels."""

from itertools import product

import pytest
import torch
from torch import Tensor

from segdistill.losses.grid import any_valid, interior_labels, label_votes, majority_labels, pool_valid

CLASSES = 11
IGNORE_INDEXES = pytest.mark.parametrize("ignore_index", [255, 11])


def random_labels(ignore_index: int, *, height: int = 8, width: int = 12) -> Tensor:
    """(2, height, width), a third of it ignored, the first 4 x 4 cell wholly so."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (2, height, width), generator=rng)
    labels[torch.rand(labels.shape, generator=rng) < 0.33] = ignore_index
    labels[0, :4, :4] = ignore_index
    return labels


def cells(maps: Tensor, stride: int) -> list[tuple[int, int, int, Tensor]]:
    """(image, row, column, the cell's stride x stride pixels) of maps (B, H, W)."""
    batch, height, width = maps.shape
    return [
        (b, y, x, maps[b, y * stride : (y + 1) * stride, x * stride : (x + 1) * stride])
        for b, y, x in product(range(batch), range(height // stride), range(width // stride))
    ]


@IGNORE_INDEXES
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_votes_count_the_valid_pixels_of_each_class(stride: int, ignore_index: int) -> None:
    labels = random_labels(ignore_index)
    expected = torch.zeros(2, CLASSES, 8 // stride, 12 // stride)
    for b, y, x, cell in cells(labels, stride):
        for label in cell.flatten().tolist():
            if label != ignore_index:
                expected[b, label, y, x] += 1
    assert torch.equal(
        label_votes(labels, stride=stride, num_classes=CLASSES, ignore_index=ignore_index), expected
    )


@IGNORE_INDEXES
def test_majority_is_the_most_frequent_valid_label_and_the_lowest_of_equals(ignore_index: int) -> None:
    labels = random_labels(ignore_index)
    expected = torch.zeros(2, 4, 6, dtype=torch.int64)
    ties = 0
    for b, y, x, cell in cells(labels, 2):
        counts = [cell.eq(label).sum().item() for label in range(CLASSES)]
        ties += counts.count(max(counts)) > 1 and max(counts) > 0
        expected[b, y, x] = counts.index(max(counts)) if max(counts) else ignore_index
    assert ties > 5
    assert (expected == ignore_index).sum() >= 4
    votes = label_votes(labels, stride=2, num_classes=CLASSES, ignore_index=ignore_index)
    assert torch.equal(majority_labels(votes, ignore_index=ignore_index), expected)


def test_majority_goes_to_valid_pixels_even_if_more_are_ignored() -> None:
    labels = torch.tensor([[[255, 255], [255, 7]]])
    votes = label_votes(labels, stride=2, num_classes=CLASSES, ignore_index=255)
    assert majority_labels(votes, ignore_index=255).tolist() == [[[7]]]


@IGNORE_INDEXES
def test_interior_is_ignored_as_soon_as_one_pixel_of_the_cell_is(ignore_index: int) -> None:
    labels = random_labels(ignore_index)
    expected = torch.zeros(2, 4, 6, dtype=torch.int64)
    for b, y, x, cell in cells(labels, 2):
        counts = [cell.eq(label).sum().item() for label in range(CLASSES)]
        expected[b, y, x] = ignore_index if cell.eq(ignore_index).any() else counts.index(max(counts))
    assert 0 < (expected != ignore_index).sum() < expected.numel() - 5
    votes = label_votes(labels, stride=2, num_classes=CLASSES, ignore_index=ignore_index)
    assert torch.equal(interior_labels(votes, stride=2, ignore_index=ignore_index), expected)


def test_pooling_averages_only_valid_pixels_and_gives_0_where_there_is_none() -> None:
    valid = random_labels(255) != 255
    maps = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    expected = maps.new_zeros(2, 3, 2, 3)
    for channel in range(3):
        for (b, y, x, cell), (*_, mask) in zip(cells(maps[:, channel], 4), cells(valid, 4), strict=True):
            kept = [v for v, m in zip(cell.flatten().tolist(), mask.flatten().tolist(), strict=True) if m]
            expected[b, channel, y, x] = sum(kept) / len(kept) if kept else 0.0
    assert not expected[0, :, 0, 0].any()
    torch.testing.assert_close(pool_valid(maps, valid, height=2, width=3), expected)


def test_pooling_gives_ignored_pixels_no_say_and_no_gradient() -> None:
    # One cell of 2 x 2 pixels, three of them valid: each gets a third of the gradient.
    maps = torch.tensor([[[[1.0, 2.0], [6.0, 1e30]]]], requires_grad=True)
    pooled = pool_valid(maps, torch.tensor([[[True, True], [True, False]]]), height=1, width=1)
    assert pooled.item() == pytest.approx(3.0)
    pooled.sum().backward()
    assert maps.grad is not None
    torch.testing.assert_close(maps.grad, torch.tensor([[[[1 / 3, 1 / 3], [1 / 3, 0.0]]]]))
    assert maps.grad[..., 1, 1].item() == 0.0


def test_pooling_a_single_valid_pixel_of_a_large_cell_keeps_its_value() -> None:
    valid = torch.zeros(1, 16, 16, dtype=torch.bool)
    valid[0, 3, 5] = True
    maps = torch.randn(1, 2, 16, 16)
    torch.testing.assert_close(
        pool_valid(maps, valid, height=1, width=1)[0, :, 0, 0], maps[0, :, 3, 5], rtol=1e-6, atol=0
    )


def test_pooling_refuses_a_grid_that_does_not_divide_the_map() -> None:
    with pytest.raises(AssertionError, match="divides"):
        pool_valid(torch.zeros(1, 1, 6, 8), torch.ones(1, 6, 8, dtype=torch.bool), height=4, width=4)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_cell_is_valid_as_soon_as_one_place_in_it_is(stride: int) -> None:
    valid = torch.rand(2, 8, 12, generator=torch.Generator().manual_seed(0)) < 0.2
    valid[0, :4, :4] = False
    expected = torch.zeros(2, 8 // stride, 12 // stride, dtype=torch.bool)
    for b, y, x, cell in cells(valid, stride):
        expected[b, y, x] = any(cell.flatten().tolist())
    assert not expected.all()
    assert torch.equal(any_valid(valid, stride), expected)
