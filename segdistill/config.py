"""Every knob of a run, typed and with its unit and range. Nothing here builds anything; `build/` does."""

import difflib
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from segdistill.config_data import DataConfig
from segdistill.config_method import MethodConfig
from segdistill.config_types import (
    Bool,
    Float,
    Int,
    NonNegative,
    PositiveFloat,
    PositiveInt,
    Section,
    Share,
    Text,
)
from segdistill.files import expanded

Architecture = Literal[
    "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet",
    "deeplabv3", "deeplabv3plus", "pan", "upernet", "segformer", "dpt",
]  # fmt: skip
#: How the names of files with weights end: of safetensors, and of what torch.save writes.
_WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
_NO_FILES = ("bundled", "imagenet", "none")


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
        if weights not in _NO_FILES and not weights.endswith(_WEIGHT_FILES):
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

    @property
    def files(self) -> dict[str, str]:
        """Key -> path of the files with weights that are named, without effect or not."""
        named = {"weights": self.weights, "encoder_weights": self.encoder_weights}
        return {key: path for key, path in named.items() if path is not None and path not in _NO_FILES}


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
    # Processes. auto: what torchrun or srun has started; else one on a CPU, or as many GPUs as share a batch out
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

    @property
    def unused(self) -> tuple[str, ...]:
        return () if self.precision == "32-true" else ("diagnose_every",)

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
