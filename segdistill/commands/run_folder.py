"""The folder of a run: what lies where, and whether a run may start in it."""

import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segdistill.config import Config
from segdistill.config_io import dump_config, load_config
from segdistill.errors import ConfigError, RunFolderError
from segdistill.files import write_atomically
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

    def prepare(self, config: Config, *, overwrite: bool) -> dict[str, Any] | None:
        """Make the folder ready for this run.

        Returns:
            The checkpoint's content to go on from, or None for a run from the start.

        Raises:
            RunFolderError: if another run's results would be lost.
            ConfigError: if a run would be resumed with other settings.
        """
        if config.train.resume:
            last = self.checkpoints(config).last
            if last.is_file():
                self._same_settings(config)
                return load_checkpoint(last)
        elif self.config.exists():
            if not overwrite:
                finished = "a finished" if self.summary.exists() else "an unfinished"
                raise RunFolderError(
                    f"{self.path} already holds {finished} run. Go on with it by --resume, keep it and choose "
                    "another folder by out=DIR or name=NAME, or replace it by --overwrite"
                )
            self._clear()
        elif self.path.exists() and any(self.path.iterdir()):
            raise RunFolderError(
                f"{self.path} is not empty and is no run's folder; choose another by out=DIR"
            )
        write_atomically(self.config, lambda temporary: temporary.write_text(dump_config(config)) and None)
        return None

    def _clear(self) -> None:
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _same_settings(self, config: Config) -> None:
        before = _flatten(self.load_config().model_dump(mode="json"))
        now = _flatten(config.model_dump(mode="json"))
        changed = [key for key in now if key not in _FREE_KEYS and before.get(key) != now[key]]
        if changed:
            lines = [f"{key}: {before.get(key)!r} when it was started, {now[key]!r} now" for key in changed]
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
