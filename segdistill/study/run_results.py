"""What finished runs left behind: scores, and how these came about."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdistill.errors import RunFolderError
from segdistill.files import json_rows
from segdistill.streams import ENSEMBLE, PRIMARY
from segdistill.study.runner import TAKEN_OVER

#: What of a protocol is the same in runs that are pairs.
ABOUT_DATA = ("data", "split", "images", "training_images", "data_hash")
#: How the value of a protocol begins that is not the same in all runs.
DIFFERS = "differs: "


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
    data_hash: str | None = None  # of what it was trained and scored on; None in a run of an older version

    def has_data_of(self, other: "RunResult") -> bool:
        """Whether both had the same data, as far as both know."""
        return None in (self.data_hash, other.data_hash) or self.data_hash == other.data_hash


def read_run(folder: Path, *, seed: int) -> RunResult:
    """Read what a finished run has left in its folder.

    Raises:
        RunFolderError: if its files are damaged or of another version.
    """
    try:
        summary = json.loads((folder / "summary.json").read_text())
        metrics = folder / "metrics.jsonl"
        rows = json_rows(metrics) if metrics.is_file() else []
        if lacking := {"protocol", "processes", "device", "versions"} - set(summary):
            raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
        miou = summary["miou"]
        if miou[PRIMARY] is None:
            raise ValueError("the run has no mIoU, because no labelled pixel was scored")
        taken = folder / TAKEN_OVER
        shared: dict[str, Any] = {"epochs": 0, "source": ""}
        if taken.is_file():
            shared = json.loads(taken.read_text())
        submodels = miou["branches"] | ({ENSEMBLE: miou[ENSEMBLE]} if miou["branches"] else {})
        return RunResult(
            seed=seed,
            miou=float(miou[PRIMARY]),
            best_miou=float(summary["best"]["miou"]),
            best_epoch=summary["best"]["epoch"],
            iou=dict(summary["iou"]),
            submodels=submodels,
            curve=tuple((row["epoch"], float(row["val"]["miou"][PRIMARY])) for row in rows if row["val"]),
            whole_curve=_is_whole(rows, steps=summary["steps"]),
            memory_bytes=summary["memory_bytes"],
            shared_epochs=shared["epochs"],
            shared_with=shared["source"].partition(",")[0],
            device=_device(summary),
            software=_software(summary),
            first_weights=summary.get("first_weights"),
            data_hash=summary.get("data", {}).get("hash"),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{folder}: the run's summary.json or metrics.jsonl cannot be read ({type(error).__name__}: {error}); "
            "remove that folder and start the comparison again to repeat the run"
        ) from None


def _is_whole(rows: Sequence[Mapping[str, Any]], *, steps: int) -> bool:
    """Whether there is a row of every epoch until the last of a training's steps."""
    epochs = [row["epoch"] for row in rows]
    return epochs == [*range(1, len(rows) + 1)] and [row["step"] for row in rows[-1:]] == [steps]


def read_protocol(folder: Path) -> dict[str, Any]:
    """How the scores of a run that `read_run` could read came about, where, and by which software."""
    summary = json.loads((folder / "summary.json").read_text())
    data = summary.get("data", {})  # a run of an earlier version does not know
    return summary["protocol"] | {
        "training_images": data.get("training_images"),
        "data_hash": data.get("hash"),
        "device": _device(summary),
        "software": ", ".join(_software(summary)),
    }


def _device(summary: Mapping[str, Any]) -> str:
    return f"{summary['processes']} x {summary['device']}"


def _software(summary: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{name} {version}" for name, version in summary["versions"].items())


def common_protocol(protocols: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The protocol of all runs; where they differ (a rung may train for longer), all the values there are. What only
    some of them know of their data is taken for all.
    """
    common: dict[str, Any] = {}
    for key in protocols[0]:
        values: list[Any] = []
        for protocol in protocols:
            unknown = key in ABOUT_DATA and protocol.get(key) is None
            if not unknown and protocol.get(key) not in values:
                values.append(protocol.get(key))
        if values:
            common[key] = values[0] if len(values) == 1 else DIFFERS + " / ".join(map(str, values))
    return common
