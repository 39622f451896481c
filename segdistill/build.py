"""From a `Config` to the objects of a run: the only module, with `build_data`, that knows both."""

import math
import os

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy, Strategy
from segmentation_models_pytorch.base import SegmentationModel

from segdistill.build_data import CheckedSplit, build_taxonomy, check_class_weights
from segdistill.config import Config, Weighted
from segdistill.data.loading import EvalDataset, Place, TrainDataset
from segdistill.data.samples import Samples
from segdistill.data.statistics import class_odds, image_shares
from segdistill.data.transforms import (
    EvalTransform,
    Normalisation,
    TrainTransform,
    crop_to,
    named_transforms,
    train_transforms,
)
from segdistill.errors import ConfigError
from segdistill.export.weights import Deployed
from segdistill.losses.objective import Needs, Objective, Schedule, Term
from segdistill.losses.terms import Adversarial, FeatureSimilarity, LogitDistillation, Supervised
from segdistill.models.discriminator import PixelDiscriminator
from segdistill.models.ensemble import PRIMARY, BranchSpec, MultiBranchNet
from segdistill.models.primary import build_primary, colour_statistics, input_multiple, smp_keywords
from segdistill.models.taps import TapMap, decoder_map_path, survey
from segdistill.seeds import stream_seed
from segdistill.training.ema import Ema
from segdistill.training.loop import LoopSettings
from segdistill.training.optimizers import (
    build_discriminator_optimizer,
    build_optimizer,
    build_scheduler,
    parameter_groups,
)
from segdistill.training.state import Player, TrainState

MAX_WORKERS = 8


# ---- data


def build_normalisation(config: Config) -> Normalisation:
    return Normalisation(
        *colour_statistics(encoder=config.model.encoder, encoder_weights=config.model.encoder_weights)
    )


def build_train_dataset(config: Config, split: CheckedSplit) -> TrainDataset:
    """Raises ConfigError if a transform of `data.augment.custom` is unknown or refuses its arguments."""
    augment = config.data.augment
    samples, ignore_index = split.samples, split.samples.taxonomy.ignore_index
    of_classes = config.data.sampling.kind == "class_balanced_crops"
    if augment.custom is None:
        transforms = train_transforms(
            size=config.data.size,
            scale=augment.scale,
            flip=augment.flip,
            colour=augment.colour,
            blur=augment.blur,
            ignore_index=ignore_index,
            crop=config.data.crop,
            class_odds=class_odds(split.pixels).tolist() if of_classes else None,
        )
    elif of_classes:
        raise ConfigError(
            "data.sampling.kind='class_balanced_crops' chooses the crop, and so does data.augment.custom; "
            "use class_balanced_images, or no custom transforms"
        )
    else:
        try:
            transforms = named_transforms(augment.custom, ignore_index=ignore_index)
        except ValueError as error:
            raise ConfigError(f"data.augment.custom: {error}") from None
        transforms += crop_to(training_size(config), ignore_index=ignore_index)
    transforms.append(build_normalisation(config).transform())
    dataset = TrainDataset(samples, TrainTransform(transforms, seed=config.seed))
    try:
        dataset[Place(epoch=0, index=0)]
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(
            f"data.augment: the transforms fail on {samples.name(0)}: {type(error).__name__}: {error}"
        ) from None
    return dataset


def build_image_shares(config: Config, split: CheckedSplit) -> np.ndarray | None:
    """How often an epoch visits each training image; None: each of them once."""
    return None if config.data.sampling.kind == "uniform" else image_shares(split.pixels)


def training_size(config: Config) -> tuple[int, int]:
    """(height, width) in pixels of what the network is trained on."""
    return config.data.crop or config.data.size


def build_eval_dataset(
    config: Config, samples: Samples, *, normalisation: Normalisation | None = None
) -> EvalDataset:
    """`normalisation`: of a network that is deployed already; by default that of the encoder's weights."""
    how = normalisation if normalisation is not None else build_normalisation(config)
    return EvalDataset(samples, EvalTransform(size=config.data.size, normalisation=how))


def worker_count(config: Config, *, on_gpu: bool) -> int:
    """`data.workers`, or a sensible number: on a CPU the training itself uses all cores."""
    if config.data.workers is not None:
        return config.data.workers
    return min(MAX_WORKERS, os.cpu_count() or 1) if on_gpu else 0


# ---- model


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
            num_classes=build_taxonomy(config).num_classes,
            options=model.options,
        )
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None
    torch.manual_seed(stream_seed(config.seed, "branches"))
    try:
        tap_map, feature_path = _survey(config, primary)
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
    multiple = input_multiple(primary)
    height, width = (math.ceil(size / multiple) * multiple for size in training_size(config))
    paths = [tap for tap in method.branches.taps if isinstance(tap, str)] if method.has_branches else []
    feature_path = ""
    try:
        if method.distils and method.feature.weight:
            feature_path = decoder_map_path(
                primary, stride=method.branches.stride, height=height, width=width
            )
            paths.append(feature_path)
        return survey(primary, tuple(paths), height=height, width=width), feature_path
    except RuntimeError as error:
        raise ConfigError(
            f"data.{'crop' if config.data.crop else 'size'} = {list(training_size(config))}: {config.model.arch} on "
            f"{config.model.encoder} cannot take images of {height}x{width} ({str(error).splitlines()[0]}); "
            "use larger ones"
        ) from None


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


def build_deployed(config: Config, primary: SegmentationModel) -> Deployed:
    """How the trained primary is rebuilt in plain smp."""
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
        normalisation=build_normalisation(config),
        size=config.data.size,
        multiple=input_multiple(primary),
    )


# ---- losses


def build_objective(config: Config, adversarial: Adversarial | None) -> Objective:
    """The terms that the kind of method has and that have a weight.

    Raises:
        ConfigError: if the class weights do not match the classes.
    """
    method = config.method
    supervised = method.supervised
    check_class_weights(config)
    labels = Supervised(
        class_weights=supervised.class_weights,
        label_smoothing=supervised.label_smoothing,
        dice_weight=supervised.dice_weight,
        balance=supervised.balance,
    )
    terms = [Term(PRIMARY, Schedule(1.0), labels.primary)]
    if method.has_branches:
        schedule = Schedule(supervised.branch_weight, supervised.branch_ramp)
        terms.append(Term("branches", schedule, labels.branches, Needs.BRANCHES))
    if method.distils:
        logit, feature = method.logit, method.feature
        distillation = LogitDistillation(
            logit.kind, logit.teacher, logit.students, logit.temperature, logit.label_gate
        )
        terms += [
            Term("logit", _schedule(logit), distillation, Needs.BRANCHES, distillation.notes),
            Term(
                "feature",
                _schedule(feature),
                FeatureSimilarity(feature.kind, feature.pool),
                Needs.BRANCHES | Needs.FEATURES,
            ),
        ]
    if adversarial:
        terms.append(
            Term(
                "adversarial",
                _schedule(method.adversarial),
                adversarial,
                Needs.BRANCHES | Needs.DISCRIMINATOR,
            )
        )
    return Objective(tuple(term for term in terms if term.schedule.weight > 0))


def _schedule(section: Weighted) -> Schedule:
    return Schedule(section.weight, section.ramp)


def build_discriminator(config: Config, *, submodels: int) -> PixelDiscriminator:
    """One logit per pixel for the label game, one for each of the `submodels` for the peer game."""
    game = config.method.adversarial
    torch.manual_seed(stream_seed(config.seed, "discriminator"))
    return PixelDiscriminator(
        num_classes=build_taxonomy(config).num_classes,
        outputs=1 if game.game == "label" else submodels,
        width=game.width,
    )


# ---- training


def build_fabric(config: Config) -> Fabric:
    """Device, precision and processes."""
    train = config.train
    accelerator = train.accelerator
    none_here = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and none_here)
    devices = (1 if on_cpu else "auto") if train.devices == "auto" else train.devices
    strategy: str | Strategy = "auto"
    if devices != 1 and (on_cpu or torch.cuda.device_count() > 1):
        # Branches may have no weight yet or any more, and some encoders hold stages that smp never runs.
        strategy = DDPStrategy(find_unused_parameters=True)
    try:
        return Fabric(
            accelerator="cpu" if on_cpu else accelerator,
            devices=devices,
            strategy=strategy,
            precision=train.precision,
        )
    except Exception as error:  # Fabric raises RuntimeError, ValueError and MisconfigurationException
        raise ConfigError(
            f"train.accelerator={accelerator}, train.devices={train.devices}, train.precision={train.precision} "
            f"cannot be had on this machine: {error}"
        ) from None


def build_state(config: Config, fabric: Fabric, *, total_steps: int) -> TrainState:
    """Networks on their devices, optimisers and objective, at the beginning of a run."""
    net = build_net(config)
    if config.train.channels_last:
        net = net.to(memory_format=torch.channels_last)
    train, method = config.train, config.method
    groups = parameter_groups(
        net,
        lr=train.optimizer.lr,
        encoder_lr_scale=train.optimizer.encoder_lr_scale,
        weight_decay=train.optimizer.weight_decay,
    )
    optimizer = build_optimizer(train.optimizer.kind, groups, momentum=train.optimizer.momentum)
    scheduler = build_scheduler(
        train.schedule.kind,
        optimizer,
        total_steps=total_steps,
        warmup=train.schedule.warmup,
        power=train.schedule.power,
    )
    module, wrapped = fabric.setup(net, optimizer)
    discriminator, adversarial = None, None
    if method.distils and method.adversarial.weight:
        discriminator = _discriminator_player(config, fabric, submodels=len(net.submodels))
        adversarial = Adversarial(
            method.adversarial.game, method.adversarial.real_smoothing, discriminator.module
        )
    return TrainState(
        fabric=fabric,
        net=net,
        ensemble=Player(module, wrapped, scheduler),
        discriminator=discriminator,
        objective=build_objective(config, adversarial),
        adversarial=adversarial,
        ema=Ema.of(net, decay=train.ema_decay) if train.ema_decay else None,
    )


def _discriminator_player(config: Config, fabric: Fabric, *, submodels: int) -> Player:
    discriminator = build_discriminator(config, submodels=submodels)
    optimizer = build_discriminator_optimizer(discriminator, lr=config.method.adversarial.lr)
    module, wrapped = fabric.setup(discriminator, optimizer)
    return Player(module, wrapped, None)


def build_loop_settings(config: Config, *, multiple: int) -> LoopSettings:
    """`multiple`: what the network wants height and width to be divisible by."""
    train = config.train
    return LoopSettings(
        seed=config.seed,
        epochs=train.epochs,
        accumulate=train.accumulate,
        multiple=multiple,
        ignore_index=build_taxonomy(config).ignore_index,
        grid_stride=config.method.grid_stride,
        clip_norm=train.clip_norm,
        eval_every=train.eval_every,
        log_every=train.log_every,
        # Fabric refuses gradients taken outside its own backward pass in mixed precision.
        diagnose_every=train.diagnose_every if train.precision == "32-true" else None,
        checkpoint_seconds=60 * train.checkpoint_minutes,
    )
