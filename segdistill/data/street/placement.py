"""Who stands where: everything above the ground, each with its distance, its painter and its shadow."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from segdistill.data.street.background import paint_tree
from segdistill.data.street.ground import Footprint
from segdistill.data.street.light import Light
from segdistill.data.street.objects import (
    PoleKind,
    paint_bicyclist,
    paint_car,
    paint_clutter,
    paint_person,
    paint_pole,
)
from segdistill.data.street.plan import LEFT, RIGHT, Plot, Street
from segdistill.data.street.scene import Scene
from segdistill.data.street.walls import paint_building, paint_fence, paint_hedge

#: Half the width of the shadow that each of these casts; a car's is its own.
HALF_PERSON_M, HALF_BICYCLIST_M, HALF_CLUTTER_M, HALF_POLE_M, HALF_TREE_M = 0.3, 0.5, 0.5, 0.2, 1.2
POLES: tuple[PoleKind, ...] = ("sign", "lights", "bollard")  # beside the street lamps, which stand in a row


@dataclass(frozen=True)
class Thing:
    """Something to paint in its turn, and its shadow: `half_m` to either side of x, `length_m` deep."""

    z: float
    paint: Callable[[Scene], None]
    x: float = 0.0
    half_m: float = 0.0  # 0: no shadow
    length_m: float = 0.5


def standing(painter: Callable[..., None], x: float, z: float, half_m: float, **details: PoleKind) -> Thing:
    return Thing(z, partial(painter, x=x, z=z, **details), x, half_m)


def car(x: float, z: float, *, oncoming: bool) -> Thing:
    return Thing(z, partial(paint_car, x=x, z=z, oncoming=oncoming), x, half_m=0.95, length_m=4.2)


def fence(x: float, near_m: float, far_m: float) -> Thing:
    return Thing(far_m, partial(paint_fence, x=x, near_m=near_m, far_m=far_m))


def things_on_plots(rng: np.random.Generator, plots: Sequence[Plot], street: Street) -> Iterator[Thing]:
    """Houses and gardens. A front counts as deep as its far end, so that all before it is painted later."""
    for plot in plots:
        if plot.kind == "building":
            yield Thing(plot.far_m, partial(paint_building, plot=plot))
        elif plot.kind == "garden":
            yield Thing(plot.far_m + 0.1, partial(paint_hedge, plot=plot))  # behind the fence
            for z in rng.uniform(max(plot.near_m, 6), plot.far_m + 6, rng.poisson(2)):
                yield standing(paint_tree, plot.front_m + plot.side * rng.uniform(1, 5), z, HALF_TREE_M)
            if rng.random() < 0.8:
                yield fence(street.frontage(plot.side), plot.near_m, plot.far_m)


def things_on_pavements(rng: np.random.Generator, street: Street) -> Iterator[Thing]:
    """People, street trees, poles, railings and clutter on both footways."""
    for side in (LEFT, RIGHT):
        kerb, width = street.kerb(side), street.frontage(side) - street.kerb(side)
        for z in rng.uniform(7, 45, rng.poisson(3)):
            yield standing(paint_person, kerb + width * rng.uniform(0.15, 0.9), z, HALF_PERSON_M)
        for z in rng.uniform(6, 35, rng.poisson(1.2)):
            yield standing(paint_clutter, kerb + width * rng.uniform(0.15, 0.9), z, HALF_CLUTTER_M)
        if rng.random() < 0.35:
            for z in np.arange(rng.uniform(8, 16), 60, rng.uniform(9, 16)):
                yield standing(paint_tree, kerb + side * 0.7, z, HALF_TREE_M)
        for z in np.arange(rng.uniform(6, 30), 80, rng.uniform(18, 32)):
            yield standing(paint_pole, kerb + side * 0.4, z, HALF_POLE_M, kind="lamp")
        for kind in rng.choice(len(POLES), rng.poisson(2), p=[0.55, 0.2, 0.25]):
            yield standing(paint_pole, kerb + side * 0.35, rng.uniform(7, 40), HALF_POLE_M, kind=POLES[kind])
        if rng.random() < 0.45:
            near = rng.uniform(3, 20)
            yield fence(kerb + side * 0.25, near, near + rng.uniform(6, 20))


def things_on_road(rng: np.random.Generator, street: Street) -> Iterator[Thing]:
    """Parked cars, the car ahead, oncoming traffic, bicyclists and people who cross."""
    for side in (LEFT, RIGHT):
        z = rng.uniform(4, 14)
        while street.parked[side == RIGHT] and z < 60:
            yield car(street.kerb(side) - side * rng.uniform(1.0, 1.3), z, oncoming=side == RIGHT)
            z += (
                rng.uniform(5, 7) if rng.random() < 0.65 else rng.uniform(10, 25)
            )  # bumper to bumper, or a gap
    for lane_x, oncoming in ((rng.uniform(-0.3, 0.4), False), (rng.uniform(2.5, 2.9), True)):
        for z in 11 + np.cumsum(rng.uniform(0, 40, rng.poisson(1.2))):
            yield car(lane_x, z, oncoming=oncoming)
    for z in rng.uniform(6, 30, rng.poisson(1.0)):
        beside_kerb = street.kerb(LEFT) + 0.6 + 2.0 * street.parked[0]
        x = beside_kerb if rng.random() < 0.7 else rng.uniform(-1.5, 3.5)
        yield standing(paint_bicyclist, x, z, HALF_BICYCLIST_M)
    if rng.random() < 0.2:
        yield standing(paint_person, rng.uniform(-1.5, 3), rng.uniform(9, 30), HALF_PERSON_M)


def footprints(light: Light, plots: Sequence[Plot], things: Sequence[Thing]) -> Iterator[Footprint]:
    """Where shadows fall: before the houses on the sun's side, and around everything with a width."""
    drift = (
        light.sun_x * light.strength
    )  # how far left a shadow falls, in heights of a house or half widths of a thing
    for plot in plots:
        if plot.kind == "building" and plot.side * drift > 0:
            yield plot.front_m, plot.front_m - drift * plot.height_m, plot.near_m, plot.far_m
    for thing in things:
        if thing.half_m:
            left = thing.x - thing.half_m * (1 + max(drift, 0))
            right = thing.x + thing.half_m * (1 + max(-drift, 0))
            yield left, right, thing.z - 0.25, thing.z + thing.length_m
