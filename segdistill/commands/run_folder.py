"""The folder of a run: what lies where, and whether a run may start in it."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from segdistill.commands.settings import changes_that_count, refuse_what_counts, with_whole_paths
from segdistill.commands.versions import versions
from segdistill.config import Config
from segdistill.config_io import dump_config, load_config
from segdistill.errors import ConfigError, RunFolderError
from segdistill.files import write_text
from segdistill.given_model import CONFIG, PRIMARY_WEIGHTS, refuse_no_run
from segdistill.locks import alone_in
from segdistill.run_summary import SUMMARY, RunSummary
from segdistill.study.runner import TAKEN_OVER
from segdistill.training.checkpoint import Checkpoints

#: What runs, evaluations and exports leave in the folder; `--overwrite` touches nothing else. The configuration is not
#: among it, but replaced: it says that the folder is a run's, also if a run is killed while it clears the folder.
_WRITTEN = (
    "metrics.jsonl",
    SUMMARY,
    "images_*.txt",
    TAKEN_OVER,
    "primary*.onnx",
    "primary.safetensors",
    "branch*.onnx",
    *(f"{name}*_*.{ending}" for name in ("primary", "branch") for ending in ("json", "csv", "png", "html")),
    ".unchecked-*",
    "checkpoints",
    "tensorboard",
    "evaluation_*",
)


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def config(self) -> Path:
        return self.path / CONFIG

    @property
    def summary(self) -> Path:
        return self.path / SUMMARY

    @property
    def primary(self) -> Path:
        return self.path / PRIMARY_WEIGHTS

    @property
    def onnx(self) -> Path:
        return self.path / "primary.onnx"

    @property
    def scored(self) -> bool:
        """Whether the training came to its end, whatever became of the export."""
        if not self.summary.is_file():
            return False
        self.load_summary()  # a damaged one is told
        return True

    @property
    def finished(self) -> bool:
        """Whether the run came to its end: scores alone are written before the export, which may fail."""
        return self.summary.is_file() and self.load_summary().onnx is not None

    def load_summary(self) -> RunSummary:
        """Raises RunFolderError if the run has no scores yet, or the file is damaged."""
        if not self.summary.is_file():
            raise RunFolderError(
                f"{self.path} has no {self.summary.name}: the run is not finished; --resume it"
            )
        try:
            return RunSummary.read(self.summary)
        except ValueError as error:
            raise RunFolderError(
                f"{self.summary} is damaged, or of another version of segdistill ({error}); use the version that made "
                f"it, or else remove it and resume the run, or remove {self.path}"
            ) from None

    def checkpoints(self, config: Config) -> Checkpoints:
        return Checkpoints(self.path / "checkpoints", dump_config(config), versions())

    def load_config(self, overrides: Sequence[str] = ()) -> Config:
        """The run's settings; what does not change a number may be overridden.

        Raises:
            RunFolderError: if this is no run folder.
            ConfigError: for an override of anything else.
        """
        refuse_what_counts(overrides, owner=str(self.path))
        refuse_no_run(self.path)
        return load_config(self.config, overrides)

    def check(
        self,
        config: Config,
        *,
        overwrite: bool,
        elsewhere: str = "another folder by out=DIR or name=NAME",
        replace: str = "replace it by --overwrite without --resume",
    ) -> None:
        """Refuse, before any work is done, what would lose or mix up results.

        Args:
            config: of the run that would start or go on here.
            overwrite: whether a run that is here may go.
            elsewhere: what to choose instead of this folder, for the message.
            replace: how to give up the run that is here, likewise.

        Raises:
            RunFolderError: if the folder holds another run, or something that is no run.
            ConfigError: if a run would be resumed with other settings.
        """
        if self.config.exists():
            if config.train.resume:
                self._same_settings(config, f"choose {elsewhere}, or {replace}")
            elif not overwrite:
                finished = "a finished" if self.finished else "an unfinished"
                raise RunFolderError(
                    f"{self.path} already holds {finished} run. Go on with it by --resume, keep it and choose "
                    f"{elsewhere}, or {replace}"
                )
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise RunFolderError(f"{self.path} is not empty and is no run's folder; choose {elsewhere}")

    def begin(self, config: Config) -> None:
        """Write the resolved configuration; a run from the start first clears what `check` allowed it to."""
        if self.config.exists() and not config.train.resume:
            for pattern in _WRITTEN:
                for path in self.path.glob(pattern):
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
        for half_written in self.checkpoints(config).folder.glob("**/.*.pt"):  # by a killed run
            half_written.unlink()
        write_text(self.config, dump_config(_anywhere(config)))

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Nobody else may train in this folder meanwhile; the lock goes with the process, however it ends.

        Raises:
            RunFolderError: if another process does.
        """
        taken = RunFolderError(
            f"another process is training in {self.path}; wait for it, stop it, or choose another folder by out=DIR"
        )
        with alone_in(self.path, otherwise=taken):
            yield

    def _same_settings(self, config: Config, otherwise: str) -> None:
        if changed := changes_that_count(self.load_config(), config):
            lines = [
                f"{key}: {before!r} when it was started, {now!r} now"
                for key, (before, now) in changed.items()
            ]
            raise ConfigError(
                "\n  ".join([f"{self.path} cannot be resumed with other settings:", *lines])
                + f"\nresume with the same ones ({self.config}), {otherwise}"
            )


def _anywhere(config: Config) -> Config:
    """The configuration as the run was started with it, with paths that hold from whichever folder it is read again."""
    train = config.train.model_copy(update={"resume": False})
    return with_whole_paths(config).model_copy(update={"train": train})
