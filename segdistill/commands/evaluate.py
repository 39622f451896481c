"""`segdistill evaluate`: score a run's networks, an exported file, or stored masks on a split."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch.utils.data import Dataset

from segdistill.commands.mistakes_page import MistakeCounts, write_mistakes_page
from segdistill.commands.protocol import of_measures
from segdistill.commands.subjects import (
    Subject,
    Wishes,
    file_subject,
    mask_subject,
    run_subject,
)
from segdistill.commands.submission import Submission
from segdistill.commands.tables import stream_table
from segdistill.commands.trained import Weights
from segdistill.commands.versions import versions
from segdistill.commands.written_masks import STORED
from segdistill.console import new_console, progress_bar, warn
from segdistill.data.samples import LabelledImage, Samples
from segdistill.data.taxonomy import Taxonomy
from segdistill.data.workers import WorkerLoader
from segdistill.errors import DataError, EvaluationError
from segdistill.evaluation.evaluator import Labelling, Watcher, evaluate_images
from segdistill.evaluation.metrics import Scores, miou_by_stream
from segdistill.files import make_room, write_json
from segdistill.processes import end_together, in_turn, launched
from segdistill.protocol import Protocol
from segdistill.report.confusion import confusion_csv, confusion_picture
from segdistill.report.lettering import boxes_in_words


@dataclass(frozen=True)
class Asked:
    """What is wanted of a scoring, whatever is scored.

    Attributes:
        split: train, val or test.
        wishes: how to look at images.
        devices: processes that share the images.
        out: of the JSON; None for a name of its own. The other results are named after it.
        submit: folder for Cityscapes' server; None for no such files.
        worst: how many images the page of errors shows.
        confusions: how many pairs of classes it shows.
    """

    split: str = "val"
    wishes: Wishes = field(default_factory=Wishes)
    devices: int = 1
    out: Path | None = None
    submit: Path | None = None
    worst: int = 0
    confusions: int = 0


def evaluate_run(
    path: Path, overrides: Sequence[str], asked: Asked, *, weights: Weights, console: Console
) -> None:
    """Score a run's networks; for the arguments see `run_subject`."""

    def subject(device: torch.device, console: Console) -> Subject:
        return run_subject(
            path,
            overrides,
            split=asked.split,
            submitted=asked.submit is not None,
            weights=weights,
            wishes=asked.wishes,
            device=device,
            console=console,
        )

    _score_on_all(subject, asked, accelerator="cuda" if torch.cuda.is_available() else "cpu", console=console)


def evaluate_onnx(path: Path, overrides: Sequence[str], asked: Asked, *, console: Console) -> None:
    """Score an exported file under ONNX Runtime; for the arguments see `file_subject`."""

    def subject(_: torch.device, console: Console) -> Subject:
        return file_subject(
            path,
            overrides,
            split=asked.split,
            submitted=asked.submit is not None,
            wishes=asked.wishes,
            console=console,
        )

    _score_on_all(subject, asked, accelerator="cpu", console=console)  # where ONNX Runtime runs


def _score_on_all(
    build: Callable[[torch.device, Console], Subject], asked: Asked, *, accelerator: str, console: Console
) -> None:
    """Score on as many devices as asked for; every process builds its own subject, the first before the others."""
    fabric = build_fabric(asked.devices, accelerator=accelerator)
    with launched(
        fabric,
        to_save_memory="Let a window slide over the images (--window HxW), or see them smaller (--size HxW)",
    ):
        console = console if fabric.is_global_zero else new_console(quiet=True)
        subject = in_turn(fabric, lambda: build(fabric.device, console))
        score(subject, asked, fabric, console=console)


def evaluate_masks(
    model: Path, overrides: Sequence[str], asked: Asked, *, masks: Path, label_ids: bool, console: Console
) -> None:
    """Score stored masks; for the arguments see `mask_subject`."""
    if asked.devices > 1 or asked.wishes != Wishes():
        raise EvaluationError(
            "--masks reads files, so there is no network for --devices, --size, --window, --stride, --scales or "
            "--flip"
        )
    subject = mask_subject(
        model,
        overrides,
        split=asked.split,
        submitted=asked.submit is not None,
        masks=masks,
        label_ids=label_ids,
        console=console,
    )
    score(subject, asked, build_fabric(1, accelerator="cpu"), console=console)


def build_fabric(devices: int, *, accelerator: str) -> Fabric:
    """The processes, not yet started.

    Raises:
        EvaluationError: if the machine has not so many devices.
    """
    try:
        return Fabric(accelerator=accelerator, devices=devices, strategy="ddp" if devices > 1 else "auto")
    except Exception as error:  # Fabric raises RuntimeError, ValueError and MisconfigurationException
        raise EvaluationError(f"--devices {devices} cannot be had on this machine: {error}") from None


def score(subject: Subject, asked: Asked, fabric: Fabric, *, console: Console) -> None:
    """Score, print, write: the JSON, the confusion matrices, and what else was asked for.

    Raises:
        DataError: listing all masks that cannot be scored.
        EvaluationError: if the data cannot be submitted, or there are more processes than images.
        PathError: if the JSON cannot be written where it is wanted.
    """
    target = asked.out or subject.target
    make_room(target, option="--out")
    samples, taxonomy = subject.samples, subject.samples.taxonomy
    if len(samples) < fabric.world_size:
        raise EvaluationError(
            f"--devices {fabric.world_size} is more than the {len(samples)} images; use fewer"
        )
    watchers: list[Watcher] = []
    submission = Submission(asked.submit, samples) if asked.submit else None
    mistakes = MistakeCounts(taxonomy) if asked.worst or asked.confusions else None
    watchers += [one.watch for one in (submission, mistakes) if one is not None]
    scores = _scored(subject, fabric, watchers, console=console)
    for one in (submission, mistakes):
        if one is not None:
            one.gather(fabric)
    if not fabric.is_global_zero:
        return
    if submission is not None:
        console.print(submission.summary())
        if warning := submission.warning():
            warn(console, warning)
        if not any(one.confusion.sum() for one in scores.values()):
            console.print("these images have no public labels, so there is no score")
            return
    how = subject.protocol.but(**of_measures(next(iter(scores.values()))))
    report(scores, taxonomy, how, target=target, console=console)
    if mistakes is not None:
        page = _beside(target, "errors.html")
        write_mistakes_page(
            page,
            subject,
            mistakes.found,
            scores,
            protocol=how.words,
            images=asked.worst,
            pairs=asked.confusions,
            console=console,
        )


def _scored(
    subject: Subject, fabric: Fabric, watchers: Sequence[Watcher], *, console: Console
) -> dict[str, Scores]:
    """The scores by stream, over all processes; each image is looked at by one of them."""
    samples = subject.samples
    share = range(fabric.global_rank, len(samples), fabric.world_size)
    workers = subject.workers // fabric.world_size
    loader = WorkerLoader[tuple[int, LabelledImage]](
        Decoded(samples), workers=workers, sampler=share, batch_size=None, collate_fn=_as_it_is
    )
    with progress_bar(console) as progress:
        decoded = progress.track(loader, len(share), description="scoring")
        return evaluate_images(_labelled(subject, decoded, fabric), samples.taxonomy, watchers=watchers)


def _labelled(
    subject: Subject, samples: Iterable[tuple[int, LabelledImage]], fabric: Fabric
) -> Iterator[tuple[int, LabelledImage, Mapping[str, Labelling]]]:
    """Every image with what is said of it; ends for all processes in one DataError with what cannot be scored."""
    problems: list[str] = []
    try:
        for index, sample in samples:
            try:
                said = subject.label(index, sample)
            except DataError as problem:
                problems.append(str(problem))
            else:
                yield index, sample, said
    except DataError as unread:  # with which a loader ends
        problems.append(str(unread))
    head = f"{len(problems)} of {len(subject.samples)} images cannot be scored:"
    end_together(fabric, DataError("\n  ".join([head, *problems])) if problems else None)


@dataclass(frozen=True)
class Decoded(Dataset[tuple[int, LabelledImage]]):
    """Images of a split with their indexes, as they are, for processes that decode them ahead."""

    samples: Samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[int, LabelledImage]:
        return index, self.samples.load(index)


def _as_it_is(item: Any) -> Any:
    """Takes the place of a conversion to tensors, and changes nothing."""
    return item


def report(
    scores: Mapping[str, Scores],
    taxonomy: Taxonomy,
    how: Protocol,
    *,
    target: Path,
    console: Console,
) -> None:
    """Print the scores; write them, how they came about, and every stream's confusion matrix."""
    console.print(stream_table(scores, taxonomy.names))
    console.print(how.words)
    streams = {name: one.as_dict(taxonomy.names) for name, one in scores.items()}
    write_json(
        target,
        {
            "miou": {STORED: streams[STORED]["miou"]} if STORED in streams else miou_by_stream(scores),
            "streams": streams,
            "protocol": how.as_dict(),
            "versions": versions(),
        },
    )
    for name, one in scores.items():
        shares = one.normalised_confusion.numpy()
        confusion_csv(_beside(target, f"confusion_{name}.csv"), shares, taxonomy.names)
        title = f"{name}: mIoU {100 * one.miou:.2f} %"
        confusion_picture(_beside(target, f"confusion_{name}.png"), shares, taxonomy.names, title=title)
    if boxes := boxes_in_words(taxonomy.names):
        warn(console, boxes)
    console.print(f"-> {target}, {_beside(target, 'confusion_*.csv').name} and .png")


def _beside(target: Path, what: str) -> Path:
    """Another result's file, by the name of the scores: two names with dots in them stay two."""
    return target.with_name(f"{target.name.removesuffix('.json')}_{what}")
