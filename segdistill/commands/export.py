"""`segdistill export`: a trained stream as ONNX, checked before anybody can use it."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

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
from segdistill.export.check import Check, batches_of, compare
from segdistill.export.description import Description
from segdistill.export.half import to_half
from segdistill.export.latency import milliseconds
from segdistill.export.onnx import Cost, Interface, export_onnx, refuse_opset
from segdistill.export.onnx_file import OnnxFile
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
    graph, description = graph_of(trained, wanted), describe(trained, wanted)
    opset = wanted.opset or trained.config.export.opset
    interface = Interface(wanted.batch, wanted.size, opset, wanted.simplify)
    with room_for(path), _unchecked(path) as folder:
        single, candidate = folder / "fp32.onnx", folder / path.name
        with console.status(f"exporting {trained.name} to ONNX (up to half a minute)"):
            cost = export_onnx(single, graph, description, interface)
        images = list(batches_of(spread(split.samples, PARITY_IMAGES), description, interface))
        if wanted.precision == "int8":  # of which nothing is asked image by image
            refuse_unless(
                Check("fp32", compare(graph, OnnxFile(single), images)), path, wanted, console=console
            )
        reference = torch_miou(trained, wanted, split.samples, console=console) if split.scored else None
        made = _Made(single)
        match wanted.precision:
            case "fp16":
                to_half(single, candidate, images)
                made = _Made(candidate)
            case "int8":
                assert reference is not None, "export_run refuses int8 without the run's images"
                outcome = quantise(
                    single,
                    candidate,
                    wanted,
                    split.samples,
                    calibration=calibration,
                    reference=reference,
                    console=console,
                )
                made = _Made(candidate, outcome.score, outcome.kept_float)
        file, miou = OnnxFile(made.path), made.miou
        if split.scored and miou is None:
            miou = file_miou(file, split.samples, console=console)
        check = Check(wanted.precision, compare(graph, file, images), miou, reference)
        refuse_unless(check, path, wanted, console=console)
        if miou is not None:
            protocol = protocol_of(trained, wanted, images=len(split.samples), elsewhere=split.elsewhere)
            score = {"miou": miou, "of": "this file", "protocol": protocol}
            score |= {"float_layers": made.kept_float} if wanted.precision == "int8" else {}
            set_metadata(made.path, replace(description, score=score))
        speed = speed_up(OnnxFile(single), file, split.samples) if made.path != single else None
        note = ""
        if wanted.precision == "int8" and speed is not None and speed < INT8_SPEED:
            note = slow_note(file, split.samples, speed=speed)
        put_in_place(made.path, path)
    console.print(_in_words(path, check, speed=speed, kept_float=made.kept_float))
    if note:
        console.print(note)
    return Exported(path, cost, check)


class _Made(NamedTuple):
    """A file that may be the one that is wanted."""

    path: Path
    miou: float | None = None  # of the split, if making it took scoring it
    kept_float: Sequence[str] = ()  # layers that int8 has left as they were


@contextmanager
def _unchecked(path: Path) -> Iterator[Path]:
    """A folder beside `path` for files that may become it; what is wrong with them is told of `path`."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".unchecked-{path.name}-") as folder:
        try:
            yield Path(folder)
        except ExportError as error:
            message = str(error)
            for name in ("fp32.onnx", path.name):
                message = message.replace(str(Path(folder) / name), str(path))
            raise ExportError(message) from error


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


def _in_words(path: Path, check: Check, *, speed: float | None, kept_float: Sequence[str]) -> str:
    said = [f"{line.name} {line.value}" for line in check.lines]
    said += [f"{speed:.2f} x as fast as fp32 on this CPU"] if speed else []
    said += [f"left in float: {', '.join(kept_float)}"] if kept_float else []
    return (
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, checked against torch on {check.parity.images} images under ONNX "
        f"Runtime: {', '.join(said)}"
    )


def set_metadata(path: Path, description: Description) -> None:
    """Replace what a file says of itself."""
    model = onnx.load(str(path))
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, description.to_metadata())
    write_atomically(path, lambda temporary: onnx.save(model, str(temporary)))
