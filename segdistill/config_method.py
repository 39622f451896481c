"""How the net learns: which sub-models there are, and the losses with their weights over the training."""

import itertools
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from segdistill.config_types import (
    Bool,
    Float,
    Int,
    NonNegative,
    PositiveFloat,
    PositiveInt,
    Scales,
    Section,
    Share,
    Text,
)

MethodKind = Literal["baseline", "reparam", "deep_supervision", "self_distill"]
#: Kinds that train branches, and kinds that may have parallel convolutions.
_BRANCHING = ("deep_supervision", "self_distill")
_MERGING = ("reparam", "self_distill")

Ramp = tuple[tuple[Share, NonNegative], ...]


def _rising(ramp: Ramp) -> Ramp:
    places = [progress for progress, _ in ramp]
    if not ramp or any(a >= b for a, b in itertools.pairwise(places)):
        raise ValueError(
            "a ramp is a list of [progress 0..1, factor] with progress rising, e.g. [[0, 0], [0.1, 1]]"
        )
    return ramp


def is_silent(ramp: Ramp) -> bool:
    return not any(factor for _, factor in ramp)


class Weighted(Section):
    """A weight times a piecewise linear factor over the training.

    The sub-models learn from labels alone first: in the trials so far, primaries that were taught earlier ended
    lower (configs/EXPERIMENTS.md).
    """

    scales_more: ClassVar[bool] = False  # whether the weight is also a factor of another one

    weight: NonNegative
    ramp: Ramp = ((0.7, 0.0), (0.75, 1.0))  # [progress 0..1, factor] points

    _check_ramp = field_validator("ramp")(_rising)

    @field_validator("ramp")
    @classmethod
    def _has_an_effect(cls, ramp: Ramp, info: ValidationInfo) -> Ramp:
        if info.data.get("weight") and is_silent(ramp) and not cls.scales_more:
            raise ValueError("is 0 throughout, so that the weight has no effect; set the weight to 0 instead")
        return ramp


class BranchesConfig(Section):
    taps: tuple[Int | Text, ...] = (3, 4, 5)  # encoder depths (stride 2^depth) or dotted module paths
    stride: Literal[2, 4] = 2  # pixels per cell of the branches' logits
    width: PositiveInt = 32  # channels there; twice as many an octave further down, at most four times
    dropout: Annotated[Float, Field(ge=0, lt=1)] = 0.0  # of the last feature map's channels, in training
    encoder_gradient: Share = 1.0  # factor on the gradient from branches into the primary stream

    @field_validator("taps")
    @classmethod
    def _distinct(cls, taps: tuple[int | str, ...]) -> tuple[int | str, ...]:
        if not taps or len(set(taps)) < len(taps):
            raise ValueError(
                "at least one tap, each once; for a net without branches use method.kind=baseline"
            )
        return taps


class ReparamConfig(Section):
    """Convolutions beside every convolution of the primary that a batch norm follows: further ones of the same size,
    one of 1x1, and its input, each normalised. They are merged into it when the primary is deployed.
    """

    # Number of extra same-size convolutions beside each conv+BN; 0 turns parallel convolutions off.
    copies: Annotated[Int, Field(ge=0)] = 0


class SupervisedConfig(Section):
    # one per class, of the cross-entropy
    class_weights: Annotated[tuple[PositiveFloat, ...] | None, Field(examples=[[0.5, 1.2, 3.0]])] = None
    label_smoothing: Annotated[Float, Field(ge=0, lt=1)] = 0.0  # of the cross-entropy
    balance: Share = 0.0  # of the cross-entropy; 0: all pixels weigh the same, 1: all classes of a batch do
    dice_weight: NonNegative = 1.0  # rare classes: +6 mIoU for the baseline in a first trial on CamVid
    # beside Dice; 1: +0.2 mIoU for the baseline in the mean of four trials, within noise (EXPERIMENTS.md)
    jaccard_weight: NonNegative = 0.0
    branch_weight: NonNegative = 1.0  # the primary's own weight is 1
    branch_ramp: Ramp = ((0.0, 1.0),)

    _check_ramp = field_validator("branch_ramp")(_rising)

    @property
    def unused(self) -> tuple[str, ...]:
        return () if self.branch_weight else ("branch_ramp",)


class ViewsConfig(Weighted):
    """Views of the same images that go far beyond `data.augment`. What `method.logit` says is taught there once more,
    on a ramp of its own: a network that does not fit its images yet loses by it (configs/EXPERIMENTS.md).
    """

    weight: NonNegative = 0.0  # as a multiple of method.logit.weight; 0: no views
    flip: Share = 0.5  # share of the images that are mirrored
    rotate: Annotated[Float, Field(ge=0, le=180)] = 20.0  # degrees at most, either way
    scale: Scales = (0.6, 2.0)  # of what the labelled image shows
    gamma: Annotated[Float, Field(ge=1)] = 2.0  # brightness: the exponent is between 1 / gamma and gamma
    gain: Share = 0.25  # half-range of the factor on each colour
    paste: Share = 0.5  # share of the images into which two rectangles of another one are pasted


class LogitConfig(Weighted):
    scales_more: ClassVar[bool] = True  # with a ramp of 0, views alone teach

    weight: NonNegative = 4.0
    # divergence between classes, divergence between places by class, or Jaccard distance by class
    kind: Literal["pixel", "channel", "overlap"] = "pixel"
    teacher: Literal["others", "ensemble", "primary"] = "others"  # all sub-models but the student, or all
    students: Literal["all", "primary", "branches"] = "primary"
    temperature: PositiveFloat = 1.0
    label_gate: Bool = False  # learn only where the teacher is right
    views: ViewsConfig = ViewsConfig()

    @model_validator(mode="after")
    def _something_is_looked_at(self) -> "LogitConfig":
        if self.weight and is_silent(self.ramp) and not self.views.weight:
            raise ValueError(
                "method.logit.ramp is 0 throughout, so that method.logit.weight has no effect; set the weight to 0 "
                "instead, or give method.logit.views a weight"
            )
        return self

    @model_validator(mode="after")
    def _somebody_learns(self) -> "LogitConfig":
        if self.teacher == "primary" and self.students == "primary":
            raise ValueError(
                "method.logit: teacher and students are both 'primary'; let the 'branches' learn"
            )
        return self


class FeatureConfig(Weighted):
    weight: NonNegative = 0.1
    kind: Literal["cosine", "affinity"] = "cosine"
    stride: Literal[4, 8, 16] = 8  # pixels per cell where features are compared
    pool: Literal[1, 2] = 2  # affinity only: cells per pooled cell, each way

    @property
    def unused(self) -> tuple[str, ...]:
        return () if self.kind == "affinity" else ("pool",)


class AdversarialConfig(Weighted):
    weight: NonNegative = 0.01
    game: Literal["label", "peer"] = "label"
    width: PositiveInt = 32  # channels of the discriminator
    lr: PositiveFloat = 2e-4  # of the discriminator's Adam; follows no schedule
    real_smoothing: Annotated[Float, Field(ge=0, lt=1)] = 0.1  # label game: 1 of the one-hot becomes 1 - this

    @property
    def unused(self) -> tuple[str, ...]:
        return () if self.game == "label" else ("real_smoothing",)


class MethodConfig(Section):
    """How the net learns. `kind` is the master switch: `baseline` is plain training, `reparam` adds parallel
    convolutions alone, `deep_supervision` branches alone, which learn the labels, `self_distill` does all there is;
    sections a kind does not use have no effect.
    """

    kind: MethodKind = "self_distill"
    reparam: ReparamConfig = ReparamConfig()
    branches: BranchesConfig = BranchesConfig()
    supervised: SupervisedConfig = SupervisedConfig()
    logit: LogitConfig = LogitConfig()
    feature: FeatureConfig = FeatureConfig()
    adversarial: AdversarialConfig = AdversarialConfig()
    grid_stride: Literal[2, 4, 8] = 2  # pixels per cell where logits are compared and judged

    @model_validator(mode="after")
    def _branches_are_as_fine_as_the_grid(self) -> "MethodConfig":
        if self.grid_stride < self.branches.stride and self.distils:
            raise ValueError(
                f"method.grid_stride is {self.grid_stride}, finer than the branches' logits; set it to "
                f"method.branches.stride ({self.branches.stride}) or more"
            )
        return self

    @model_validator(mode="after")
    def _branches_learn(self) -> "MethodConfig":
        """They are there to be learnt with or from."""
        labels, logit = self.supervised, self.logit
        from_labels = labels.branch_weight > 0 and not is_silent(labels.branch_ramp)
        from_others = self.distils and logit.weight > 0 and logit.students != "primary"
        if self.has_branches and not (from_labels or from_others):
            silent = "branch_weight" if not labels.branch_weight else "branch_ramp"
            raise ValueError(
                f"method.supervised.{silent} is 0, so the branches of method.kind={self.kind} learn nothing, and "
                "nothing can be learnt from them; give them a weight, or set method.kind=baseline"
            )
        return self

    @model_validator(mode="after")
    def _something_is_parallel(self) -> "MethodConfig":
        if self.kind == "reparam" and not self.reparam.copies:
            raise ValueError(
                "method.kind=reparam would be plain training while method.reparam.copies is 0; set it to 1 or more"
            )
        return self

    @property
    def has_branches(self) -> bool:
        return self.kind in _BRANCHING

    @property
    def distils(self) -> bool:
        return self.kind == "self_distill"

    @property
    def copies(self) -> int:
        """`reparam.copies`, as far as this kind has any."""
        return self.reparam.copies if self.kind in _MERGING else 0

    @property
    def unused(self) -> tuple[str, ...]:
        terms = {name: getattr(self, name).weight for name in ("logit", "feature", "adversarial")}
        silent = [name for name, weight in terms.items() if not (self.distils and weight)]
        shared = [] if self.distils and (self.logit.weight or self.adversarial.weight) else ["grid_stride"]
        unseen = [] if self.logit.views.weight else ["logit.views"]
        unmerged = [] if self.kind in _MERGING else ["reparam"]
        of_branches = (
            []
            if self.has_branches
            else ["branches", *(f"supervised.branch_{key}" for key in ("weight", "ramp"))]
        )
        return (*silent, *unseen, *shared, *unmerged, *of_branches)
