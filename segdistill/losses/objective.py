"""The ensemble's objective: named terms, each with a weight that changes over the training."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto

import numpy as np
import torch
from torch import Tensor

from segdistill.losses.maps import StepMaps


@dataclass(frozen=True)
class Schedule:
    """A weight and the piecewise linear factor it is multiplied by over the training.

    Attributes:
        weight: at factor 1.
        points: (progress, factor) with progress rising in 0..1; constant before the first and after the
            last. ((0, 0), (0.1, 1)) is a linear ramp-up over the first tenth of the training.
    """

    weight: float
    points: tuple[tuple[float, float], ...] = ((0.0, 1.0),)

    def at(self, progress: float) -> float:
        """The weight after this share (0..1) of all optimiser steps."""
        places, factors = zip(*self.points, strict=True)
        return self.weight * float(np.interp(progress, places, factors))


class Needs(Flag):
    """What a term asks of a step beyond the primary's logits."""

    NOTHING = 0
    BRANCHES = auto()
    FEATURES = auto()
    DISCRIMINATOR = auto()


@dataclass(frozen=True)
class Term:
    """One named summand: `schedule.at(progress) * loss(maps)`."""

    name: str
    schedule: Schedule
    loss: Callable[[StepMaps], Tensor]
    needs: Needs = Needs.NOTHING


@dataclass(frozen=True)
class Objective:
    """The sum of terms that the ensemble minimises. A term whose weight is 0 is not computed."""

    terms: tuple[Term, ...]

    def active(self, progress: float) -> tuple[Term, ...]:
        return tuple(term for term in self.terms if term.schedule.at(progress) > 0)

    def needs(self, progress: float) -> Needs:
        """Union of what the active terms need."""
        needs = Needs.NOTHING
        for term in self.active(progress):
            needs |= term.needs
        return needs

    def __call__(self, maps: StepMaps, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Returns:
            The weighted sum (scalar), and every active term's unweighted value, detached, by name.
        """
        total = torch.zeros((), device=maps.labels.device)
        values: dict[str, Tensor] = {}
        for term in self.active(progress):
            value = term.loss(maps)
            total = total + term.schedule.at(progress) * value
            values[term.name] = value.detach()
        return total, values
