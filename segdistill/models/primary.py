"""The primary stream: an smp model, with pretrained encoder weights from wherever the user has them."""

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import timm
from safetensors import SafetensorError, safe_open
from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor

from segdistill.errors import WeightsError, first_line
from segdistill.files import expanded
from segdistill.models.bundled import WITHOUT, bundled_lite0

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Triple = tuple[float, float, float]


#: Parameters of smp's classes that the data, other keys of the configuration or the program itself decide.
_NO_OPTIONS = ("encoder_name", "encoder_weights", "classes", "in_channels", "activation", "aux_params")


class ColourStatistics(NamedTuple):
    """Per-channel mean and standard deviation (RGB, 0..1 scale) that an encoder's weights expect."""

    mean: Triple
    std: Triple


def build_primary(
    *, arch: str, encoder: str, encoder_weights: str, num_classes: int, options: Mapping[str, Any]
) -> SegmentationModel:
    """Build the network that will be deployed.

    Args:
        arch: smp's architecture name, e.g. `unet`.
        encoder: smp's encoder name, e.g. `resnet18` or `tu-` + a timm model.
        encoder_weights: `none`, `imagenet` (downloaded by smp or timm), `bundled`, or a safetensors file
            with the encoder's own tensors (a whole model's `encoder.*` tensors do too).
        num_classes: C.
        options: further keyword arguments of the smp class.

    Raises:
        WeightsError: if the weights cannot be had or do not fit.
        ValueError: if smp does not accept the combination.
    """
    keywords = smp_keywords(arch=arch, encoder=encoder, options=options)
    hub_weights = None
    if encoder_weights == "imagenet":  # timm's encoders bear the name of their weights themselves
        hub_weights = True if encoder.startswith("tu-") else "imagenet"
    try:
        model = smp.create_model(arch, encoder, encoder_weights=hub_weights, classes=num_classes, **keywords)
    except (OSError, RuntimeError, KeyError) as error:
        if hub_weights is None:
            raise ValueError(f"smp cannot build {arch!r} on {encoder!r}: {error}") from error
        raise WeightsError(
            f"model.encoder_weights=imagenet: the weights of {encoder!r} could not be loaded "
            f"({type(error).__name__}: {first_line(error)}). Download needs the model hub; {WITHOUT}"
        ) from None
    except (TypeError, ValueError, AssertionError, AttributeError) as error:
        hint = ""
        if isinstance(error, TypeError):
            hint = (
                f"; {arch} itself takes the options {', '.join(own_options(arch))}, others are the encoder's"
            )
        raise ValueError(
            f"smp cannot build {arch!r} on {encoder!r} with {dict(options)}: {error}{hint}"
        ) from error
    match encoder_weights:
        case "none" | "imagenet":
            pass
        case "bundled":
            load_encoder(model, bundled_lite0(), source="the bundled weights")
        case path:
            load_encoder(model, read_safetensors(Path(path)), source=path)
    return model


def smp_keywords(*, arch: str, encoder: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of the smp class that the user's options amount to.

    Raises:
        ValueError: for what is not the user's to set here, and for an option that would be dropped in silence. With
            timm's encoders (`tu-`) every unknown one goes to timm, which refuses it itself unless its value is None.
    """
    if taken := [name for name in options if name in _NO_OPTIONS]:
        raise ValueError(
            f"options: {', '.join(taken)} cannot be set here; the data give the channels and classes, "
            "model.encoder and model.encoder_weights the encoder"
        )
    parameters = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[arch].__init__).parameters
    dropped = [
        name
        for name, value in options.items()
        if name not in parameters and (value is None or not encoder.startswith("tu-"))
    ]
    if dropped:
        hint = "; after a colon YAML wants a space" if any(":" in name for name in dropped) else ""
        raise ValueError(
            f"options: {arch} takes no {', '.join(map(repr, sorted(dropped)))}{hint}; "
            f"it takes {', '.join(own_options(arch))}"
        )
    # smp's transformer encoders take one image size unless told otherwise.
    defaults = {"dynamic_img_size": True} if arch == "dpt" else {}
    return defaults | dict(options)


def own_options(arch: str) -> list[str]:
    """The names of the user's options that the smp class itself knows."""
    parameters = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[arch].__init__).parameters
    return [name for name in parameters if name not in {"self", "kwargs", *_NO_OPTIONS}]


def input_multiple(primary: SegmentationModel) -> int:
    """What the image's height and width are padded to: the encoder's stride and the deepest branch's."""
    return math.lcm(int(primary.encoder.output_stride), 32)


def load_encoder(model: SegmentationModel, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Fill the encoder; every one of its tensors has to be there in its shape.

    Raises:
        WeightsError: naming the first tensor that is missing or has another shape.
    """
    own = model.encoder.state_dict()
    whole_model = not any(key in tensors for key in own)
    prefix = "encoder." if whole_model and any(key.startswith("encoder.") for key in tensors) else ""
    for key, tensor in own.items():
        found = tensors.get(prefix + key)
        if found is None and key.endswith("num_batches_tracked"):
            continue
        if found is None or found.shape != tensor.shape:
            what = "is missing" if found is None else f"has shape {tuple(found.shape)}"
            raise WeightsError(
                f"model.encoder_weights: {source} does not fit the encoder: tensor {prefix + key!r} {what}, "
                f"wanted {tuple(tensor.shape)}; {WITHOUT}"
            )
    model.encoder.load_state_dict(
        {key: tensors.get(prefix + key, tensor) for key, tensor in own.items()}, strict=True
    )


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Raises WeightsError if the file is missing or no safetensors file."""
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(expanded(path), framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"model.encoder_weights: cannot read {path}: {error}; {WITHOUT}") from None


def colour_statistics(*, encoder: str, encoder_weights: str) -> ColourStatistics:
    """The normalisation that belongs to the encoder's weights.

    timm knows it for its models. smp's own encoders were trained with ImageNet's statistics, which is also
    what random weights get. A safetensors file may carry `mean` and `std` in its metadata.
    """
    imagenet = ColourStatistics(IMAGENET_MEAN, IMAGENET_STD)
    if encoder_weights == "none":
        return imagenet
    if encoder_weights.endswith(".safetensors"):
        with _opened(Path(encoder_weights)) as file:
            metadata = file.metadata() or {}
        if "mean" in metadata and "std" in metadata:
            try:
                return ColourStatistics(_triple(metadata["mean"]), _triple(metadata["std"]))
            except ValueError:
                raise WeightsError(
                    f"model.encoder_weights: {encoder_weights} gives mean {metadata['mean']!r} and std "
                    f"{metadata['std']!r} in its metadata; both should be three numbers, or neither be there"
                ) from None
    if encoder.startswith("tu-"):
        settings = timm.get_pretrained_cfg(encoder.removeprefix("tu-"))
        if settings is not None:
            return ColourStatistics(_three(settings.mean), _three(settings.std))
    return imagenet


def _triple(text: str) -> Triple:
    """`[0.5, 0.5, 0.5]`, as the exporter writes it."""
    return _three([float(part) for part in text.strip("[]()").split(",")])


def _three(values: Sequence[float]) -> Triple:
    first, second, third = values
    return first, second, third
