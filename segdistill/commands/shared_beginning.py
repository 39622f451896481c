"""Runs that differ only in losses that begin late are one run until then, and are trained once until then."""

import math
from collections.abc import Sequence
from dataclasses import replace

from segdistill.build.training import build_fabric, build_state
from segdistill.commands.run_folder import RunFolder, versions
from segdistill.config import Config, Weighted
from segdistill.config_io import dump_config
from segdistill.files import write_text
from segdistill.study.runner import Beginning, PlannedRun
from segdistill.training.checkpoint import load_checkpoint

#: What `deep_supervision` makes no use of, and what tells a run from another one without touching its numbers.
_METHOD = ("kind", "logit", "feature", "adversarial", "grid_stride")
_PLACE = ("out",)


def epochs_of_deep_supervision(config: Config) -> int:
    """Whole epochs from the start in which branches learn from labels alone."""
    method = config.method
    if not method.distils:
        return 0
    losses = [loss for loss in (method.logit, method.feature, method.adversarial) if loss.weight]
    return math.floor(min(map(_start, losses), default=1.0) * config.train.epochs)


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
            beginnings[run] = Beginning(source[0].name, source[0].folder, epochs)
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
    method = config.method.model_copy(
        update={name: type(config.method).model_fields[name].default for name in _METHOD}
    )
    return dump_config(config.model_copy(update={"method": method, **dict.fromkeys(_PLACE)}))


def take_over(run: PlannedRun, config: Config) -> bool:
    """Lay the beginning that another run has trained into this one's folder, which can then be resumed.

    Returns:
        False if another version of the program has trained it; the folder is then as it was.

    Raises:
        RunFolderError: if the checkpoint is damaged.
    """
    beginning = run.beginning
    assert beginning
    folder, source = RunFolder(run.folder), RunFolder(beginning.folder)
    theirs, ours = source.checkpoints(config).kept(beginning.epochs), folder.checkpoints(config)
    pairs = ((theirs.best, ours.best), (theirs.last, ours.last))
    kept = {target: load_checkpoint(path) for path, target in pairs if path.is_file()}
    if any(saved["versions"] != versions() for saved in kept.values()):
        return False
    here = config.train.model_copy(update={"accelerator": "cpu", "devices": 1, "precision": "32-true"})
    on_one_cpu = config.model_copy(update={"train": here})
    for target, saved in kept.items():
        state = build_state(on_one_cpu, build_fabric(on_one_cpu), total_steps=config.train.epochs)
        state.take_over(saved["state"])
        ours.save(target, state)
    lines = (source.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    write_text(folder.path / "metrics.jsonl", "".join(lines[: beginning.epochs]))
    folder.begin(config)
    return True
