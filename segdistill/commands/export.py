"""`segdistill export`: a trained stream as ONNX, checked before anybody can use it."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from segdistill.build.splits import build_samples
from segdistill.commands.data_drift import refuse_what_it_learnt
from segdistill.commands.export_int8 import INT8_SPEED, calibration_images, quantise, slow_note, speed_up
from segdistill.commands.file_scores import PARITY_IMAGES, file_miou, spread, torch_miou
from segdistill.commands.protocol import other_data
from segdistill.commands.run_folder import RunFolder
from segdistill.commands.tables import check_table, percent
from segdistill.commands.trained import ALL, Trained, trained_streams
from segdistill.commands.wanted_file import Wanted, describe, graph_of, protocol_of
from segdistill.config import Config
from segdistill.console import warn
from segdistill.data.samples import Samples
from segdistill.data.synthetic import SyntheticStreets
from segdistill.errors import DataMissingError, ExportError, RunFolderError, first_line
from segdistill.export.check import Check
from segdistill.export.description import Description
from segdistill.export.graphs import ImageGraph, TensorGraph
from segdistill.export.half import to_half
from segdistill.export.latency import milliseconds
from segdistill.export.onnx import Cost, Interface, export_onnx, refuse_opset
from segdistill.export.onnx_file import OnnxFile
from segdistill.export.parity import Parity, batches_of, compare
from segdistill.export.snippet import python_snippet
from segdistill.export.web import cache_folder, ready_for_page, write_web_page
from segdistill.export.weights import Deployed
from segdistill.files import expanded, put_in_place, refuse_unwritable, room_for, write_atomically


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
        elsewhere: the folder of the data if they are others than the training's.
    """

    samples: Samples
    scored: bool
    elsewhere: Path | None = None


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
    refuse_opset(wanted.opset or config.export.opset)
    place = target_of(folder, out, wanted.file_name(stream), several=stream == ALL).parent
    refuse_unwritable(place, said=f"--out {out or place}")  # before the work
    if web is not None:
        refuse_unwritable(expanded(web.folder).resolve().parent, said=f"--web {web.folder}")
        ready_for_page(web.folder, runtime=web.runtime, cache=cache_folder())
    streams = trained_streams(folder, config, stream)
    named = any(override.startswith("data.root=") for override in overrides)
    split = split_at_hand(folder, config, streams[0].deployed, named=named, console=console)
    calibration = []
    if wanted.precision == "int8":  # once for all streams, and before the work
        count = wanted.calibration_images
        calibration = calibration_images(config, count, scored=split.scored, console=console)
    exported = []
    for one in streams:
        target = target_of(folder, out, wanted.file_name(one.name), several=stream == ALL)
        exported.append(export_checked(target, one, wanted, split, calibration=calibration, console=console))
    image = split.samples.load(0).image
    times = milliseconds({file.path.name: OnnxFile(file.path) for file in exported}, image)
    console.print(files_table(exported, times))
    first = OnnxFile(exported[0].path)
    console.print("\nWithout segdistill:\n")
    console.print(
        python_snippet(first),
    )
    if web is not None:
        write_web_page(exported[0].path, web.folder, runtime=web.runtime, cache=cache_folder())
        console.print(
            f"\n{web.folder}: serve it, e.g. by python -m http.server -d {web.folder} 8000, and open "
            "http://localhost:8000",
        )


def files_table(files: Sequence[Exported], milliseconds: Mapping[str, float]) -> Table:
    """A family of files: what each is worth and what it costs."""
    table = Table("file", "mIoU %", "parameters", "MACs", "size", "latency")
    table.columns[0].overflow = "fold"
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


def split_at_hand(
    folder: RunFolder, config: Config, deployed: Deployed, *, named: bool, console: Console
) -> Split:
    """The run's validation images, or synthetic ones if they are not on this machine; nothing is downloaded.

    Args:
        folder: of the run.
        config: of the run, with the place of the data as it was said just now.
        deployed: how its networks are fed.
        named: whether it was said just now where the images lie; then they have to be there.
        console: to print on.

    Raises:
        DataError: there are images, but something is wrong with them; or they were named and are not there.
    """
    try:
        samples = build_samples(config, "val", console=console, download=False)
        elsewhere = other_data(config, folder.load_config())
        if elsewhere is None:
            refuse_what_it_learnt(folder, samples, config, split="val")
        return Split(samples, scored=True, elsewhere=elsewhere)
    except RunFolderError as error:
        warn(console, f"the check gives no mIoU: {error}")
        return Split(samples, scored=False, elsewhere=None)
    except DataMissingError as error:
        if named:
            raise
        warn(
            console,
            f"the run's images are not at hand, so the check uses synthetic streets and gives no mIoU "
            f"({first_line(error)}); say where they are by data.root=DIR",
        )
    height, width = deployed.size
    streets = SyntheticStreets(split="val", length=PARITY_IMAGES, height=height, width=width, seed=0)
    return Split(streets, scored=False)


def export_checked(
    path: Path,
    trained: Trained,
    wanted: Wanted,
    split: Split,
    *,
    calibration: Sequence[np.ndarray] = (),
    console: Console,
) -> Exported:
    """Export, compare with torch, and only then let the file stand.

    Args:
        path: of the file.
        trained: stream.
        wanted: kind of file.
        split: to check on; int8 has to be scored.
        calibration: images (H, W, 3) that int8 finds ranges by.
        console: to print on.

    Raises:
        ExportError: if the export or the check fails; no file is left behind.
    """
    with (
        room_for(path),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".unchecked-{path.name}-") as folder,
    ):
        graph, description = graph_of(trained, wanted), describe(trained, wanted)
        opset = wanted.opset or trained.config.export.opset
        interface = Interface(wanted.batch, wanted.size, opset, wanted.simplify)
        single = Path(folder) / f"fp32-{path.name}"
        with console.status(f"exporting {trained.name} to ONNX (up to half a minute)"):
            cost = export_onnx(single, graph, description, interface)
        batches = list(batches_of(spread(split.samples, PARITY_IMAGES), description, interface))
        export = _Export(path, single, graph, batches, trained, wanted, split, calibration, console)
        made = _made(export)
        refuse_unless(made.check, path, wanted, console=console)
        if made.check.miou is not None:
            set_metadata(made.path, replace(description, score=_score(export, made)))
        said = _in_words(export, made)
        put_in_place(made.path, path)
    console.print(said)
    return Exported(path, cost, made.check)


@dataclass(frozen=True)
class _Export:
    """A stream in fp32, of which the file that is wanted is made, and what that is held against.

    Attributes:
        path: of the file that is wanted; whatever is wrong with one on the way to it is told of this.
        single: the fp32 file, in a folder for those that are not checked.
        graph: what it was made from, in torch.
        batches: on which files and graph are compared.
        trained: stream.
        wanted: kind of file.
        split: to check on.
        calibration: images (H, W, 3) that int8 finds ranges by.
        console: to print on.
    """

    path: Path
    single: Path
    graph: TensorGraph | ImageGraph
    batches: Sequence[np.ndarray]
    trained: Trained
    wanted: Wanted
    split: Split
    calibration: Sequence[np.ndarray]
    console: Console

    @property
    def candidate(self) -> Path:
        """Where what is made of the fp32 file lies until it is checked."""
        return self.single.with_name(self.path.name)

    def load(self, path: Path) -> OnnxFile:
        return OnnxFile(path, name=self.path)

    def parity(self, path: Path) -> Parity:
        """Of a file with the graph."""
        return compare(self.graph, self.load(path), self.batches)

    def reference_miou(self) -> float:
        """Of the network in torch, on the split."""
        return torch_miou(self.trained, self.wanted, self.split.samples, console=self.console)

    def check(self, path: Path) -> Check:
        """A file of the precision that is wanted against torch."""
        if not self.split.scored:
            return Check(self.wanted.precision, self.parity(path))
        reference = self.reference_miou()
        miou = file_miou(self.load(path), self.split.samples, console=self.console)
        return Check(self.wanted.precision, self.parity(path), miou, reference)


@dataclass(frozen=True)
class _Made:
    """A file of the precision that is wanted.

    Attributes:
        path: of the file.
        check: of the file.
        kept_float: layer groups that int8 has left as they were; None in other precisions.
        least_speed: times as fast as fp32 that it should be; if it is not, the export says what is in the way.
    """

    path: Path
    check: Check
    kept_float: Sequence[str] | None = None
    least_speed: float = 0.0


def _made(export: _Export) -> _Made:
    match export.wanted.precision:
        case "fp32":
            return _Made(export.single, export.check(export.single))
        case "fp16":
            return _in_half(export)
        case "int8":
            return _in_int8(export)


def _in_half(export: _Export) -> _Made:
    to_half(export.single, export.candidate, export.batches, name=export.path)
    return _Made(export.candidate, export.check(export.candidate))


def _in_int8(export: _Export) -> _Made:
    # Of int8 nothing is asked image by image, so the fp32 file has to show that the graph is the network.
    single = Check("fp32", export.parity(export.single))
    refuse_unless(single, export.path, export.wanted, console=export.console)
    assert export.split.scored, "export_run refuses int8 without the run's images"
    reference = export.reference_miou()
    outcome = quantise(
        export.load(export.single),
        export.candidate,
        export.wanted,
        export.split.samples,
        calibration=export.calibration,
        reference=reference,
        console=export.console,
    )
    check = Check("int8", export.parity(export.candidate), outcome.score, reference)
    return _Made(export.candidate, check, kept_float=outcome.kept_float, least_speed=INT8_SPEED)


def _score(export: _Export, made: _Made) -> dict[str, Any]:
    """What the file says of its score."""
    split = export.split
    protocol = protocol_of(
        export.trained, export.wanted, images=len(split.samples), elsewhere=split.elsewhere
    )
    score = {"miou": made.check.miou, "of": "this file", "protocol": protocol}
    return score if made.kept_float is None else score | {"float_layers": made.kept_float}


def _in_words(export: _Export, made: _Made) -> str:
    """What the check found, and how fast the file is if it is another than the fp32 one."""
    said = [f"{line.name} {line.value}" for line in made.check.lines]
    note = ""
    if made.path != export.single:
        file, samples = export.load(made.path), export.split.samples
        speed = speed_up(export.load(export.single), file, samples)
        said += [f"{speed:.2f} x as fast as fp32 on this CPU"]
        if speed < made.least_speed:
            note = f"\n{slow_note(file, samples, speed=speed)}"
    said += [f"left in float: {', '.join(made.kept_float)}"] if made.kept_float else []
    return (
        f"{export.path}: {made.path.stat().st_size / 1e6:.1f} MB, checked against torch on "
        f"{made.check.parity.images} images under ONNX Runtime: {', '.join(said)}{note}"
    )


def refuse_unless(check: Check, path: Path, wanted: Wanted, *, console: Console) -> None:
    """Raise ExportError, with the table of the check, if it does not hold for what would be the file at `path`."""
    if check.holds:
        return
    console.print(check_table(check))
    if check.computes_the_same:
        difference = "it scores otherwise than the trained network"
    elif wanted.precision == "fp16":
        difference = (
            "rounding changes the class of too many pixels, as in networks that are not trained for long and are sure "
            "of little; train longer, or export it in fp32"
        )
    elif wanted.size:
        difference = "it is not the trained network"
    else:
        advice = "; export it with --size HxW if it holds for one"
        difference = f"it is not the trained network at every size that was tried{advice}"
    older = "; the file of that name is an earlier one" if path.exists() else ""
    raise ExportError(f"{path} was not written, {difference}: {check.failures}{older}")


def set_metadata(path: Path, description: Description) -> None:
    """Replace what a file says of itself."""
    model = onnx.load(str(path))
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, description.to_metadata())
    write_atomically(path, lambda temporary: onnx.save(model, str(temporary)))
