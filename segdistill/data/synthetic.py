"""Synthetic street scenes with CamVid's labels: drawn from a seed, so no download and no licence.

A camera over a road looks to the vanishing point. Sky, ground, house fronts, then everything that stands in
the street are painted from far to near on a canvas of twice the size; the image is averaged down, the mask is
sampled, so that labels stay hard. World coordinates are metres: x to the right, y up, z ahead of the camera.
No class has a colour of its own: facades, asphalt, cars and clothes share muted colours.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from segdistill.data.samples import LabelledImage
from segdistill.data.taxonomy import CAMVID, Taxonomy

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(CAMVID.num_classes)
VOID = CAMVID.ignore_index
SPLITS = ("train", "val", "test")
LEFT, RIGHT = -1, 1
SUPERSAMPLING = 2
GRAIN_SIZE = 128  # texels per side of the noise tile; a power of two, so that wrapping is a bit mask
NEAREST_M, STREET_END_M = 2.0, 95.0
DETAIL_M = 45.0  # windows and lamps of cars farther away would be smaller than a pixel

Outline = Sequence[tuple[float, float]]
#: (metres along a wall (W,), metres above the ground (H, W)) -> index into the palette, brightness, and where
#: the wall hides what is behind it, each (H, W); None for everywhere.
Pattern = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray | None]]
Texture = tuple[np.ndarray, Pattern]  # palette (N, 3) RGB, and what to do with it


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above the road; a bend shifts the street sideways by `bend_per_m * z**2`."""

    focal_px: float
    centre_px: float
    horizon_px: float
    height_m: float
    bend_per_m: float

    def pixel(self, x: float, y: float, z: float) -> tuple[float, float]:
        """(u, v) of a point in the world."""
        u = self.centre_px + self.focal_px * (x / z + self.bend_per_m * z)
        return u, self.horizon_px + self.focal_px * (self.height_m - y) / z

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) metres -> (..., 2) pixels."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        return np.stack(self.pixel(x, y, z), axis=-1)  # type: ignore[arg-type]  # the formula is elementwise


@dataclass(frozen=True)
class Light:
    """Where the sun stands, how hard it shines, and the colour that distance fades to."""

    sun_x: float  # -1: from the left .. 1: from the right
    strength: float  # 0: overcast .. 1: hard sun
    haze: tuple[float, ...]  # RGB

    def gain(self, facing_x: float) -> float:
        """Brightness of an upright face; `facing_x` is -1 (looks left), 0 (looks at us) or 1."""
        return 0.85 + 0.4 * self.strength * (self.sun_x * facing_x if facing_x else 0.3 - abs(self.sun_x))


@dataclass(frozen=True)
class Street:
    """The cross-section of the street: (left, right)."""

    kerbs_m: tuple[float, float]
    pavements_m: tuple[float, float]
    parked: tuple[bool, bool]

    def kerb(self, side: int) -> float:
        return self.kerbs_m[side == RIGHT]

    def frontage(self, side: int) -> float:
        return self.kerb(side) + side * self.pavements_m[side == RIGHT]


@dataclass(frozen=True)
class Plot:
    """What stands along one stretch of one side of the street."""

    kind: str  # "building" | "garden" | "side street"
    side: int
    near_m: float
    far_m: float
    height_m: float
    front_m: float  # x of the face towards the street
    exposed: bool  # its near end is not hidden by the plot before it


@dataclass(frozen=True)
class Scene:
    """The canvas, and everything a painter has to know."""

    image: np.ndarray  # (2H, 2W, 3) uint8, RGB
    mask: np.ndarray  # (2H, 2W) uint8
    rng: np.random.Generator
    camera: Camera
    light: Light
    street: Street
    grain: np.ndarray  # (GRAIN_SIZE**2,) float32, standard normal

    def noise(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Noise fixed to a surface: one value per unit cell of the broadcast coordinates a and b."""
        wrap = GRAIN_SIZE - 1
        return self.grain.take((a.astype(np.int32) & wrap) * GRAIN_SIZE + (b.astype(np.int32) & wrap))

    def fade(self, colour: np.ndarray, z: float) -> list[float]:
        """An RGB colour as it looks through z metres of slightly hazy air."""
        clear = math.exp(-z / 220)
        return [c * clear + h * (1 - clear) for c, h in zip(colour.tolist(), self.light.haze, strict=True)]

    def fill(self, pixels: np.ndarray, colour: Sequence[float], label: int) -> None:
        """Fill a polygon of (N, 2) pixels in the image and in the mask."""
        corners = [np.rint(pixels * 8).astype(np.int32)]  # three fractional bits
        cv2.fillPoly(self.image, corners, colour, shift=3)
        cv2.fillPoly(self.mask, corners, (label,), shift=3)

    def figure(self, x: float, z: float, parts: Sequence[tuple[Outline, np.ndarray]], label: int) -> None:
        """Fill outlines of (dx, y), with their colours, that stand at (x, z) and face the camera."""
        foot, unit = self.camera.pixel(x, 0, z), self.camera.focal_px / z
        for outline, colour in parts:
            self.fill(np.array(outline) * (unit, -unit) + foot, self.fade(colour, z), label)


@dataclass(frozen=True)
class Thing:
    """Something to paint in its turn, and its shadow: `half_m` to either side of x, `length_m` deep."""

    z: float
    paint: Callable[[Scene], None]
    x: float = 0.0
    half_m: float = 0.0
    length_m: float = 0.5


def disc(dx: float, y: float, radius: float, squeeze: float = 1.0) -> Outline:
    """A ten-sided disc; `squeeze` narrows it."""
    angles = [i * math.pi / 5 for i in range(10)]
    return [(dx + squeeze * radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]


def box(dx0: float, y0: float, dx1: float, y1: float) -> Outline:
    return [(dx0, y0), (dx1, y0), (dx1, y1), (dx0, y1)]


def muted(rng: np.random.Generator, low: float, high: float, tint: float = 12.0) -> np.ndarray:
    """A greyish RGB colour of random lightness: the stock that every class draws from."""
    return rng.uniform(low, high) + rng.normal(0, tint, 3)


def vivid(rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(rng.uniform((110, 30, 30), (200, 110, 80)))


def leaf_colour(rng: np.random.Generator) -> np.ndarray:
    """From summer green over autumn brown to the grey of twigs."""
    return rng.uniform((45, 55, 25), (110, 110, 70))


def soft_noise(rng: np.random.Generator, shape: tuple[int, ...], cells: tuple[int, int]) -> np.ndarray:
    """Uniform noise on a coarse grid, interpolated to (H, W) float32."""
    coarse = rng.random(cells, dtype=np.float32)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def fraction(a: np.ndarray, period: float) -> np.ndarray:
    """Position within a repeating pattern, in [0, 1)."""
    turns = a * np.float32(1 / period)
    return turns - np.floor(turns)


def coloured(palette: np.ndarray, material: np.ndarray, brightness: np.ndarray) -> np.ndarray:
    """Palette (N, 3), index (H, W), float32 brightness (H, W) -> (H, W, 3) uint8, saturated."""
    table = np.zeros((256, 3), np.float32)  # cv2.LUT wants an entry per uint8
    table[: len(palette)] = palette
    channels = [cv2.LUT(material, channel) * brightness for channel in table.T.copy()]
    return cv2.merge([cv2.convertScaleAbs(np.maximum(channel, 0)) for channel in channels])


def stamp(region: np.ndarray, colour: np.ndarray, shown: np.ndarray) -> None:
    """Overwrite the shown pixels (H, W) of a region (H, W, 3) of the image."""
    region[:] = cv2.copyTo(colour, shown.view(np.uint8), region.copy())


# --- sky and ground ---------------------------------------------------------------------------------------


def paint_sky(scene: Scene) -> None:
    """Fill the whole canvas: blue, overcast or overexposed, with clouds."""
    rng, (height, width), haze = scene.rng, scene.mask.shape, np.array(scene.light.haze)
    zenith = (
        muted(rng, 110, 215, 5) if rng.random() < 0.5 else np.array([90, 140, 205]) * rng.uniform(0.7, 1.2)
    )
    shape = (60, 80)  # clouds have no fine detail
    cloud = np.clip(soft_noise(rng, shape, (7, 5)) * 1.6 - rng.uniform(0.0, 1.2), 0, 1)[..., None]
    down = np.linspace(0, 1, shape[0])[:, None, None] ** 0.7
    clear = zenith * (1 - down) + haze * down
    sky = np.clip(clear + cloud * (haze + rng.uniform(-60, 20) - clear), 0, 255).astype(np.uint8)
    scene.image[:] = cv2.resize(sky, (width, height), interpolation=cv2.INTER_LINEAR)
    scene.mask[:] = SKY


def paint_ground(scene: Scene, plots: Sequence[Plot]) -> None:
    """Road and markings, kerbs, footways, lawns, side streets: all below the horizon, pixel by pixel."""
    rng, cam, street, (height, width) = scene.rng, scene.camera, scene.street, scene.mask.shape
    top = min(math.ceil(cam.horizon_px + 0.5), height)
    z = cam.focal_px * cam.height_m / (np.arange(top, height)[:, None] + 0.5 - cam.horizon_px)
    x = (np.arange(width) + 0.5 - cam.centre_px) / cam.focal_px * z - cam.bend_per_m * z**2
    z, x = z.astype(np.float32), x.astype(np.float32)

    road = (x > street.kerb(LEFT)) & (x < street.kerb(RIGHT))
    grass = np.zeros_like(road)
    for plot in plots:
        rows = ((z > plot.near_m) & (z < plot.far_m))[:, 0]
        if plot.kind == "side street":
            road[rows] |= plot.side * x[rows] > 0
        elif plot.kind == "garden":
            grass[rows] |= plot.side * x[rows] > plot.side * street.frontage(plot.side)
    kerb = (np.abs(x - street.kerb(LEFT) + 0.08) < 0.09) | (np.abs(x - street.kerb(RIGHT) - 0.08) < 0.09)

    asphalt = muted(rng, 60, 150, 6)
    paving = asphalt + rng.normal(8, 22) + rng.normal(0, 6, 3)  # now and then the road's own grey
    palette = np.stack(
        (paving, asphalt, rng.uniform((60, 80, 45), (110, 120, 65)), paving + 25, asphalt + 90)
    )
    labels = np.array([PAVEMENT, ROAD, TREE, PAVEMENT, ROAD], np.uint8)
    material = road + np.uint8(2) * (grass & ~road) + np.uint8(3) * (kerb & ~road & ~grass)
    material += np.uint8(3) * (road & markings(rng, x, z, street))

    brightness = 1 + scene.noise(z * 12, x * 12) * (0.07 / (1 + z / 15))
    brightness += scene.noise(z * 0.25, x * 0.4) * np.float32(rng.uniform(0.0, 0.07))  # mended patches
    slab_m, depth = rng.uniform(0.5, 0.9), np.float32(rng.uniform(0.05, 0.25))
    joint = (fraction(x, slab_m) < 0.07) | (fraction(z, slab_m) < 0.07)
    brightness -= depth * (joint & (material == 0) & (z < 14))
    clear = np.exp(-z / 220)
    haze = np.rint((1 - clear[..., None]) * np.array(scene.light.haze)).astype(np.uint8)
    scene.image[top:] = cv2.add(
        coloured(palette, material, brightness * clear), np.repeat(haze, width, axis=1)
    )
    scene.mask[top:] = labels.take(material)


def markings(rng: np.random.Generator, x: np.ndarray, z: np.ndarray, street: Street) -> np.ndarray:
    """Where paint lies on the road: centre line, edge lines, perhaps a zebra crossing. (rows, W) bool."""
    middle = street.kerb(RIGHT) * 0.4 + rng.uniform(-0.2, 0.4)
    painted = np.abs(x - middle) < 0.07
    if rng.random() < 0.8:
        painted &= fraction(z + 9 * rng.random(), rng.uniform(4, 9)) < rng.uniform(0.3, 0.6)
    for side in (LEFT, RIGHT):
        if rng.random() < 0.6:
            painted |= np.abs(x - street.kerb(side) + side * rng.uniform(0.3, 0.5)) < 0.05
    if rng.random() < 0.25:
        start = rng.uniform(7, 30)
        painted |= (z > start) & (z < start + 2.6) & (fraction(x, 1.1) < 0.5)
    return painted


def cast_shadows(scene: Scene, plots: Sequence[Plot], things: Sequence[Thing]) -> None:
    """Darken the ground under everything that stands on it, and before the houses on the sun's side."""
    light = scene.light
    footprints = []  # x at the foot, x where the shadow ends, near z, far z
    for plot in plots:
        if plot.kind == "building" and plot.side * light.sun_x * light.strength > 0:
            reach = plot.front_m - light.sun_x * light.strength * plot.height_m
            footprints.append((plot.front_m, reach, plot.near_m, plot.far_m))
    for thing in things:
        if thing.half_m:
            drift = -thing.half_m * light.sun_x * light.strength
            left, right = thing.x - thing.half_m + min(drift, 0), thing.x + thing.half_m + max(drift, 0)
            footprints.append((left, right, thing.z - 0.25, thing.z + thing.length_m))
    corners = np.array([[(a, 0, n), (b, 0, n), (b, 0, f), (a, 0, f)] for a, b, n, f in footprints])
    dark = np.zeros_like(scene.mask)
    for quad in np.rint(scene.camera.project(corners) * 8).astype(np.int32):
        cv2.fillConvexPoly(dark, quad, (1,), shift=3)
    top = max(int(scene.camera.horizon_px), 0)
    ground = scene.image[top:]
    stamp(ground, cv2.convertScaleAbs(ground, alpha=0.7 - 0.25 * light.strength), dark[top:])


# --- walls, houses, fences --------------------------------------------------------------------------------


def paint_wall(
    scene: Scene,
    a: tuple[float, float],
    b: tuple[float, float],
    height_m: float,
    label: int,
    texture: Texture,
    gain: float,
) -> None:
    """An upright plane over the ground from a to b, each (x, z), in correct perspective."""
    cam, (rows, columns) = scene.camera, scene.mask.shape
    ua, ub = cam.pixel(a[0], 0, a[1])[0], cam.pixel(b[0], 0, b[1])[0]
    if ua > ub:
        a, b, ua, ub = b, a, ub, ua
    u0, u1 = max(math.ceil(ua - 0.5), 0), min(math.ceil(ub - 0.5), columns)
    if u0 >= u1:
        return
    t = (np.arange(u0, u1, dtype=np.float32) + 0.5 - ua) / (ub - ua)
    z = 1 / ((1 - t) / a[1] + t / b[1])  # 1/z, not z, is linear on the screen
    along = t * z * (math.dist(a, b) / b[1])
    nearest, farthest = sorted((float(z[0]), float(z[-1])))  # of the visible part
    v0 = max(int(min(cam.pixel(0, height_m, nearest)[1], cam.horizon_px)), 0)
    v1 = min(int(cam.pixel(0, 0, nearest)[1]) + 2, rows)
    y = cam.height_m - (np.arange(v0, v1, dtype=np.float32) + 0.5 - cam.horizon_px)[:, None] * (
        z / cam.focal_px
    )
    inside = (y >= 0) & (y <= height_m)
    palette, pattern = texture
    material, brightness, opaque = pattern(along, y)
    faded = np.array([scene.fade(colour * gain, (nearest + farthest) / 2) for colour in palette])
    shown = inside if opaque is None else inside & opaque
    stamp(scene.image[v0:v1, u0:u1], coloured(faded, material, brightness), shown)
    scene.mask[v0:v1, u0:u1][inside] = label


def facade(scene: Scene) -> Texture:
    """Brick or plaster with rows of windows; often a shop on the ground floor."""
    rng = scene.rng
    wall = rng.uniform((95, 70, 50), (165, 125, 95)) if rng.random() < 0.45 else muted(rng, 70, 210, 9)
    window, frame = muted(rng, 25, 110, 8), wall + rng.uniform(-10, 60)
    palette = np.stack((wall, frame, window, muted(rng, 20, 70, 8), muted(rng, 30, 200, 25)))
    pitch, storey, shop = rng.uniform(1.6, 4.0), rng.uniform(2.7, 3.6), rng.random() < 0.5
    wide, tall, roughness = rng.uniform(0.25, 0.8), rng.uniform(0.35, 0.65), rng.uniform(0.04, 0.12)

    def pattern(along: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
        across, up = np.abs(fraction(along, pitch) - 0.5), np.abs(fraction(y, storey) - 0.5)
        material = ((across < wide / 2 + 0.05) & (up < tall / 2 + 0.06)).view(np.uint8)
        material += (across < wide / 2) & (up < tall / 2)
        if shop:
            pane = (fraction(along, 1.7 * pitch) > 0.09) & (y > 0.5) & (y < 0.78 * storey)
            np.copyto(material, pane * np.uint8(3) + np.uint8(4) * (y > 0.8 * storey), where=y < storey)
        # Each window reflects something else, each bay weathers in its own way.
        bay = scene.noise(y / storey, along / pitch) * np.array([4, 4, 30, 30, 4], np.float32).take(material)
        return material, 1 + scene.noise(y * 10, along * 4) * np.float32(roughness) + bay / 100, None

    return palette, pattern


def foliage(scene: Scene) -> Texture:
    """Leaves, as a hedge."""

    def pattern(along: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
        brightness = 0.9 + 0.22 * scene.noise(y * 5, along * 4) + 0.12 * scene.noise(y, along)
        return np.zeros(y.shape, np.uint8), brightness, None

    return leaf_colour(scene.rng)[None], pattern


def fencing(scene: Scene) -> Texture:
    """Railings that one looks through, or a boarded fence."""
    rng = scene.rng
    colour = muted(rng, 30, 190)
    boarded, pitch, rail = rng.random() < 0.4, rng.uniform(0.15, 0.35), rng.uniform(0.8, 0.95)

    def pattern(along: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        bar = np.broadcast_to(fraction(along, pitch) < 0.35, y.shape)
        brightness = 1 + 0.1 * scene.noise(y * 3, along / pitch) - np.float32(0.2 * boarded) * bar
        opaque = bar | (np.abs(y - rail) < 0.06) | (np.abs(y - 0.15) < 0.05)
        return np.zeros(y.shape, np.uint8), brightness, None if boarded else opaque

    return colour[None], pattern


def paint_building(scene: Scene, *, plot: Plot) -> None:
    """A house: roof, face towards the camera, face towards the street, perhaps a sign."""
    rng, cam, x, top, near, far = (
        scene.rng,
        scene.camera,
        plot.front_m,
        plot.height_m,
        plot.near_m,
        plot.far_m,
    )
    ridge, back, texture = x + plot.side * 4, x + plot.side * 12, facade(scene)
    rise = top + rng.uniform(0, 3)
    roof = np.array(
        [(x, top, near), (x, top, far), (ridge, rise, far), (ridge, rise, near), (back, top, near)]
    )
    scene.fill(cam.project(roof), scene.fade(muted(rng, 50, 120), far), BUILDING)
    if plot.exposed:
        paint_wall(scene, (x, near), (back, near), top, BUILDING, texture, scene.light.gain(0))
    paint_wall(scene, (x, near), (x, far), top, BUILDING, texture, scene.light.gain(-plot.side))
    if rng.random() < 0.75:  # a sign over a shop, flat on the wall or sticking out of it
        y, z, size = rng.uniform(2.4, 4.0), rng.uniform(max(near, 5), far), rng.uniform(0.5, 1.1)
        colour = muted(rng, 40, 230, 30)
        if rng.random() < 0.6:
            board = np.array([(x, y, z), (x, y, z + 3 * size), (x, y + size, z + 3 * size), (x, y + size, z)])
            scene.fill(cam.project(board), scene.fade(colour, z), SIGN)
        else:
            scene.figure(x, z, [(box(0, y, -plot.side * size, y + 1.2 * size), colour)], SIGN)


def paint_hedge(scene: Scene, *, plot: Plot) -> None:
    """A hedge or a row of bushes at the back of a lawn."""
    x, leaves = plot.front_m + plot.side * 2.5, foliage(scene)
    gains = scene.light.gain(-plot.side), scene.light.gain(0)
    paint_wall(scene, (x, plot.near_m), (x, plot.far_m), plot.height_m, TREE, leaves, gains[0])
    paint_wall(
        scene, (x, plot.near_m), (x + plot.side * 9, plot.near_m), plot.height_m, TREE, leaves, gains[1]
    )


def paint_fence(scene: Scene, *, x: float, near_m: float, far_m: float) -> None:
    height, gain = scene.rng.uniform(0.9, 1.6), scene.light.gain(-1 if x > 0 else 1)
    paint_wall(scene, (x, near_m), (x, far_m), height, FENCE, fencing(scene), gain)


def paint_street_end(scene: Scene) -> None:
    """What closes the view: a skyline of houses and trees beyond the last plot."""
    z, x, gain = STREET_END_M + 25, -45.0, scene.light.gain(0)
    while x < 45:
        width, height, tree = scene.rng.uniform(8, 22), scene.rng.uniform(4, 11), scene.rng.random() < 0.4
        label, texture = (TREE, foliage(scene)) if tree else (BUILDING, facade(scene))
        paint_wall(scene, (x, z), (x + width, z), height, label, texture, gain)
        x += width


# --- things in the street ---------------------------------------------------------------------------------


def paint_tree(scene: Scene, *, x: float, z: float) -> None:
    """A trunk and a crown of leaf clusters; what is seen through the crown is labelled tree too."""
    rng, cam, light = scene.rng, scene.camera, scene.light
    height, radius, leaves = rng.uniform(4.5, 10), rng.uniform(1.2, 2.6), leaf_colour(rng)
    clusters = rng.uniform((0, 0, 0.45), (2 * math.pi, 1, 0.75), (14, 3)).tolist()
    density = rng.uniform(0.2, 2.5)  # the low end is a winter tree
    trunk = [(-0.16, 0), (0.16, 0), (0.08, height), (-0.08, height)]
    scene.figure(x, z, [(trunk, muted(rng, 40, 95, 6))], TREE)

    (u, v), unit = cam.pixel(x, height - radius, z), cam.focal_px / z
    reach = 1.75 * radius * unit
    top, left = max(int(v - reach), 0), max(int(u - reach), 0)
    region = np.s_[top : max(int(v + reach) + 1, 0), left : max(int(u + reach) + 1, 0)]
    crown = np.zeros_like(scene.mask[region])
    if not crown.size:
        return
    for angle, distance, size in clusters:
        du, dv = (radius * unit * distance * part for part in (math.cos(angle), math.sin(angle)))
        centre = round(u + du) - left, round(v + dv) - top
        cv2.circle(crown, centre, max(int(size * radius * unit), 1), (1,), -1)
    dy = (np.arange(top, top + crown.shape[0], dtype=np.float32)[:, None] - v) / unit
    dx = (np.arange(left, left + crown.shape[1], dtype=np.float32) - u) / unit
    twigs, clumps = scene.noise(dy * 9 + 99, dx * 9 + x + 99), scene.noise(dy * 2.2 + 99, dx * 2.2 + z + 99)
    sunny = np.clip((light.sun_x * dx - dy) / radius, -1, 1) * (0.1 + 0.2 * light.strength)
    brightness = 0.85 + 0.15 * twigs + 0.12 * clumps + sunny
    colour = coloured(np.array([scene.fade(leaves, z)]), np.zeros_like(crown), brightness)
    stamp(scene.image[region], colour, (crown > 0) & (twigs + 0.6 * clumps < density))
    scene.mask[region][crown > 0] = TREE


#: Side outlines from the near bumper over the roof to the far one: metres from the near end, metres up.
CAR_OUTLINES = (
    ((0, 0, 0.25, 0.8, 2.6, 3.3, 4.1, 4.1), (0.28, 0.88, 0.95, 1.45, 1.45, 0.95, 0.8, 0.28)),  # hatchback
    ((0, 0, 0.9, 1.6, 2.9, 3.5, 4.5, 4.5), (0.28, 0.75, 0.92, 1.42, 1.42, 0.92, 0.85, 0.28)),  # saloon
    ((0, 0, 0.1, 0.3, 4.0, 4.5, 5.0, 5.0), (0.35, 1.0, 1.1, 1.95, 1.95, 1.15, 1.0, 0.35)),  # van
    ((0, 0, 0.02, 0.1, 8.8, 8.9, 9.0, 9.0), (0.35, 1.1, 1.3, 3.0, 3.0, 1.3, 1.1, 0.35)),  # bus
)


def paint_car(scene: Scene, *, x: float, z: float, oncoming: bool) -> None:
    """An outline swept across the car's width, then the flank we see, windows, wheels and lamps."""
    rng, cam, light = scene.rng, scene.camera, scene.light
    dz, y = np.array(CAR_OUTLINES[rng.choice(4, p=(0.5, 0.33, 0.13, 0.04))])
    half = 0.85 if y[3] < 1.6 else 1.05
    paint = vivid(rng) if rng.random() < 0.25 else muted(rng, 20, 225, 7)
    glass, rubber = scene.fade(muted(rng, 20, 90, 6), z), scene.fade(np.full(3, 26.0), z)
    ends = [np.stack((np.full(8, x + dx), y, z + dz), axis=-1) for dx in (-half, half)]
    hull = cam.project(np.array(ends))  # (left and right, 8, u and v)
    flank, near_end = hull[int(x < 0)], np.array((hull[1, 0] - hull[0, 0], hull[0, 1] - hull[0, 0]))

    def patch(a0: float, b0: float, a1: float, b1: float) -> np.ndarray:
        """A rectangle on the near end, in fractions of its width and height; below 0 it hangs under it."""
        return hull[0, 0] + np.array(box(a0, b0, a1, b1)) @ near_end

    for tyre in (0.02, 0.86):
        scene.fill(patch(tyre, -0.48, tyre + 0.12, 0), rubber, CAR)
    for i in reversed(range(7)):  # from the far end to the near one
        quad = hull[[0, 1, 1, 0], [i, i, i + 1, i + 1]]
        gain = 1.15 if i in (1, 3, 5) else light.gain(0)  # bonnet, roof and boot look up to the sky
        scene.fill(quad, scene.fade(paint * gain, z), CAR)
        if i in (2, 4) and z < DETAIL_M:
            scene.fill(0.84 * quad + 0.16 * quad.mean(axis=0), glass, CAR)
    scene.fill(flank, scene.fade(paint * light.gain(-np.sign(x)), z), CAR)
    side_x = x - half * np.sign(x)
    for hub in (0.75, dz[-1] - 0.8):
        wheel = np.array([(side_x, up, z + along) for along, up in disc(hub, 0.31, 0.31)])
        scene.fill(cam.project(wheel), rubber, CAR)
    if z < DETAIL_M:
        scene.fill(0.8 * flank[2:6] + 0.2 * flank[2:6].mean(axis=0), glass, CAR)
        scene.fill(patch(0, 0, 1, 0.25), scene.fade(paint * 0.5, z), CAR)
        lamps, plate = ((235, 235, 215), (225, 225, 215)) if oncoming else ((170, 30, 30), (205, 180, 60))
        scene.fill(patch(0.01, 0.55, 0.13, 0.85), lamps, CAR)
        scene.fill(patch(0.87, 0.55, 0.99, 0.85), lamps, CAR)
        scene.fill(patch(0.35, 0.3, 0.65, 0.5), plate, CAR)


def paint_person(scene: Scene, *, x: float, z: float) -> None:
    """A pedestrian: two legs in mid-stride, coat, head, hair."""
    rng = scene.rng
    size, stride = rng.uniform(0.85, 1.08), rng.uniform(0.05, 0.3)
    coat = vivid(rng) if rng.random() < 0.15 else muted(rng, 20, 140)
    trousers, skin = muted(rng, 20, 90), np.array([200, 155, 130]) * rng.uniform(0.35, 1.1)
    half_torso = [(0.2, 0.75), (0.3, 0.9), (0.23, 1.45), (0.1, 1.52)]
    parts = [
        ([(-stride - 0.09, 0), (-stride + 0.09, 0), (0.16, 0.85), (-0.16, 0.85)], trousers),
        ([(stride - 0.09, 0), (stride + 0.09, 0), (0.16, 0.85), (-0.16, 0.85)], trousers * 0.85),
        (half_torso + [(-dx, y) for dx, y in reversed(half_torso)], coat),
        (disc(0, 1.62, 0.13), skin),
        (disc(0, 1.68, 0.11), muted(rng, 20, 90)),
    ]
    sized = [([(dx * size, y * size) for dx, y in outline], colour) for outline, colour in parts]
    scene.figure(x, z, sized, PEDESTRIAN)


def paint_bicyclist(scene: Scene, *, x: float, z: float) -> None:
    """A rider on a bicycle, seen from behind (a line under a person) or from the side."""
    rng = scene.rng
    turn = rng.uniform(0.85, 1.0) if rng.random() < 0.3 else rng.uniform(0.05, 0.3)  # 1: broadside
    coat, legs = vivid(rng) if rng.random() < 0.3 else muted(rng, 20, 170), muted(rng, 20, 90)
    wheels, frame, black = 0.52 * turn, muted(rng, 20, 200, 25), np.full(3, 35.0)
    lean = 0.3 * turn
    shoulders = [(lean - 0.23, 1.4), (lean + 0.23, 1.4)]
    parts = [
        (disc(-wheels, 0.34, 0.34, max(turn, 0.12)), black),
        (disc(-wheels, 0.34, 0.27, 0.8 * turn), muted(rng, 70, 140)),
        (disc(wheels, 0.34, 0.34, max(turn, 0.12)), black),
        (disc(wheels, 0.34, 0.27, 0.8 * turn), muted(rng, 70, 140)),
        ([(-wheels, 0.32), (0, 0.3), (0.85 * wheels, 0.9), (-0.4 * wheels, 0.85)], frame),
        (box(-0.28, 0.95, 0.28, 1.01), black),
        ([(-0.17, 0.15), (-0.03, 0.15), (0.14, 0.95), (-0.14, 0.95)], legs),
        ([(0.03, 0.35), (0.17, 0.35), (0.14, 0.95), (-0.14, 0.95)], legs),
        ([(0.17 - lean / 2, 0.85), (-0.17 - lean / 2, 0.85), *shoulders], coat),
        (disc(1.2 * lean, 1.6, 0.14), muted(rng, 30, 220, 25)),
    ]
    scene.figure(x, z, parts, BICYCLIST)


def paint_pole(scene: Scene, *, x: float, z: float, kind: str) -> None:
    """A thin post; `kind` says what it carries: "lamp", "sign", "lights" or "bollard"."""
    rng = scene.rng
    height = {"lamp": rng.uniform(5, 9), "sign": rng.uniform(2.2, 3), "lights": 2.4, "bollard": 1.0}[kind]
    half = max(rng.uniform(0.04, 0.09), 0.9 * z / scene.camera.focal_px)  # at least one pixel of the mask
    metal = muted(rng, 30, 190, 6)
    post = [(box(-half, 0, half, height), metal)]
    if kind == "lamp":
        post.append((box(0, height - 2 * half, -np.sign(x) * rng.uniform(0.5, 1.8), height), metal))
    scene.figure(x, z, post, POLE)
    if kind == "lights":
        lit = rng.integers(3)
        glow = np.array([(220, 40, 30), (230, 160, 30), (40, 200, 90)])[lit]
        case = box(-0.17, 2.1, 0.17, 3.0), np.full(3, 28.0)
        scene.figure(x, z, [case, (disc(0, 2.85 - 0.28 * lit, 0.12), glow)], SIGN)
    elif kind == "sign":
        radius, square = rng.uniform(0.28, 0.5), rng.random() < 0.4
        rim, face = (vivid(rng), muted(rng, 150, 235)) if rng.random() < 0.7 else [muted(rng, 60, 180)] * 2
        sizes = ((radius, rim), (0.7 * radius, face))
        plates = [(box(-r, height - r, r, height + r) if square else disc(0, height, r), c) for r, c in sizes]
        scene.figure(x, z, plates, SIGN)


def paint_clutter(scene: Scene, *, x: float, z: float) -> None:
    """A bin, crate or sack that nobody labelled."""
    width, height = scene.rng.uniform(0.2, 0.6), scene.rng.uniform(0.5, 1.3)
    colour = muted(scene.rng, 25, 160, 20)
    lid = box(-width, 0.8 * height, width, height), colour * 0.7
    scene.figure(x, z, [(box(-width, 0, width, height), colour), lid], VOID)


# --- the plan of a street ---------------------------------------------------------------------------------


def standing(painter: Callable[..., None], x: float, z: float, half_m: float, **details: str) -> Thing:
    return Thing(z, partial(painter, x=x, z=z, **details), x, half_m)


def parked_or_driving(x: float, z: float, oncoming: bool) -> Thing:
    return Thing(z, partial(paint_car, x=x, z=z, oncoming=oncoming), x, half_m=0.95, length_m=4.2)


def plan_plots(rng: np.random.Generator, street: Street) -> list[Plot]:
    """Both sides of the street from the camera to its end; a side keeps its character."""
    plots = []
    for side in (LEFT, RIGHT):
        green, roofline, z = rng.uniform(0.0, 0.5) ** 1.5, rng.uniform(5, 11), NEAREST_M
        hidden_m = 0.0  # how high the plot before this one hides it
        while z < STREET_END_M:
            far = z + rng.uniform(8, 20) * (1 + z / 60)  # far houses are small: draw fewer
            kind = str(rng.choice(["building", "garden", "side street"], p=[0.94 - green, green, 0.06]))
            height = max(roofline + rng.normal(0, 1.2), 4.0) if kind == "building" else rng.uniform(1.2, 3.5)
            setback = rng.uniform(0, 3) if rng.random() < 0.3 else 0.0
            front = street.frontage(side) + side * setback
            plots.append(Plot(kind, side, z, far, height, front, exposed=height > hidden_m))
            hidden_m = height if kind == "building" and setback == 0 else 0.0
            z = far
    return plots


def things_on_plots(rng: np.random.Generator, plots: Sequence[Plot], street: Street) -> Iterator[Thing]:
    """Houses and gardens. A front counts as deep as its far end, so that all before it is painted later."""
    for plot in plots:
        if plot.kind == "building":
            yield Thing(plot.far_m, partial(paint_building, plot=plot))
        elif plot.kind == "garden":
            yield Thing(plot.far_m + 0.1, partial(paint_hedge, plot=plot))
            for z in rng.uniform(max(plot.near_m, 6), plot.far_m + 6, rng.poisson(2)):
                yield standing(paint_tree, plot.front_m + plot.side * rng.uniform(1, 5), z, half_m=1.2)
            if rng.random() < 0.8:
                x, near, far = street.frontage(plot.side), plot.near_m, plot.far_m
                yield Thing(far, partial(paint_fence, x=x, near_m=near, far_m=far))


def things_on_pavements(rng: np.random.Generator, street: Street) -> Iterator[Thing]:
    """People, street trees, poles, railings and clutter on both footways."""
    for side in (LEFT, RIGHT):
        kerb, width = street.kerb(side), street.frontage(side) - street.kerb(side)
        for z in rng.uniform(7, 45, rng.poisson(3)):
            yield standing(paint_person, kerb + width * rng.uniform(0.15, 0.9), z, half_m=0.3)
        for z in rng.uniform(6, 35, rng.poisson(1.2)):
            yield standing(paint_clutter, kerb + width * rng.uniform(0.15, 0.9), z, half_m=0.5)
        if rng.random() < 0.35:
            for z in np.arange(rng.uniform(8, 16), 60, rng.uniform(9, 16)):
                yield standing(paint_tree, kerb + side * 0.7, z, half_m=1.2)
        for z in np.arange(rng.uniform(6, 30), 80, rng.uniform(18, 32)):
            yield standing(paint_pole, kerb + side * 0.4, z, half_m=0.2, kind="lamp")
        for kind in rng.choice(["sign", "lights", "bollard"], rng.poisson(2), p=[0.55, 0.2, 0.25]):
            yield standing(paint_pole, kerb + side * 0.35, rng.uniform(7, 40), half_m=0.2, kind=str(kind))
        if rng.random() < 0.45:
            near = rng.uniform(3, 20)
            far = near + rng.uniform(6, 20)
            yield Thing(far, partial(paint_fence, x=kerb + side * 0.25, near_m=near, far_m=far))


def things_on_road(rng: np.random.Generator, street: Street) -> Iterator[Thing]:
    """Parked cars, the car ahead, oncoming traffic, bicyclists and people who cross."""
    for side in (LEFT, RIGHT):
        z = rng.uniform(4, 14)
        while street.parked[side == RIGHT] and z < 60:
            yield parked_or_driving(
                street.kerb(side) - side * rng.uniform(1.0, 1.3), z, oncoming=side == RIGHT
            )
            z += rng.uniform(5, 7) if rng.random() < 0.65 else rng.uniform(10, 25)
    for lane_x, oncoming in ((rng.uniform(-0.3, 0.4), False), (rng.uniform(2.5, 2.9), True)):
        for z in 11 + np.cumsum(rng.uniform(0, 40, rng.poisson(1.2))):
            yield parked_or_driving(lane_x, z, oncoming)
    for z in rng.uniform(6, 30, rng.poisson(1.0)):
        beside_kerb = street.kerb(LEFT) + 0.6 + 2.0 * street.parked[0]
        x = beside_kerb if rng.random() < 0.7 else rng.uniform(-1.5, 3.5)
        yield standing(paint_bicyclist, x, z, half_m=0.5)
    if rng.random() < 0.2:
        yield standing(paint_person, rng.uniform(-1.5, 3), rng.uniform(9, 30), half_m=0.3)


# --- the camera's and the annotator's marks -----------------------------------------------------------------


def paint_bonnet(scene: Scene) -> None:
    """The bonnet of our own car, unlabelled, along the lower edge."""
    rng, (height, width) = scene.rng, scene.mask.shape
    centre = int(width * rng.uniform(0.3, 0.7)), height
    axes = int(width * rng.uniform(0.4, 0.7)), int(height * rng.uniform(0.03, 0.09))
    cv2.ellipse(scene.image, centre, axes, 0, 180, 360, muted(rng, 15, 120).tolist(), -1)
    cv2.ellipse(scene.mask, centre, axes, 0, 180, 360, (VOID,), -1)


def annotate(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Canvas (2H, 2W) -> mask (H, W) uint8; some outlines stay unlabelled, as annotators leave them."""
    mask = canvas[::SUPERSAMPLING, ::SUPERSAMPLING].copy()
    outline = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
    mask[outline & (soft_noise(rng, mask.shape, (9, 12)) > 0.85)] = VOID
    return mask


def develop(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Canvas (2H, 2W, 3) -> photograph (H, W, 3) uint8: lens, exposure, colour cast, sensor, JPEG."""
    height, width = canvas.shape[0] // SUPERSAMPLING, canvas.shape[1] // SUPERSAMPLING
    blur_px, falloff, warmth = rng.uniform(0.25, 0.8), rng.uniform(0, 0.18), rng.normal(0, 0.05)
    exposure, sensor_noise, quality = rng.uniform(0.7, 1.35), rng.uniform(1.5, 7), int(rng.integers(45, 150))
    small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (3, 3), blur_px)
    rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    vignette = (exposure * (1 - falloff * (rows**2 + columns**2))).astype(np.float32)
    photo = small * vignette[..., None] * np.array([1 + warmth, 1, 1 - warmth], np.float32)
    photo += rng.standard_normal(photo.shape, dtype=np.float32) * np.float32(sensor_noise)
    developed = np.clip(np.rint(photo), 0, 255).astype(np.uint8)
    if quality > 90:  # more than half the photographs are never compressed
        return developed
    encoded = cv2.imencode(".jpg", developed, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))


# --- the interface ----------------------------------------------------------------------------------------


def empty_scene(rng: np.random.Generator, height: int, width: int) -> Scene:
    """A canvas with its camera, light and street, and nothing painted."""
    rows, columns = height * SUPERSAMPLING, width * SUPERSAMPLING
    camera = Camera(
        focal_px=columns * rng.uniform(0.75, 1.0),
        centre_px=columns * rng.uniform(0.32, 0.68),
        horizon_px=rows * rng.uniform(0.42, 0.55),
        height_m=rng.uniform(1.4, 1.8),
        bend_per_m=rng.normal(0, 0.0007),
    )
    light = Light(
        sun_x=rng.uniform(-1, 1),
        strength=rng.uniform(0, 1) if rng.random() < 0.6 else 0.0,
        haze=tuple(rng.uniform(170, 235, 1) + rng.uniform(-12, 12, 3)),
    )
    parked = bool(rng.random() < 0.4), bool(rng.random() < 0.4)
    street = Street(
        kerbs_m=(-rng.uniform(1.4, 2.4) - 2.0 * parked[0], rng.uniform(3.8, 5.2) + 2.0 * parked[1]),
        pavements_m=(rng.uniform(1.8, 4.6), rng.uniform(1.8, 4.6)),
        parked=parked,
    )
    grain = np.clip(rng.standard_normal(GRAIN_SIZE**2, dtype=np.float32), -2.5, 2.5)
    image, mask = np.zeros((rows, columns, 3), np.uint8), np.zeros((rows, columns), np.uint8)
    return Scene(image, mask, rng, camera, light, street, grain)


def render_scene(*, seed: int, index: int, height: int, width: int, split: str = "train") -> LabelledImage:
    """Draw one street: a pure function of its arguments.

    Args:
        seed: of the data set; >= 0.
        index: of the scene within its split; >= 0.
        height, width: of the result, in pixels; another size of the same shape shows the same street.
        split: "train", "val" or "test"; each draws random numbers of its own.

    Returns:
        image (H, W, 3) uint8 RGB and mask (H, W) uint8 in 0..11.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    scene = empty_scene(rng, height, width)
    plots = plan_plots(rng, scene.street)
    things = [
        *things_on_plots(rng, plots, scene.street),
        *things_on_pavements(rng, scene.street),
        *things_on_road(rng, scene.street),
    ]
    paint_sky(scene)
    paint_ground(scene, plots)
    cast_shadows(scene, plots, things)
    paint_street_end(scene)
    for thing in sorted(things, key=lambda thing: -thing.z):
        thing.paint(scene)
    if rng.random() < 0.3:
        paint_bonnet(scene)
    mask = annotate(rng, scene.mask)
    return LabelledImage(image=develop(rng, scene.image), mask=mask)


@dataclass(frozen=True)
class SyntheticStreets:
    """A split of the synthetic data set; scene i does not depend on how many there are.

    Attributes:
        split: "train", "val" or "test": different scenes.
        length: number of scenes.
        height, width: of every image, in pixels.
        seed: of the data set; the splits of one seed never share a scene.
    """

    split: str
    length: int
    height: int
    width: int
    seed: int

    @property
    def taxonomy(self) -> Taxonomy:
        return CAMVID

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"{self.split}_{index:05d}"

    def load(self, index: int) -> LabelledImage:
        size = {"height": self.height, "width": self.width}
        return render_scene(seed=self.seed, split=self.split, index=index, **size)
