"""Light and colour: the sun, the haze, and the stock of colours that every class draws from.

No class has a colour of its own: facades, asphalt, cars and clothes share muted colours.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

VISIBILITY_M = 220.0  # the distance at which haze has replaced all but 1/e of a colour


def clearness(z: float) -> float:
    """The share of a colour that is left behind z metres of slightly hazy air."""
    return math.exp(-z / VISIBILITY_M)


@dataclass(frozen=True)
class Light:
    """Where the sun stands, how hard it shines, and the colour that distance fades to."""

    sun_x: float  # -1: from the left .. 1: from the right
    strength: float  # 0: overcast .. 1: hard sun
    haze: np.ndarray  # (3,) RGB

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        return cls(
            sun_x=rng.uniform(-1, 1),
            strength=rng.uniform(0, 1) if rng.random() < 0.6 else 0.0,
            haze=rng.uniform(170, 235) + rng.uniform(-12, 12, 3),
        )

    def gain(self, facing_x: float) -> float:
        """Brightness of an upright face; `facing_x` is -1 (looks left), 0 (looks at us) or 1."""
        return 0.85 + 0.4 * self.strength * (self.sun_x * facing_x if facing_x else 0.3 - abs(self.sun_x))

    def fade(self, colours: np.ndarray, z: float) -> np.ndarray:
        """RGB colours (..., 3) as they look at z metres."""
        clear = clearness(z)
        return colours * clear + self.haze * (1 - clear)


def muted(rng: np.random.Generator, low: float, high: float, tint: float = 12.0) -> np.ndarray:
    """A greyish RGB colour of random lightness."""
    return rng.uniform(low, high) + rng.normal(0, tint, 3)


def vivid(rng: np.random.Generator) -> np.ndarray:
    """A saturated RGB colour: one channel leads."""
    return rng.permutation(rng.uniform((110, 30, 30), (200, 110, 80)))


def leaf_colour(rng: np.random.Generator) -> np.ndarray:
    """From summer green over autumn brown to the grey of twigs."""
    return rng.uniform((45, 55, 25), (110, 110, 70))
