"""`segdistill evaluate`: score a run's network, or an exported file, on a split."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import Progress, track

from segdistill.build import (
    build_eval_dataset,
    build_normalisation,
    build_samples,
    worker_count,
)
from segdistill.commands.protocol import protocol
from segdistill.commands.run_folder import RunFolder, refuse_what_counts, versions
from segdistill.commands.tables import stream_table
from segdistill.commands.trained import load_ensemble
from segdistill.config import Config
from segdistill.config_io import resolve
from segdistill.data.loading import eval_loader
from segdistill.data.samples import Samples
from segdistill.data.taxonomy import Taxonomy
from segdistill.data.transforms import Normalisation
from segdistill.evaluation.evaluator import evaluate, score_classes
from segdistill.evaluation.metrics import Scores
from segdistill.evaluation.predictors import EnsemblePredictor, PlainPredictor
from segdistill.export.onnx_file import OnnxFile
from segdistill.export.weights import load_deployed
from segdistill.files import write_json
from segdistill.models.primary import input_multiple
from segdistill.training.run_log import miou_by_stream

Weights = Literal["deployed", "last", "best"]


def evaluate_run(
    path: Path,
    overrides: Sequence[str],
    *,
    split: str,
    weights: Weights,
    out: Path | None,
    console: Console,
) -> None:
    """Print the scores and write them as JSON.

    Args:
        path: of the run folder.
        overrides: where the run's data lie now, e.g. `data.root=DIR`.
        split: train, val or test.
        weights: `deployed` is the network of primary.safetensors; `last` and `best` are checkpoints, which
            also hold the branches.
        out: of the JSON; by default `evaluation_<split>_<weights>.json` in the run folder.
        console: to print on.
    """
    folder = RunFolder(path)
    config = folder.load_config(overrides)
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
    how = protocol(config, split=split, images=len(dataset)) | {"weights": weights}
    target = out or path / f"evaluation_{split}_{weights}.json"
    report(scores, taxonomy, how, target=target, console=console)


def evaluate_onnx(
    path: Path, overrides: Sequence[str], *, split: str, out: Path | None, console: Console
) -> None:
    """Score an exported file under ONNX Runtime, on the data its metadata names.

    Args:
        path: of the file.
        overrides: where the data lie now, e.g. `data.root=DIR`.
        split: train, val or test.
        out: of the JSON; by default `<file>_<split>.json` beside the file.
        console: to print on.

    Raises:
        ExportError: if the file was not exported by segdistill.
    """
    file = OnnxFile(path)
    described = file.description
    refuse_what_counts(overrides, owner=str(path))
    known = {"name": described.stream, "data": {**described.data, "cache": False}}
    config = resolve(known, overrides, source=str(path))
    samples = build_samples(config, split, console=console)
    scores = score_file(file, samples, console=console)
    how = dict(described.score.get("protocol", {})) | {
        "data": config.data.kind,
        "split": split,
        "images": len(samples),
        "input_size": list(file.fixed_size or described.size),
        "weights": f"{described.precision} {described.input} file under ONNX Runtime",
    }
    target = out or path.with_name(f"{path.stem}_{split}.json")
    report({described.stream: scores}, samples.taxonomy, how, target=target, console=console)


def score_file(file: OnnxFile, samples: Samples, *, console: Console) -> Scores:
    """Under ONNX Runtime, on every image at its own size."""
    title = f"scoring {file.path.name} under ONNX Runtime"
    places = track(range(len(samples)), title, console=console, transient=True)
    return score_classes(
        lambda image: file.predict(image).classes, map(samples.load, places), samples.taxonomy
    )


def report(
    scores: Mapping[str, Scores],
    taxonomy: Taxonomy,
    how: Mapping[str, Any],
    *,
    target: Path,
    console: Console,
) -> None:
    """Write the scores and how they came about, and print them."""
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
    height, width = how["input_size"]
    console.print(
        f"{how['data']} {how['split']}, {how['images']} images, input {height}x{width}, {how['scored_at']}, "
        f"{how['ignored']} ignored, {how['weights']} weights -> {target}",
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
    net = load_ensemble(folder, config, which=weights)
    ensemble = EnsemblePredictor(net, multiple=input_multiple(net.primary), device=device)
    return ensemble, build_normalisation(config)
