"""Things in the street: cars, people, bicyclists, poles with signs and lights, clutter."""

import math
from typing import Literal

import cv2
import numpy as np

from segdistill.data.street.labels import BICYCLIST, CAR, PEDESTRIAN, POLE, SIGN, VOID
from segdistill.data.street.light import muted, vivid
from segdistill.data.street.scene import Part, Scene, box, disc

DETAIL_M = 45.0  # windows and lamps of cars farther away would be smaller than a pixel

#: Side outlines from the near bumper over the roof to the far one: metres from the near end, metres up.
CAR_OUTLINES = (
    ((0, 0, 0.25, 0.8, 2.6, 3.3, 4.1, 4.1), (0.28, 0.88, 0.95, 1.45, 1.45, 0.95, 0.8, 0.28)),  # hatchback
    ((0, 0, 0.9, 1.6, 2.9, 3.5, 4.5, 4.5), (0.28, 0.75, 0.92, 1.42, 1.42, 0.92, 0.85, 0.28)),  # saloon
    ((0, 0, 0.1, 0.3, 4.0, 4.5, 5.0, 5.0), (0.35, 1.0, 1.1, 1.95, 1.95, 1.15, 1.0, 0.35)),  # van
    ((0, 0, 0.02, 0.1, 8.8, 8.9, 9.0, 9.0), (0.35, 1.1, 1.3, 3.0, 3.0, 1.3, 1.1, 0.35)),  # bus
)
CAR_SHARES = (0.5, 0.33, 0.13, 0.04)
#: Stretches between two corners of the outline.
LOOKING_UP, GLAZED = (1, 3, 5), (2, 4)  # bonnet, roof, boot; the near and the far window

PoleKind = Literal["lamp", "sign", "lights", "bollard"]


def paint_car(scene: Scene, *, x: float, z: float, oncoming: bool) -> None:
    """An outline swept across the car's width, then the flank we see, windows, wheels and lamps."""
    rng, cam, light = scene.rng, scene.camera, scene.light
    dz, y = np.array(CAR_OUTLINES[rng.choice(len(CAR_OUTLINES), p=CAR_SHARES)])
    half = 0.85 if y.max() < 1.6 else 1.05
    paint = vivid(rng) if rng.random() < 0.25 else muted(rng, 20, 225, 7)
    glass, rubber = scene.fade(muted(rng, 20, 90, 6), z), scene.fade(np.full(3, 26.0), z)
    ends = [np.stack((np.full(8, x + dx), y, z + dz), axis=-1) for dx in (-half, half)]
    hull = cam.project(np.array(ends))  # (left and right, 8, u and v)
    flank, near_end = hull[int(x < 0)], np.array((hull[1, 0] - hull[0, 0], hull[0, 1] - hull[0, 0]))
    outwards = math.copysign(1, x)

    def patch(a0: float, b0: float, a1: float, b1: float) -> np.ndarray:
        """A rectangle on the near end, in fractions of its width and height; below 0 it hangs under it."""
        return hull[0, 0] + np.array(box(a0, b0, a1, b1)) @ near_end

    for tyre in (0.02, 0.86):
        scene.fill(patch(tyre, -0.48, tyre + 0.12, 0), rubber, CAR)
    bright, plain = scene.fade(paint * 1.15, z), scene.fade(paint * light.gain(0), z)
    for i in reversed(range(7)):  # from the far end to the near one
        quad = hull[[0, 1, 1, 0], [i, i, i + 1, i + 1]]
        scene.fill(quad, bright if i in LOOKING_UP else plain, CAR)
        if i in GLAZED and z < DETAIL_M:
            scene.fill(0.84 * quad + 0.16 * quad.mean(axis=0), glass, CAR)
    scene.fill(flank, scene.fade(paint * light.gain(-outwards), z), CAR)
    for hub in (0.75, dz[-1] - 0.8):
        wheel = [(x - half * outwards, up, z + along) for along, up in disc(hub, 0.31, 0.31)]
        scene.fill(cam.project(np.array(wheel)), rubber, CAR)
    if z < DETAIL_M:
        scene.fill(0.8 * flank[2:6] + 0.2 * flank[2:6].mean(axis=0), glass, CAR)
        scene.fill(patch(0, 0, 1, 0.25), scene.fade(paint * 0.5, z), CAR)  # bumper
        lamps, plate = ((235, 235, 215), (225, 225, 215)) if oncoming else ((170, 30, 30), (205, 180, 60))
        for lamp in (0.01, 0.87):
            scene.fill(patch(lamp, 0.55, lamp + 0.12, 0.85), lamps, CAR)
        scene.fill(patch(0.35, 0.3, 0.65, 0.5), plate, CAR)


def paint_person(scene: Scene, *, x: float, z: float) -> None:
    """A pedestrian: two legs in mid-stride, coat, head, hair."""
    rng = scene.rng
    size, stride = rng.uniform(0.85, 1.08), rng.uniform(0.05, 0.3)
    coat = vivid(rng) if rng.random() < 0.15 else muted(rng, 20, 140)
    trousers, skin = muted(rng, 20, 90), np.array([200, 155, 130]) * rng.uniform(0.35, 1.1)
    half_torso = [(0.2, 0.75), (0.3, 0.9), (0.23, 1.45), (0.1, 1.52)]
    legs = [[(dx - 0.09, 0), (dx + 0.09, 0), (0.16, 0.85), (-0.16, 0.85)] for dx in (-stride, stride)]
    parts: list[Part] = [
        (legs[0], trousers),
        (legs[1], trousers * 0.85),
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
    hub, frame, black = 0.52 * turn, muted(rng, 20, 200, 25), np.full(3, 35.0)
    lean = 0.3 * turn
    parts: list[Part] = []
    for dx in (-hub, hub):
        parts.append((disc(dx, 0.34, 0.34, max(turn, 0.12)), black))
        parts.append((disc(dx, 0.34, 0.27, 0.8 * turn), muted(rng, 70, 140)))  # the street between the spokes
    parts += [
        ([(-hub, 0.32), (0, 0.3), (0.85 * hub, 0.9), (-0.4 * hub, 0.85)], frame),
        (box(-0.28, 0.95, 0.28, 1.01), black),  # handlebar
        ([(-0.17, 0.15), (-0.03, 0.15), (0.14, 0.95), (-0.14, 0.95)], legs),
        ([(0.03, 0.35), (0.17, 0.35), (0.14, 0.95), (-0.14, 0.95)], legs),
        ([(0.17 - lean / 2, 0.85), (-0.17 - lean / 2, 0.85), (lean - 0.23, 1.4), (lean + 0.23, 1.4)], coat),
        (disc(1.2 * lean, 1.6, 0.14), muted(rng, 30, 220, 25)),
    ]
    scene.figure(x, z, parts, BICYCLIST)


def paint_pole(scene: Scene, *, x: float, z: float, kind: PoleKind) -> None:
    """A thin post, and what it carries."""
    rng = scene.rng
    height = {"lamp": rng.uniform(5, 9), "sign": rng.uniform(2.2, 3), "lights": 2.4, "bollard": 1.0}[kind]
    half = max(rng.uniform(0.04, 0.09), 0.9 * z / scene.camera.focal_px)  # at least one pixel of the mask
    metal = muted(rng, 30, 190, 6)
    post = [(box(-half, 0, half, height), metal)]
    if kind == "lamp":  # its arm reaches over the road
        arm_m = -math.copysign(1, x) * rng.uniform(0.5, 1.8)
        post.append((box(0, height - 2 * half, arm_m, height), metal))
    scene.figure(x, z, post, POLE)
    if kind == "lights":
        scene.figure(x, z, traffic_lights(rng), SIGN)
    elif kind == "sign":
        scene.figure(x, z, traffic_sign(rng, height), SIGN)


def traffic_lights(rng: np.random.Generator) -> list[Part]:
    """A dark case with one of three lamps lit."""
    lit = int(rng.integers(3))
    glow = np.array([(220, 40, 30), (230, 160, 30), (40, 200, 90)][lit])
    return [(box(-0.17, 2.1, 0.17, 3.0), np.full(3, 28.0)), (disc(0, 2.85 - 0.28 * lit, 0.12), glow)]


def traffic_sign(rng: np.random.Generator, y: float) -> list[Part]:
    """A round or square plate around the height y: a rim and a face, or the grey back of a sign."""
    radius, square = rng.uniform(0.28, 0.5), rng.random() < 0.4
    rim, face = (vivid(rng), muted(rng, 150, 235)) if rng.random() < 0.7 else [muted(rng, 60, 180)] * 2
    plates = ((radius, rim), (0.7 * radius, face))
    return [(box(-r, y - r, r, y + r) if square else disc(0, y, r), colour) for r, colour in plates]


def paint_clutter(scene: Scene, *, x: float, z: float) -> None:
    """A bin, crate or sack that nobody labelled."""
    width, height = scene.rng.uniform(0.2, 0.6), scene.rng.uniform(0.5, 1.3)
    colour = muted(scene.rng, 25, 160, 20)
    lid = box(-width, 0.8 * height, width, height), colour * 0.7
    scene.figure(x, z, [(box(-width, 0, width, height), colour), lid], VOID)


def paint_bonnet(scene: Scene) -> None:
    """The bonnet of our own car, unlabelled, along the lower edge."""
    rng, (height, width) = scene.rng, scene.mask.shape
    centre = int(width * rng.uniform(0.3, 0.7)), height
    axes = int(width * rng.uniform(0.4, 0.7)), int(height * rng.uniform(0.03, 0.09))
    cv2.ellipse(scene.image, centre, axes, 0, 180, 360, muted(rng, 15, 120).tolist(), -1)
    cv2.ellipse(scene.mask, centre, axes, 0, 180, 360, (VOID,), -1)
