"""Texture, pixel by pixel: noise, repeating patterns, and how colour and brightness reach the canvas."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import cv2
import numpy as np

GRAIN_SIZE = 128  # texels per side of the noise tile; a power of two, so that wrapping is a bit mask


@dataclass(frozen=True)
class Grain:
    """A tile of noise that every surface of a scene is covered with."""

    tile: np.ndarray  # (GRAIN_SIZE**2,) float32, standard normal, cut off at 2.5

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        return cls(np.clip(rng.standard_normal(GRAIN_SIZE**2, dtype=np.float32), -2.5, 2.5))

    def at(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """One value per unit cell of the broadcast coordinates a and b: noise that sticks to a surface."""
        wrap = GRAIN_SIZE - 1
        cells = (a.astype(np.int32) & wrap) * GRAIN_SIZE + (b.astype(np.int32) & wrap)
        return self.tile.take(cells, mode="wrap")  # more than twice as fast as the default, "raise"


class Cover(NamedTuple):
    """How a texture looks at each place of a surface."""

    brightness: np.ndarray  # (H, W) float32, 1 for the palette's own colour
    material: np.ndarray | None = None  # (H, W) uint8 index into the palette; None: the first colour
    opaque: np.ndarray | None = None  # (H, W) bool, where it hides what is behind; None: everywhere


@dataclass(frozen=True)
class Texture:
    """What covers a wall; `pattern` maps metres along it (W,) and above the ground (H, W) to its look."""

    palette: np.ndarray  # (N, 3) RGB
    pattern: Callable[[np.ndarray, np.ndarray], Cover]


def soft_noise(rng: np.random.Generator, shape: tuple[int, ...], cells: tuple[int, int]) -> np.ndarray:
    """Uniform noise on a coarse grid of `cells`, interpolated to `shape` (H, W) float32."""
    coarse = rng.random(cells, dtype=np.float32)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def fraction(a: np.ndarray, period: float) -> np.ndarray:
    """Position within a repeating pattern, in [0, 1)."""
    turns = a * np.float32(1 / period)
    return turns - np.floor(turns)


def coloured(palette: np.ndarray, cover: Cover) -> np.ndarray:
    """The palette (N, 3) as the cover (H, W) distributes and shades it -> (H, W, 3) uint8, saturated."""
    brightness, material, _ = cover
    if material is None:
        channels = [brightness * value for value in palette[0].astype(np.float32)]
    else:
        table = np.zeros((256, 3), np.float32)  # cv2.LUT wants an entry per uint8
        table[: len(palette)] = palette
        channels = [cv2.LUT(material, channel) * brightness for channel in table.T.copy()]
    return cv2.merge([cv2.convertScaleAbs(np.maximum(channel, 0, out=channel)) for channel in channels])


def stamp(region: np.ndarray, colour: np.ndarray, shown: np.ndarray) -> None:
    """Overwrite the shown pixels (H, W) of a region (H, W, 3) of the image, in place."""
    cv2.copyTo(colour, shown.view(np.uint8), region)
