"""The sub-models' objective: named terms, each with a weight that changes over the training."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Flag, auto
from functools import cached_property
from typing import Literal

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
    """What a term asks of a look at images beyond the primary's logits."""

    NOTHING = 0
    BRANCHES = auto()
    LEARNING_BRANCHES = auto()  # else they only teach, and nothing is kept for their gradients
    FEATURES = auto()
    DISCRIMINATOR = auto()


@dataclass(frozen=True)
class Term:
    """One named summand: `schedule.at(progress) * loss(maps)`.

    Attributes:
        name: in logs.
        schedule: of its weight.
        loss: a scalar.
        needs: what it asks of a look at images.
        notes: further scalars worth logging, by name; no part of the objective.
        sees: the batch as it is, or strong views of it.
    """

    name: str
    schedule: Schedule
    loss: Callable[[StepMaps], Tensor]
    needs: Needs = Needs.NOTHING
    notes: Callable[[StepMaps], dict[str, Tensor]] | None = None
    sees: Literal["batch", "views"] = "batch"


@dataclass(frozen=True)
class Summands:
    """What the active terms say about one batch.

    Attributes:
        values: term -> unweighted scalar, with its graph.
        weights: term -> weight at this moment.
        notes: what the terms have to add, detached.
    """

    values: dict[str, Tensor]
    weights: dict[str, float]
    notes: dict[str, Tensor]

    @property
    def weighted(self) -> dict[str, Tensor]:
        return {name: self.weights[name] * value for name, value in self.values.items()}

    @property
    def total(self) -> Tensor:
        """The weighted sum (scalar) that is minimised."""
        return torch.stack(list(self.weighted.values())).sum()

    def detached(self) -> "Summands":
        """The same numbers, without the graph and all the maps that it keeps in memory."""
        return replace(self, values={name: value.detach() for name, value in self.values.items()})

    def __or__(self, other: "Summands") -> "Summands":
        """The terms of both: what a step says that looked at a batch twice."""
        return Summands(self.values | other.values, self.weights | other.weights, self.notes | other.notes)

    @property
    def logged(self) -> dict[str, Tensor]:
        """The unweighted values, the total and the notes, detached."""
        named = {**self.values, "total": self.total, **self.notes}
        return {name: value.detach() for name, value in named.items()}


@dataclass(frozen=True)
class Objective:
    """The sum of terms that the sub-models minimise. A term whose weight is 0 is not computed."""

    terms: tuple[Term, ...]

    def active(self, progress: float) -> tuple[Term, ...]:
        return tuple(term for term in self.terms if term.schedule.at(progress) > 0)

    def stages(self, looks: int = 100) -> dict[tuple[str, ...], list[float]]:
        """Which terms are active together: their names, and at which of so many looks over the training they are."""
        stages: dict[tuple[str, ...], list[float]] = {}
        for place in range(looks):
            progress = (place + 0.5) / looks
            stages.setdefault(tuple(term.name for term in self.active(progress)), []).append(progress)
        return stages

    def needs(self, progress: float) -> Needs:
        """Union of what the active terms need."""
        needs = Needs.NOTHING
        for term in self.active(progress):
            needs |= term.needs
        return needs

    @cached_property
    def plain(self) -> "Objective":
        """The terms that look at the batch as it is."""
        return Objective(tuple(term for term in self.terms if term.sees == "batch"))

    @cached_property
    def on_views(self) -> "Objective":
        """The terms that look at strong views of it."""
        return Objective(tuple(term for term in self.terms if term.sees == "views"))

    def __call__(self, maps: StepMaps, progress: float) -> Summands:
        """Every active term on one batch, all of which look at the same images."""
        active = self.active(progress)
        assert len({term.sees for term in active}) <= 1, (
            "those on views have a look of their own, see `on_views`"
        )
        return Summands(
            values={term.name: term.loss(maps) for term in active},
            weights={term.name: term.schedule.at(progress) for term in active},
            notes={name: note for term in active if term.notes for name, note in term.notes(maps).items()},
        )
