"""Pictures for a page: with numbered boxes, in a window around a box, with errors in red."""

import base64
import io
from collections.abc import Sequence
from html import escape

import cv2
import numpy as np
from PIL import Image, ImageDraw

from segdistill.report.lettering import font_for

_WRONG = (226, 26, 28)
_BOX, _HALO = (255, 255, 255), (20, 20, 20)
_LARGEST, _SMALLEST = 1000, 480  # pixels of a picture's width
_LONGEST = 4000  # pixels of the longer side: enlarged, a narrow strip would be longer than a JPEG can be


def context_of(box: tuple[int, int, int, int], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A window about twice as large around a box, with at least a twelfth of the image's sides to each side of its
    middle, and inside the image."""
    spans = []
    for first, beyond, length in zip(box[:2], box[2:], shape, strict=True):
        half = max(beyond - first, length // 12)
        middle = (first + beyond) // 2
        spans.append((max(0, middle - half), min(length, middle + half + 1)))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def error_map(image: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """A pale grey copy of an image (H, W, 3) uint8 with its wrong pixels (H, W) bool in red."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    result = np.repeat((128 + grey[..., None] // 2), 3, axis=2).astype(np.uint8)
    result[wrong] = _WRONG
    return result


def boxed(
    picture: np.ndarray,
    boxes: Sequence[tuple[int, int, int, int]],
    *,
    numbered: bool = True,
    height: int | None = None,
) -> Image.Image:
    """A copy at a size that shows well (or of a height in pixels) with light, dark-rimmed boxes, numbered from 1.

    The lines run outside of the boxes' pixels, and each number stands at the first corner that is still free.
    """
    rows, columns = picture.shape[:2]
    scale = height / rows if height else min(max(columns, _SMALLEST), _LARGEST) / columns
    scale = min(scale, _LONGEST / max(rows, columns))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST if height else cv2.INTER_LINEAR
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    image = Image.fromarray(cv2.resize(picture, size, interpolation=how))
    draw = ImageDraw.Draw(image)
    scaled = [
        (round(left * scale) - 2, round(top * scale) - 2, round(right * scale) + 1, round(bottom * scale) + 1)
        for top, left, bottom, right in boxes
    ]
    for box in scaled:
        draw.rectangle((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), outline=_HALO, width=4)
    for box in scaled:
        draw.rectangle(box, outline=_BOX, width=2)
    if numbered:
        _draw_numbers(draw, scaled, image.size)
    return image


def _draw_numbers(
    draw: ImageDraw.ImageDraw, boxes: Sequence[tuple[int, int, int, int]], size: tuple[int, int]
) -> None:
    """White on black, at a corner of each box, inside the picture and not over another number."""
    em = max(14, size[0] // 48)
    taken: list[tuple[int, int]] = []
    for number, (left, top, right, bottom) in enumerate(boxes, 1):
        corners = [(x, y) for y in (top - em, bottom) for x in (left, right - em)]
        inside = [(min(max(x, 0), size[0] - em), min(max(y, 0), size[1] - em)) for x, y in corners]
        free = [at for at in inside if all(max(abs(at[0] - x), abs(at[1] - y)) >= em for x, y in taken)]
        x, y = (free or inside)[0]
        taken.append((x, y))
        draw.rectangle((x, y, x + em - 1, y + em - 1), fill=_HALO)
        draw.text(
            (x + em / 2, y + em / 2), str(number), _BOX, font_for(str(number), round(em * 0.8)), anchor="mm"
        )


def embedded(image: Image.Image, says: str) -> str:
    """The image as a part of the page; `says` is for those who cannot see it."""
    content = io.BytesIO()
    image.save(content, "jpeg", quality=88, subsampling="4:4:4")
    encoded = base64.b64encode(content.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{encoded}" alt="{escape(says)}">'
