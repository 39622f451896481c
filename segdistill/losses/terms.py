"""The four dense losses as terms of the objective: each applies a pure loss to all sub-models and averages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from segdistill.losses.feature import affinity_distance, cosine_distance, mean_direction
from segdistill.losses.logit import ensemble_logits, logit_distillation, teacher_is_right
from segdistill.losses.maps import Discriminator, StepMaps
from segdistill.losses.supervised import cross_entropy, dice_loss, votes_cross_entropy

Game = Literal["label", "peer"]


def mean_of(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(losses)).mean()


@dataclass(frozen=True)
class Supervised:
    """Cross-entropy plus weighted Dice with the labels.

    Attributes:
        class_weights: one per class, or None.
        label_smoothing: of the cross-entropy.
        dice_weight: of the Dice loss; 0 leaves it out.
    """

    class_weights: tuple[float, ...] | None
    label_smoothing: float
    dice_weight: float

    def primary(self, maps: StepMaps) -> Tensor:
        """At label resolution."""
        logits = maps.primary_logits
        loss = cross_entropy(
            logits,
            maps.labels,
            ignore_index=maps.ignore_index,
            class_weights=self._weights(logits),
            label_smoothing=self.label_smoothing,
        )
        return loss + self.dice_weight * dice_loss(logits, maps.votes(1)) if self.dice_weight else loss

    def branches(self, maps: StepMaps) -> Tensor:
        """At the branches' own resolution, with every label in the cell."""
        return mean_of([self._branch(logits, maps) for logits in maps.branch_logits.values()])

    def _branch(self, logits: Tensor, maps: StepMaps) -> Tensor:
        votes = maps.votes(maps.labels.shape[-2] // logits.shape[-2])
        loss = votes_cross_entropy(
            logits, votes, class_weights=self._weights(logits), label_smoothing=self.label_smoothing
        )
        return loss + self.dice_weight * dice_loss(logits, votes) if self.dice_weight else loss

    def _weights(self, logits: Tensor) -> Tensor | None:
        return None if self.class_weights is None else logits.new_tensor(self.class_weights)


@dataclass(frozen=True)
class LogitDistillation:
    """Sub-models learn from a teacher's softened logits on the grid.

    Attributes:
        teacher: `ensemble` (mean logits of all sub-models) or `primary`, which then learns nothing here.
        students: `all` sub-models or only the `branches`.
        temperature: T > 0.
        label_gate: learn only where the teacher's most likely class is the label.
    """

    teacher: Literal["ensemble", "primary"]
    students: Literal["all", "branches"]
    temperature: float
    label_gate: bool

    def __call__(self, maps: StepMaps) -> Tensor:
        logits = maps.grid_logits
        primary = logits[maps.primary_name]
        match self.teacher:
            case "ensemble":
                teacher = ensemble_logits(list(logits.values()))
            case "primary":
                teacher = primary.detach()
        target = maps.grid_labels
        learns = self.students == "all" and self.teacher != "primary"
        return mean_of(
            [
                logit_distillation(
                    student,
                    teacher,
                    target,
                    temperature=self.temperature,
                    ignore_index=maps.ignore_index,
                    gate=teacher_is_right(teacher, target) if self.label_gate else None,
                )
                for name, student in logits.items()
                if learns or name != maps.primary_name
            ]
        )


@dataclass(frozen=True)
class FeatureSimilarity:
    """Sub-models' adapted features move toward the ensemble's.

    Attributes:
        kind: `cosine` per cell, or `affinity` between all cells of a pooled grid.
        pool: cells of the grid per cell of the pooled one, in each direction (affinity only).
    """

    kind: Literal["cosine", "affinity"]
    pool: int

    def __call__(self, maps: StepMaps) -> Tensor:
        features = list(maps.features.values())
        target = maps.feature_labels
        match self.kind:
            case "cosine":
                ensemble = mean_direction(features)
                return mean_of(
                    [cosine_distance(h, ensemble, target, ignore_index=maps.ignore_index) for h in features]
                )
            case "affinity":
                return mean_of(
                    [
                        affinity_distance(h, features, target, ignore_index=maps.ignore_index, pool=self.pool)
                        for h in features
                    ]
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
        """The sub-models' side."""
        judgement = maps.judge(self.discriminator, maps.submodel_probs)
        generator: Callable[..., Tensor] = (
            label_game_generator if self.game == "label" else peer_game_generator
        )
        return generator(judgement, maps.submodel_targets, ignore_index=maps.ignore_index)

    def opponent(self, maps: StepMaps) -> Verdict:
        """The discriminator's side; no gradient reaches the sub-models."""
        fake = maps.submodel_probs.detach()
        targets = maps.submodel_targets
        match self.game:
            case "peer":
                judgement = maps.judge(self.discriminator, fake)
                return peer_game_discriminator(judgement, targets, ignore_index=maps.ignore_index)
            case "label":
                real = maps.real_probs(smoothing=self.real_smoothing)
                judgement = maps.judge(self.discriminator, torch.cat([real, fake]))
                return label_game_discriminator(
                    judgement[: len(real)],
                    judgement[len(real) :],
                    maps.grid_labels,
                    targets,
                    ignore_index=maps.ignore_index,
                )
