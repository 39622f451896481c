"""Device, optimisers, the state a run begins with, the loop's settings."""

import copy
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy, Strategy

from segdistill.build.datasets import build_normalisation, training_size
from segdistill.build.network import build_net
from segdistill.build.objective import build_discriminator, build_objective
from segdistill.build.splits import build_taxonomy, check_class_weights
from segdistill.config import Config, TrainConfig
from segdistill.config_method import ViewsConfig
from segdistill.data.views import StrongViews
from segdistill.errors import ConfigError, first_line
from segdistill.launchers import environment, launcher
from segdistill.losses.terms import Adversarial
from segdistill.models.multi_branch import MultiBranchNet
from segdistill.models.primary import input_multiple
from segdistill.normalisation import Normalisation
from segdistill.processes import in_turn
from segdistill.resolution import pad_to_multiple
from segdistill.training.ema import Ema
from segdistill.training.loop import LoopSettings
from segdistill.training.optimizers import (
    build_discriminator_optimizer,
    build_optimizer,
    build_scheduler,
    parameter_groups,
)
from segdistill.training.precision import CpuMixedPrecision, cpu_capabilities, lacks_bfloat16
from segdistill.training.state import Opponent, Player, TrainState
from segdistill.training.steps import StepSettings

#: How long processes wait for each other. The first one may have data to fetch and many images to check, for which
#: torch's half an hour is not always enough.
_TO_WAIT = timedelta(hours=3)


def trains_on_cpu(train: TrainConfig) -> bool:
    """Whether a training uses the CPU, because that is asked for or is all there is."""
    none_here = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    return train.accelerator == "cpu" or (train.accelerator == "auto" and none_here)


def slow_precision(train: TrainConfig) -> str | None:
    """What to say of a precision that this machine only imitates."""
    if train.precision != "bf16-mixed":
        return None
    if not trains_on_cpu(train):
        if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
            return (
                "train.precision=bf16-mixed: this GPU has no bfloat16 instructions (NVIDIA's have them since Ampere) "
                "and imitates them; train.precision=32-true is likely to be faster"
            )
        return None
    if not lacks_bfloat16(cpu_capabilities()):
        return None
    return (
        "train.precision=bf16-mixed: this CPU has no bfloat16 instructions and imitates them, which took 7 times as "
        "long as train.precision=32-true on one such CPU"
    )


def build_fabric(config: Config) -> Fabric:
    """Device, precision and processes."""
    train = config.train
    accelerator, on_cpu = train.accelerator, trains_on_cpu(train)
    devices = devices_of(train)
    strategy: str | Strategy = "auto"
    if devices != 1 and (on_cpu or torch.cuda.device_count() > 1):
        # Branches may have no weight yet or any more, and some encoders hold stages that smp never runs.
        strategy = DDPStrategy(find_unused_parameters=True, timeout=_TO_WAIT)
    mixed_on_cpu = on_cpu and train.precision == "bf16-mixed"
    try:
        return Fabric(
            accelerator="cpu" if on_cpu else accelerator,
            devices=devices,
            strategy=strategy,
            precision=None if mixed_on_cpu else train.precision,
            plugins=[environment(), *([CpuMixedPrecision()] if mixed_on_cpu else [])],
        )
    except Exception as error:  # Fabric raises RuntimeError, ValueError and MisconfigurationException
        raise ConfigError(
            f"train.accelerator={accelerator}, train.devices={devices}, train.precision={train.precision} "
            f"cannot be had on this machine: {error}"
        ) from None


def devices_of(train: TrainConfig) -> int:
    """How many processes train: as many as torchrun or srun has started, should one of them have started this."""
    if train.devices != "auto":
        return train.devices
    if found := launcher():
        return found.here
    return 1 if trains_on_cpu(train) else train.most_processes(torch.cuda.device_count())


def idle_gpus(train: TrainConfig) -> str | None:
    """What to say of GPUs that a training leaves alone without being told to."""
    processes, gpus = devices_of(train), torch.cuda.device_count()
    if train.devices != "auto" or trains_on_cpu(train) or processes >= gpus:
        return None
    taken = f"train.devices=auto takes {processes} of {gpus} GPUs"
    if launcher():
        return f"{taken}, as many as the launcher (torchrun or srun) has started processes"
    return (
        f"{taken}: train.batch_size={train.batch_size} does not give more of them an even share of two images or more; "
        f"train.batch_size={2 * gpus} would"
    )


def build_state(config: Config, fabric: Fabric, *, total_steps: int) -> TrainState:
    """Networks on their devices, optimisers and objective, at the beginning of a run."""
    net = in_turn(fabric, lambda: _checked_net(config, processes=fabric.world_size))
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
    opponent = None
    if method.distils and method.adversarial.weight:
        opponent = _build_opponent(config, fabric, submodels=len(net.submodels))
    return TrainState(
        fabric=fabric,
        net=net,
        learner=Player(module, wrapped, scheduler),
        opponent=opponent,
        objective=build_objective(config, opponent.game if opponent else None),
        views=_build_views(method.logit.views, build_normalisation(config)),
        ema=Ema.of(net, decay=train.ema_decay) if train.ema_decay else None,
    )


def build_state_to_look_at(config: Config) -> TrainState:
    """What `build_state` makes, but on the CPU, whatever the run is trained on, and with a schedule of any length.

    Raises:
        ConfigError, WeightsError: if something is wrong with its networks, its losses or its first weights.
    """
    here = config.train.model_copy(update={"accelerator": "cpu", "devices": 1, "precision": "32-true"})
    on_one_cpu = config.model_copy(update={"train": here})
    state = build_state(on_one_cpu, build_fabric(on_one_cpu), total_steps=config.train.epochs)
    _refuse_single_images(config, state.net, processes=devices_of(config.train))
    return state


def _checked_net(config: Config, *, processes: int) -> MultiBranchNet:
    """Raises ConfigError if something is wrong with the network or its losses."""
    net = build_net(config)
    _refuse_single_images(config, net, processes=processes)
    check_class_weights(config)
    return net


def _build_views(section: ViewsConfig, normalisation: Normalisation) -> StrongViews:
    return StrongViews(
        normalisation,
        flip=section.flip,
        rotate=section.rotate,
        scale=section.scale,
        gamma=section.gamma,
        gain=section.gain,
        paste=section.paste,
    )


def _refuse_single_images(config: Config, net: MultiBranchNet, *, processes: int) -> None:
    """Raises ConfigError if processes get one image at a time, and the network cannot be trained on that."""
    if config.train.batch_size != processes:
        return
    image = pad_to_multiple(torch.zeros(1, 3, *training_size(config)), input_multiple(net.primary))
    try:
        with torch.no_grad():
            copy.deepcopy(net).train()(image)
    except ValueError as error:  # batch norm after a pooling of the whole image, or on a map of one cell
        height, width = image.shape[-2:]
        raise ConfigError(
            f"train.batch_size={config.train.batch_size} gives every process one image at a time, and "
            f"{config.model.arch} {'and its branches ' if net.branches else ''}cannot be trained on one of "
            f"{height}x{width} ({first_line(error)}); use at least two for each process"
        ) from None


def _build_opponent(config: Config, fabric: Fabric, *, submodels: int) -> Opponent:
    """The discriminator on its device, and the game between it and so many sub-models."""
    section = config.method.adversarial
    discriminator = build_discriminator(config, submodels=submodels)
    optimizer = build_discriminator_optimizer(discriminator, lr=section.lr)
    module, wrapped = fabric.setup(discriminator, optimizer)
    game = Adversarial(section.game, section.real_smoothing, module)
    return Opponent(module, wrapped, scheduler=None, game=game)


def build_loop_settings(config: Config, *, multiple: int) -> LoopSettings:
    """The loop's settings; `multiple` is what the network wants height and width to be divisible by."""
    train = config.train
    return LoopSettings(
        seed=config.seed,
        epochs=train.epochs,
        accumulate=train.accumulate,
        step=StepSettings(
            multiple=multiple,
            ignore_index=build_taxonomy(config).ignore_index,
            grid_stride=config.method.grid_stride,
            clip_norm=train.clip_norm,
        ),
        eval_every=train.eval_every,
        log_every=train.log_every,
        # Fabric refuses gradients taken outside its own backward pass in mixed precision.
        diagnose_every=train.diagnose_every if train.precision == "32-true" else None,
        checkpoint_seconds=60 * train.checkpoint_minutes,
        keep_epochs=train.keep_epochs,
    )
