"""What a run writes while it goes on: progress bar, one line an epoch, `metrics.jsonl`, TensorBoard."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn
from torch.utils.tensorboard import SummaryWriter

from segdistill.console import counted, duration, progress_bar, warn
from segdistill.evaluation.metrics import Scores, miou_by_stream
from segdistill.files import json_rows, write_json_rows
from segdistill.streams import PRIMARY
from segdistill.training.diagnostics import COSINE, GRADIENT
from segdistill.training.state import Position
from segdistill.training.step_log import StepValues


@dataclass(frozen=True)
class EpochResult:
    """What there is to say of a finished epoch.

    Attributes:
        terms: name -> mean over its steps.
        learning_rates: of its last step.
        scores: by stream; None if it was not evaluated.
        seconds: of training and evaluation.
    """

    terms: Mapping[str, float]
    learning_rates: Mapping[str, float]
    scores: Mapping[str, Scores] | None
    seconds: float


class RunLog:
    """The first process's voice; the others have none."""

    def __init__(
        self,
        folder: Path,
        *,
        epochs: int,
        steps_per_epoch: int,
        class_names: tuple[str, ...],
        position: Position,
        console: Console,
    ) -> None:
        """
        Args:
            folder: of the run.
            epochs: of the whole run.
            steps_per_epoch: optimiser steps.
            class_names: of the classes.
            position: where the run starts or resumes; later lines of an earlier try are dropped.
            console: for the bar and the lines.
        """
        self.epochs = epochs
        self.total_steps = epochs * steps_per_epoch
        self.class_names = class_names
        self.console = console
        self.metrics_path = folder / "metrics.jsonl"
        self._miou = ""
        self._started = time.monotonic()
        self._first_step = position.step
        self._keep_lines_before(position.epoch)
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=position.step)
        self.progress = progress_bar(
            console,
            "epoch {task.fields[epoch]}",
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            "{task.fields[left]} left",
            "{task.fields[terms]}",
            "{task.fields[miou]}",
        )
        self.task = self.progress.add_task(
            "train", total=self.total_steps, completed=position.step, epoch="", left="?", terms="", miou=""
        )
        self.progress.start()

    def steps(self, steps: list[StepValues], *, learning_rates: Mapping[str, float]) -> None:
        """Show and store the values of recent steps."""
        if not steps:
            return
        for one in steps:
            for name, value in one.values.items():
                self.writer.add_scalar(f"train/{name}", value, one.step)
        for name, rate in learning_rates.items():
            self.writer.add_scalar(f"lr/{name}", rate, steps[-1].step)
        last = steps[-1]
        self.progress.update(
            self.task,
            completed=last.step + 1,
            epoch=f"{last.epoch + 1}/{self.epochs}",
            left=self._time_left(last.step + 1),
            terms=" ".join(f"{name} {value:.3g}" for name, value in plain_values(last.values).items()),
            miou=self._miou,
        )

    def epoch(self, position: Position, result: EpochResult) -> None:
        """Store one finished epoch and say it in a line."""
        terms, scores = result.terms, result.scores
        row: dict[str, Any] = {
            "epoch": position.epoch,
            "step": position.step,
            "seconds": round(result.seconds, 3),
            "lr": dict(result.learning_rates),
            "train": plain_values(terms),
            "encoder": encoder_values(terms),
            "val": None,
        }
        line = [f"epoch {position.epoch}/{self.epochs}", _terms_text(plain_values(terms))]
        if scores is not None:
            miou = miou_by_stream(scores)
            row["val"] = {"miou": miou, **_flat(scores[PRIMARY].as_dict(self.class_names))}
            self._miou = _miou_text(miou)
            line.append(self._miou)
            for name, one in scores.items():
                self.writer.add_scalar(f"val_miou/{name}", one.miou, position.step - 1)
            for name, iou in zip(self.class_names, scores[PRIMARY].iou, strict=True):
                self.writer.add_scalar(f"val_iou/{name}", iou, position.step - 1)
        line += [f"{result.seconds:.0f} s", f"{self._time_left(position.step)} left"]
        with self.metrics_path.open("a") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
        self.writer.flush()
        self.console.print("  ".join(line))

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
        self.writer.close()

    def _time_left(self, step: int) -> str:
        done = step - self._first_step
        if done <= 0:
            return "?"
        return duration((time.monotonic() - self._started) / done * (self.total_steps - step))

    def _keep_lines_before(self, epoch: int) -> None:
        """Drop what an interrupted try wrote about epochs that are now done again."""
        if not self.metrics_path.exists():
            return
        rows = {row.get("epoch"): row for row in json_rows(self.metrics_path)}
        kept = [rows[done] for done in range(1, epoch + 1) if done in rows]
        write_json_rows(self.metrics_path, kept)
        if lost := epoch - len(kept):
            warn(
                self.console,
                f"{self.metrics_path} was damaged: it has lost {counted(lost, 'epoch')} of the {epoch} that are done. "
                "The training is not touched by that; its learning curve begins or goes on without them",
            )


def plain_values(values: Mapping[str, float]) -> dict[str, float]:
    """Losses and what else every step has."""
    return {name: value for name, value in values.items() if "/" not in name}


def encoder_values(values: Mapping[str, float]) -> dict[str, dict[str, float]] | None:
    """`{gradient: {term: norm}, cosine: {term: cosine}}` at the shared encoder; None in an epoch without."""
    found = {
        key: {
            name.removeprefix(f"{prefix}/"): value
            for name, value in values.items()
            if name.startswith(prefix)
        }
        for key, prefix in (("gradient", GRADIENT), ("cosine", COSINE))
    }
    return found if found["gradient"] else None


def _flat(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The primary's scores beside the mIoU of all streams, without its own mIoU a second time."""
    return {key: value for key, value in scores.items() if key != "miou"}


def _terms_text(terms: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in terms.items())


def _miou_text(miou: Mapping[str, Any]) -> str:
    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    others = [f"{name} {percent(value)}" for name, value in miou["branches"].items()]
    if others:
        others.append(f"ensemble {percent(miou['ensemble'])}")
    return f"mIoU {percent(miou['primary'])}" + (f" ({', '.join(others)})" if others else "")
