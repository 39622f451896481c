"""Maps between resolutions, each against a plain loop."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from segdistill.resolution import (
    any_valid,
    fit_to,
    interior_labels,
    label_votes,
    majority_labels,
    pad_to_multiple,
    pool_valid,
    upsample,
)

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


def test_padding_grows_right_and_bottom_to_the_next_multiple() -> None:
    padded = pad_to_multiple(torch.ones(2, 3, 5, 9), 4)
    assert padded.shape == (2, 3, 8, 12)
    assert padded[..., :5, :9].eq(1).all()
    assert padded.sum() == 2 * 3 * 5 * 9  # the border is 0


def test_padding_labels_keeps_their_type_and_fills_in_the_given_value() -> None:
    labels = torch.arange(6).reshape(1, 2, 3)
    expected = torch.tensor([[[0, 1, 2, 255], [3, 4, 5, 255], [255] * 4, [255] * 4]])
    padded = pad_to_multiple(labels, 4, value=255)
    assert padded.dtype == torch.int64
    assert torch.equal(padded, expected)


def test_padding_only_the_side_that_needs_it() -> None:
    assert pad_to_multiple(torch.zeros(1, 4, 6), 4).shape == (1, 4, 8)
    assert pad_to_multiple(torch.zeros(1, 6, 4), 4).shape == (1, 8, 4)


def test_padding_gives_the_input_itself_if_nothing_is_to_be_added() -> None:
    maps = torch.zeros(1, 3, 64, 32)
    assert pad_to_multiple(maps, 32) is maps


def bilinear(maps: Tensor, height: int, width: int) -> Tensor:
    """Pixel centres at (i + 1/2) * scale, edges repeated."""

    def neighbours(place: int, size: int, new_size: int) -> tuple[int, int, float]:
        centre = max((place + 0.5) * size / new_size - 0.5, 0.0)
        low = math.floor(centre)
        return low, min(low + 1, size - 1), centre - low

    out = maps.new_zeros(*maps.shape[:2], height, width)
    for y, x in product(range(height), range(width)):
        top, bottom, down = neighbours(y, maps.shape[-2], height)
        left, right, across = neighbours(x, maps.shape[-1], width)
        upper = maps[..., top, left] * (1 - across) + maps[..., top, right] * across
        lower = maps[..., bottom, left] * (1 - across) + maps[..., bottom, right] * across
        out[..., y, x] = upper * (1 - down) + lower * down
    return out


def test_upsampling_is_bilinear_between_pixel_centres() -> None:
    # Centres of the new pixels lie at -1/4, 1/4, 3/4, 5/4 of the old ones.
    row = upsample(torch.tensor([[[[0.0, 4.0]]]]), 1, 4)
    assert row.flatten().tolist() == [0.0, 1.0, 3.0, 4.0]
    maps = torch.randn(2, 3, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(upsample(maps, 7, 20), bilinear(maps, 7, 20))


def test_upsampling_to_its_own_size_gives_the_input_itself() -> None:
    maps = torch.randn(1, 2, 3, 4)
    assert upsample(maps, 3, 4) is maps


def test_fit_to_averages_areas_downwards() -> None:
    maps = torch.randn(2, 3, 6, 9, dtype=torch.float64)
    expected = maps.new_zeros(2, 3, 2, 3)
    for channel in range(3):
        for b, y, x, cell in cells(maps[:, channel], 3):
            expected[b, channel, y, x] = sum(cell.flatten().tolist()) / 9
    torch.testing.assert_close(fit_to(maps, 2, 3), expected)


def test_fit_to_is_bilinear_upwards_and_nothing_at_the_same_size() -> None:
    maps = torch.randn(2, 3, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(fit_to(maps, 4, 6), bilinear(maps, 4, 6))
    assert fit_to(maps, 2, 3) is maps


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
