"""Runs that differ only in losses that begin late are one run until then, and are trained once until then."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segdistill.build.training import build_state_to_look_at
from segdistill.commands.run_folder import RunFolder
from segdistill.commands.settings import settings_that_count
from segdistill.commands.versions import versions
from segdistill.config import Config
from segdistill.config_io import dump_config
from segdistill.config_method import Weighted
from segdistill.console import counted
from segdistill.errors import RunFolderError
from segdistill.files import json_rows, write_json, write_json_rows
from segdistill.study.runner import TAKEN_OVER, Beginning, PlannedRun
from segdistill.training.checkpoint import load_checkpoint, save_checkpoint


def epochs_of_deep_supervision(config: Config) -> int:
    """Whole epochs from the start in which branches learn from labels alone."""
    method = config.method
    if not method.distils:
        return 0
    starts = [_start(loss) for loss in (method.logit, method.feature, method.adversarial) if loss.weight]
    if method.logit.weight and method.logit.views.weight:
        starts.append(_start(method.logit.views))
    return math.floor(min(starts, default=1.0) * config.train.epochs)


def _start(loss: Weighted) -> float:
    """Progress until which the loss has no weight."""
    start = 0.0
    for progress, factor in loss.ramp:
        if factor:
            return start
        start = progress
    return 1.0


def with_beginnings(planned: Sequence[tuple[PlannedRun, Config]]) -> list[PlannedRun]:
    """The same runs; those that begin as a `deep_supervision` among them know it, and it keeps what they need."""
    sources = {
        _common(config): (run, config) for run, config in planned if config.method.kind == "deep_supervision"
    }
    beginnings: dict[PlannedRun, Beginning] = {}
    for run, config in planned:
        epochs = epochs_of_deep_supervision(config)
        if epochs and (source := sources.get(_common(config))):
            name, folder = source[0].name, source[0].folder
            checkpoint = RunFolder(folder).checkpoints(config).kept(epochs).last
            beginnings[run] = Beginning(name, folder, epochs, checkpoint)
    keep = {
        source: sorted({one.epochs for one in beginnings.values() if one.folder == source.folder})
        for source, _ in sources.values()
    }
    return [
        replace(run, beginning=beginnings.get(run), settings=_keeping(config, keep.get(run, ())))
        for run, config in planned
    ]


def _keeping(config: Config, epochs: Sequence[int]) -> str:
    every = tuple(sorted({*config.train.keep_epochs, *epochs}))
    return dump_config(
        config.model_copy(update={"train": config.train.model_copy(update={"keep_epochs": every})})
    )


def _common(config: Config) -> str:
    """All settings that runs with a common beginning share."""
    method = config.method.model_copy(update={"kind": "deep_supervision"})
    counting = settings_that_count(config.model_copy(update={"method": method}))
    return json.dumps(counting | {"copies": config.method.copies})


@dataclass(frozen=True)
class _Whole:
    """A beginning that can be laid: nothing of it is damaged, or of another program."""

    curve: list[dict[str, Any]]  # rows of metrics.jsonl
    states: dict[Path, dict[str, Any]]  # by the checkpoint that they are to be; `last` is the last


def take_over(run: PlannedRun, config: Config) -> None:
    """Lay the beginning that another run has trained into this one's folder, which can then be resumed.

    Raises:
        RunFolderError: if a checkpoint or the learning curve is damaged, or was made by another version of the
            program. The run's folder is then as it was.
        OSError: if something cannot be read or written. Whatever lies there by then does not count.
    """
    _lay(_read_beginning(run, config), run, config)


def _read_beginning(run: PlannedRun, config: Config) -> _Whole:
    """Nothing is written. Raises as `take_over` does."""
    beginning = run.beginning
    assert beginning
    source = RunFolder(beginning.folder)
    theirs, ours = (
        source.checkpoints(config).kept(beginning.epochs),
        RunFolder(run.folder).checkpoints(config),
    )
    pairs = ((theirs.best, ours.best), (theirs.last, ours.last))
    kept = {target: load_checkpoint(path) for path, target in pairs if path.is_file()}
    if any(saved["versions"] != versions() for saved in kept.values()):
        raise RunFolderError(f"another version of the program made {theirs.folder}")
    return _Whole(
        curve=_curve_until(beginning.epochs, source.path / "metrics.jsonl"),
        states={target: _of_this_run(config, saved["state"]) for target, saved in kept.items()},
    )


def _curve_until(epoch: int, path: Path) -> list[dict[str, Any]]:
    try:
        rows = [row for row in json_rows(path) if row["epoch"] <= epoch]
    except (KeyError, TypeError) as error:
        raise RunFolderError(f"{path} is damaged: {type(error).__name__}: {error}") from None
    if len(rows) != epoch:
        raise RunFolderError(f"{path} is damaged: it has {len(rows)} of {counted(epoch, 'epoch')}")
    return rows


def _of_this_run(config: Config, saved: dict[str, Any]) -> dict[str, Any]:
    """The other run's state with what this one has beside."""
    state = build_state_to_look_at(config)  # the schedule's length is not part of it
    state.take_over(saved)
    return state.state_dict()


def _lay(whole: _Whole, run: PlannedRun, config: Config) -> None:
    """The last checkpoint comes last: a run without one starts from its first step, and drops all the rest."""
    assert run.beginning
    folder = RunFolder(run.folder)
    folder.begin(config)
    write_json_rows(folder.path / "metrics.jsonl", whole.curve)
    told = {"source": run.beginning.source, "epochs": run.beginning.epochs}
    write_json(folder.path / TAKEN_OVER, told)
    checkpoints = folder.checkpoints(config)
    for target, state in whole.states.items():
        save_checkpoint(target, state=state, config=checkpoints.config, versions=checkpoints.versions)
