"""`segdistill export`: a trained stream as ONNX, checked before anybody can use it."""

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from segdistill.build_data import build_samples
from segdistill.commands.evaluate import score_file
from segdistill.commands.run_folder import RunFolder, settings_hash, versions
from segdistill.commands.tables import check_table, percent
from segdistill.commands.trained import ALL, Trained, trained_streams
from segdistill.config import Config
from segdistill.data.loading import EvalItem, to_tensor
from segdistill.data.samples import Samples
from segdistill.data.synthetic import SyntheticStreets
from segdistill.data.transforms import EvalTransform
from segdistill.errors import DataError, ExportError
from segdistill.evaluation.evaluator import evaluate
from segdistill.evaluation.predictors import PlainPredictor
from segdistill.export.calibration import Method
from segdistill.export.check import LIMITS, Check, batches_of, compare
from segdistill.export.description import Description, Fit, Input, Layout, Precision
from segdistill.export.graphs import ImageGraph, TensorGraph
from segdistill.export.half import to_half
from segdistill.export.hot_spots import hot_spots
from segdistill.export.latency import milliseconds
from segdistill.export.onnx import Cost, Interface, export_onnx
from segdistill.export.onnx_file import OnnxFile
from segdistill.export.quantize import Quantizer, needs_reduce_range
from segdistill.export.sensitivity import Outcome, quantize_within
from segdistill.export.snippet import python_snippet
from segdistill.export.web import cache_folder, write_web_page
from segdistill.export.weights import Deployed
from segdistill.files import write_atomically
from segdistill.models.ensemble import PRIMARY

PARITY_IMAGES = 8
#: Times as fast as fp32 that int8 should be on the CPU it is for; if it is not, the export says what is in the way.
INT8_SPEED = 1.8


@dataclass(frozen=True)
class Wanted:
    """What kind of file is asked for.

    Attributes:
        input: `tensor`, logits of normalised images, or `image`, class indexes of decoded ones.
        layout: order of the input's axes.
        fit: how an image of any size reaches the network (`image` only).
        confidence: whether classes come with their softmax (`image` only).
        precision: of weights and arithmetic.
        batch: images per call; None for any number.
        size: (height, width) in pixels of the input; None for any.
        opset: of the ONNX standard; None for the run's.
        simplify: let onnxslim fold and merge nodes.
        calibration: how int8 finds the range of a tensor.
        calibration_images: training images it looks at, at most.
        reduce_range: int8 weights of 7 bits, for x86 CPUs without VNNI.
    """

    input: Input = "tensor"
    layout: Layout = "nchw"
    fit: Fit = "pad"
    confidence: bool = False
    precision: Precision = "fp32"
    batch: int | None = None
    size: tuple[int, int] | None = None
    opset: int | None = None
    simplify: bool = False
    calibration: Method = "minmax"
    calibration_images: int = 64
    reduce_range: bool = False

    def file_name(self, stream: str) -> str:
        parts = [stream, *(["image"] if self.input == "image" else [])]
        parts += [self.precision] if self.precision != "fp32" else []
        parts += [f"{self.size[0]}x{self.size[1]}"] if self.size else []
        return "_".join(parts) + ".onnx"

    def network_size(self, image: tuple[int, int], *, trained: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in pixels at which the network sees an image, before it is padded to the stride."""
        if self.input == "image" and self.fit == "resize":
            return trained
        return self.size or (trained if self.input == "tensor" else image)


@dataclass(frozen=True)
class WebPage:
    """A static page that runs the file in a browser.

    Attributes:
        folder: where it is written.
        runtime: a copy of onnxruntime-web's npm archive; None to download it once.
    """

    folder: Path
    runtime: Path | None


@dataclass(frozen=True)
class Exported:
    """A file that passed its check."""

    path: Path
    cost: Cost
    check: Check


@dataclass(frozen=True)
class Split:
    """Images to check on.

    Attributes:
        samples: labelled images.
        scored: whether file and network are also scored on all of them.
    """

    samples: Samples
    scored: bool


def export_run(
    path: Path,
    overrides: Sequence[str],
    *,
    stream: str,
    wanted: Wanted,
    out: Path | None,
    web: WebPage | None,
    console: Console,
) -> None:
    """Export one stream of a run, or all of them.

    Args:
        path: of the run folder.
        overrides: where the run's data lie now, e.g. `data.root=DIR`.
        stream: `primary`, the name of a branch, or `all`.
        wanted: kind of file.
        out: ONNX file, or folder for several; by default in the run folder.
        web: a page to write around the first of the files.
        console: to print on.

    Raises:
        UserError: before anything is written, for a folder or stream there is not; ExportError with a table
            if a file fails its check, and then it is not there.
    """
    folder = RunFolder(path)
    config = folder.load_config(overrides)
    target_of(folder, out, "", several=stream == ALL)  # a wrong one is told before the work
    streams = trained_streams(folder, config, stream)
    split = split_at_hand(config, streams[0].deployed, console=console)
    exported = []
    for one in streams:
        target = target_of(folder, out, wanted.file_name(one.name), several=stream == ALL)
        exported.append(export_checked(target, one, wanted, split, console=console))
    image = split.samples.load(0).image
    times = milliseconds({file.path.name: OnnxFile(file.path) for file in exported}, image)
    console.print(files_table(exported, times))
    first = OnnxFile(exported[0].path)
    console.print("\nWithout segdistill:\n", highlight=False)
    console.print(
        python_snippet(first),
        highlight=False,
        markup=False,
    )
    if web is not None:
        write_web_page(exported[0].path, web.folder, runtime=web.runtime, cache=cache_folder())
        console.print(
            f"\n{web.folder}: serve it, e.g. by python -m http.server -d {web.folder} 8000, and open "
            "http://localhost:8000",
            highlight=False,
        )


def files_table(files: Sequence[Exported], milliseconds: Mapping[str, float]) -> Table:
    """A family of files: what each is worth and what it costs."""
    table = Table("file", "mIoU %", "parameters", "MACs", "size", "latency")
    for column in table.columns[1:]:
        column.justify = "right"
    for file in files:
        miou = file.check.miou
        table.add_row(
            file.path.name,
            "-" if miou is None else percent(miou),
            f"{file.cost.parameters / 1e6:.2f} M",
            f"{file.cost.macs / 1e6:.0f} M",
            f"{file.path.stat().st_size / 1e6:.1f} MB",
            f"{milliseconds[file.path.name]:.1f} ms",
        )
    return table


def target_of(folder: RunFolder, out: Path | None, name: str, *, several: bool) -> Path:
    """Where a file goes.

    Raises:
        ExportError: if `out` is neither a folder nor, for one file, the name of an ONNX file.
    """
    if out is None:
        return folder.path / name
    if out.is_dir() or (several and not out.exists() and not out.suffix):
        return out / name
    if several or out.suffix.lower() != ".onnx":
        wanted = (
            "a folder for the files of all streams" if several else "a file that ends in .onnx, or a folder"
        )
        raise ExportError(f"--out {out}: name {wanted}")
    return out


def graph_of(trained: Trained, wanted: Wanted) -> TensorGraph | ImageGraph:
    deployed = trained.deployed
    if wanted.input == "tensor":
        return TensorGraph(trained.network, stride=deployed.multiple)
    return ImageGraph(
        trained.network,
        normalisation=deployed.normalisation,
        stride=deployed.multiple,
        size=deployed.size,
        fit=wanted.fit,
        layout=wanted.layout,
        confidence=wanted.confidence,
    )


def describe(trained: Trained, wanted: Wanted) -> Description:
    """What the file says of itself; the score is the network's, until the file has one of its own."""
    model, data = trained.config.model, trained.config.data
    return Description(
        input=wanted.input,
        layout=wanted.layout,
        fit=wanted.fit,
        confidence=wanted.confidence,
        stream=trained.name,
        precision=wanted.precision,
        taxonomy=trained.deployed.taxonomy,
        normalisation=trained.deployed.normalisation,
        size=trained.deployed.size,
        stride=trained.deployed.multiple,
        network={"arch": model.arch, "encoder": model.encoder},
        score=trained.score,
        data=data.model_copy(update={"root": None}).model_dump(mode="json"),
        config_hash=settings_hash(trained.config),
        versions=versions(),
        licence=f"The rights in these weights follow from the data they were trained on ({data.kind}) and from "
        f"the encoder's first weights ({model.encoder}, {model.encoder_weights}).",
    )


def split_at_hand(config: Config, deployed: Deployed, *, console: Console) -> Split:
    """The run's validation images, or synthetic ones if they are not on this machine; nothing is downloaded."""
    try:
        return Split(build_samples(config, "val", console=console, download=False), scored=True)
    except DataError as error:
        console.print(
            f"[yellow]the run's images are not at hand, so the check uses synthetic streets and gives no mIoU[/yellow] "
            f"({str(error).splitlines()[0]}); say where they are by data.root=DIR",
            highlight=False,
        )
    height, width = deployed.size
    streets = SyntheticStreets(split="val", length=PARITY_IMAGES, height=height, width=width, seed=0)
    return Split(streets, scored=False)


def export_checked(
    path: Path, trained: Trained, wanted: Wanted, split: Split, *, console: Console
) -> Exported:
    """Export, compare with torch, and only then let the file stand.

    Raises:
        ExportError: if the export or the check fails; no file is left behind.
    """
    graph, description = graph_of(trained, wanted), describe(trained, wanted)
    opset = wanted.opset or trained.config.export.opset
    interface = Interface(wanted.batch, wanted.size, opset, wanted.simplify)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".unchecked-{path.name}-") as folder:
        single, candidate = Path(folder) / "fp32.onnx", Path(folder) / path.name
        with console.status(f"exporting {trained.name} to ONNX (about half a minute)"):
            cost = export_onnx(single, graph, description, interface)
        reference = torch_miou(trained, wanted, split.samples, console=console) if split.scored else None
        kept_float: tuple[str, ...] = ()
        match wanted.precision:
            case "fp32":
                candidate = single
            case "fp16":
                to_half(single, candidate)
            case "int8":
                kept_float = quantise(
                    single, candidate, trained, wanted, split, reference=reference, console=console
                )
        file = OnnxFile(candidate)
        parity = compare(
            graph, file, batches_of(spread(split.samples, PARITY_IMAGES), description, interface)
        )
        miou = None if reference is None else file_miou(file, split.samples, console=console)
        check = Check(wanted.precision, parity, miou, reference)
        if not check.holds:
            console.print(check_table(check))
            older = "; the file of that name is an earlier one" if path.exists() else ""
            raise ExportError(
                f"{path} was not written, it is not the trained network: {check.failures}{older}"
            )
        if miou is not None:
            score = {"miou": miou, "of": "this file", "protocol": protocol_of(trained, wanted)}
            score |= {"float_layers": kept_float} if wanted.precision == "int8" else {}
            set_metadata(candidate, replace(description, score=score))
        speed = speed_up(OnnxFile(single), file, split.samples) if candidate != single else None
        note = ""
        if speed is not None and speed < INT8_SPEED and wanted.precision == "int8":
            note = slow_note(file, split.samples, speed=speed)
        candidate.replace(path)
    said = [f"{line.name} {line.value}" for line in check.lines]
    said += [f"{speed:.2f} x as fast as fp32 on this CPU"] if speed else []
    said += [f"left in float: {', '.join(kept_float)}"] if kept_float else []
    console.print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, checked against torch on {check.parity.images} images under ONNX "
        f"Runtime: {', '.join(said)}",
        highlight=False,
    )
    if note:
        console.print(note, highlight=False)
    return Exported(path, cost, check)


def protocol_of(trained: Trained, wanted: Wanted) -> dict[str, Any]:
    """How the file was scored: on the training's split, but as the file prepares images."""
    if wanted.input == "image" and wanted.fit == "pad":
        size = list(wanted.size) if wanted.size else "the image's own"
    else:
        size = list(wanted.network_size((0, 0), trained=trained.deployed.size))
    runtime = f"{wanted.precision} {wanted.input} file under ONNX Runtime"
    return {**trained.score["protocol"], "input_size": size, "weights": runtime}


def quantise(
    source: Path,
    target: Path,
    trained: Trained,
    wanted: Wanted,
    split: Split,
    *,
    reference: float | None,
    console: Console,
) -> tuple[str, ...]:
    """Make an int8 file of an fp32 one that keeps the mIoU.

    Returns:
        Names of the layer groups that had to stay in float.

    Raises:
        ExportError: without the run's images, or if the mIoU cannot be kept.
    """
    if reference is None:
        raise ExportError(
            "int8 needs the run's training and validation images; say where they are by data.root=DIR"
        )
    samples = build_samples(trained.config, "train", console=console, download=False)
    file = OnnxFile(source)
    name = file.description.input_name
    feeds = [{name: file.batch_of(image)} for image in spread(samples, wanted.calibration_images)]
    with console.status(f"calibrating on {len(feeds)} training images"):
        quantizer = Quantizer(source, feeds, method=wanted.calibration, reduce_range=wanted.reduce_range)
    outcome = quantize_within(
        quantizer,
        target,
        feeds[:PARITY_IMAGES],
        score=lambda path: file_miou(OnnxFile(path), split.samples, console=console),
        reference=reference,
        limit=LIMITS["int8"].miou_difference,
    )
    if outcome.sensitivities:
        console.print(sensitivity_table(outcome))
    return outcome.kept_float


def sensitivity_table(outcome: Outcome) -> Table:
    """What quantising each group of layers alone does, and which stayed in float for it."""
    table = Table("layers in int8 alone", "equal argmax", "noise of the logits", "")
    for one in outcome.sensitivities:
        noise = "-" if one.sqnr_db is None else f"{one.sqnr_db:.0f} dB below"
        kept = "stays in float" if one.group in outcome.kept_float else ""
        table.add_row(one.group, f"{one.equal_argmax:.2%}", noise, kept)
    return table


def speed_up(single: OnnxFile, file: OnnxFile, samples: Samples) -> float:
    """How many times as fast as fp32 a file is, their runs taken in turn."""
    times = milliseconds({"fp32": single, "this": file}, samples.load(0).image)
    return times["fp32"] / times["this"]


def slow_note(file: OnnxFile, samples: Samples, *, speed: float) -> str:
    """Why int8 is no faster: what takes the time, and whether the CPU lacks the instructions."""
    spots = hot_spots(file.path, {file.description.input_name: file.batch_of(samples.load(0).image)})

    def words(shares: Mapping[str, float], count: int) -> str:
        return ", ".join(f"{name} {share:.0%}" for name, share in itertools.islice(shares.items(), count))

    cpu = (
        " This CPU has no VNNI: a product of int8 takes three instructions instead of one."
        if needs_reduce_range()
        else ""
    )
    return (
        f"note: int8 should be {INT8_SPEED} x as fast as fp32 and is {speed:.2f} x. In the way: "
        f"{words(spots.operations, 4)} of its time; by layer {words(spots.layers, 5)}.{cpu} What was tried: README, "
        "Export for the edge."
    )


def spread(samples: Samples, count: int) -> list[np.ndarray]:
    """Evenly spaced images (H, W, 3), at most `count`."""
    count = min(count, len(samples))
    return [samples.load(place * len(samples) // count).image for place in range(count)]


def torch_miou(trained: Trained, wanted: Wanted, samples: Samples, *, console: Console) -> float:
    """Of the network, on every image, prepared and resized as in training, at the size the file gives it."""
    deployed = trained.deployed
    predictor = PlainPredictor(trained.network, multiple=deployed.multiple, device=torch.device("cpu"))

    def item(index: int) -> EvalItem:
        image, mask = samples.load(index)
        native = (image.shape[0], image.shape[1])
        size = wanted.network_size(native, trained=deployed.size)
        pixels = EvalTransform(size=size, normalisation=deployed.normalisation)(image)
        return EvalItem(index, to_tensor(pixels), torch.from_numpy(mask.astype(np.int64)))

    places = track(range(len(samples)), f"scoring {trained.name} in torch", console=console, transient=True)
    return evaluate(predictor, map(item, places), samples.taxonomy)[PRIMARY].miou


def file_miou(file: OnnxFile, samples: Samples, *, console: Console) -> float:
    """Of a file, on every image."""
    return score_file(file, samples, console=console).miou


def set_metadata(path: Path, description: Description) -> None:
    """Replace what a file says of itself."""
    model = onnx.load(str(path))
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, description.to_metadata())
    write_atomically(path, lambda temporary: onnx.save(model, str(temporary)))
