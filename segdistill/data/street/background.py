"""Sky and trees: what has no straight edge."""

import math

import cv2
import numpy as np

from segdistill.data.street.labels import SKY, TREE
from segdistill.data.street.light import leaf_colour, muted
from segdistill.data.street.scene import Scene
from segdistill.data.street.texture import Cover, coloured, soft_noise, stamp

CLOUD_SHAPE = (60, 80)  # clouds have no fine detail: they are drawn at this size and enlarged
LEAF_CLUSTERS = 14  # per crown
OFFSET = 99  # keeps coordinates of the noise positive: a cell around 0 would be of double width


def paint_sky(scene: Scene) -> None:
    """Fill the whole canvas: blue, overcast or overexposed, with clouds."""
    rng, (height, width), haze = scene.rng, scene.mask.shape, scene.light.haze
    overcast = rng.random() < 0.5
    zenith = muted(rng, 110, 215, 5) if overcast else np.array([90, 140, 205]) * rng.uniform(0.7, 1.2)
    cloud = np.clip(soft_noise(rng, CLOUD_SHAPE, (7, 5)) * 1.6 - rng.uniform(0.0, 1.2), 0, 1)[..., None]
    down = np.linspace(0, 1, CLOUD_SHAPE[0])[:, None, None] ** 0.7
    clear = zenith * (1 - down) + haze * down
    sky = np.clip(clear + cloud * (haze + rng.uniform(-60, 20) - clear), 0, 255).astype(np.uint8)
    scene.image[:] = cv2.resize(sky, (width, height), interpolation=cv2.INTER_LINEAR)
    scene.mask[:] = SKY


def paint_tree(scene: Scene, *, x: float, z: float) -> None:
    """A trunk and a crown of leaf clusters; what is seen through the crown is labelled tree too."""
    rng = scene.rng
    height, radius, leaves = rng.uniform(4.5, 10), rng.uniform(1.2, 2.6), leaf_colour(rng)
    clusters = rng.uniform((0, 0, 0.45), (2 * math.pi, 1, 0.75), (LEAF_CLUSTERS, 3))
    density = rng.uniform(0.2, 2.5)  # the low end is a winter tree
    trunk = [(-0.16, 0), (0.16, 0), (0.08, height), (-0.08, height)]
    scene.figure(x, z, [(trunk, muted(rng, 40, 95, 6))], TREE)
    paint_crown(scene, (x, height - radius, z), radius, clusters, leaves, density)


def paint_crown(
    scene: Scene,
    centre: tuple[float, float, float],
    radius_m: float,
    clusters: np.ndarray,
    leaves: np.ndarray,
    density: float,
) -> None:
    """The crown around a centre (x, y, z).

    Args:
        clusters: (N, 3) angle, distance from the centre and radius, the latter two in units of `radius_m`.
        leaves: (3,) RGB.
        density: how much noise the leaves cover; 0: about half, 2.5: nearly all.
    """
    light, (x, _, z) = scene.light, centre
    (u, v), unit = scene.camera.pixel(*centre), scene.camera.focal_px / z
    reach = 1.75 * radius_m * unit  # the farthest cluster's centre and its radius
    top, left = max(int(v - reach), 0), max(int(u - reach), 0)
    region = np.s_[top : max(int(v + reach) + 1, 0), left : max(int(u + reach) + 1, 0)]
    crown = np.zeros_like(scene.mask[region])
    if not crown.size:
        return
    for angle, distance, size in clusters.tolist():
        du, dv = (radius_m * unit * distance * part for part in (math.cos(angle), math.sin(angle)))
        middle = round(u + du) - left, round(v + dv) - top
        cv2.circle(crown, middle, max(int(size * radius_m * unit), 1), (1,), -1)
    dy = (np.arange(top, top + crown.shape[0], dtype=np.float32)[:, None] - v) / unit
    dx = (np.arange(left, left + crown.shape[1], dtype=np.float32) - u) / unit
    twigs = scene.grain.at(dy * 9 + OFFSET, dx * 9 + x + OFFSET)
    clumps = scene.grain.at(dy * 2.2 + OFFSET, dx * 2.2 + z + OFFSET)
    sunny = np.clip((light.sun_x * dx - dy) / radius_m, -1, 1) * (0.1 + 0.2 * light.strength)
    brightness = 0.85 + 0.15 * twigs + 0.12 * clumps + sunny
    colour = coloured(light.fade(leaves[None], z), Cover(brightness))
    inside = crown > 0
    stamp(scene.image[region], colour, inside & (twigs + 0.6 * clumps < density))
    np.copyto(scene.mask[region], TREE, where=inside)
