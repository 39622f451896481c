"""`segdistill compare`: train a ladder of methods over several seeds, in pairs, and say what came out."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from segdistill.commands.run_folder import RunFolder
from segdistill.commands.step_cost import seconds_per_step
from segdistill.config import Config
from segdistill.config_io import dump_config, load_config
from segdistill.errors import ConfigError, UserError
from segdistill.files import write_json, write_text
from segdistill.report.html import comparison_page
from segdistill.report.text import comparison_tables, protocol_line
from segdistill.study.results import (
    Comparison,
    RunResult,
    common_protocol,
    compare_rungs,
    read_protocol,
    read_run,
)
from segdistill.study.rungs import LADDER, Rung
from segdistill.study.runner import PlannedRun, Runner, seconds_left
from segdistill.training.run_log import duration

#: Keys that a comparison sets itself, and keys that have to be the same in all rungs for pairs to be pairs.
_STUDYS_OWN = ("seed", "out", "export.weights", "train.resume")
_ONE_FOR_ALL = ("data.kind", "data.root", "data.size", "data.folder", "data.synthetic")


@dataclass(frozen=True)
class StudyFolder:
    """`<rung>/seed<n>/` are run folders; beside them lie the results."""

    path: Path

    @property
    def json(self) -> Path:
        return self.path / "comparison.json"

    @property
    def page(self) -> Path:
        return self.path / "comparison.html"

    @property
    def cost(self) -> Path:
        return self.path / "seconds_per_step.json"

    @property
    def rungs(self) -> Path:
        """Names and overrides of all rungs that were ever trained here."""
        return self.path / "rungs.json"

    def remembered(self, ladder: Sequence[Rung]) -> list[Rung]:
        """`ladder` and the rungs of earlier calls, those of the program's ladder first."""
        earlier = [Rung(name, tuple(overrides)) for name, overrides in read_json(self.rungs).items()]
        every = {rung.name: rung for rung in (*earlier, *ladder)}
        order = [rung.name for rung in LADDER if rung.name in every]
        return [every[name] for name in (*order, *(name for name in every if name not in order))]

    def run(self, rung: Rung, seed: int) -> Path:
        return self.path / rung.name / f"seed{seed}"

    def seeds(self, rung: Rung) -> list[int]:
        """Those that have a finished run."""
        found = (path.name.removeprefix("seed") for path in (self.path / rung.name).glob("seed*/"))
        return sorted(
            int(seed) for seed in found if seed.isdigit() and RunFolder(self.run(rung, int(seed))).scored
        )


def compare(
    config_path: Path,
    overrides: Sequence[str],
    *,
    kinds: Sequence[str] | None,
    rungs: Sequence[Rung],
    seeds: Sequence[int],
    jobs: int,
    out: Path | None,
    only_report: bool,
    console: Console,
) -> None:
    """Train what is not trained yet, then report.

    Args:
        config_path: YAML file of the study; its own `method.kind` does not matter to the ladder.
        overrides: `key.sub=value` for every rung.
        kinds: names of the ladder's rungs; None for all whose terms have a weight.
        rungs: further ones.
        seeds: each rung is trained with each of them.
        jobs: trainings at a time.
        out: folder of the study; by default `runs/<name>_compare`.
        only_report: train nothing, report the runs that are finished.
        console: to print on.

    Raises:
        UserError: before anything is trained, for settings that are wrong or differ from the ones a run in
            the folder was started with; at the end, if a training failed.
        InterruptedRunError: after SIGINT or SIGTERM; the same command goes on.
    """
    base = load_config(config_path, overrides)
    if kinds is None:
        kinds = [rung.name for rung in LADDER if weight_of(rung, base) != 0]
        if silent := ", ".join(rung.name for rung in LADDER if rung.name not in kinds):
            console.print(f"left out, for its weight is 0: {silent}", highlight=False)
    ladder = [rung for rung in LADDER if rung.name in kinds] + list(rungs)
    for what, names in (("--rung", [rung.name for rung in ladder]), ("--seeds", seeds)):
        if twice := sorted({str(name) for name in names if list(names).count(name) > 1}):
            raise ConfigError(f"{what}: {', '.join(twice)} is given twice")
    refuse_what_a_study_decides("the overrides", overrides, _STUDYS_OWN)
    for rung in rungs:
        refuse_what_a_study_decides(f"rung {rung.name}", rung.overrides, (*_STUDYS_OWN, *_ONE_FOR_ALL))
    folder = StudyFolder(out or Path("runs") / f"{base.name}_compare")
    planned = [plan(config_path, overrides, rung, seed, folder=folder) for seed in seeds for rung in ladder]
    # What earlier calls have finished, other seeds and other rungs, belongs to the study, too.
    every = folder.remembered(ladder)
    known = planned + [
        plan(config_path, overrides, rung, seed, folder=folder)
        for rung in every
        for seed in folder.seeds(rung)
        if not (rung in ladder and seed in seeds)
    ]
    todo = [run for run in planned if not RunFolder(run.folder).scored]
    console.print(
        f"[bold]{base.name}[/bold]: {len(ladder)} rungs x {len(seeds)} seeds in {folder.path}, "
        f"{len(planned) - len(todo)} of {len(planned)} runs are finished",
        highlight=False,
    )

    def refresh() -> Comparison | None:
        return write_results(base, folder, every, planned, known)

    refresh()  # a damaged run is told now and not after the first training
    failures = []
    if todo and not only_report:
        write_json(folder.rungs, {rung.name: rung.overrides for rung in every})
        for run in todo:  # so that an edit of the configuration does not reach the trainings still to come
            write_text(run.settings_file, run.settings)
        with StudyProgress(planned, jobs=jobs, console=console) as progress:

            def finished(run: PlannedRun) -> None:
                progress.finished(run)
                refresh()

            runner = Runner(
                jobs=jobs, gpus=torch.cuda.device_count(), watch=progress.watch, said=progress.say
            )
            failures = runner.run(todo, finished=finished)
    if not only_report:
        trained = [rung for rung in every if any(run.rung == rung for run in finished_runs(known))]
        measure_cost(config_path, overrides, trained, folder=folder, console=console)
    if comparison := refresh():
        print_results(comparison, folder, console=console)
    if failures:
        lines = [failure.message() for failure in failures]
        raise UserError("\n  ".join([f"{len(failures)} of {len(todo)} trainings failed:", *lines]))
    if comparison is None:
        raise UserError(f"{folder.path} holds no finished run of these rungs, so there is nothing to report")


def refuse_what_a_study_decides(where: str, overrides: Sequence[str], keys: Sequence[str]) -> None:
    """Raises ConfigError naming the first override that would be overruled, or would make pairs unfair."""
    for override in overrides:
        key = override.partition("=")[0]
        if any(key == one or key.startswith(f"{one}.") or one.startswith(f"{key}.") for one in keys):
            raise ConfigError(
                f"{where}: {override}: a comparison decides that itself, or it has to be the same for all rungs; "
                "use --seeds, --out, or an override for the whole study"
            )


def plan(
    config_path: Path, overrides: Sequence[str], rung: Rung, seed: int, *, folder: StudyFolder
) -> PlannedRun:
    """One training; its settings are checked against what its folder holds.

    Raises:
        ConfigError: if the rung's settings are not valid, add nothing to deep supervision, or are others than
            the folder's run was started with.
    """
    target = folder.run(rung, seed)
    own = (
        *overrides,
        *rung.overrides,
        f"seed={seed}",
        f"out={json.dumps(str(target))}",
        "export.weights=last",
    )
    try:
        config = load_config(config_path, [*own, "train.resume=true"])
    except ConfigError as error:
        raise ConfigError(f"rung {rung.name}: {error}") from None
    if weight_of(rung, config) == 0:
        raise ConfigError(
            f"rung {rung.name}: method.{rung.name[1:]}.weight is 0, so it would be deep_supervision again; give the "
            "term a weight, or leave the rung out by --kinds"
        )
    RunFolder(target).check(config, overwrite=False)
    return PlannedRun(rung, seed, target, epochs=config.train.epochs, settings=dump_config(config))


def weight_of(rung: Rung, config: Config) -> float | None:
    """Of the term that a rung adds to deep supervision; None for a rung that is not of that kind."""
    return getattr(config.method, rung.name[1:]).weight if rung.name.startswith("+") else None


def finished_runs(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    return [run for run in runs if RunFolder(run.folder).scored]


def measure_cost(
    config_path: Path,
    overrides: Sequence[str],
    ladder: Sequence[Rung],
    *,
    folder: StudyFolder,
    console: Console,
) -> None:
    """Time the rungs' steps in turn in this process, once for a study; a failure costs only this column."""
    configs: dict[str, Config] = {
        rung.name: load_config(config_path, [*overrides, *rung.overrides, "train.devices=1"])
        for rung in ladder
    }
    settings = {
        name: hashlib.sha256(dump_config(config).encode()).hexdigest() for name, config in configs.items()
    }
    if not configs or read_json(folder.cost).get("settings", {}).items() >= settings.items():
        return
    try:
        with console.status("timing the steps of all rungs, taken in turn"):
            seconds = seconds_per_step(configs, console=Console(quiet=True))
    except (UserError, RuntimeError) as error:
        console.print(
            f"the steps could not be timed: {str(error).splitlines()[0]}", highlight=False, markup=False
        )
        return
    write_json(folder.cost, {"seconds_per_step": seconds, "settings": settings})


def read_json(path: Path) -> dict[str, Any]:
    """Empty if there is no such file."""
    return json.loads(path.read_text()) if path.is_file() else {}


def write_results(
    base: Config,
    folder: StudyFolder,
    ladder: Sequence[Rung],
    planned: Sequence[PlannedRun],
    known: Sequence[PlannedRun],
) -> Comparison | None:
    """JSON and page of the known runs that are finished; None if there are none."""
    done = finished_runs(known)
    if not done:
        return None

    def runs_of(rung: Rung) -> list[RunResult]:
        return [read_run(run.folder, seed=run.seed) for run in done if run.rung == rung]

    results = compare_rungs(
        [(rung, runs_of(rung)) for rung in ladder],
        seconds_per_step=read_json(folder.cost).get("seconds_per_step", {}),
    )
    comparison = Comparison(
        name=base.name,
        protocol=common_protocol([read_protocol(run.folder) for run in done]),
        results=results,
        missing=tuple((run.rung.name, run.seed) for run in planned if run not in done),
        failures=tuple(
            f"{run.name}: {run.last_error}" for run in planned if run not in done and run.last_error
        ),
    )
    write_json(folder.json, comparison.as_dict())
    write_text(folder.page, comparison_page(comparison))
    return comparison


def print_results(comparison: Comparison, folder: StudyFolder, *, console: Console) -> None:
    for table in comparison_tables(comparison):
        console.print(table)
    console.print(protocol_line(comparison), highlight=False)
    for sentence in comparison.words:
        console.print(sentence, highlight=False)
    console.print(f"{folder.page} and {folder.json}", highlight=False, markup=False)


class StudyProgress:
    """One bar over the epochs of the whole study, a line for every run that starts or ends."""

    def __init__(self, planned: Sequence[PlannedRun], *, jobs: int, console: Console) -> None:
        self.planned = planned
        self.jobs = jobs
        self.console = console
        self.progress = Progress(
            TextColumn("{task.fields[runs]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("epochs, {task.fields[left]} left"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task = self.progress.add_task(
            "study", total=sum(run.epochs for run in planned), runs="", left="?"
        )

    def __enter__(self) -> "StudyProgress":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False)

    def watch(self, running: Sequence[PlannedRun]) -> None:
        self.progress.update(
            self.task,
            completed=sum(len(run.epoch_seconds()) for run in self.planned),
            runs="; ".join(run.name for run in running),
            left=self._left(),
        )

    def finished(self, run: PlannedRun) -> None:
        result = read_run(run.folder, seed=run.seed)
        done = sum(RunFolder(one.folder).scored for one in self.planned)
        self.say(
            f"finished {run.name}: mIoU {100 * result.miou:.2f}; {done} of {len(self.planned)} runs, "
            f"{self._left()} left"
        )

    def _left(self) -> str:
        seconds = seconds_left(self.planned, jobs=self.jobs)
        return "?" if seconds is None else duration(seconds)
