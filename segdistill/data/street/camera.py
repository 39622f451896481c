"""The camera: from the world to the canvas, and from the canvas to the photograph and its mask."""

from dataclasses import dataclass
from typing import Self, TypeVar

import cv2
import numpy as np

from segdistill.data.street.labels import VOID
from segdistill.data.street.texture import soft_noise

#: The canvas has this many pixels per pixel of the result and side: smooth edges, hard labels.
SUPERSAMPLING = 2
#: Qualities are drawn from 45 to 150; above this a photograph stays uncompressed, as more than half do.
BEST_JPEG_QUALITY = 90

Number = TypeVar("Number", float, np.ndarray)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above the road; a bend shifts the street sideways by `bend_per_m * z**2`."""

    focal_px: float
    centre_px: float
    horizon_px: float
    height_m: float
    bend_per_m: float

    @classmethod
    def draw(cls, rng: np.random.Generator, rows: int, columns: int) -> Self:
        """Behind a windscreen, for a canvas of (rows, columns) pixels."""
        return cls(
            focal_px=columns * rng.uniform(0.75, 1.0),  # 53 to 67 degrees from left to right
            centre_px=columns * rng.uniform(0.32, 0.68),
            horizon_px=rows * rng.uniform(0.42, 0.55),
            height_m=rng.uniform(1.4, 1.8),
            bend_per_m=rng.normal(0, 0.0007),
        )

    def pixel(self, x: Number, y: Number, z: Number) -> tuple[Number, Number]:
        """(u, v) of a point in the world, or elementwise of many."""
        u = self.centre_px + self.focal_px * (x / z + self.bend_per_m * z)
        return u, self.horizon_px + self.focal_px * (self.height_m - y) / z

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) metres -> (..., 2) pixels."""
        return np.stack(self.pixel(points[..., 0], points[..., 1], points[..., 2]), axis=-1)

    def ground(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the rays through pixels (R,) below the horizon, (W,) meet the ground: x (R, W), z (R, 1)."""
        z = self.focal_px * self.height_m / (rows[:, None] + 0.5 - self.horizon_px)
        x = (columns + 0.5 - self.centre_px) / self.focal_px * z - self.bend_per_m * z**2
        return x.astype(np.float32), z.astype(np.float32)


def develop(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Canvas (2H, 2W, 3) -> photograph (H, W, 3) uint8: lens, exposure, colour cast, sensor, JPEG."""
    height, width = canvas.shape[0] // SUPERSAMPLING, canvas.shape[1] // SUPERSAMPLING
    blur_px, falloff, warmth = rng.uniform(0.25, 0.8), rng.uniform(0, 0.18), rng.normal(0, 0.05)
    exposure, sensor_noise, quality = rng.uniform(0.7, 1.35), rng.uniform(1.5, 7), int(rng.integers(45, 150))
    small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (3, 3), blur_px)
    rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    vignette = (exposure * (1 - falloff * (rows**2 + columns**2))).astype(np.float32)
    cast = np.array([1 + warmth, 1, 1 - warmth], np.float32)
    # Rows of 3 W values: to broadcast over an innermost axis of 3 takes several times as long.
    photo: np.ndarray = small.reshape(height, -1) * np.repeat(vignette, 3, axis=1) * np.tile(cast, width)
    photo += rng.standard_normal(photo.shape, dtype=np.float32) * np.float32(sensor_noise)
    developed = np.clip(np.rint(photo), 0, 255).astype(np.uint8).reshape(height, width, 3)
    if quality > BEST_JPEG_QUALITY:
        return developed
    encoded = cv2.imencode(".jpg", developed, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))


def annotate(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Canvas (2H, 2W) -> mask (H, W) uint8; some outlines stay unlabelled, as annotators leave them."""
    mask = canvas[::SUPERSAMPLING, ::SUPERSAMPLING].copy()
    outline = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
    mask[outline & (soft_noise(rng, mask.shape, (9, 12)) > 0.85)] = VOID
    return mask
