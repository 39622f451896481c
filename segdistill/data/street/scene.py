"""A scene: the canvas with everything a painter has to know, and the two ways to fill an outline."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np

from segdistill.data.street.camera import SUPERSAMPLING, Camera
from segdistill.data.street.light import Light
from segdistill.data.street.plan import Street
from segdistill.data.street.texture import Grain

SUBPIXEL_BITS = 3  # cv2 takes corners in fixed point: eighths of a pixel

#: (dx, y) corners in metres, as seen by the camera: to the right of the foot, and above the ground.
Outline = Sequence[tuple[float, float]]
#: An outline and its RGB colour, (3,).
Part = tuple[Outline, np.ndarray]


@dataclass(frozen=True)
class Scene:
    """The canvas, and everything a painter has to know."""

    image: np.ndarray  # (2H, 2W, 3) uint8, RGB
    mask: np.ndarray  # (2H, 2W) uint8
    rng: np.random.Generator
    camera: Camera
    light: Light
    street: Street
    grain: Grain

    @classmethod
    def empty(cls, rng: np.random.Generator, height: int, width: int) -> Self:
        """A canvas for an image (height, width) with its camera, light and street, and nothing painted."""
        rows, columns = height * SUPERSAMPLING, width * SUPERSAMPLING
        return cls(
            image=np.zeros((rows, columns, 3), np.uint8),
            mask=np.zeros((rows, columns), np.uint8),
            rng=rng,
            camera=Camera.draw(rng, rows, columns),
            light=Light.draw(rng),
            street=Street.draw(rng),
            grain=Grain.draw(rng),
        )

    def fade(self, colour: np.ndarray, z: float) -> list[float]:
        """An RGB colour as it looks through z metres of slightly hazy air."""
        return self.light.fade(colour, z).tolist()

    def fill(self, pixels: np.ndarray, colour: Sequence[float], label: int) -> None:
        """Fill a polygon of (N, 2) pixels in the image and in the mask."""
        corners = [np.rint(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)]
        cv2.fillPoly(self.image, corners, colour, shift=SUBPIXEL_BITS)
        cv2.fillPoly(self.mask, corners, (label,), shift=SUBPIXEL_BITS)

    def figure(self, x: float, z: float, parts: Sequence[Part], label: int) -> None:
        """Fill the parts, one over the other, of what stands at (x, z) and faces the camera."""
        foot, unit = self.camera.pixel(x, 0, z), self.camera.focal_px / z
        colours = self.light.fade(np.array([colour for _, colour in parts]), z).tolist()
        for (outline, _), colour in zip(parts, colours, strict=True):
            self.fill(np.array(outline) * (unit, -unit) + foot, colour, label)


def disc(dx: float, y: float, radius: float, squeeze: float = 1.0) -> Outline:
    """A ten-sided disc; `squeeze` narrows it."""
    angles = [i * math.pi / 5 for i in range(10)]
    return [(dx + squeeze * radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]


def box(dx0: float, y0: float, dx1: float, y1: float) -> Outline:
    """An upright rectangle between two opposite corners."""
    return [(dx0, y0), (dx1, y0), (dx1, y1), (dx0, y1)]
