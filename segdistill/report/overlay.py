"""Predictions as pictures: masks with a palette, images under the colours of their classes, and the legend below."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segdistill.report.lettering import font_for

Colour = tuple[int, int, int]  # RGB, 0..255

_SMALLEST_EM = 13  # pixels; smaller letters are hard to read
_LINE_OPACITY = 0.6
_PAPER, _INK, _FAINT, _EDGE = (255, 255, 255), (31, 35, 40), (150, 157, 165), (143, 151, 159)


class LegendEntry(NamedTuple):
    name: str
    colour: Colour
    share: float  # of the image's pixels, 0..1


class _Layout(NamedTuple):
    """The layout of a legend, in pixels but for the counts."""

    em: int  # size of the font, side of a swatch, width of the margins
    line: int  # height of a row
    column: int  # width of a column
    gap: int  # between columns
    columns: int
    rows: int

    @property
    def width(self) -> int:
        return 2 * self.em + self.columns * (self.column + self.gap) - self.gap

    @property
    def height(self) -> int:
        return 2 * self.em + self.rows * self.line


def mask_image(classes: np.ndarray, colours: Sequence[Colour]) -> Image.Image:
    """A palette image whose indexes are the class indexes.

    Args:
        classes: (H, W) uint8.
        colours: of the classes; all 256 places of the palette are used, so that a PNG of it has 8 bits.
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colours)] = colours
    image = Image.fromarray(classes)
    image.putpalette(palette.tobytes())
    return image


def blend(image: np.ndarray, painted: np.ndarray, *, opacity: float) -> np.ndarray:
    """opacity * painted + (1 - opacity) * image, rounded: all (H, W, 3) uint8, opacity in 0..1."""
    return cv2.addWeighted(painted, opacity, image, 1 - opacity, 0)


def outlined(picture: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """A copy with light lines where classes meet, since the colours of two classes may look alike when blended.

    Args:
        picture: (H, W, 3) uint8.
        classes: (H, W) uint8; a line lies on the right and lower side of a border, as wide as suits the picture.
    """
    width = max(1, round(math.sqrt(classes.size) / 600))
    window = np.ones((width + 1, width + 1), np.uint8)
    anchor = (width, width)
    border = cv2.dilate(classes, window, anchor=anchor) != cv2.erode(classes, window, anchor=anchor)
    result = picture.copy()
    result[border] = np.rint((1 - _LINE_OPACITY) * picture[border] + _LINE_OPACITY * 255)
    return result


def legend_entries(classes: np.ndarray, names: Sequence[str], colours: Sequence[Colour]) -> list[LegendEntry]:
    """Every class with its share of the pixels, in the order of their indexes; `classes` is (H, W) uint8."""
    counts = np.bincount(classes.ravel(), minlength=len(names))
    shares = counts / classes.size
    return [LegendEntry(*entry) for entry in zip(names, colours, shares.tolist(), strict=True)]


def largest_first(entries: Sequence[LegendEntry]) -> list[LegendEntry]:
    """The entries that have a share at all, the largest first."""
    return sorted((entry for entry in entries if entry.share), key=lambda entry: -entry.share)


def with_legend(picture: np.ndarray, entries: Sequence[LegendEntry]) -> np.ndarray:
    """Put the legend below a picture, in as many columns as fit; the picture's pixels stay as they are.

    The letters grow with the picture. The result's size depends on the picture's size and the names alone, so
    the frames of a video with the same names keep one size.

    Args:
        picture: (H, W, 3) uint8, RGB.
        entries: at least one, drawn in this order; those without a share are greyed.

    Returns:
        (H + h, max(W, w), 3) uint8: names are never cut, so a narrow picture stands centred over a wider legend.
    """
    height, width = picture.shape[:2]
    layout = _fitting_layout(entries, height=height, width=width)
    canvas = np.full((height + layout.height, max(width, layout.width), 3), _PAPER, np.uint8)
    left = (canvas.shape[1] - width) // 2
    canvas[:height, left : left + width] = picture
    canvas[height:] = _strip(entries, layout, width=canvas.shape[1])
    return canvas


def _fitting_layout(entries: Sequence[LegendEntry], *, height: int, width: int) -> _Layout:
    """Letters as large as suits the picture, or smaller if the legend would be higher than a third of it."""
    em = max(_SMALLEST_EM, round(math.sqrt(height * width) / 48))
    while (layout := _layout(entries, em, width=width)).height > height / 3 and em > _SMALLEST_EM:
        em -= 1
    return layout


def _layout(entries: Sequence[LegendEntry], em: int, *, width: int) -> _Layout:
    font = _font_of(entries, em)
    texts = max(font.getlength(entry.name) for entry in entries) + font.getlength(_percent(1.0))
    column, gap = math.ceil(texts + 2.5 * em), 2 * em  # swatch, half an em, name, one em, share
    fitting = max(1, (width - 2 * em + gap) // (column + gap))
    rows = math.ceil(len(entries) / fitting)
    return _Layout(em, round(1.5 * em), column, gap, columns=math.ceil(len(entries) / rows), rows=rows)


def _strip(entries: Sequence[LegendEntry], layout: _Layout, *, width: int) -> np.ndarray:
    """(h, width, 3): the entries column by column."""
    strip = Image.new("RGB", (width, layout.height), _PAPER)
    draw, font, em = ImageDraw.Draw(strip), _font_of(entries, layout.em), layout.em
    for place, entry in enumerate(entries):
        column, row = divmod(place, layout.rows)
        left = em + column * (layout.column + layout.gap)
        middle = em + row * layout.line + layout.line // 2
        top = middle - em // 2
        ink = _INK if entry.share else _FAINT
        draw.rounded_rectangle(
            (left, top, left + em - 1, top + em - 1), em // 5, entry.colour, _EDGE, width=max(1, em // 16)
        )
        draw.text((left + 1.5 * em, middle), entry.name, ink, font, anchor="lm")
        draw.text((left + layout.column, middle), _percent(entry.share), ink, font, anchor="rm")
    return np.asarray(strip)


def _font_of(entries: Sequence[LegendEntry], em: int) -> ImageFont.FreeTypeFont:
    return font_for("".join(entry.name for entry in entries) + "0123456789.<%", em)


def _percent(share: float) -> str:
    return "<0.1 %" if 0 < share < 0.001 else f"{share:.1%}".replace("%", " %")
