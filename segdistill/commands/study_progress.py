"""What a study shows while it trains."""

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn

from segdistill.commands.study_plan import is_finished
from segdistill.console import counted, duration, progress_bar
from segdistill.study.run_results import read_run
from segdistill.study.runner import Failure, PlannedRun, seconds_left


class StudyProgress:
    """One bar over the epochs of the whole study, a line for every run that starts or ends."""

    def __init__(self, planned: Sequence[PlannedRun], *, jobs: int, console: Console) -> None:
        self.planned = list(planned)  # but those that failed
        self.jobs = jobs
        self.console = console
        self.progress = progress_bar(
            console,
            "{task.fields[runs]}",
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            "epochs, {task.fields[left]} of training left",
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
        self.console.print(line)

    def watch(self, running: Sequence[PlannedRun]) -> None:
        self.progress.update(
            self.task,
            completed=sum(len(run.epoch_seconds()) for run in self.planned),
            runs="; ".join(run.name for run in running),
            left=self._left(),
        )

    def finished(self, run: PlannedRun) -> None:
        result = read_run(run.folder, seed=run.seed)
        to_do = sum(not is_finished(one) for one in self.planned)
        left = f"{counted(to_do, 'run')} and {self._left()} of training left" if to_do else "none left"
        self.say(f"finished {run.name}: mIoU {100 * result.miou:.2f}; {left}")

    def failed(self, failure: Failure) -> None:
        self.planned.remove(failure.run)
        self.progress.update(self.task, total=sum(run.epochs for run in self.planned))
        self.say(failure.message())

    def _left(self) -> str:
        seconds = seconds_left(self.planned, jobs=self.jobs)
        return "?" if seconds is None else duration(seconds)
