"""`segdistill export`: a trained stream as ONNX, checked before anybody can use it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from segdistill.build.splits import build_splits, data_hash
from segdistill.commands.checked_export import Exported, Split, export_checked
from segdistill.commands.data_drift import what_has_changed
from segdistill.commands.export_int8 import calibration_images
from segdistill.commands.file_scores import PARITY_IMAGES
from segdistill.commands.protocol import other_data
from segdistill.commands.run_folder import RunFolder
from segdistill.commands.tables import percent
from segdistill.commands.trained import ALL, trained_streams
from segdistill.commands.wanted_file import Wanted
from segdistill.config import Config
from segdistill.console import warn
from segdistill.data.synthetic import SyntheticStreets
from segdistill.errors import DataMissingError, ExportError, RunFolderError, first_line
from segdistill.export.latency import milliseconds
from segdistill.export.onnx import refuse_opset
from segdistill.export.onnx_file import OnnxFile
from segdistill.export.snippet import python_snippet
from segdistill.export.web import cache_folder, ready_for_page, write_web_page
from segdistill.export.weights import Deployed
from segdistill.files import expanded, refuse_unwritable


@dataclass(frozen=True)
class WebPage:
    """A static page that runs the file in a browser.

    Attributes:
        folder: where it is written.
        runtime: a copy of onnxruntime-web's npm archive; None to download it once.
    """

    folder: Path
    runtime: Path | None


def export_run(
    path: Path,
    overrides: Sequence[str],
    *,
    stream: str,
    wanted: Wanted,
    out: Path | None,
    web: WebPage | None,
    threads: int,
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
        threads: of the CPU, on which files are timed; 0 lets ONNX Runtime choose.
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
    int8 = wanted.precision == "int8"
    split = split_at_hand(folder, config, streams[0].deployed, named=named, for_int8=int8, console=console)
    calibration = []
    if int8:  # once for all streams, and before the work
        calibration = calibration_images(config, wanted.calibration_images, console=console)
    exported = []
    for one in streams:
        target = target_of(folder, out, wanted.file_name(one.name), several=stream == ALL)
        exported.append(
            export_checked(
                target, one, wanted, split, calibration=calibration, threads=threads, console=console
            )
        )
    timed = {file.path.name: OnnxFile(file.path, threads=threads) for file in exported}
    image = split.samples.load(0).image
    seen = wanted.network_size((image.shape[0], image.shape[1]), trained=streams[0].deployed.size)
    console.print(files_table(exported, milliseconds(timed, image), seen=seen))
    first = OnnxFile(exported[0].path)
    console.print("\nWithout segdistill:\n")
    console.print(
        python_snippet(first),
    )
    if web is not None:
        write_web_page(exported[0].path, web.folder, runtime=web.runtime, cache=cache_folder())
        console.print(
            f"\n{web.folder}: serve it, e.g. by python -m http.server -d {shlex.quote(str(web.folder))} 8000, and open "
            "http://localhost:8000",
        )


def files_table(
    files: Sequence[Exported], milliseconds: Mapping[str, float], *, seen: tuple[int, int]
) -> Table:
    """A family of files: what each is worth and what it costs.

    Args:
        files: of one kind.
        milliseconds: of an image, by the file's name.
        seen: (height, width) in pixels at which the networks see it, before they pad it.
    """
    height, width = seen
    caption = f"MACs and latency: of an image that the network sees at {height}x{width}"
    table = Table("file", "mIoU %", "parameters", "MACs", "size", "latency", caption=caption)
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
    folder: RunFolder, config: Config, deployed: Deployed, *, named: bool, for_int8: bool, console: Console
) -> Split:
    """The run's validation images, or synthetic ones if they are not on this machine; nothing is downloaded.

    Args:
        folder: of the run.
        config: of the run, with the place of the data as it was said just now.
        deployed: how its networks are fed.
        named: whether it was said just now where the images lie; then they have to be there.
        for_int8: whether it is an int8 file that they are for; then it has to be scored on them.
        console: to print on.

    Raises:
        DataError: there are images, but something is wrong with them; or they were named and are not there.
        ExportError: int8 cannot be scored, since they are not there or the run has learnt some of them.
    """
    try:
        checked = build_splits(config, ("val",), console=console, download=False)
        samples, split_hash = checked["val"].samples, data_hash(checked)
        elsewhere = other_data(config, folder.load_config())
        changed = what_has_changed(
            folder, samples, config, split="val", split_hash=split_hash, elsewhere=elsewhere
        )
        if changed:
            warn(console, changed)
        return Split(samples, scored=True, elsewhere=elsewhere, split_hash=split_hash)
    except RunFolderError as error:
        if for_int8:
            raise ExportError(
                f"int8 is judged by its mIoU on val, and there is none to be had: {error}. "
                "In a folder that data.root=DIR names, int8 looks for training images, too"
            ) from None
        warn(console, f"the check gives no mIoU: {error}")
        return Split(samples, scored=False, elsewhere=None)
    except DataMissingError as error:
        if named:
            raise
        if for_int8:
            raise ExportError(
                "int8 needs the run's training and validation images, which are not at hand "
                f"({first_line(error)}); say where they are by data.root=DIR"
            ) from None
        warn(
            console,
            f"the run's images are not at hand, so the check uses synthetic streets and gives no mIoU "
            f"({first_line(error)}); say where they are by data.root=DIR",
        )
    height, width = deployed.size
    streets = SyntheticStreets(split="val", length=PARITY_IMAGES, height=height, width=width, seed=0)
    return Split(streets, scored=False)
