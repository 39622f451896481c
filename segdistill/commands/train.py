"""`segdistill train`: configuration in, a deployed network out."""

import os
import threading
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segdistill.build.datasets import (
    training_size,
)
from segdistill.build.network import build_deployed
from segdistill.build.training import build_fabric, build_loop_settings, build_state, slow_precision
from segdistill.build.training_data import TrainingData, build_training_data
from segdistill.commands.export import Exported, Split, export_checked
from segdistill.commands.protocol import protocol
from segdistill.commands.run_folder import RunFolder
from segdistill.commands.settings import settings_without_effect
from segdistill.commands.tables import better_branch, stream_table
from segdistill.commands.trained import Trained, as_it_began, score_in, scored_weights
from segdistill.commands.versions import differences, in_their_order
from segdistill.commands.wanted_file import Wanted
from segdistill.config import Config
from segdistill.console import new_console, warn
from segdistill.data.loading import EvalItem
from segdistill.data.transforms import Normalisation
from segdistill.errors import ExportError
from segdistill.evaluation.evaluator import evaluate
from segdistill.evaluation.metrics import Scores, miou_by_stream
from segdistill.evaluation.predictors import MultiBranchPredictor
from segdistill.export.weights import Deployed, save_deployed
from segdistill.files import refuse_unwritable, write_json
from segdistill.models.primary import input_multiple
from segdistill.processes import by_first, in_turn, launched
from segdistill.resolution import pad_to_multiple
from segdistill.streams import PRIMARY
from segdistill.training.checkpoint import load_checkpoint
from segdistill.training.host_memory import keep_freed_memory
from segdistill.training.interruption import until
from segdistill.training.loop import fit
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
    if config.train.resume and folder.finished:
        console.print(f"{folder.path} holds a finished run; nothing is left to do")
        return
    fabric = build_fabric(config)
    if fabric.device.type == "cpu":
        keep_freed_memory()
    with launched(fabric, to_save_memory=_TO_SAVE_MEMORY):
        _train(config, folder, fabric, console=console if fabric.is_global_zero else new_console(quiet=True))


def _train(config: Config, folder: RunFolder, fabric: Fabric, *, console: Console) -> None:
    """In every process; the first one alone speaks and writes."""
    by_first(fabric, lambda: refuse_unwritable(folder.path, said=f"out={folder.path}"))
    data, state = prepare(config, folder, fabric, console=console)
    with ExitStack() as until_the_end:

        def begin() -> None:
            until_the_end.enter_context(folder.owned())
            folder.begin(config)
            if not state.position.step:
                folder.drop_beginning(config)
            folder.note_images(data.names)

        by_first(fabric, begin)
        say_what_runs(config, state, console=console, images=(data.training_images, len(data.val)))
        scores = fit_and_score(config, folder, state, data, console=console)
        by_first(fabric, lambda: deploy(config, folder, state, scores, data, console=console))


def prepare(
    config: Config, folder: RunFolder, fabric: Fabric, *, console: Console
) -> tuple[TrainingData, TrainState]:
    """The data, checked, and where the run stands: at its first step, or where it was interrupted."""
    saved = in_turn(fabric, lambda: folder.saved(config))
    built = in_turn(fabric, lambda: as_it_began(config, saved) if saved else config)
    data = in_turn(fabric, lambda: build_training_data(built, fabric, console=console))
    if reason := folder.not_to_go_on_from(saved, data.hash):
        warn(console, f"from the first step: {reason}")
        by_first(fabric, lambda: forget_beginning(config, folder))
        return prepare(config, folder, fabric, console=console)
    state = build_state(built, fabric, total_steps=config.train.epochs * data.batches.steps)
    # All have read the folder before the first one writes to it.
    in_turn(fabric, lambda: folder.go_on(built, state, saved, data_hash=data.hash))
    return data, state


def forget_beginning(config: Config, folder: RunFolder) -> None:
    """Of a run that has not done a step itself. Raises RunFolderError if another process does one."""
    with folder.owned():
        folder.drop_beginning(config)


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
    with log or nullcontext():
        last_scores = fit(
            state,
            build_loop_settings(config, multiple=multiple),
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
    """What is trained, on what, where; the first thing a user sees."""
    net = state.net
    deployed, primary = count_parameters(net.deploy()), count_parameters(net.primary)
    branches = count_parameters(net) - primary
    game = sum(p.numel() for p in state.discriminator.module.parameters()) if state.discriminator else 0
    crop = f" in crops of {'x'.join(map(str, training_size(config)))}" if config.data.crop else ""
    console.print(
        f"{config.name}: {config.method.kind}, {config.model.arch} on {config.model.encoder}, "
        f"{images[0]} training and {images[1]} validation images at {config.data.size[0]}x{config.data.size[1]}{crop}, "
        f"seed {config.seed}, {state.fabric.world_size} x {state.fabric.device.type}",
    )
    console.print(
        f"primary {deployed / 1e6:.2f} M parameters; only while training: parallel convolutions "
        f"{(primary - deployed) / 1e6:.2f} M, branches and adapters {branches / 1e6:.2f} M "
        f"({', '.join(net.branches) or 'none'}), discriminator {game / 1e6:.2f} M",
    )
    if (weights := config.model.weights) and not state.position.step:
        mean, std = state.position.normalisation or ((), ())
        console.print(
            f"begins with the weights of {weights}{', but for a new head' if config.model.new_head else ''}; images "
            f"are normalised by mean {[*mean]} and std {[*std]} (data.mean, data.std)"
        )
    if slow := slow_precision(config.train):
        warn(console, slow)
    if idle := settings_without_effect(config):
        settings = ", ".join(f"{key}={value}" for key, value in idle.items())
        console.print(
            f"without effect beside the other settings (method.kind={config.method.kind}): {settings}",
        )
    start = ", from its first step: there is nothing to resume" if config.train.resume else ""
    if state.position.step:
        start = f", resuming after step {state.position.step}"
    console.print(f"run folder {config.run_folder}{start}")
    *earlier, now = state.position.programs
    if earlier:
        warn(
            console,
            f"another version trained the steps before: {differences(earlier[-1], now)}",
        )
    if (processes := state.fabric.world_size) > 1:
        console.print(
            f"{config.train.batch_size // processes} images at a time in each of {processes} processes; batch norm and "
            "losses see those alone, so with another number of processes it is another training",
        )


def deploy(
    config: Config,
    folder: RunFolder,
    state: TrainState,
    scores: dict[str, Scores],
    data: TrainingData,
    *,
    console: Console,
) -> None:
    """Take the primary out of the trained network, write it, prove the ONNX file, sum the run up."""
    primary = state.scored_net.deploy().cpu().to(memory_format=torch.contiguous_format).eval()
    assert state.position.normalisation, "known since the first step"
    fed = Normalisation(*state.position.normalisation)
    deployed = build_deployed(config, primary, normalisation=fed)
    save_deployed(folder.primary, primary, deployed)
    summary = summary_of(config, state, scores, primary, deployed, data)
    # Scores first: an export that fails must not cost them.
    write_json(folder.summary, summary)
    console.print(stream_table(scores, deployed.taxonomy.names))
    trained = Trained(PRIMARY, primary, deployed, config, score_in(summary, PRIMARY))
    exported = export_of_some_size(
        folder.onnx, trained, Split(data.val.samples, scored=False), console=console
    )
    if hint := better_branch(scores, folder.path):
        console.print(hint)
    onnx = {"bytes": os.path.getsize(folder.onnx), **exported.check.parity.as_dict()}
    write_json(folder.summary, summary | {"onnx": onnx})
    console.print(
        f"deployed: {summary['parameters'] / 1e6:.2f} M parameters, {summary['macs'] / 1e9:.2f} GMACs at "
        f"{deployed.size[0]}x{deployed.size[1]}; {folder.primary.name}, {folder.onnx.name} and "
        f"{folder.summary.name} in {folder.path}",
    )


def summary_of(
    config: Config,
    state: TrainState,
    scores: dict[str, Scores],
    primary: nn.Module,
    deployed: Deployed,
    data: TrainingData,
) -> dict[str, Any]:
    """What `summary.json` says of a run before its network is exported."""
    position = state.position
    by_class = scores[PRIMARY].as_dict(deployed.taxonomy.names)
    return {
        "name": config.name,
        "method": config.method.kind,
        "seed": config.seed,
        "first_weights": position.first_weights,
        "miou": miou_by_stream(scores),
        **{key: value for key, value in by_class.items() if key != "miou"},
        "best": {"epoch": position.best_epoch, "miou": position.best_miou},
        "parameters": count_parameters(primary),
        "macs": count_macs(primary, deployed),
        "seconds": {
            "training": round(position.seconds, 3),
            "per_step": round(position.seconds / position.step, 5),
        },
        "memory_bytes": position.memory_bytes,
        "steps": position.step,
        "onnx": None,
        "versions": in_their_order(position.programs),
        "device": state.fabric.device.type,
        "processes": state.fabric.world_size,
        "data": {"training_images": data.training_images, "hash": data.hash, "splits": data.split_hashes},
        "protocol": protocol(config, split="val", images=len(data.val)),
    }


def export_of_some_size(file: Path, trained: Trained, split: Split, *, console: Console) -> Exported:
    """For images of any size or, where the network cannot be exported so, for those of the trained size."""
    try:
        return export_checked(file, trained, Wanted(), split, console=console)
    except ExportError as error:
        height, width = trained.deployed.size
        warn(
            console,
            f"{error}\nso {file.name} is exported for images of {height}x{width} alone",
        )
        return export_checked(file, trained, Wanted(size=(height, width)), split, console=console)


def count_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def count_macs(primary: nn.Module, deployed: Deployed) -> int:
    """Multiply-adds of one image at the trained size, as torch's counter sees them (convolutions, products)."""
    image = pad_to_multiple(torch.zeros(1, 3, *deployed.size), deployed.multiple)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        primary(image)
    return counter.get_total_flops() // 2
