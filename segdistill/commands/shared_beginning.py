"""Runs that differ only in losses that begin late are one run until then, and are trained once until then."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

from segdistill.build.training import build_fabric, build_state
from segdistill.commands.run_folder import RunFolder, settings_that_count, versions
from segdistill.config import Config, Weighted
from segdistill.config_io import dump_config
from segdistill.errors import RunFolderError
from segdistill.files import whole_lines, write_json, write_text
from segdistill.study.runner import TAKEN_OVER, Beginning, PlannedRun
from segdistill.training.checkpoint import load_checkpoint


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


def take_over(run: PlannedRun, config: Config) -> None:
    """Lay the beginning that another run has trained into this one's folder, which can then be resumed.

    Raises:
        RunFolderError: if a checkpoint is damaged, or was made by another version of the program.
    """
    beginning = run.beginning
    assert beginning
    folder, source = RunFolder(run.folder), RunFolder(beginning.folder)
    theirs, ours = source.checkpoints(config).kept(beginning.epochs), folder.checkpoints(config)
    pairs = ((theirs.best, ours.best), (theirs.last, ours.last))
    kept = {target: load_checkpoint(path) for path, target in pairs if path.is_file()}
    if any(saved["versions"] != versions() for saved in kept.values()):
        raise RunFolderError(f"another version of the program made {theirs.folder}")
    lines = whole_lines(source.path / "metrics.jsonl")
    here = config.train.model_copy(update={"accelerator": "cpu", "devices": 1, "precision": "32-true"})
    on_one_cpu = config.model_copy(update={"train": here})
    # The last checkpoint comes last: a run that is cut off before it starts from its first step.
    folder.begin(config)
    write_text(
        folder.path / "metrics.jsonl",
        "".join(line for line in lines if json.loads(line)["epoch"] <= beginning.epochs),
    )
    for target, saved in kept.items():
        # The schedule's length is not part of its state.
        state = build_state(on_one_cpu, build_fabric(on_one_cpu), total_steps=config.train.epochs)
        state.take_over(saved["state"])
        ours.save(target, state)
    write_json(folder.path / TAKEN_OVER, {"source": beginning.source, "epochs": beginning.epochs})
