"""The four dense losses as terms of the objective: each applies pure losses to the sub-models that learn by it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from segdistill.losses.adversarial import (
    Verdict,
    label_game_discriminator,
    label_game_generator,
    peer_game_discriminator,
    peer_game_generator,
)
from segdistill.losses.feature import affinity_distance, cosine_distance
from segdistill.losses.logit import (
    channel_distillation,
    logit_distillation,
    overlap_distillation,
    teacher_is_right,
)
from segdistill.losses.maps import Discriminator, JudgedMaps, StepMaps
from segdistill.losses.supervised import (
    balancing_weights,
    cross_entropy,
    dice_loss,
    jaccard_loss,
    votes_cross_entropy,
)
from segdistill.streams import PRIMARY

Game = Literal["label", "peer"]

_DISTILLATION: Mapping[str, Callable[..., Tensor]] = {
    "pixel": logit_distillation,
    "channel": channel_distillation,
    "overlap": overlap_distillation,
}


def mean_of(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(losses)).mean()


@cache
def _on_device(weights: tuple[float, ...], device: torch.device) -> Tensor:
    """Made once: to copy numbers to a GPU is to wait for all that it has still to do."""
    return torch.tensor(weights, device=device)


@dataclass(frozen=True)
class Supervised:
    """Cross-entropy plus weighted Dice and Jaccard with the labels.

    Attributes:
        class_weights: one per class, or None.
        label_smoothing: of the cross-entropy.
        dice_weight: of the Dice loss; 0 leaves it out.
        jaccard_weight: likewise.
        balance: how far the cross-entropy evens out the classes of a batch, see `balancing_weights`.
    """

    class_weights: tuple[float, ...] | None
    label_smoothing: float
    dice_weight: float
    jaccard_weight: float
    balance: float

    def primary(self, maps: StepMaps) -> Tensor:
        """The primary's loss at label resolution, where places have one label and no votes are needed."""
        loss = cross_entropy(
            maps.primary_logits,
            maps.labels,
            ignore_index=maps.ignore_index,
            class_weights=self._weights(maps),
            label_smoothing=self.label_smoothing,
        )
        return self._with_overlap(loss, maps.primary_logits, maps, stride=1)

    def branches(self, maps: StepMaps) -> Tensor:
        """The branches' mean loss, at their own resolution, with every label in the cell."""
        return mean_of([self._branch(logits, maps) for logits in maps.branch_logits.values()])

    def _branch(self, logits: Tensor, maps: StepMaps) -> Tensor:
        stride = maps.labels.shape[-2] // logits.shape[-2]
        loss = votes_cross_entropy(
            logits,
            maps.votes(stride),
            class_weights=self._weights(maps),
            label_smoothing=self.label_smoothing,
        )
        return self._with_overlap(loss, logits, maps, stride=stride)

    def _with_overlap(self, loss: Tensor, logits: Tensor, maps: StepMaps, *, stride: int) -> Tensor:
        """The loss with the overlap losses added; `stride` is the pixels per cell of the logits."""
        for weight, overlap in ((self.dice_weight, dice_loss), (self.jaccard_weight, jaccard_loss)):
            if weight:
                loss = loss + weight * overlap(logits, maps.votes(stride))
        return loss

    def _weights(self, maps: StepMaps) -> Tensor | None:
        """The classes' weights (C,), or None if every pixel counts the same."""
        given = (
            None if self.class_weights is None else _on_device(self.class_weights, maps.primary_logits.device)
        )
        if not self.balance:
            return given
        balanced = balancing_weights(maps.votes(maps.grid_stride), power=self.balance)
        return balanced if given is None else balanced * given


@dataclass(frozen=True)
class LogitDistillation:
    """Sub-models learn from a teacher's softened logits on the grid.

        loss of the primary + mean over branches of theirs,   of those that learn

    The primary counts as much as all branches together, as in the supervised loss: it is what is deployed.

    Attributes:
        kind: `pixel`, a divergence between classes at every place; `channel`, one between places for
            every class; or `overlap`, the Jaccard distance of every class. In the last two a rare class
            weighs as much as a frequent one.
        teacher: `others` (mean logits of all sub-models but the student), `ensemble` (of all), or `primary`,
            which then learns nothing here.
        students: `all` sub-models, only the `primary` or only the `branches`.
        temperature: T > 0.
        label_gate: learn only where the teacher's most likely class is the label.
    """

    kind: Literal["pixel", "channel", "overlap"]
    teacher: Literal["others", "ensemble", "primary"]
    students: Literal["all", "primary", "branches"]
    temperature: float
    label_gate: bool

    def __call__(self, maps: StepMaps) -> Tensor:
        primary = [self._loss(PRIMARY, maps)] if self._learns(PRIMARY) else []
        branches = [self._loss(name, maps) for name in maps.branch_logits if self._learns(name)]
        return torch.stack([mean_of(losses) for losses in (primary, branches) if losses]).sum()

    def notes(self, maps: StepMaps) -> dict[str, Tensor]:
        """`teacher_right`: share of valid cells in which a student's teacher agrees with the label, what the
        gate lets pass; a mean over the students."""
        valid = (maps.grid_labels != maps.ignore_index).sum().clamp_min(1)
        students = [name for name in maps.grid_logits if self._learns(name)]
        right = [teacher_is_right(self._teacher_of(name, maps), maps.grid_labels).sum() for name in students]
        return {"teacher_right": torch.stack(right).float().mean() / valid}

    def _learns(self, name: str) -> bool:
        if name == PRIMARY:
            return self.students != "branches" and self.teacher != "primary"
        return self.students != "primary"

    def _loss(self, name: str, maps: StepMaps) -> Tensor:
        teacher = self._teacher_of(name, maps)
        gate = teacher_is_right(teacher, maps.grid_labels) if self.label_gate else None
        return _DISTILLATION[self.kind](
            maps.grid_logits[name],
            teacher,
            maps.grid_labels,
            temperature=self.temperature,
            ignore_index=maps.ignore_index,
            gate=gate,
        )

    def _teacher_of(self, name: str, maps: StepMaps) -> Tensor:
        match self.teacher:
            case "primary":
                teachers = [PRIMARY]
            case "ensemble":
                teachers = list(maps.grid_logits)
            case "others":
                teachers = [other for other in maps.grid_logits if other != name]
        return maps.mean_logits(teachers)


@dataclass(frozen=True)
class FeatureSimilarity:
    """The primary's decoder learns to predict the branches' features, which do not move.

    A hint (FitNets, Romero et al., arXiv:1412.6550, eq. 3) from branches to primary. When every sub-model
    moved toward the mean feature of all instead, their adapters agreed within a few epochs and the term had
    nothing more to teach.

    Attributes:
        kind: `cosine` per cell, or `affinity` between all cells of a pooled grid.
        pool: cells of the grid per cell of the pooled one, in each direction (affinity only).
    """

    kind: Literal["cosine", "affinity"]
    pool: int

    def __call__(self, maps: StepMaps) -> Tensor:
        predicted = maps.features[PRIMARY]
        branches = [maps.features[name] for name in maps.branch_logits]
        match self.kind:
            case "cosine":
                return cosine_distance(
                    predicted, torch.cat(branches, 1), maps.feature_labels, ignore_index=maps.ignore_index
                )
            case "affinity":
                return affinity_distance(
                    predicted, branches, maps.feature_labels, ignore_index=maps.ignore_index, pool=self.pool
                )


@dataclass(frozen=True)
class Adversarial:
    """One game against the discriminator, both sides.

    Attributes:
        game: `label` (ground truth or softmax map?) or `peer` (which sub-model?).
        real_smoothing: of the one-hot maps in the label game.
        discriminator: the opponent; frozen while the sub-models learn.
    """

    game: Game
    real_smoothing: float
    discriminator: Discriminator

    def __call__(self, maps: StepMaps) -> Tensor:
        """The loss of the sub-models' side."""
        judged = maps.judged
        generator: Callable[..., Tensor] = (
            label_game_generator if self.game == "label" else peer_game_generator
        )
        judgement = judged.judge(self.discriminator, judged.probs)
        return generator(judgement, judged.targets, ignore_index=judged.ignore_index)

    def opponent(self, judged: JudgedMaps) -> Verdict:
        """The discriminator's side; no gradient reaches the sub-models."""
        fake = judged.probs.detach()
        match self.game:
            case "peer":
                judgement = judged.judge(self.discriminator, fake)
                return peer_game_discriminator(judgement, judged.targets, ignore_index=judged.ignore_index)
            case "label":
                real = judged.real_probs(smoothing=self.real_smoothing)
                judgement = judged.judge(self.discriminator, torch.cat([real, fake]))
                return label_game_discriminator(
                    judgement[: len(real)],
                    judgement[len(real) :],
                    judged.labels,
                    judged.targets,
                    ignore_index=judged.ignore_index,
                )
