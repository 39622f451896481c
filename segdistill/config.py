"""Every knob of a run, typed and with its unit and range. Nothing here builds anything; `build/` does."""

import difflib
import itertools
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from segdistill.config_data import DataConfig
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
from segdistill.files import expanded

Architecture = Literal[
    "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet",
    "deeplabv3", "deeplabv3plus", "pan", "upernet", "segformer", "dpt",
]  # fmt: skip
MethodKind = Literal["baseline", "reparam", "deep_supervision", "self_distill"]
#: Kinds that train branches, and kinds that may have parallel convolutions.
_BRANCHING = ("deep_supervision", "self_distill")
_MERGING = ("reparam", "self_distill")
#: How the names of files with weights end: of safetensors, and of what torch.save writes.
_WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")


class ModelConfig(Section):
    arch: Annotated[Architecture, BeforeValidator(lambda v: v.lower() if isinstance(v, str) else v)] = "unet"
    encoder: Text = "tu-tf_efficientnet_lite0"
    # bundled: ImageNet weights from the package index (tu-tf_efficientnet_lite0 only); imagenet: what smp
    # and timm download; none (or null, as in smp): random; or the path of a file with the encoder's tensors
    encoder_weights: Annotated[Text, BeforeValidator(lambda v: "none" if v is None else v)] = "bundled"
    # path of a file with the tensors of the whole network, in place of encoder_weights: a run's primary.safetensors, or
    # what torch.save or Lightning made of an smp model; null: decoder and head begin at random
    weights: Annotated[Text | None, Field(examples=["runs/before/primary.safetensors"])] = None
    new_head: Bool = False  # with weights of other classes: the head begins at random
    # further keyword arguments of the smp class
    options: dict[str, Any] = Field(
        default_factory=dict, examples=[{"decoder_channels": [256, 128, 64, 32, 16]}]
    )

    @field_validator("encoder_weights")
    @classmethod
    def _known_weights(cls, weights: str) -> str:
        if weights not in ("bundled", "imagenet", "none") and not weights.endswith(_WEIGHT_FILES):
            raise ValueError(
                f"use 'bundled', 'imagenet', 'none' or the path of a file ({', '.join(_WEIGHT_FILES)})"
            )
        return weights

    @field_validator("weights")
    @classmethod
    def _a_weight_file(cls, path: str | None) -> str | None:
        if path is not None and not path.endswith(_WEIGHT_FILES):
            raise ValueError(f"use null or the path of a file ({', '.join(_WEIGHT_FILES)})")
        return path

    @property
    def unused(self) -> tuple[str, ...]:
        return ("new_head",) if self.weights is None else ("encoder_weights",)


Ramp = tuple[tuple[Share, NonNegative], ...]


def _rising(ramp: Ramp) -> Ramp:
    places = [progress for progress, _ in ramp]
    if not ramp or any(a >= b for a, b in itertools.pairwise(places)):
        raise ValueError(
            "a ramp is a list of [progress 0..1, factor] with progress rising, e.g. [[0, 0], [0.1, 1]]"
        )
    return ramp


class Weighted(Section):
    """A weight times a piecewise linear factor over the training.

    The sub-models learn from labels alone first: in the trials so far, primaries that were taught earlier ended
    lower (configs/EXPERIMENTS.md).
    """

    weight: NonNegative
    ramp: Ramp = ((0.7, 0.0), (0.75, 1.0))  # [progress 0..1, factor] points

    _check_ramp = field_validator("ramp")(_rising)

    @field_validator("ramp")
    @classmethod
    def _has_an_effect(cls, ramp: Ramp, info: ValidationInfo) -> Ramp:
        if info.data.get("weight") and not any(factor for _, factor in ramp):
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
    weight: NonNegative = 4.0
    # divergence between classes, divergence between places by class, or Jaccard distance by class
    kind: Literal["pixel", "channel", "overlap"] = "pixel"
    teacher: Literal["others", "ensemble", "primary"] = "others"  # all sub-models but the student, or all
    students: Literal["all", "primary", "branches"] = "primary"
    temperature: PositiveFloat = 1.0
    label_gate: Bool = False  # learn only where the teacher is right
    views: ViewsConfig = ViewsConfig()

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
        from_labels = labels.branch_weight > 0 and any(factor for _, factor in labels.branch_ramp)
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


class OptimizerConfig(Section):
    kind: Literal["adamw", "sgd"] = "adamw"
    lr: PositiveFloat = 1e-3  # peak, of decoder, head and branches
    encoder_lr_scale: PositiveFloat = 1.0  # the encoder's lr is this times lr
    weight_decay: NonNegative = 1e-2  # not on biases and normalisation
    momentum: Share = 0.9  # sgd only; Nesterov's

    @property
    def unused(self) -> tuple[str, ...]:
        return () if self.kind == "sgd" else ("momentum",)


class ScheduleConfig(Section):
    kind: Literal["one_cycle", "cosine", "poly"] = "one_cycle"
    warmup: Annotated[Float, Field(ge=0, lt=1)] = 0.1  # share of all steps in which the lr rises
    power: PositiveFloat = 0.9  # poly only

    @property
    def unused(self) -> tuple[str, ...]:
        return () if self.kind == "poly" else ("power",)


class TrainConfig(Section):
    epochs: PositiveInt = 80
    batch_size: PositiveInt = 8  # images per step over all devices, before accumulation
    accumulate: PositiveInt = (
        1  # batches per optimiser step; each weighs the same, however much of it is labelled
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    # Largest gradient norm, of the primary and of the branches each by itself; null: no clipping.
    clip_norm: PositiveFloat | None = 5.0
    ema_decay: Annotated[Float, Field(gt=0, lt=1)] | None = (
        None  # per step, less in the first ones; then the average is what is scored and deployed
    )
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    # Processes. auto: what torchrun or Slurm has started; else one on a CPU, or as many GPUs as share a batch out
    # evenly, two images or more to each.
    devices: PositiveInt | Literal["auto"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    channels_last: Bool = True  # 1.3 to 1.5 times faster on CPU
    eval_every: PositiveInt = 1  # epochs between evaluations; the last epoch is always evaluated
    log_every: PositiveInt = 10  # steps between looks at the losses; the device runs ahead in between
    # Epochs between looks at the gradient of every loss term at the shared encoder (a backward pass for
    # each term, in one step); null: never. Only in 32-true precision, and if there
    # are several terms.
    diagnose_every: PositiveInt | None = 5
    checkpoint_minutes: PositiveFloat = 5.0  # time between `last` checkpoints inside an epoch
    # whose checkpoints stay, in checkpoints/epoch<N>/
    keep_epochs: Annotated[tuple[PositiveInt, ...], Field(examples=[[20, 40]])] = ()
    resume: Bool = False  # as --resume

    @model_validator(mode="after")
    def _kept_epochs_exist(self) -> "TrainConfig":
        if late := [epoch for epoch in self.keep_epochs if epoch > self.epochs]:
            raise ValueError(f"train.keep_epochs: there is no epoch {late[0]} in a training of {self.epochs}")
        return self

    @model_validator(mode="after")
    def _even_shares(self) -> "TrainConfig":
        if self.devices != "auto":
            self.refuse_uneven_shares(self.devices)
        return self

    def refuse_uneven_shares(self, processes: int) -> None:
        """Raises ValueError, with the way out, if a batch cannot be shared out evenly to so many processes."""
        if self.batch_size % processes:
            raise ValueError(
                f"train.batch_size={self.batch_size} cannot be shared out evenly to {processes} processes; "
                f"use a multiple, e.g. {math.ceil(self.batch_size / processes) * processes}, or other train.devices"
            )

    def most_processes(self, available: int) -> int:
        """How many of the available devices share a batch out evenly, with two images or more for each: the batch
        norm of one image knows nothing of the others."""
        shares = (count for count in range(2, available + 1) if self.batch_size % count == 0)
        return max((count for count in shares if self.batch_size >= 2 * count), default=1)


class ExportConfig(Section):
    weights: Literal["last", "best"] = "last"  # best: the epoch with the highest val mIoU of the primary
    opset: Annotated[Int, Field(ge=18)] = 18


class Config(Section):
    name: Annotated[Text, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[Int, Field(ge=0)] = 0
    out: Path | None = None  # run folder; null: runs/<name>
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    method: MethodConfig = MethodConfig()
    train: TrainConfig = TrainConfig()
    export: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _bundled_is_lite0(self) -> "Config":
        model = self.model
        bundled = model.weights is None and model.encoder_weights == "bundled"
        if bundled and model.encoder != "tu-tf_efficientnet_lite0":
            raise ValueError(
                f"model.encoder_weights='bundled' exists for tu-tf_efficientnet_lite0 only, and model.encoder is "
                f"{model.encoder!r}; use model.encoder_weights=imagenet (download) or none"
            )
        return self

    @model_validator(mode="after")
    def _known_encoder(self) -> "Config":
        """The last of all, for it takes seconds of imports to know the names: other mistakes are told at once."""
        import segmentation_models_pytorch as smp
        import timm

        encoder = self.model.encoder
        names = smp.encoders.get_encoder_names()
        known = encoder in names
        if encoder.startswith("tu-"):
            names = ["tu-" + name for name in timm.list_models()]
            known = timm.is_model(encoder.removeprefix("tu-"))
        if not known:
            close = difflib.get_close_matches(encoder, names, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(
                f"model.encoder = {encoder!r}: there is no such encoder; {hint}smp's own encoders and 'tu-' + any "
                "timm model are known"
            )
        return self

    @property
    def run_folder(self) -> Path:
        return expanded(self.out) if self.out is not None else Path("runs") / self.name
