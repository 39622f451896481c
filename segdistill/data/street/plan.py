"""The plan of a street: its cross-section, and the plots along both sides."""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

LEFT, RIGHT = -1, 1
NEAREST_M, STREET_END_M = 2.0, 95.0

PlotKind = Literal["building", "garden", "side street"]


@dataclass(frozen=True)
class Street:
    """The cross-section of the street: (left, right)."""

    kerbs_m: tuple[float, float]
    pavements_m: tuple[float, float]
    parked: tuple[bool, bool]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """We drive on the left: most of the road is to our right. Parked cars take 2 m on their side."""
        left, right = bool(rng.random() < 0.4), bool(rng.random() < 0.4)
        return cls(
            kerbs_m=(-rng.uniform(1.4, 2.4) - 2.0 * left, rng.uniform(3.8, 5.2) + 2.0 * right),
            pavements_m=(rng.uniform(1.8, 4.6), rng.uniform(1.8, 4.6)),
            parked=(left, right),
        )

    def kerb(self, side: int) -> float:
        """x of the kerb."""
        return self.kerbs_m[side == RIGHT]

    def frontage(self, side: int) -> float:
        """x of the line where the pavement ends and the plots begin."""
        return self.kerb(side) + side * self.pavements_m[side == RIGHT]


@dataclass(frozen=True)
class Plot:
    """What stands along one stretch of one side of the street."""

    kind: PlotKind
    side: int
    near_m: float
    far_m: float
    height_m: float
    front_m: float  # x of the face towards the street
    exposed: bool  # its near end is not hidden by the plot before it


def plan_plots(rng: np.random.Generator, street: Street) -> list[Plot]:
    """Both sides of the street from the camera to its end; a side keeps its character."""
    kinds: tuple[PlotKind, ...] = ("building", "garden", "side street")
    plots = []
    for side in (LEFT, RIGHT):
        green, roofline, z = rng.uniform(0.0, 0.5) ** 1.5, rng.uniform(5, 11), NEAREST_M
        hidden_m = 0.0  # how high the plot before this one hides it
        while z < STREET_END_M:
            far = z + rng.uniform(8, 20) * (1 + z / 60)  # far houses are small: draw fewer
            kind = kinds[rng.choice(3, p=[0.94 - green, green, 0.06])]
            height = max(roofline + rng.normal(0, 1.2), 4.0) if kind == "building" else rng.uniform(1.2, 3.5)
            setback = rng.uniform(0, 3) if rng.random() < 0.3 else 0.0
            front = street.frontage(side) + side * setback
            plots.append(Plot(kind, side, z, far, height, front, exposed=height > hidden_m))
            hidden_m = height if kind == "building" and setback == 0 else 0.0
            z = far
    return plots
