"""Primary and branches, and how the primary is rebuilt in plain smp."""

import math
from contextlib import suppress

import torch
from segmentation_models_pytorch.base import SegmentationModel

from segdistill.build.datasets import training_size
from segdistill.build.splits import build_taxonomy
from segdistill.config import Config
from segdistill.config_method import FeatureConfig
from segdistill.errors import ConfigError, first_line
from segdistill.export.weights import Deployed
from segdistill.memory import is_out_of_memory
from segdistill.models.multi_branch import BranchSpec, MultiBranchNet
from segdistill.models.primary import build_primary, input_multiple, smp_keywords
from segdistill.models.reparam import expand
from segdistill.models.taps import TapMap, decoder_map_path, survey
from segdistill.normalisation import Normalisation
from segdistill.seeds import stream_seed


def build_net(config: Config) -> MultiBranchNet:
    """Primary and branches, with the first weights that belong to the seed.

    Raises:
        ConfigError: if smp or a tap refuses what was asked for.
        WeightsError: if pretrained weights cannot be had.
    """
    model, method = config.model, config.method
    torch.manual_seed(stream_seed(config.seed, "primary"))
    try:
        primary = build_primary(
            arch=model.arch,
            encoder=model.encoder,
            encoder_weights=model.encoder_weights,
            weights=model.weights,
            new_head=model.new_head,
            num_classes=build_taxonomy(config).num_classes,
            options=model.options,
        )
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None
    try:
        tap_map, feature_path = _survey(config, primary)
        torch.manual_seed(stream_seed(config.seed, "reparam"))
        _add_parallel_convs(config, primary, tapped=tuple(tap_map.modules))
        torch.manual_seed(stream_seed(config.seed, "branches"))
        return MultiBranchNet(
            primary,
            tap_map=tap_map,
            num_classes=build_taxonomy(config).num_classes,
            branches=_branch_spec(config),
            feature_stride=method.feature.stride if feature_path else None,
            feature_path=feature_path,
        )
    except ValueError as error:
        raise ConfigError(f"method.branches.taps = {list(method.branches.taps)}: {error}") from None


def _survey(config: Config, primary: SegmentationModel) -> tuple[TapMap, str]:
    """Where the primary offers maps, and which of them learns features; "" if none does."""
    method = config.method
    height, width = _padded(primary, training_size(config))
    paths = [tap for tap in method.branches.taps if isinstance(tap, str)] if method.has_branches else []
    feature_path = ""
    try:
        if method.distils and method.feature.weight:
            _refuse_a_single_cell(method.feature, height, width)
            feature_path = decoder_map_path(
                primary, stride=method.branches.stride, height=height, width=width
            )
            paths.append(feature_path)
        tap_map = survey(primary, tuple(paths), height=height, width=width)
    except (RuntimeError, AssertionError) as error:
        raise _wrong_size(
            config, primary, "crop" if config.data.crop else "size", (height, width), error
        ) from None
    if tap_map.logits != (height, width):
        rows, columns = tap_map.logits
        raise ConfigError(
            f"model.options = {dict(config.model.options)}: {config.model.arch} gives logits of {rows}x{columns} for "
            f"images of {height}x{width}; its option `upsampling` has to be {height / rows:g} times what it is now"
        )
    whole = _padded(primary, config.data.size)
    if whole != (height, width):
        try:
            survey(primary, (), height=whole[0], width=whole[1])
        except (RuntimeError, AssertionError) as error:
            raise _wrong_size(config, primary, "size", whole, error) from None
    return tap_map, feature_path


def _refuse_a_single_cell(feature: FeatureConfig, height: int, width: int) -> None:
    """Raises ConfigError if an image has no two cells whose features could be alike."""
    side = feature.stride * feature.pool
    if feature.kind == "affinity" and (height // side) * (width // side) < 2:
        raise ConfigError(
            f"method.feature.kind=affinity compares cells with each other, and of method.feature.stride="
            f"{feature.stride} and method.feature.pool={feature.pool} an image of {height}x{width} has one; choose a "
            "smaller stride or pool, or cosine"
        )


def _wrong_size(
    config: Config, primary: SegmentationModel, key: str, size: tuple[int, int], error: Exception
) -> Exception:
    """What to raise instead of the error that the network met at a size: lack of memory says it best itself."""
    if is_out_of_memory(error):
        return error
    # timm's vision transformers assert the size of their images, in some cases without a word.
    height, width = size
    stride = int(primary.encoder.output_stride)
    if stride & (stride - 1):
        return ConfigError(
            f"model.encoder = {config.model.encoder}: its deepest map has {stride} pixels per cell, and "
            f"{config.model.arch}, which doubles maps, does not come back to the image from there "
            f"({first_line(error)}); choose an encoder of 8, 16 or 32, e.g. with patches of 16"
        )
    if larger := _larger_that_does(primary, height, width):
        remedy = f"data.{key}=[{larger[0]},{larger[1]}] works"
    else:
        remedy = (
            f"for an encoder made for images of one size, model.options={{img_size: [{height}, {width}]}}"
        )
        if config.data.crop:
            remedy += " and data.crop=null, since it is evaluated at data.size"
        if config.model.options:
            remedy = f"model.options = {dict(config.model.options)} may not suit it; {remedy}"
    return ConfigError(
        f"data.{key} = {list(getattr(config.data, key))}: "
        f"{config.model.arch} on {config.model.encoder} cannot take images of {height}x{width} "
        f"({first_line(error)}); {remedy}"
    )


def _larger_that_does(primary: SegmentationModel, height: int, width: int) -> tuple[int, int] | None:
    """The size doubled as often as the network needs; None for one that takes no larger small images, either."""
    while max(height, width) <= 256:
        height, width = 2 * height, 2 * width
        with suppress(RuntimeError, AssertionError, ValueError):
            survey(primary, (), height=height, width=width)
            return height, width
    return None


def _add_parallel_convs(config: Config, primary: SegmentationModel, *, tapped: tuple[str, ...]) -> None:
    """Change the primary in place; what has learnt already goes on computing what it has learnt."""
    if copies := config.method.copies:
        pretrained = _pretrained_parts(config, primary)
        image = torch.zeros(1, 3, *_padded(primary, training_size(config)))
        expand(primary, image, copies=copies, silent=pretrained, tapped=tapped)


def _pretrained_parts(config: Config, primary: SegmentationModel) -> tuple[str, ...]:
    """Names of the parts that do not begin with random weights."""
    if config.model.weights is not None:
        return tuple(name for name, _ in primary.named_children())
    return () if config.model.encoder_weights == "none" else ("encoder",)


def _padded(primary: SegmentationModel, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels that the primary sees of images of a size."""
    multiple = input_multiple(primary)
    height, width = (math.ceil(side / multiple) * multiple for side in size)
    return height, width


def _branch_spec(config: Config) -> BranchSpec | None:
    if not config.method.has_branches:
        return None
    branches = config.method.branches
    return BranchSpec(
        taps=branches.taps,
        width=branches.width,
        stride=branches.stride,
        dropout=branches.dropout,
        encoder_gradient=branches.encoder_gradient,
    )


def build_deployed(config: Config, primary: SegmentationModel, *, normalisation: Normalisation) -> Deployed:
    """How the trained primary is rebuilt in plain smp, and fed as it was in its training."""
    model = config.model
    taxonomy = build_taxonomy(config)
    keywords = {
        "encoder_name": model.encoder,
        "encoder_weights": None,
        "classes": taxonomy.num_classes,
        **smp_keywords(arch=model.arch, encoder=model.encoder, options=model.options),
    }
    return Deployed(
        arch=model.arch,
        keywords=keywords,
        taxonomy=taxonomy,
        normalisation=normalisation,
        size=config.data.size,
        multiple=input_multiple(primary),
    )
