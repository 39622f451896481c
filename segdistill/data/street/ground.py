"""The ground: road and markings, kerbs, footways, lawns, side streets, and the shadows on them."""

import math
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from segdistill.data.street.labels import PAVEMENT, ROAD, TREE
from segdistill.data.street.light import VISIBILITY_M, muted
from segdistill.data.street.plan import LEFT, RIGHT, Plot, Street
from segdistill.data.street.scene import SUBPIXEL_BITS, Scene
from segdistill.data.street.texture import Cover, coloured, fraction, stamp

#: Materials are indexes into the palette and into this; a lawn counts as vegetation.
PAVING, ASPHALT, LAWN, KERB, PAINT = range(5)
LABELS = np.array([PAVEMENT, ROAD, TREE, PAVEMENT, ROAD], np.uint8)
JOINTS_SEEN_M = 14.0  # joints between slabs farther away would flicker rather than show

#: x at the foot of what casts a shadow, x where the shadow ends, near z, far z.
Footprint = tuple[float, float, float, float]


def paint_ground(scene: Scene, plots: Sequence[Plot]) -> None:
    """Everything below the horizon, pixel by pixel."""
    rng, cam, (height, width) = scene.rng, scene.camera, scene.mask.shape
    top = min(math.ceil(cam.horizon_px + 0.5), height)
    x, z = cam.ground(np.arange(top, height), np.arange(width))

    asphalt = muted(rng, 60, 150, 6)
    paving = asphalt + rng.normal(8, 22) + rng.normal(0, 6, 3)  # now and then the road's own grey
    lawn = rng.uniform((60, 80, 45), (110, 120, 65))
    palette = np.stack((paving, asphalt, lawn, paving + 25, asphalt + 90))
    material = lay_out(scene.street, plots, x, z)
    material[(material == ASPHALT) & markings(rng, x, z, scene.street)] = PAINT

    brightness = 1 + scene.grain.at(z * 12, x * 12) * (0.07 / (1 + z / 15))
    brightness += scene.grain.at(z * 0.25, x * 0.4) * np.float32(rng.uniform(0.0, 0.07))  # mended patches
    slab_m, depth = rng.uniform(0.5, 0.9), np.float32(rng.uniform(0.05, 0.25))
    joint = (fraction(x, slab_m) < 0.07) | (fraction(z, slab_m) < 0.07)
    brightness -= depth * (joint & (material == PAVING) & (z < JOINTS_SEEN_M))
    clear = np.exp(-z / VISIBILITY_M)
    haze = np.rint((1 - clear[..., None]) * scene.light.haze).astype(np.uint8)
    lit = coloured(palette, Cover(brightness * clear, material))
    scene.image[top:] = cv2.add(lit, np.repeat(haze, width, axis=1))
    scene.mask[top:] = LABELS.take(material, mode="wrap")


def lay_out(street: Street, plots: Sequence[Plot], x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """What the ground at x (R, W), z (R, 1) is made of, without road markings. (R, W) uint8."""
    road = (x > street.kerb(LEFT)) & (x < street.kerb(RIGHT))
    grass = np.zeros_like(road)
    for plot in plots:
        rows = ((z > plot.near_m) & (z < plot.far_m))[:, 0]
        if plot.kind == "side street":
            road[rows] |= plot.side * x[rows] > 0
        elif plot.kind == "garden":
            grass[rows] |= plot.side * x[rows] > plot.side * street.frontage(plot.side)
    material = np.full(x.shape, PAVING, np.uint8)
    for side in (LEFT, RIGHT):
        material[np.abs(x - street.kerb(side) - side * 0.08) < 0.09] = KERB
    material[grass] = LAWN
    material[road] = ASPHALT
    return material


def markings(rng: np.random.Generator, x: np.ndarray, z: np.ndarray, street: Street) -> np.ndarray:
    """Where paint lies on the road: centre line, edge lines, perhaps a zebra crossing. (R, W) bool."""
    middle = street.kerb(RIGHT) * 0.4 + rng.uniform(-0.2, 0.4)
    painted = np.abs(x - middle) < 0.07
    if rng.random() < 0.8:  # dashed
        painted &= fraction(z + 9 * rng.random(), rng.uniform(4, 9)) < rng.uniform(0.3, 0.6)
    for side in (LEFT, RIGHT):
        if rng.random() < 0.6:
            painted |= np.abs(x - street.kerb(side) + side * rng.uniform(0.3, 0.5)) < 0.05
    if rng.random() < 0.25:
        start = rng.uniform(7, 30)
        painted |= (z > start) & (z < start + 2.6) & (fraction(x, 1.1) < 0.5)
    return painted


def cast_shadows(scene: Scene, footprints: Iterable[Footprint]) -> None:
    """Darken the ground under the footprints of all that stands on it."""
    corners = np.array([[(a, 0, n), (b, 0, n), (b, 0, f), (a, 0, f)] for a, b, n, f in footprints])
    dark = np.zeros_like(scene.mask)
    quads = np.rint(scene.camera.project(corners) * (1 << SUBPIXEL_BITS)).astype(np.int32)
    for quad in quads:
        cv2.fillConvexPoly(dark, quad, (1,), shift=SUBPIXEL_BITS)
    top = max(int(scene.camera.horizon_px), 0)
    ground = scene.image[top:]
    stamp(ground, cv2.convertScaleAbs(ground, alpha=0.7 - 0.25 * scene.light.strength), dark[top:])
