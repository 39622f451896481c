"""Masks, blends, outlines and legends, pixel by pixel."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from segdistill.report.overlay import (
    LegendEntry,
    blend,
    largest_first,
    legend_entries,
    mask_image,
    outlined,
    with_legend,
)

COLOURS = ((10, 20, 30), (200, 100, 0), (0, 128, 255))
NAMES = ("ground", "thing", "sky")
WHITE = (255, 255, 255)


def colours_in(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}


def test_blend_by_hand() -> None:
    image = np.array([[[100, 0, 255], [10, 20, 30]]], np.uint8)
    painted = np.array([[[200, 100, 0], [10, 20, 30]]], np.uint8)
    # 0.75 * 200 + 0.25 * 100 = 175; 0.75 * 100 = 75; 0.25 * 255 = 63.75
    assert blend(image, painted, opacity=0.75).tolist() == [[[175, 75, 64], [10, 20, 30]]]
    assert np.array_equal(blend(image, painted, opacity=0.0), image)
    assert np.array_equal(blend(image, painted, opacity=1.0), painted)


def test_outlines_lie_right_of_and_below_a_border() -> None:
    classes = np.zeros((4, 5), np.uint8)
    classes[2:, 3:] = 1
    picture = np.full((4, 5, 3), 100, np.uint8)
    result = outlined(picture, classes)
    expected = np.full((4, 5), 100)
    expected[2, 3:] = expected[2:, 3] = 193  # 0.4 * 100 + 0.6 * 255
    assert np.array_equal(result, np.repeat(expected[..., None], 3, axis=2))
    assert (picture == 100).all(), "a copy"


def test_outlines_get_wider_on_large_pictures() -> None:
    classes = np.zeros((1800, 1800), np.uint8)
    classes[:, 900:] = 1
    result = outlined(np.zeros((1800, 1800, 3), np.uint8), classes)
    assert np.flatnonzero(result[500, :, 0]).tolist() == [900, 901, 902]


def test_a_mask_is_a_palette_image_of_8_bits_with_the_class_colours() -> None:
    classes = np.array([[0, 1, 2], [2, 2, 0]], np.uint8)
    file = io.BytesIO()
    mask_image(classes, COLOURS).save(file, "PNG")
    depth, colour_type = struct.unpack(">BB", file.getvalue()[24:26])
    assert (depth, colour_type) == (8, 3), "3 is a palette"
    read = Image.open(file)
    assert np.array_equal(np.asarray(read), classes)
    assert np.array_equal(np.asarray(read.convert("RGB")), np.array(COLOURS, np.uint8)[classes])


def test_legend_entries_count_pixels_in_the_order_of_the_classes() -> None:
    classes = np.array([[2, 2, 2, 0]], np.uint8)
    entries = legend_entries(classes, NAMES, COLOURS)
    assert entries == [
        LegendEntry("ground", COLOURS[0], 0.25),
        LegendEntry("thing", COLOURS[1], 0.0),
        LegendEntry("sky", COLOURS[2], 0.75),
    ]
    assert [entry.name for entry in largest_first(entries)] == ["sky", "ground"]


def entries_of(*names: str, share: float = 0.5) -> list[LegendEntry]:
    return [LegendEntry(name, COLOURS[place % 3], share) for place, name in enumerate(names)]


@pytest.mark.parametrize("size", [(360, 480), (96, 128), (1, 1), (1200, 1600), (900, 20)])
def test_the_legend_stands_below_the_untouched_picture(size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 77, np.uint8)
    canvas = with_legend(picture, entries_of(*NAMES))
    height, width = size
    assert canvas.shape[0] > height
    assert canvas.shape[1] >= width
    left = (canvas.shape[1] - width) // 2
    assert (canvas[:height, left : left + width] == 77).all()
    assert (canvas[:height, :left] == 255).all()
    strip = canvas[height:]
    assert set(COLOURS) <= colours_in(strip), "a swatch of each"
    assert colours_in(strip[[0, -1]]) | colours_in(strip[:, [0, -1]]) == {WHITE}, "nothing is cut"


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_as_many_columns_as_fit(columns: int) -> None:
    names = ("road", "tree", "sky", "fence", "car", "pole")
    narrowest = with_legend(np.zeros((300, 1, 3), np.uint8), entries_of(*names)).shape[1]
    column, em = narrowest - 2 * 13, 13  # the smallest letters
    width = 2 * em + columns * column + (columns - 1) * 2 * em
    for wide, expected in ((width, columns), (width - 1, max(1, columns - 1))):
        strip = with_legend(np.zeros((300, wide, 3), np.uint8), entries_of(*names))[300:]
        swatches = (strip == COLOURS[0]).all(2) | (strip == COLOURS[1]).all(2) | (strip == COLOURS[2]).all(2)
        starts = np.flatnonzero(np.diff(swatches.any(0).astype(int)) == 1)
        assert len(starts) == expected


def test_long_names_widen_the_canvas_and_are_not_cut() -> None:
    picture = np.zeros((96, 128, 3), np.uint8)
    long = "a very long name of a class that nobody would have thought of, and then some"
    short, wide = (with_legend(picture, entries_of(name)) for name in (long[:20], long))
    assert wide.shape[1] > short.shape[1] > 128
    ink = (wide[96:] < 128).all(2).any(0)
    assert ink.nonzero()[0].max() > 0.9 * wide.shape[1], "the share stands at the far end"
    assert not ink[-10:].any()


def test_letters_grow_with_the_picture_unless_the_legend_would_take_more_than_a_third() -> None:
    def strip_height(size: tuple[int, int], count: int) -> int:
        names = [f"class number {place}" for place in range(count)]
        return with_legend(np.zeros((*size, 3), np.uint8), entries_of(*names)).shape[0] - size[0]

    assert strip_height((1800, 2400), 1) > 3 * strip_height((360, 480), 1)
    few, many = (strip_height((1080, 1920), count) for count in (30, 60))
    assert many < 1.5 * few, "more names, smaller letters"
    assert many <= 360
    assert strip_height((96, 128), 150) > 150 * 13, "the smallest letters are legible"


def test_the_size_depends_on_the_names_and_not_on_the_shares() -> None:
    picture = np.zeros((360, 480, 3), np.uint8)
    sizes = {with_legend(picture, entries_of(*NAMES, share=share)).shape for share in (0.0, 0.0004, 0.5, 1.0)}
    assert len(sizes) == 1


def test_shares_in_percent_and_absent_classes_in_grey() -> None:
    picture = np.zeros((360, 480, 3), np.uint8)

    def strip(share: float) -> np.ndarray:
        return with_legend(picture, entries_of("sky", share=share))[360:]

    assert np.array_equal(strip(0.1234), strip(0.1233)), "12.3 %"
    assert not np.array_equal(strip(0.1234), strip(0.1246)), "12.5 %"
    assert np.array_equal(strip(0.0009), strip(0.0001)), "<0.1 %"
    assert not np.array_equal(strip(0.0009), strip(0.0011))
    assert strip(0.5).max(2).min() < 50, "dark ink"
    swatch_free = strip(0.0)[:, 40:]
    assert swatch_free.max(2).min() >= 150, "grey ink"


def test_names_beyond_ascii_have_letters_of_their_own() -> None:
    picture = np.zeros((360, 480, 3), np.uint8)
    drawn = [with_legend(picture, entries_of(name)) for name in ("ä", "ß", "ж", "é")]
    assert not any(
        np.array_equal(one, other)
        for place, one in enumerate(drawn)
        for other in drawn[place + 1 :]
        if one.shape == other.shape
    ), "and not one box for all"
