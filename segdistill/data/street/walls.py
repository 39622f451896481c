"""Upright planes in perspective, their textures, and what is built of them: houses, hedges, fences."""

import math

import numpy as np

from segdistill.data.street.labels import BUILDING, FENCE, SIGN, TREE
from segdistill.data.street.light import leaf_colour, muted
from segdistill.data.street.plan import STREET_END_M, Plot
from segdistill.data.street.scene import Scene, box
from segdistill.data.street.texture import Cover, Texture, coloured, fraction, stamp

#: Brightness that a unit of noise adds to a bay: each window reflects something else, walls weather.
BAY_CONTRAST = np.array([4, 4, 30, 30, 4], np.float32)  # hundredths, per material of a facade


def paint_wall(
    scene: Scene,
    a: tuple[float, float],
    b: tuple[float, float],
    *,
    height_m: float,
    texture: Texture,
    facing_x: float,
    label: int,
) -> None:
    """An upright plane over the ground from a to b, each (x, z); `facing_x` as in `Light.gain`."""
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
    below_horizon = (np.arange(v0, v1, dtype=np.float32) + 0.5 - cam.horizon_px)[:, None]
    y = cam.height_m - below_horizon * (z / cam.focal_px)  # (V, U)

    inside = (y >= 0) & (y <= height_m)
    cover = texture.pattern(along, y)
    shown = inside if cover.opaque is None else inside & cover.opaque
    palette = scene.light.fade(texture.palette * scene.light.gain(facing_x), (nearest + farthest) / 2)
    stamp(scene.image[v0:v1, u0:u1], coloured(palette, cover), shown)
    np.copyto(scene.mask[v0:v1, u0:u1], label, where=inside)  # what is seen through a fence is labelled fence


def facade(scene: Scene) -> Texture:
    """Brick or plaster with rows of windows; often a shop on the ground floor."""
    rng = scene.rng
    wall = rng.uniform((95, 70, 50), (165, 125, 95)) if rng.random() < 0.45 else muted(rng, 70, 210, 9)
    window, frame = muted(rng, 25, 110, 8), wall + rng.uniform(-10, 60)
    shop_window, fascia = muted(rng, 20, 70, 8), muted(rng, 30, 200, 25)
    bay_m, storey_m, shop = rng.uniform(1.6, 4.0), rng.uniform(2.7, 3.6), rng.random() < 0.5
    wide, tall, roughness = rng.uniform(0.25, 0.8), rng.uniform(0.35, 0.65), rng.uniform(0.04, 0.12)

    def pattern(along: np.ndarray, y: np.ndarray) -> Cover:
        across, up = np.abs(fraction(along, bay_m) - 0.5), np.abs(fraction(y, storey_m) - 0.5)
        material = ((across < wide / 2 + 0.05) & (up < tall / 2 + 0.06)).view(np.uint8)  # 1: frame
        material += (across < wide / 2) & (up < tall / 2)  # 2: window
        if shop:
            pane = (fraction(along, 1.7 * bay_m) > 0.09) & (y > 0.5) & (y < 0.78 * storey_m)
            ground_floor = pane * np.uint8(3) + np.uint8(4) * (y > 0.8 * storey_m)
            np.copyto(material, ground_floor, where=y < storey_m)
        bay = scene.grain.at(y / storey_m, along / bay_m) * BAY_CONTRAST.take(material, mode="wrap")
        return Cover(1 + scene.grain.at(y * 10, along * 4) * np.float32(roughness) + bay / 100, material)

    return Texture(np.stack((wall, frame, window, shop_window, fascia)), pattern)


def foliage(scene: Scene) -> Texture:
    """Leaves, as a hedge."""

    def pattern(along: np.ndarray, y: np.ndarray) -> Cover:
        return Cover(0.9 + 0.22 * scene.grain.at(y * 5, along * 4) + 0.12 * scene.grain.at(y, along))

    return Texture(leaf_colour(scene.rng)[None], pattern)


def fencing(scene: Scene) -> Texture:
    """Railings that one looks through, or a boarded fence."""
    rng = scene.rng
    colour = muted(rng, 30, 190)
    boarded, pitch_m, rail_m = rng.random() < 0.4, rng.uniform(0.15, 0.35), rng.uniform(0.8, 0.95)

    def pattern(along: np.ndarray, y: np.ndarray) -> Cover:
        bar = np.broadcast_to(fraction(along, pitch_m) < 0.35, y.shape)
        brightness = 1 + 0.1 * scene.grain.at(y * 3, along / pitch_m) - np.float32(0.2 * boarded) * bar
        if boarded:
            return Cover(brightness)
        return Cover(brightness, opaque=bar | (np.abs(y - rail_m) < 0.06) | (np.abs(y - 0.15) < 0.05))

    return Texture(colour[None], pattern)


def paint_building(scene: Scene, *, plot: Plot) -> None:
    """A house: roof, face towards the camera, face towards the street, perhaps a sign."""
    rng, x, top, near, far = scene.rng, plot.front_m, plot.height_m, plot.near_m, plot.far_m
    ridge, back, texture = x + plot.side * 4, x + plot.side * 12, facade(scene)
    rise = top + rng.uniform(0, 3)
    roof = [(x, top, near), (x, top, far), (ridge, rise, far), (ridge, rise, near), (back, top, near)]
    scene.fill(scene.camera.project(np.array(roof)), scene.fade(muted(rng, 50, 120), far), BUILDING)
    if plot.exposed:
        gable = (x, near), (back, near)
        paint_wall(scene, *gable, height_m=top, texture=texture, facing_x=0, label=BUILDING)
    front = (x, near), (x, far)
    paint_wall(scene, *front, height_m=top, texture=texture, facing_x=-plot.side, label=BUILDING)
    if rng.random() < 0.75:
        paint_shop_sign(scene, plot)


def paint_shop_sign(scene: Scene, plot: Plot) -> None:
    """A sign over a shop, flat on the wall or sticking out of it."""
    rng, x = scene.rng, plot.front_m
    y, z, size = rng.uniform(2.4, 4.0), rng.uniform(max(plot.near_m, 5), plot.far_m), rng.uniform(0.5, 1.1)
    colour = muted(rng, 40, 230, 30)
    if rng.random() < 0.6:
        board = np.array([(x, y, z), (x, y, z + 3 * size), (x, y + size, z + 3 * size), (x, y + size, z)])
        scene.fill(scene.camera.project(board), scene.fade(colour, z), SIGN)
    else:
        scene.figure(x, z, [(box(0, y, -plot.side * size, y + 1.2 * size), colour)], SIGN)


def paint_hedge(scene: Scene, *, plot: Plot) -> None:
    """A hedge or a row of bushes at the back of a lawn, and its end towards the camera."""
    x, near, texture = plot.front_m + plot.side * 2.5, plot.near_m, foliage(scene)
    for b, facing_x in (((x, plot.far_m), -plot.side), ((x + plot.side * 9, near), 0)):
        height_m = plot.height_m
        paint_wall(scene, (x, near), b, height_m=height_m, texture=texture, facing_x=facing_x, label=TREE)


def paint_fence(scene: Scene, *, x: float, near_m: float, far_m: float) -> None:
    """A fence or railings along the street."""
    height_m, facing_x = scene.rng.uniform(0.9, 1.6), -1 if x > 0 else 1
    ends = (x, near_m), (x, far_m)
    paint_wall(scene, *ends, height_m=height_m, texture=fencing(scene), facing_x=facing_x, label=FENCE)


def paint_street_end(scene: Scene) -> None:
    """What closes the view: a skyline of houses and trees beyond the last plot."""
    rng, z, x, reach_m = scene.rng, STREET_END_M + 25, -45.0, 45
    while x < reach_m:
        width, height, tree = rng.uniform(8, 22), rng.uniform(4, 11), rng.random() < 0.4
        label, texture = (TREE, foliage(scene)) if tree else (BUILDING, facade(scene))
        paint_wall(scene, (x, z), (x + width, z), height_m=height, texture=texture, facing_x=0, label=label)
        x += width
