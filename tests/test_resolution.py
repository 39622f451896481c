"""Maps between resolutions, each against a plain loop."""

import math
from itertools import product

import torch
from torch import Tensor

from segdistill.resolution import fit_to, pad_to_multiple, upsample


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
    for b, channel, y, x in product(range(2), range(3), range(2), range(3)):
        cell = maps[b, channel, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3]
        expected[b, channel, y, x] = sum(cell.flatten().tolist()) / 9
    torch.testing.assert_close(fit_to(maps, 2, 3), expected)


def test_fit_to_is_bilinear_upwards_and_nothing_at_the_same_size() -> None:
    maps = torch.randn(2, 3, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(fit_to(maps, 4, 6), bilinear(maps, 4, 6))
    assert fit_to(maps, 2, 3) is maps
