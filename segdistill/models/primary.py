"""The primary stream: an smp model, with the weights it begins with."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import segmentation_models_pytorch as smp
from segmentation_models_pytorch.base import SegmentationModel

from segdistill.errors import WeightsError, first_line
from segdistill.models.bundled import WITHOUT, bundled_lite0
from segdistill.models.weight_files import WeightFile, fill, normalisation_of_encoder
from segdistill.normalisation import IMAGENET, Normalisation

#: Parameters of smp's classes that the data, other keys of the configuration or the program itself decide.
_NO_OPTIONS = ("encoder_name", "encoder_weights", "classes", "in_channels", "activation", "aux_params")


def build_primary(
    *,
    arch: str,
    encoder: str,
    encoder_weights: str,
    num_classes: int,
    options: Mapping[str, Any],
    weights: str | None = None,
    new_head: bool = False,
) -> SegmentationModel:
    """Build the network that will be deployed.

    Args:
        arch: smp's architecture name, e.g. `unet`.
        encoder: smp's encoder name, e.g. `resnet18` or `tu-` + a timm model.
        encoder_weights: `none`, `imagenet` (downloaded by smp or timm), `bundled`, or a file with the encoder's
            tensors (see `WeightFile`); without effect beside `weights`.
        num_classes: C.
        options: further keyword arguments of the smp class.
        weights: a file with the tensors of the whole network, or None.
        new_head: whether its head, which says the classes, is to have random weights nevertheless.

    Raises:
        WeightsError: if the weights cannot be had or do not fit.
        ValueError: if smp does not accept the combination.
    """
    keywords = smp_keywords(arch=arch, encoder=encoder, options=options)
    hub_weights = None
    if (
        weights is None and encoder_weights == "imagenet"
    ):  # timm's encoders bear the name of their weights themselves
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
    file = weight_file(encoder_weights=encoder_weights, weights=weights)
    if file and weights is not None:
        file.fill_network(model, new_head=new_head)
    elif file:
        file.fill_encoder(model)
    elif encoder_weights == "bundled":
        fill(model.encoder, bundled_lite0(), source="the bundled weights", remedy=WITHOUT)
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


def expected_normalisation(
    *, encoder: str, encoder_weights: str, weights: str | None = None
) -> Normalisation:
    """The normalisation that belongs to the weights a network begins with, by the arguments of `build_primary`.

    Random weights get ImageNet's statistics. A file may tell its own.

    Raises:
        WeightsError: if what a file tells cannot be read.
    """
    if weights is None and encoder_weights == "none":
        return IMAGENET
    file = weight_file(encoder_weights=encoder_weights, weights=weights)
    return (file and file.normalisation()) or normalisation_of_encoder(encoder)


def weight_file(*, encoder_weights: str, weights: str | None) -> WeightFile | None:
    """The file of the weights a network begins with; None if they come from elsewhere."""
    if weights is not None:
        return WeightFile.of_network(weights)
    if encoder_weights in ("none", "imagenet", "bundled"):
        return None
    return WeightFile.of_encoder(encoder_weights)
