"""Many trainings as processes of their own, several at a time, with the cores divided among them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segdistill.cores import CORES_VARIABLE, threads_asked_for, usable_cores
from segdistill.errors import InterruptedRunError, UserError
from segdistill.files import json_rows
from segdistill.orphans import STUDY_VARIABLE
from segdistill.stop_signals import heeded, leave_terminal
from segdistill.study.rungs import Rung
from segdistill.study.training_log import TrainingLog, how_it_ended

#: In the folder of a run that went on from another one's epochs: whose, and how many.
TAKEN_OVER = "beginning.json"
_POLL_SECONDS, _WATCH_SECONDS = 0.5, 3.0


@dataclass(frozen=True)
class Beginning:
    """What a run has in common with another one."""

    source: str  # the other run's name
    folder: Path  # and its folder
    epochs: int  # from the start
    checkpoint: Path  # which the other run leaves when it has done them


@dataclass(frozen=True)
class PlannedRun:
    """One rung with one seed."""

    rung: Rung
    seed: int
    folder: Path
    epochs: int
    settings: str  # YAML of its whole configuration
    beginning: Beginning | None = None

    @property
    def name(self) -> str:
        return f"{self.rung.name}, seed {self.seed}"

    @property
    def begun(self) -> bool:
        return (self.folder / "config.yaml").is_file()

    @property
    def log(self) -> TrainingLog:
        return TrainingLog(self.folder.with_suffix(".log"))

    @property
    def settings_file(self) -> Path:
        """The file, beside the run's folder, in which its training reads `settings`."""
        return self.folder.with_suffix(".yaml")

    @property
    def shared(self) -> int:
        """Epochs that another run does or has done for this one."""
        if self.beginning is None or (self.begun and not (self.folder / TAKEN_OVER).is_file()):
            return 0
        return self.beginning.epochs

    def epoch_seconds(self) -> list[float]:
        """The seconds of each epoch that is done, here or for this run; none if nobody can tell."""
        try:
            return [float(row["seconds"]) for row in json_rows(self.folder / "metrics.jsonl")]
        except (OSError, ValueError, KeyError, TypeError):
            return []


@dataclass(frozen=True)
class Failure:
    """A training that ended with an error."""

    run: PlannedRun
    code: int

    def message(self) -> str:
        """Which run, and the last words it said."""
        log = self.run.log
        said = log.error or "".join(log.last_words[-1:]) or "no output"
        how = ("was " if self.code < 0 else "") + how_it_ended(self.code)
        return f"{self.run.name} {how} ({log.path}): {said}"


@dataclass
class _Started:
    run: PlannedRun
    slot: int
    process: "subprocess.Popen[bytes]"


@dataclass
class Runner:
    """Runs what is planned; the parent only starts processes, watches, and passes signals on.

    Attributes:
        jobs: trainings at a time.
        gpus: devices to deal out if there are several jobs; 0 leaves every job what it sees.
        take_over: makes a run go on from its beginning, which another one has trained; if it raises UserError or
            OSError, the run is trained from its start.
        watch: called every few seconds with the runs that are under way.
        said: called with a line at every start.
        failed: called at once with every training that ended with an error.
    """

    jobs: int
    gpus: int
    take_over: Callable[[PlannedRun], None]
    watch: Callable[[Sequence[PlannedRun]], None]
    said: Callable[[str], None]
    failed: Callable[[Failure], None]
    _started: list[_Started] = field(default_factory=list)
    _stop_asked: bool = False

    def run(self, planned: Sequence[PlannedRun], *, finished: Callable[[PlannedRun], None]) -> list[Failure]:
        """Run all of them in their order; one that fails does not keep the others from running.

        A run that shares its beginning with another one waits as long as that may still train it.

        Args:
            planned: may be partly trained, which is then resumed.
            finished: called after each that came to its end.

        Raises:
            InterruptedRunError: on SIGINT, SIGTERM or SIGHUP (a closed terminal), after every training has
                saved its state.
        """
        waiting, failures = list(planned), list[Failure]()
        previous = {number: signal.signal(number, self._ask_to_stop) for number in heeded()}
        watched = 0.0
        try:
            while waiting or self._started:
                if self._stop_asked:
                    raise InterruptedRunError(
                        "interrupted; what was trained is saved, the same command goes on"
                    )
                while len(self._started) < self.jobs and (run := self._next(waiting)):
                    waiting.remove(run)
                    self._start(run)
                time.sleep(_POLL_SECONDS)
                for one in [one for one in self._started if one.process.poll() is not None]:
                    self._started.remove(one)
                    if one.process.returncode == 0:
                        finished(one.run)
                    else:
                        failures.append(Failure(one.run, one.process.returncode))
                        one.run.log.note_failure(one.process.returncode)
                        self.failed(failures[-1])
                if time.monotonic() - watched > _WATCH_SECONDS:
                    self.watch([one.run for one in self._started])
                    watched = time.monotonic()
        finally:
            self._stop()  # whatever happened: no training may go on alone
            for number, handler in previous.items():
                signal.signal(number, handler)
        return failures

    def _next(self, waiting: Sequence[PlannedRun]) -> PlannedRun | None:
        coming = {run.folder: run for run in (*waiting, *(one.run for one in self._started))}
        for run in waiting:
            beginning = None if run.begun else run.beginning
            if beginning is None or beginning.checkpoint.is_file():
                return run
            source = coming.get(beginning.folder)
            if source is None or len(source.epoch_seconds()) > beginning.epochs:
                return run  # the checkpoint was not kept, and will not be
        return None

    def _start(self, run: PlannedRun) -> None:
        slot = min(set(range(self.jobs)) - {one.slot for one in self._started})
        how = "resuming" if run.begun else "starting"
        if not run.begun and run.beginning:
            how += f" {self._begin(run, run.beginning)}:"
        self.said(f"{how} {run.name} (log: {run.log.path})")
        run.log.start()
        with run.log.path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "segdistill.cli", "train", str(run.settings_file), "--resume"],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self._environment(slot),
                start_new_session=True,  # a Ctrl-C reaches the parent alone, which passes it on once
            )
        self._started.append(_Started(run, slot, process))

    def _begin(self, run: PlannedRun, beginning: Beginning) -> str:
        """Lay the shared beginning if possible; returns where the run starts, in words."""
        try:
            if not beginning.checkpoint.is_file():
                return f"from its first epoch, since {beginning.source} left no checkpoint on its way"
            self.take_over(run)
        except (UserError, OSError) as error:
            return f"from its first epoch ({error})"
        return f"after epoch {beginning.epochs} of {beginning.source}, equal until there"

    def _environment(self, slot: int) -> dict[str, str]:
        cores = max(1, usable_cores() // self.jobs)
        asked = threads_asked_for()
        threads = cores if asked is None else min(cores, max(1, asked // self.jobs))
        own = {CORES_VARIABLE: str(cores), "OMP_NUM_THREADS": str(threads), STUDY_VARIABLE: str(os.getpid())}
        own |= {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
        if self.gpus and self.jobs > 1:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            devices = visible.split(",") if visible else [str(number) for number in range(self.gpus)]
            # As many to each: with another number of processes a run would be another training.
            each = max(1, len(devices) // self.jobs)
            first = slot * each % len(devices)
            own["CUDA_VISIBLE_DEVICES"] = ",".join(devices[first : first + each])
        return os.environ | own

    def _stop(self) -> None:
        for one in self._started:
            one.process.send_signal(signal.SIGTERM)
        for one in self._started:
            one.process.wait()
        self._started.clear()

    def _ask_to_stop(self, number: int, frame: object) -> None:
        self._stop_asked = True
        leave_terminal(number)


def seconds_left(runs: Sequence[PlannedRun], *, jobs: int) -> float | None:
    """Seconds that the rest of a study will take, from the epochs seen so far; None before the first.

    A run goes on as fast as its rung's epochs went so far; a rung without any as fast as the mean of all.

    Args:
        runs: all of the study, in any state.
        jobs: runs at a time.
    """
    seen: dict[str, list[float]] = {}
    epochs_left: dict[str, int] = {}
    for run in runs:
        seconds, shared = run.epoch_seconds(), run.shared
        seen.setdefault(run.rung.name, []).extend(seconds[shared:])
        left = run.epochs - max(len(seconds), shared)
        epochs_left[run.rung.name] = epochs_left.get(run.rung.name, 0) + left
    all_seen = [second for seconds in seen.values() for second in seconds]
    if not all_seen:
        return None
    mean = sum(all_seen) / len(all_seen)
    pace = {name: sum(seconds) / len(seconds) if seconds else mean for name, seconds in seen.items()}
    return sum(epochs_left[name] * pace[name] for name in epochs_left) / jobs
