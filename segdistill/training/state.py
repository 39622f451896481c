"""Everything a run is made of and everything that changes while it goes on."""

from dataclasses import dataclass, field
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from segdistill.data.views import StrongViews
from segdistill.losses.objective import Objective
from segdistill.losses.terms import Adversarial
from segdistill.models.multi_branch import MultiBranchNet
from segdistill.normalisation import Normalisation
from segdistill.training.ema import Ema

#: The learner's key in a checkpoint.
LEARNER_KEY = "learner"


@dataclass
class Player:
    """A network, its optimiser and its learning rate."""

    module: _FabricModule  # as Fabric set it up
    optimizer: Optimizer
    scheduler: LRScheduler | None

    def follow_schedule(self, step: int) -> None:
        """Take the learning rate of this step; to be called for every step in turn.

        Before the step and not after it, so that a checkpoint holds the rate of the last one.

        Args:
            step: counted from 0.
        """
        if self.scheduler and self.scheduler.last_epoch < step:
            self.scheduler.step()
            assert self.scheduler.last_epoch == step, "no step is left out"

    def state_dict(self) -> dict[str, Any]:
        """Of tensors and primitives. Where torch numbers the parameters, `moments` has their names: so networks that
        share a part share what is known of it."""
        names, saved = self._optimised(), self.optimizer.state_dict()
        return {
            "module": self.module.state_dict(),
            "moments": {names[place]: moments for place, moments in saved["state"].items()},
            "rates": [_without_parameters(group) for group in saved["param_groups"]],
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; moments may be lacking of parameters that had no gradient by then."""
        self.module.load_state_dict(state["module"])
        places = {name: place for place, name in enumerate(self._optimised())}
        groups = zip(self.optimizer.state_dict()["param_groups"], state["rates"], strict=True)
        self.optimizer.load_state_dict(
            {
                "state": {places[name]: moments for name, moments in state["moments"].items()},
                "param_groups": [own | rates for own, rates in groups],
            }
        )
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])

    def _optimised(self) -> list[str]:
        """Names of the parameters in the order in which the optimiser counts them."""
        names = {parameter: name for name, parameter in self.module.module.named_parameters()}
        return [names[one] for group in self.optimizer.param_groups for one in group["params"]]


def _without_parameters(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}


@dataclass
class Opponent(Player):
    """The discriminator, and the game that it plays against the sub-models."""

    game: Adversarial


@dataclass
class Position:
    """Where a run stands: what a resumed run needs beside tensors."""

    epoch: int = 0
    batch: int = 0  # of this epoch, the next one to be seen
    step: int = 0  # optimiser steps done
    seconds: float = 0.0  # spent in training steps so far
    memory_bytes: int | None = None  # peak, over all processes in turn that trained this run
    best_miou: float | None = None  # of the primary, on val
    best_epoch: int | None = None
    first_weights: str | None = None  # SHA-256 of the file they came from, if they did
    normalisation: Normalisation | None = None  # of the images it learns from; None until it goes on
    data_hash: str | None = None  # of what it learns from; likewise
    programs: list[dict[str, str]] = field(
        default_factory=list
    )  # versions of those that trained it, in their order
    devices: list[str] = field(default_factory=list)  # on which it was trained, likewise: `4 x cuda`

    def state_dict(self) -> dict[str, Any]:
        """Of primitives alone, as checkpoints have to be."""
        return vars(self) | {"normalisation": self.normalisation and tuple(self.normalisation)}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "Position":
        known = state["normalisation"]
        return cls(**state | {"normalisation": known and Normalisation(*known)})

    def step_done(self, *, batches: int) -> None:
        """Go on to the step after one of so many batches."""
        self.step += 1
        self.batch += batches

    def epoch_done(self, *, memory_bytes: int | None) -> None:
        """Go on to the next epoch; `memory_bytes` is the peak so far, None if it is not known."""
        self.epoch += 1
        self.batch = 0
        if memory_bytes is not None:
            self.memory_bytes = max(self.memory_bytes or 0, memory_bytes)

    def note_best(self, miou: float) -> bool:
        """Remember the epoch just done if no earlier one scored higher; NaN never does."""
        if miou > (self.best_miou if self.best_miou is not None else -1.0):
            self.best_miou, self.best_epoch = miou, self.epoch
            return True
        return False


@dataclass
class TermSums:
    """Sums of the logged values over the current epoch, by name."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, values: dict[str, float]) -> None:
        """The newest step's names come first, in its order: terms may join or leave during an epoch."""
        sums = {name: self.sums.get(name, 0.0) + value for name, value in values.items()}
        counts = {name: self.counts.get(name, 0) + 1 for name in values}
        self.sums = sums | {name: value for name, value in self.sums.items() if name not in sums}
        self.counts = counts | {name: value for name, value in self.counts.items() if name not in counts}

    def means(self) -> dict[str, float]:
        return {name: total / self.counts[name] for name, total in self.sums.items()}


@dataclass
class TrainState:
    """One training run.

    Attributes:
        learner: the player that all sub-models are; its primary becomes the product.
        opponent: the discriminator, or None if the adversarial loss has no weight.
        views: what a batch looks like to the terms that want strong views of it.
        ema: running average of the learner's network, or None.
        position: see `Position`.
        epoch_terms: the current epoch's logged values.
    """

    fabric: Fabric
    net: MultiBranchNet  # the learner's network without Fabric's wrapper
    learner: Player
    opponent: Opponent | None
    objective: Objective
    views: StrongViews
    ema: Ema | None
    position: Position = field(default_factory=Position)
    epoch_terms: TermSums = field(default_factory=TermSums)

    @property
    def scored_net(self) -> MultiBranchNet:
        """The network that is evaluated and deployed: the running average if there is one."""
        return self.net if self.ema is None else self.ema.average

    def state_dict(self) -> dict[str, Any]:
        """Tensors and primitives only, so that `weights_only=True` loads it.

        There is no random state: dropout and views are seeded anew at every step from (seed, step, process), and order
        and augmentation are functions of the position.
        """
        return {
            LEARNER_KEY: self.learner.state_dict(),
            "discriminator": self.opponent.state_dict() if self.opponent else None,
            "ema": self.ema.average.state_dict() if self.ema else None,
            "position": self.position.state_dict(),
            "epoch_terms": {"sums": dict(self.epoch_terms.sums), "counts": dict(self.epoch_terms.counts)},
        }

    def take_over(self, saved: dict[str, Any]) -> None:
        """Go on from a run that lacks parts of this one: its feature adapters, its discriminator.

        These stay as they are, as if they had been there all the time without a loss of their own: an optimiser
        leaves alone what has no gradient.

        Args:
            saved: `state_dict()` of the other run.
        """
        ours, theirs = self.state_dict(), saved[LEARNER_KEY]
        ours[LEARNER_KEY] = theirs | {"module": ours[LEARNER_KEY]["module"] | theirs["module"]}
        if self.ema:
            ours["ema"] |= saved["ema"]
        self.load_state_dict(ours | {key: saved[key] for key in ("position", "epoch_terms")})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the same run's `state_dict()`; for another run's see `take_over`."""
        self.learner.load_state_dict(state[LEARNER_KEY])
        if self.opponent:
            self.opponent.load_state_dict(state["discriminator"])
        if self.ema:
            self.ema.average.load_state_dict(state["ema"])
        self.position = Position.from_state_dict(state["position"])
        self.epoch_terms = TermSums(**state["epoch_terms"])
