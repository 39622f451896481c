"""`segdistill train`: configuration in, a deployed network out."""

import threading
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext

import torch
from lightning_fabric import Fabric
from rich.console import Console

from segdistill.build.datasets import training_size
from segdistill.build.training import (
    build_fabric,
    build_loop_settings,
    build_state,
    idle_gpus,
    slow_precision,
)
from segdistill.build.training_data import TrainingData, build_training_data
from segdistill.commands.data_drift import note_images
from segdistill.commands.deploy import count_parameters, deploy
from segdistill.commands.resuming import drop_beginning, go_on, not_to_go_on_from, saved_checkpoint
from segdistill.commands.run_folder import RunFolder
from segdistill.commands.settings import settings_without_effect
from segdistill.commands.trained import as_it_began, scored_weights
from segdistill.commands.versions import differences
from segdistill.config import Config
from segdistill.console import new_console, warn
from segdistill.data.loading import EvalItem
from segdistill.errors import RunFolderError
from segdistill.evaluation.evaluator import evaluate
from segdistill.evaluation.metrics import Scores
from segdistill.evaluation.predictors import MultiBranchPredictor
from segdistill.files import refuse_unwritable
from segdistill.models.primary import input_multiple
from segdistill.processes import by_first, in_turn, launched
from segdistill.training.checkpoint import load_checkpoint
from segdistill.training.host_memory import keep_freed_memory
from segdistill.training.interruption import until
from segdistill.training.loop import fit
from segdistill.training.rehearsal import rehearse
from segdistill.training.run_log import RunLog
from segdistill.training.state import TrainState

_TO_SAVE_MEMORY = (
    "Remedies: half the train.batch_size and twice the train.accumulate, train.precision=bf16-mixed, crops by "
    "data.crop, a smaller data.size, a smaller method.branches.width or fewer of its taps. Each makes another training "
    "of it, to be started anew by --overwrite, or by out=DIR, which keeps what this one has reached"
)


def train(config: Config, *, overwrite: bool, console: Console) -> None:
    """Train, evaluate, export; the run folder tells the rest.

    Raises:
        UserError: with one message, for everything a user can put right.
    """
    folder = RunFolder(config.run_folder)
    folder.check(config, overwrite=overwrite)
    if config.train.resume and folder.scored:
        if folder.finished and folder.primary.is_file():
            console.print(f"{folder.path} holds a finished run; nothing is left to do")
            return
        refuse_without_checkpoint(config, folder)
    fabric = build_fabric(config)
    if fabric.device.type == "cpu":
        keep_freed_memory()
    with launched(fabric, to_save_memory=_TO_SAVE_MEMORY):
        _train(config, folder, fabric, console=console if fabric.is_global_zero else new_console(quiet=True))


def refuse_without_checkpoint(config: Config, folder: RunFolder) -> None:
    """A trained run makes the files that it lacks from its last checkpoint; without one it would be trained anew.

    Raises:
        RunFolderError: if there is none.
    """
    last = folder.checkpoints(config).last
    if not last.is_file():
        raise RunFolderError(
            f"{folder.path} holds a run that came to its end, and neither its {folder.primary.name} nor {last} to make "
            "it from: train it anew by --overwrite, or in another folder by out=DIR"
        )


def _train(config: Config, folder: RunFolder, fabric: Fabric, *, console: Console) -> None:
    """Train in this process, which may be one of several; the first one alone speaks and writes."""
    by_first(fabric, lambda: refuse_unwritable(folder.path, said=f"out={folder.path}"))
    data, state = prepare(config, folder, fabric, console=console)
    with ExitStack() as until_the_end:

        def begin() -> None:
            until_the_end.enter_context(folder.owned())
            folder.begin(config)
            if not state.position.step:
                drop_beginning(folder, config)
            note_images(folder, data.names)

        by_first(fabric, begin)
        say_what_runs(config, state, console=console, images=(data.training_images, len(data.val)))
        scores = fit_and_score(config, folder, state, data, console=console)
        by_first(fabric, lambda: deploy(config, folder, state, scores, data, console=console))


def prepare(
    config: Config, folder: RunFolder, fabric: Fabric, *, console: Console
) -> tuple[TrainingData, TrainState]:
    """The data, checked, and where the run stands: at its first step, or where it was interrupted."""
    saved = in_turn(fabric, lambda: saved_checkpoint(folder, config))
    built = in_turn(fabric, lambda: as_it_began(config, saved) if saved else config)
    data = in_turn(fabric, lambda: build_training_data(built, fabric, console=console))
    # All have read the folder before the first one writes to it, here and below.
    if reason := in_turn(fabric, lambda: not_to_go_on_from(folder, saved, data.hash)):
        warn(console, f"from the first step: {reason}")
        by_first(fabric, lambda: forget_beginning(config, folder))
        # The first weights are this run's own again; its images are already normalised as the beginning's were.
        saved, built = None, config.model_copy(update={"data": built.data})
    state = build_state(built, fabric, total_steps=config.train.epochs * data.batches.steps)
    in_turn(fabric, lambda: go_on(folder, built, state, saved, data_hash=data.hash))
    return data, state


def forget_beginning(config: Config, folder: RunFolder) -> None:
    """Remove the beginning of a run that has not done a step itself.

    Raises:
        RunFolderError: if another process trains in the folder.
    """
    with folder.owned():
        drop_beginning(folder, config)


def fit_and_score(
    config: Config,
    folder: RunFolder,
    state: TrainState,
    data: TrainingData,
    *,
    console: Console,
) -> dict[str, Scores]:
    """Train to the end, put the weights that are to be deployed into `state.scored_net`, and score them."""
    fabric = state.fabric
    multiple = input_multiple(state.net.primary)
    taxonomy = data.val.samples.taxonomy
    predictor = MultiBranchPredictor(state.scored_net, multiple=multiple, device=fabric.device)

    def score(stop: threading.Event | None = None) -> dict[str, Scores]:
        share_buffers(state)
        items: Iterable[EvalItem] = data.val_loader
        if stop and fabric.world_size == 1:  # several processes have to end together
            items = until(stop, items)
        return evaluate(predictor, items, taxonomy)

    checkpoints = folder.checkpoints(config)
    log = None
    if fabric.is_global_zero:
        log = RunLog(
            folder.path,
            epochs=config.train.epochs,
            steps_per_epoch=data.batches.steps,
            class_names=taxonomy.names,
            position=state.position,
            console=console,
        )
    settings = build_loop_settings(config, multiple=multiple)
    with log or nullcontext():
        if state.position.epoch < config.train.epochs:
            rehearse(
                state,
                settings.step,
                batches=settings.accumulate,
                images=config.train.batch_size // fabric.world_size,
                size=training_size(config),
                classes=taxonomy.num_classes,
                progress=state.position.step / (config.train.epochs * data.batches.steps),
                diagnose=settings.diagnose_every is not None,
            )
        last_scores = fit(
            state,
            settings,
            loader=data.train_loader,
            batches=data.batches,
            evaluate=score,
            checkpoints=checkpoints,
            log=log,
        )
    if config.export.weights == "last" and last_scores is not None:
        return dict(last_scores)
    if config.export.weights == "best":
        fabric.barrier()  # the first process has written the file
        state.scored_net.load_state_dict(scored_weights(load_checkpoint(checkpoints.best)))
    return score()


def share_buffers(state: TrainState) -> None:
    """Batch-norm statistics differ between processes. The first one's are saved, so they are what is scored."""
    if state.fabric.world_size > 1:
        for buffer in state.scored_net.buffers():
            torch.distributed.broadcast(buffer, src=0)


def say_what_runs(config: Config, state: TrainState, *, console: Console, images: tuple[int, int]) -> None:
    """What is trained, on what, where; the first thing a user sees.

    Args:
        config: of the run.
        state: where it stands.
        console: to print on.
        images: how many the training and the validation split have.
    """
    console.print(_in_brief(config, state, images))
    console.print(_parameters(state))
    if config.model.weights and not state.position.step:
        console.print(_first_weights(config, state))
    for remark in (slow_precision(config.train), idle_gpus(config.train)):
        if remark:
            warn(console, remark)
    if idle := settings_without_effect(config):
        settings = ", ".join(f"{key}={value}" for key, value in idle.items())
        console.print(
            f"without effect beside the other settings (method.kind={config.method.kind}): {settings}",
        )
    console.print(f"run folder {config.run_folder}{_start(config, state)}")
    *earlier, now = state.position.programs
    if earlier:
        warn(
            console,
            f"another version trained the steps before: {differences(earlier[-1], now)}",
        )
    kept = RunFolder(config.run_folder).checkpoints(config).kept
    position = state.position
    over = [epoch for epoch in config.train.keep_epochs if (epoch, 0) < (position.epoch, position.batch)]
    if late := [str(epoch) for epoch in over if not kept(epoch).last.is_file()]:
        warn(console, f"train.keep_epochs: too late for epoch {', '.join(late)}, which is over")
    if len(position.devices) > 1:
        warn(
            console,
            f"this run is trained on {' then '.join(position.devices)}: the end is not that of a run on one of them",
        )
    if (processes := state.fabric.world_size) > 1:
        console.print(
            f"{config.train.batch_size // processes} images at a time in each of {processes} processes; batch norm and "
            "losses see those alone, so with another number of processes it is another training",
        )


def _in_brief(config: Config, state: TrainState, images: tuple[int, int]) -> str:
    """Method, network, data, seed and devices in one line."""
    crop = f" in crops of {'x'.join(map(str, training_size(config)))}" if config.data.crop else ""
    return (
        f"{config.name}: {config.method.kind}, {config.model.arch} on {config.model.encoder}, "
        f"{images[0]} training and {images[1]} validation images at {config.data.size[0]}x{config.data.size[1]}{crop}, "
        f"seed {config.seed}, {state.fabric.world_size} x {state.fabric.device.type}"
    )


def _parameters(state: TrainState) -> str:
    """How large the deployed network is, and what stands beside it while it is trained."""
    net = state.net
    deployed, primary = count_parameters(net.deploy()), count_parameters(net.primary)
    branches = count_parameters(net) - primary
    game = count_parameters(state.opponent.module) if state.opponent else 0
    return (
        f"primary {deployed / 1e6:.2f} M parameters; only while training: parallel convolutions "
        f"{(primary - deployed) / 1e6:.2f} M, branches and adapters {branches / 1e6:.2f} M "
        f"({', '.join(net.branches) or 'none'}), discriminator {game / 1e6:.2f} M"
    )


def _first_weights(config: Config, state: TrainState) -> str:
    """Whose weights a run begins with, and what normalisation comes with them."""
    normalisation = state.position.normalisation
    assert normalisation, "known since the run goes on"
    mean, std = normalisation
    head = ", but for a new head" if config.model.new_head else ""
    return (
        f"begins with the weights of {config.model.weights}{head}; images "
        f"are normalised by mean {[*mean]} and std {[*std]} (data.mean, data.std)"
    )


def _start(config: Config, state: TrainState) -> str:
    """Where a run that is to be resumed starts; empty for any other."""
    if state.position.step:
        return f", resuming after step {state.position.step}"
    return ", from its first step: there is nothing to resume" if config.train.resume else ""
