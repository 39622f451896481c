"""The int8 part of `segdistill export`: keep the mIoU, and say what is in the way of speed."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from segdistill.build.splits import build_samples
from segdistill.commands.file_scores import PARITY_IMAGES, file_miou, spread
from segdistill.commands.wanted_file import Wanted
from segdistill.config import Config
from segdistill.data.samples import Samples
from segdistill.export.check import LIMITS
from segdistill.export.description import Quantisation
from segdistill.export.hot_spots import hot_spots
from segdistill.export.latency import milliseconds
from segdistill.export.onnx_file import OnnxFile
from segdistill.export.quantize import Quantizer, needs_reduce_range
from segdistill.export.sensitivity import Outcome, quantize_within

#: Times as fast as fp32 that int8 should be on the CPU it is for; if it is not, the export says what is in the way.
INT8_SPEED = 1.8


def calibration_images(config: Config, count: int, *, console: Console) -> list[np.ndarray]:
    """Of the run's training split, at most `count` images (H, W, 3), evenly spaced; the ranges of all streams are found
    by them.

    Args:
        config: of the run, with the place of the data as it was said just now.
        count: of images.
        console: to print on.

    Raises:
        DataError: if they are not there, or something is wrong with them.
    """
    return spread(build_samples(config, "train", console=console, download=False), count)


def quantise(
    single: OnnxFile,
    target: Path,
    wanted: Wanted,
    scored: Samples,
    *,
    calibration: Sequence[np.ndarray],
    reference: float,
    console: Console,
) -> Outcome:
    """Make an int8 file of an fp32 one that keeps the mIoU.

    Args:
        single: the fp32 file.
        target: gets the int8 one.
        wanted: how ranges are found.
        scored: the images of the mIoU.
        calibration: images (H, W, 3) to find ranges by.
        reference: the network's mIoU (0..1) in torch.
        console: to print on.

    Raises:
        ExportError: if the mIoU cannot be kept.
    """
    key = single.description.input_name
    feeds = [{key: single.batch_of(image)} for image in calibration]
    with console.status(f"calibrating on {len(feeds)} training images"):
        quantizer = Quantizer(
            single.path,
            feeds,
            method=wanted.calibration,
            reduce_range=wanted.reduce_range,
            name=single.name,
        )
    outcome = quantize_within(
        quantizer,
        target,
        feeds[:PARITY_IMAGES],
        score=lambda path: file_miou(OnnxFile(path, name=single.name), scored, console=console),
        reference=reference,
        limit=LIMITS["int8"].miou_difference,
    )
    if outcome.sensitivities:
        console.print(sensitivity_table(outcome))
    return outcome


def sensitivity_table(outcome: Outcome) -> Table:
    """What quantising each group of layers alone does, and which stayed in float for it. A file that gives classes
    has no noise of logits."""
    found = outcome.sensitivities
    columns = {
        "layers in int8 alone": [one.group for one in found],
        "equal argmax": [f"{one.equal_argmax:.2%}" for one in found],
        "noise of the logits": [
            "" if one.sqnr_db is None else f"{one.sqnr_db:.0f} dB below" for one in found
        ],
        "": ["stays in float" if one.group in outcome.kept_float else "" for one in found],
    }
    shown = {title: cells for title, cells in columns.items() if any(cells)}
    table = Table(*shown)
    table.columns[0].overflow = "fold"
    for row in zip(*shown.values(), strict=True):
        table.add_row(*row)
    return table


def speed_up(single: OnnxFile, file: OnnxFile, samples: Samples) -> float:
    """How many times as fast as fp32 a file is, their runs taken in turn."""
    times = milliseconds({"fp32": single, "this": file}, samples.load(0).image)
    return times["fp32"] / times["this"]


def quantisation_in_words(how: Quantisation) -> str:
    """How a file was made, and how to make one for CPUs that compute something else with it."""
    if how.weight_bits == 7:
        return how.words
    return (
        f"{how.words}. On x86 CPUs without VNNI sums of such weights saturate, so that the score does not hold there: "
        "for these export it with --reduce-range"
    )


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
        f"{words(spots.operations, 4)} of its time; by layer {words(spots.layers, 5)}.{cpu} What was tried: "
        "configs/EXPERIMENTS.md, The time of int8."
    )
