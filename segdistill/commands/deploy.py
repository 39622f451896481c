"""From a trained network to what is deployed: its weights, its checked ONNX file, and the run's summary."""

import os
from pathlib import Path

import torch
from rich.console import Console
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segdistill.build.network import build_deployed
from segdistill.build.training_data import TrainingData
from segdistill.commands.checked_export import Exported, Split, export_checked
from segdistill.commands.protocol import run_protocol
from segdistill.commands.run_folder import RunFolder
from segdistill.commands.tables import better_branch, stream_table
from segdistill.commands.trained import Trained, score_in
from segdistill.commands.versions import in_their_order
from segdistill.commands.wanted_file import Wanted
from segdistill.config import Config
from segdistill.console import warn
from segdistill.errors import ExportError
from segdistill.evaluation.metrics import Scores, miou_by_stream
from segdistill.export.weights import Deployed, save_deployed
from segdistill.files import write_json
from segdistill.resolution import pad_to_multiple
from segdistill.run_summary import BestEpoch, RunSummary, Seconds, TrainedData
from segdistill.streams import PRIMARY
from segdistill.training.state import TrainState


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
    normalisation = state.position.normalisation
    assert normalisation, "known since the first step"
    deployed = build_deployed(config, primary, normalisation=normalisation)
    save_deployed(folder.primary, primary, deployed)
    summary = summary_of(config, state, scores, primary, deployed, data)
    # Scores first: an export that fails must not cost them.
    write_json(folder.summary, summary.as_dict())
    console.print(stream_table(scores, deployed.taxonomy.names))
    trained = Trained(PRIMARY, primary, deployed, config, score_in(summary, PRIMARY))
    exported = export_of_some_size(
        folder.onnx, trained, Split(data.val.samples, scored=False), console=console
    )
    if hint := better_branch(scores, folder.path):
        console.print(hint)
    onnx = {"bytes": os.path.getsize(folder.onnx), **exported.check.parity.as_dict()}
    write_json(folder.summary, summary.as_dict() | {"onnx": onnx})
    console.print(
        f"deployed: {summary.parameters / 1e6:.2f} M parameters, {summary.macs / 1e9:.2f} GMACs at "
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
) -> RunSummary:
    """What there is to say of a run before its network is exported."""
    position = state.position
    of_primary = scores[PRIMARY].as_dict(deployed.taxonomy.names)
    return RunSummary(
        name=config.name,
        method=config.method.kind,
        seed=config.seed,
        first_weights=position.first_weights,
        **of_primary | {"miou": miou_by_stream(scores)},
        best=BestEpoch(epoch=position.best_epoch, miou=position.best_miou),
        parameters=count_parameters(primary),
        macs=count_macs(primary, deployed),
        seconds=Seconds(
            training=round(position.seconds, 3), per_step=round(position.seconds / position.step, 5)
        ),
        memory_bytes=position.memory_bytes,
        steps=position.step,
        onnx=None,
        versions=in_their_order(position.programs),
        devices=" then ".join(position.devices),
        data=TrainedData(training_images=data.training_images, hash=data.hash, splits=data.split_hashes),
        protocol=run_protocol(config, split="val", images=len(data.val)),
    )


def export_of_some_size(file: Path, trained: Trained, split: Split, *, console: Console) -> Exported:
    """Export for images of any size or, where the network cannot be exported so, for those of the trained size."""
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
