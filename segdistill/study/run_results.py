"""What finished runs left behind: scores, and how these came about."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdistill.errors import RunFolderError
from segdistill.files import json_rows
from segdistill.run_summary import SUMMARY, RunSummary
from segdistill.streams import ENSEMBLE, PRIMARY
from segdistill.study.runner import TAKEN_OVER

#: What of a protocol is the same in runs that are pairs.
ABOUT_DATA = ("data", "split", "images", "training_images", "data_hash")


@dataclass(frozen=True)
class RunResult:
    """One finished run; mIoU and IoU are shares in 0..1 of the primary, unless said otherwise."""

    seed: int
    miou: float  # of the last epoch's weights, or of their running average
    best_miou: float  # of the best epoch on the scored split: flattering
    best_epoch: int
    iou: dict[str, float | None]  # by class; None for a class that does not occur
    submodels: dict[str, float]  # branches and ensemble
    curve: tuple[tuple[int, float], ...]  # (epoch, mIoU)
    whole_curve: bool  # not so if metrics.jsonl was damaged
    memory_bytes: int | None  # peak while training; None where the platform does not tell
    shared_epochs: int = 0  # from the start, done by the same seed of
    shared_with: str = ""  # this rung
    device: str = ""
    software: tuple[str, ...] = ()  # packages with their versions
    first_weights: str | None = None  # SHA-256 of the file they came from, if they did
    data_hash: str = ""  # of what it was trained and scored on


def read_run(folder: Path, *, seed: int) -> RunResult:
    """Read what a finished run has left in its folder.

    Raises:
        RunFolderError: if its files are damaged or of another version.
    """
    try:
        summary = RunSummary.read(folder / SUMMARY)
        metrics = folder / "metrics.jsonl"
        rows = json_rows(metrics) if metrics.is_file() else []
        miou, best = summary.miou, summary.best
        if miou.primary is None or best.epoch is None or best.miou is None:
            raise ValueError("the run has no mIoU, because no labelled pixel was scored")
        taken = folder / TAKEN_OVER
        shared: dict[str, Any] = {"epochs": 0, "source": ""}
        if taken.is_file():
            shared = json.loads(taken.read_text())
        submodels = miou.branches | ({ENSEMBLE: miou.ensemble} if miou.branches else {})
        return RunResult(
            seed=seed,
            miou=miou.primary,
            best_miou=best.miou,
            best_epoch=best.epoch,
            iou=summary.iou,
            submodels={name: value for name, value in submodels.items() if value is not None},
            curve=tuple((row["epoch"], float(row["val"]["miou"][PRIMARY])) for row in rows if row["val"]),
            whole_curve=_is_whole(rows, steps=summary.steps),
            memory_bytes=summary.memory_bytes,
            shared_epochs=shared["epochs"],
            shared_with=shared["source"].partition(",")[0],
            device=summary.devices,
            software=summary.software,
            first_weights=summary.first_weights,
            data_hash=summary.data.hash,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{folder}: the run's {SUMMARY} or metrics.jsonl cannot be read ({type(error).__name__}: {error}); "
            "remove that folder and start the comparison again to repeat the run"
        ) from None


def _is_whole(rows: Sequence[Mapping[str, Any]], *, steps: int) -> bool:
    """Whether there is a row of every epoch until the last of a training's steps."""
    epochs = [row["epoch"] for row in rows]
    return epochs == [*range(1, len(rows) + 1)] and [row["step"] for row in rows[-1:]] == [steps]


def read_protocol(folder: Path) -> dict[str, Any]:
    """How the scores of a run that `read_run` could read came about, where, and by which software."""
    summary = RunSummary.read(folder / SUMMARY)
    return summary.protocol.as_dict() | {
        "training_images": summary.data.training_images,
        "data_hash": summary.data.hash,
        "device": summary.devices,
        "software": ", ".join(summary.software),
    }


def distinct_values(protocols: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Every value that an entry has in some of the runs: one, where they agree. None where a run lacks the entry."""
    distinct: dict[str, list[Any]] = {key: [] for protocol in protocols for key in protocol}
    for key, values in distinct.items():
        for protocol in protocols:
            if protocol.get(key) not in values:
                values.append(protocol.get(key))
    return distinct
