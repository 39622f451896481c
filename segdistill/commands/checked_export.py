"""One file of a trained stream, which gets its name only when it has been held against torch."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from rich.console import Console

from segdistill.commands.export_int8 import (
    INT8_SPEED,
    quantisation_in_words,
    quantise,
    slow_note,
    speed_up,
)
from segdistill.commands.file_scores import PARITY_IMAGES, file_miou, spread, torch_miou
from segdistill.commands.tables import check_table
from segdistill.commands.trained import Trained
from segdistill.commands.wanted_file import Wanted, describe, graph_of, protocol_of
from segdistill.console import counted
from segdistill.data.samples import Samples
from segdistill.errors import ExportError
from segdistill.export.check import Check
from segdistill.export.description import Description
from segdistill.export.graphs import ImageGraph, TensorGraph
from segdistill.export.half import to_half
from segdistill.export.onnx import Cost, Interface, export_onnx
from segdistill.export.onnx_file import OnnxFile
from segdistill.export.parity import Parity, batches_of, compare
from segdistill.files import put_in_place, room_for, write_atomically
from segdistill.protocol import Score


@dataclass(frozen=True)
class Exported:
    """A file that passed its check.

    Attributes:
        path: of the file.
        cost: of an image as large as the first of the split, on which files are timed.
        check: of the file.
    """

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
        split_hash: see `data_hash`; None of images that are not scored.
    """

    samples: Samples
    scored: bool
    elsewhere: Path | None = None
    split_hash: str | None = None


def export_checked(
    path: Path,
    trained: Trained,
    wanted: Wanted,
    split: Split,
    *,
    calibration: Sequence[np.ndarray] = (),
    threads: int = 0,
    console: Console,
) -> Exported:
    """Export, compare with torch, and only then let the file stand.

    Args:
        path: of the file.
        trained: stream.
        wanted: kind of file.
        split: to check on; int8 has to be scored.
        calibration: images (H, W, 3) that int8 finds ranges by.
        threads: of the CPU, on which the file is timed; 0 lets ONNX Runtime choose.
        console: to print on.

    Raises:
        ExportError: if the export or the check fails; no file is left behind.
    """
    with (
        room_for(path),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".unchecked-{path.name}-") as folder,
    ):
        graph = graph_of(trained, wanted)
        description = describe(trained, wanted, calibrated_on=len(calibration))
        opset = wanted.opset or trained.config.export.opset
        interface = Interface(wanted.batch, wanted.size, opset, wanted.simplify)
        single = Path(folder) / f"fp32-{path.name}"
        images = spread(split.samples, PARITY_IMAGES)
        height, width = images[0].shape[:2]  # of the image that files are timed on
        seen = wanted.network_size((height, width), trained=trained.deployed.size)
        with console.status(f"exporting {trained.name} to ONNX (up to half a minute)"):
            cost = export_onnx(single, graph, description, interface, counted=seen)
        batches = list(batches_of(images, description, interface))
        export = _Export(
            path, single, graph, description, batches, trained, wanted, split, calibration, threads, console
        )
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
        description: of the file that is wanted, but for its score.
        batches: on which files and graph are compared.
        trained: stream.
        wanted: kind of file.
        split: to check on.
        calibration: images (H, W, 3) that int8 finds ranges by.
        threads: on which files are timed.
        console: to print on.
    """

    path: Path
    single: Path
    graph: TensorGraph | ImageGraph
    description: Description
    batches: Sequence[np.ndarray]
    trained: Trained
    wanted: Wanted
    split: Split
    calibration: Sequence[np.ndarray]
    threads: int
    console: Console

    @property
    def candidate(self) -> Path:
        """Where what is made of the fp32 file lies until it is checked."""
        return self.single.with_name(self.path.name)

    def load(self, path: Path, *, threads: int = 0) -> OnnxFile:
        return OnnxFile(path, name=self.path, threads=threads)

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


def _score(export: _Export, made: _Made) -> Score:
    """What the file says of its score."""
    split = export.split
    how = protocol_of(export.trained, export.wanted, images=len(split.samples))
    return Score(
        miou=made.check.miou,
        of="this file",
        protocol=how.on(split.elsewhere, split.split_hash),
        float_layers=made.kept_float,
    )


def _in_words(export: _Export, made: _Made) -> str:
    """What the check found, how fast the file is if it is another than the fp32 one, and how int8 was made of that."""
    said = [f"{line.name} {line.value}" for line in made.check.lines]
    how = export.description.quantisation
    note = f"\n{quantisation_in_words(how)}" if how else ""
    if made.path != export.single:
        single, file = (export.load(path, threads=export.threads) for path in (export.single, made.path))
        samples = export.split.samples
        speed = speed_up(single, file, samples)
        said += [f"{speed:.2f} x as fast as fp32 on this CPU{_on(export.threads)}"]
        if speed < made.least_speed:
            note += f"\n{slow_note(file, samples, speed=speed)}"
    said += [f"left in float: {', '.join(made.kept_float)}"] if made.kept_float else []
    return (
        f"{export.path}: {made.path.stat().st_size / 1e6:.1f} MB, checked against torch on "
        f"{made.check.parity.images} images under ONNX Runtime: {', '.join(said)}{note}"
    )


def _on(threads: int) -> str:
    return f" ({counted(threads, 'thread')})" if threads else ""


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
