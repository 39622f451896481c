"""`segdistill compare`: train a ladder of methods over several seeds, in pairs, and say what came out."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from shlex import quote

import torch
from rich.console import Console

from segdistill.build.splits import build_splits, data_hash
from segdistill.build.training import build_state_to_look_at, slow_precision
from segdistill.commands.run_folder import RunFolder
from segdistill.commands.settings import settings_hash
from segdistill.commands.shared_beginning import take_over
from segdistill.commands.step_cost import seconds_per_step
from segdistill.commands.study_plan import MeasuredCost, Study, StudyFolder, is_finished, plan_study
from segdistill.commands.study_progress import StudyProgress
from segdistill.config import Config
from segdistill.config_io import load_config, validate_config
from segdistill.config_yaml import parse_yaml
from segdistill.console import counted, new_console, warn
from segdistill.errors import (
    ConfigError,
    DataError,
    InterruptedRunError,
    RunFolderError,
    UserError,
    first_line,
)
from segdistill.files import refuse_unwritable, write_json, write_text
from segdistill.locks import alone_in, somebody_in
from segdistill.report.html import comparison_page
from segdistill.report.rows import verdict
from segdistill.report.text import comparison_tables, protocol_line
from segdistill.study.results import Comparison, compare_rungs
from segdistill.study.run_results import RunResult, read_protocol, read_run
from segdistill.study.rungs import Rung
from segdistill.study.runner import Failure, PlannedRun, Runner


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
        config_path, overrides, kinds, rungs, seeds, out: what is compared, see `plan_study`.
        jobs: trainings at a time.
        only_report: train nothing, report the runs that are finished.
        console: to print on.

    Raises:
        UserError: before anything is trained, for settings that are wrong or differ from the ones a run in
            the folder was started with; at the end, if a training failed.
        InterruptedRunError: after SIGINT or SIGTERM; the same command goes on.
    """
    study = plan_study(config_path, overrides, kinds=kinds, rungs=rungs, seeds=seeds, out=out)
    todo = study.todo
    if not only_report:
        refuse_unwritable(study.folder.path, said=f"--out {study.folder.path}")
        refuse_too_few_gpus(study.base, jobs=jobs, gpus=torch.cuda.device_count())
    for line in study.left_out:
        console.print(f"left out, {line}")
    console.print(
        f"{study.base.name} in {study.folder.path}, rungs: {len(study.ladder)}, seeds: {len(seeds)}; "
        f"{len(study.planned) - len(todo)} of {len(study.planned)} runs are finished",
    )
    if todo and not only_report and (slow := slow_precision(study.base.train)):
        warn(console, slow)
    read_study(study)  # a damaged run is told now and not after the first training
    failures: list[Failure] = []
    interrupted = False
    if not only_report:
        if todo:
            failures = train_all(study, todo, jobs=jobs, console=console)
        try:
            measure_cost(study, console=console)
        except KeyboardInterrupt:
            interrupted = True  # all trainings have ended, and are reported
    comparison = report(study, console=console)
    if failures:
        lines = [failure.message() for failure in failures]
        raise UserError("\n  ".join([f"{len(failures)} of {len(todo)} trainings failed:", *lines]))
    if comparison is None:
        raise UserError(
            f"{study.folder.path} holds no finished run of these rungs, so there is nothing to report"
        )
    if interrupted:
        raise InterruptedRunError("interrupted while steps were timed; the same command times them again")


def refuse_too_few_gpus(config: Config, *, jobs: int, gpus: int) -> None:
    """Raises ConfigError if several trainings at a time would not have the devices that each of them wants."""
    wanted = config.train.devices
    if jobs == 1 or not gpus or config.train.accelerator == "cpu" or wanted == "auto":
        return
    if wanted * jobs > gpus and wanted > 1:
        raise ConfigError(
            f"--jobs {jobs} with train.devices={wanted} wants {jobs * wanted} GPUs, and there are {gpus}; use --jobs "
            f"{max(1, gpus // wanted)}"
        )


def train_all(study: Study, todo: Sequence[PlannedRun], *, jobs: int, console: Console) -> list[Failure]:
    """Train every run that is still to do, and write the results anew after each of them.

    Raises:
        RunFolderError: if another comparison does so in this folder, or another process trains one of the runs.
        DataError: for what is wrong with the data, or if they are not those of finished runs.
        ConfigError: if a rung's networks cannot be built; nothing is trained then.
        InterruptedRunError: see `Runner.run`.
    """
    taken = RunFolderError(
        f"another comparison is training in {study.folder.path}; wait for it, stop it, or choose another folder by "
        "--out"
    )
    with ExitStack() as until_the_end:
        until_the_end.enter_context(alone_in(study.folder.path, otherwise=taken))
        refuse_busy(todo)
        check_data(study, console=console)
        refuse_unbuildable(todo, console=console)
        write_json(study.folder.rungs, {rung.name: rung.overrides for rung in study.rungs})
        for run in todo:  # so that an edit of the configuration does not reach the trainings still to come
            write_text(run.settings_file, run.settings)
        # Not before: one line at a time can live on a terminal.
        progress = until_the_end.enter_context(StudyProgress(study.planned, jobs=jobs, console=console))

        def finished(run: PlannedRun) -> None:
            progress.finished(run)
            publish(study)

        runner = Runner(
            jobs=jobs,
            gpus=torch.cuda.device_count(),
            take_over=lambda run: take_over(run, load_config(run.settings_file)),
            watch=progress.watch,
            said=progress.say,
            failed=progress.failed,
        )
        return runner.run(todo, finished=finished)


def check_data(study: Study, *, console: Console) -> None:
    """Read the data once before all trainings: each of them would download what is not there, or fail at what is wrong.
    On other data than the finished runs had, a run would have no pair.

    Raises:
        DataError: for what is wrong with the data; or naming a finished run that had others.
    """
    data = study.base.data.model_copy(update={"cache": False})  # no image is used here
    config = study.base.model_copy(update={"data": data})
    now = data_hash(build_splits(config, ("train", "val"), console=console))
    trained = [(run, read_run(run.folder, seed=run.seed).data_hash) for run in study.finished]
    if others := [(run, known) for run, known in trained if known != now]:
        run, known = others[0]
        raise DataError(
            f"the data are not those of {counted(len(others), 'finished run')}, e.g. {run.name} (hash {known}, now "
            f"{now}, of the images' names and files and of their labels), and what is trained now could not be "
            "compared with them: put the data back (data.root=DIR says where they lie now), or begin another "
            "comparison by --out"
        )


def refuse_unbuildable(todo: Sequence[PlannedRun], *, console: Console) -> None:
    """Build every rung's networks now: what they alone can tell of a rung should not wait until it is the rung's turn.

    Raises:
        ConfigError: naming the rung.
    """
    one_of_each = {run.rung: run for run in reversed(todo) if not run.begun}
    with console.status("building the networks of all rungs"):
        for rung, run in one_of_each.items():
            try:
                values = parse_yaml(run.settings, source=run.name)
                build_state_to_look_at(validate_config(values, source=run.name))
            except UserError as error:
                raise ConfigError(f"rung {rung.name}: {error}") from None


def refuse_busy(todo: Sequence[PlannedRun]) -> None:
    """Raises RunFolderError if other processes are training some of the runs."""
    if busy := [run for run in todo if somebody_in(run.folder)]:
        raise RunFolderError(
            f"another process is training in {', '.join(str(run.folder) for run in busy)}: wait for it or stop it, and "
            "start the comparison again (what a killed comparison left over saves its state and ends by itself)"
        )


def measure_cost(study: Study, *, console: Console) -> None:
    """Time the finished rungs' steps in turn in this process, once for a study; a failure costs only this column.
    Where no rung is measured against another, no step is timed."""
    comparison = read_study(study)
    if comparison is None or not any(result.against for result in comparison.results):
        return
    try:
        configs = timed_settings(study)
        settings = {name: settings_hash(config) for name, config in configs.items()}
        if study.folder.measured_cost().settings.items() >= settings.items():
            return
        with console.status("timing the steps of all rungs, taken in turn"):
            seconds = seconds_per_step(configs, console=new_console(quiet=True))
    except (UserError, RuntimeError) as error:
        console.print(f"the steps could not be timed: {first_line(error)}")
        return
    write_json(study.folder.cost, asdict(MeasuredCost(seconds, settings)))


def timed_settings(study: Study) -> dict[str, Config]:
    """The settings of the finished rungs by name, as they were trained: the YAML file may have been edited since."""
    trained = {run.rung.name: RunFolder(run.folder).config for run in reversed(study.finished)}
    alike = ("train.devices=1", f"seed={study.base.seed}", "out=null")
    return {name: load_config(file, alike) for name, file in trained.items()}


def known_cost(study: Study) -> dict[str, float]:
    """Seconds of a step by rung; of those that were timed with the settings that they have now."""
    cost = study.folder.measured_cost()
    if not cost.seconds_per_step:
        return {}
    return {
        name: cost.seconds_per_step[name]
        for name, config in timed_settings(study).items()
        if name in cost.seconds_per_step and cost.settings.get(name) == settings_hash(config)
    }


def read_study(study: Study) -> Comparison | None:
    """What the known runs that are finished say; None if there are none. Nothing is written."""
    done = study.finished
    if not done:
        return None

    def runs_of(rung: Rung) -> list[RunResult]:
        return [read_run(run.folder, seed=run.seed) for run in done if run.rung == rung]

    missing = [run for run in study.planned if run not in done]
    return Comparison(
        name=study.base.name,
        protocols=tuple(read_protocol(run.folder) for run in done),
        results=compare_rungs(
            [(rung, runs_of(rung)) for rung in study.rungs], seconds_per_step=known_cost(study)
        ),
        missing=tuple((run.rung.name, run.seed) for run in missing),
        failures=tuple(f"{run.name}: {run.log.failure}" for run in missing if run.log.failure),
    )


def publish(study: Study) -> Comparison | None:
    """Write JSON and page of what `read_study` reads; nothing if there is nothing."""
    comparison = read_study(study)
    if comparison:
        write_json(study.folder.json, comparison.as_dict())
        write_text(study.folder.page, comparison_page(comparison))
    return comparison


def report(study: Study, *, console: Console) -> Comparison | None:
    """Write and print what there is by now."""
    comparison = publish(study)
    if comparison:
        print_results(comparison, study.folder, console=console)
    if lacking := [run for run in study.planned if is_finished(run) and not RunFolder(run.folder).finished]:
        warn(
            console,
            f"without an ONNX file, as the export did not come to its end: {'; '.join(run.name for run in lacking)}. "
            f"To make it: segdistill train {quote(str(lacking[0].settings_file))} --resume",
        )
    return comparison


def print_results(comparison: Comparison, folder: StudyFolder, *, console: Console) -> None:
    """Tables, protocol, what to mind, the verdict, and where it all lies."""
    for table in comparison_tables(comparison, console):
        console.print(table)
    console.print(protocol_line(comparison))
    for caveat in comparison.caveats:
        warn(console, caveat)
    lead, others = verdict(comparison)
    for sentence in (lead, *others):
        console.print(sentence)
    if comparison.by_chance:
        console.print(comparison.by_chance)
    console.print(f"{folder.page} and {folder.json}")
