"""The folder of a run: what lies where, and whether a run may start in it."""

import json
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segdistill.config import Config
from segdistill.config_io import dump_config, load_config
from segdistill.errors import ConfigError, RunFolderError
from segdistill.files import write_text
from segdistill.training.checkpoint import load_checkpoint
from segdistill.training.loop import Checkpoints

#: Changing these between start and resume does not change a number.
_FREE_KEYS = frozenset(
    {
        "out",
        "name",
        "data.root",
        "data.cache",
        "data.workers",
        "train.resume",
        "train.log_every",
        "train.checkpoint_minutes",
    }
)
#: What runs, evaluations and exports leave in the folder; `--overwrite` touches nothing else.
_WRITTEN = (
    "config.yaml",
    "metrics.jsonl",
    "summary.json",
    "primary.*",
    "checkpoints",
    "tensorboard",
    "evaluation_*.json",
)
_PACKAGES = (
    "segdistill",
    "torch",
    "torchvision",
    "segmentation-models-pytorch",
    "timm",
    "albumentations",
    "onnx",
)


def versions() -> dict[str, str]:
    """Of this program and of what its numbers depend on."""
    return {name: version(name) for name in _PACKAGES}


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def primary(self) -> Path:
        return self.path / "primary.safetensors"

    @property
    def onnx(self) -> Path:
        return self.path / "primary.onnx"

    @property
    def finished(self) -> bool:
        """Whether the run came to its end: scores alone are written before the export, which may fail."""
        return self.summary.is_file() and json.loads(self.summary.read_text())["onnx"] is not None

    def checkpoints(self, config: Config) -> Checkpoints:
        return Checkpoints(self.path / "checkpoints", dump_config(config), versions())

    def load_config(self) -> Config:
        """Raises RunFolderError if this is no run folder."""
        if not self.config.is_file():
            raise RunFolderError(
                f"{self.path} is not the folder of a run: it has no config.yaml. Runs lie in runs/<name> unless "
                "`out` says otherwise"
            )
        return load_config(self.config)

    def check(self, config: Config, *, overwrite: bool) -> None:
        """Refuse, before any work is done, what would lose or mix up results.

        Raises:
            RunFolderError: if the folder holds another run, or something that is no run.
            ConfigError: if a run would be resumed with other settings.
        """
        if config.train.resume:
            if self.config.exists():
                self._same_settings(config)
        elif self.config.exists():
            if not overwrite:
                finished = "a finished" if self.finished else "an unfinished"
                raise RunFolderError(
                    f"{self.path} already holds {finished} run. Go on with it by --resume, keep it and choose "
                    "another folder by out=DIR or name=NAME, or replace it by --overwrite"
                )
        elif self.path.exists() and any(self.path.iterdir()):
            raise RunFolderError(
                f"{self.path} is not empty and is no run's folder; choose another by out=DIR"
            )

    def begin(self, config: Config) -> None:
        """Write the resolved configuration; a run from the start first clears what `check` allowed it to."""
        if self.config.exists() and not config.train.resume:
            for pattern in _WRITTEN:
                for path in self.path.glob(pattern):
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
        for half_written in self.checkpoints(config).folder.glob(".*.pt"):  # by a killed run
            half_written.unlink()
        fresh = config.model_copy(update={"train": config.train.model_copy(update={"resume": False})})
        write_text(self.config, dump_config(fresh))

    def last_state(self, config: Config) -> dict[str, Any] | None:
        """The state to go on from; None for a run from the start, or if no checkpoint was written yet."""
        last = self.checkpoints(config).last
        return load_checkpoint(last)["state"] if config.train.resume and last.is_file() else None

    def _same_settings(self, config: Config) -> None:
        before = _flatten(self.load_config().model_dump(mode="json"))
        now = _flatten(config.model_dump(mode="json"))
        changed = [key for key in sorted({*before, *now} - _FREE_KEYS) if before.get(key) != now.get(key)]
        if changed:
            lines = [
                f"{key}: {before.get(key)!r} when it was started, {now.get(key)!r} now" for key in changed
            ]
            raise ConfigError(
                "\n  ".join([f"{self.path} cannot be resumed with other settings:", *lines])
                + f"\nresume with the same ones ({self.config}), or start a new run by name=NAME"
            )


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
