"""`segdistill evaluate`: score a run's network on a split."""

from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.progress import Progress

from segdistill.build import (
    build_eval_dataset,
    build_net,
    build_normalisation,
    build_samples,
    worker_count,
)
from segdistill.commands.run_folder import RunFolder, versions
from segdistill.commands.tables import stream_table
from segdistill.commands.train import protocol, scored_weights
from segdistill.config import Config
from segdistill.data.loading import eval_loader
from segdistill.data.transforms import Normalisation
from segdistill.evaluation.evaluator import evaluate
from segdistill.evaluation.predictors import EnsemblePredictor, PlainPredictor
from segdistill.export.weights import load_deployed
from segdistill.files import write_json
from segdistill.models.primary import input_multiple
from segdistill.training.checkpoint import load_checkpoint
from segdistill.training.run_log import miou_by_stream

Weights = Literal["deployed", "last", "best"]


def evaluate_run(path: Path, *, split: str, weights: Weights, out: Path | None, console: Console) -> None:
    """Print the scores and write them as JSON.

    Args:
        path: of the run folder.
        split: train, val or test.
        weights: `deployed` is the network of primary.safetensors; `last` and `best` are checkpoints, which
            also hold the branches.
        out: of the JSON; by default `evaluation_<split>_<weights>.json` in the run folder.
        console: to print on.
    """
    folder = RunFolder(path)
    config = folder.load_config()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    predictor, normalisation = load_predictor(folder, config, weights=weights, device=device)
    samples = build_samples(config, split, console=console)
    dataset = build_eval_dataset(config, samples, normalisation=normalisation)
    loader = eval_loader(dataset, workers=worker_count(config, on_gpu=device.type == "cuda"))
    taxonomy = dataset.samples.taxonomy
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"scoring {split}", total=len(dataset))
        scores = evaluate(
            predictor, loader, taxonomy, progress=lambda done: progress.update(task, completed=done)
        )
    target = out or path / f"evaluation_{split}_{weights}.json"
    how = protocol(config, split=split, images=len(dataset)) | {"weights": weights}
    write_json(
        target,
        {
            "miou": miou_by_stream(scores),
            "streams": {name: one.as_dict(taxonomy.names) for name, one in scores.items()},
            "protocol": how,
            "versions": versions(),
        },
    )
    console.print(stream_table(scores, taxonomy.names))
    console.print(
        f"{how['data']} {split}, {how['images']} images, input {how['input_size'][0]}x{how['input_size'][1]}, "
        f"{how['scored_at']}, {how['ignored']} ignored, {weights} weights -> {target}",
        highlight=False,
    )


def load_predictor(
    folder: RunFolder, config: Config, *, weights: Weights, device: torch.device
) -> tuple[PlainPredictor | EnsemblePredictor, Normalisation]:
    """The network whose scores are asked for, and how its images are normalised.

    Raises:
        RunFolderError: if its file is missing or damaged.
    """
    if weights == "deployed":
        primary, deployed = load_deployed(folder.primary)
        predictor = PlainPredictor(primary, multiple=deployed.multiple, device=device)
        return predictor, deployed.normalisation
    checkpoints = folder.checkpoints(config)
    content = load_checkpoint(checkpoints.last if weights == "last" else checkpoints.best)
    # The checkpoint holds all weights; the pretrained ones need not be had again.
    bare = config.model_copy(update={"model": config.model.model_copy(update={"encoder_weights": "none"})})
    net = build_net(bare)
    net.load_state_dict(scored_weights(content))
    ensemble = EnsemblePredictor(net, multiple=input_multiple(net.primary), device=device)
    return ensemble, build_normalisation(config)
