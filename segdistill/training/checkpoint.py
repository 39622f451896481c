"""Checkpoints: one file holds the state and the resolved configuration, and is never half-written."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from segdistill.errors import RunFolderError, first_line
from segdistill.files import write_atomically
from segdistill.training.state import TrainState

FORMAT = 3


def save_checkpoint(path: Path, *, state: dict[str, Any], config: str, versions: dict[str, str]) -> None:
    """Write tensors and primitives; `config` is the resolved YAML.

    Raises:
        OSError: if it cannot be written, e.g. to a full disk.
    """
    content = {"format": FORMAT, "config": config, "versions": versions, "state": state}

    def write(temporary: Path) -> None:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch's writer says so of a full disk
            raise OSError(f"{path} cannot be written: {error}") from None

    write_atomically(path, write)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load to the CPU, with `weights_only=True`: no code of the file is run.

    Raises:
        RunFolderError: if the file is missing, damaged or of another format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunFolderError(
            f"there is no checkpoint {path}: a run leaves last.pt after its first epoch, best.pt after the first one "
            "that is scored. Of a finished run the deployed network needs none (--weights deployed)"
        ) from None
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise RunFolderError(
            f"the checkpoint {path} cannot be read ({first_line(error)}); start the run anew by --overwrite, or "
            "by removing its folder"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        made_by = content.get("versions") if isinstance(content, dict) else None
        maker = made_by.get("segdistill", "unknown") if isinstance(made_by, dict) else "unknown"
        raise RunFolderError(
            f"{path} is not a checkpoint of this version of segdistill (format {FORMAT}); use the version that "
            f"made it ({maker}), or start the run anew by --overwrite, or by removing its folder"
        )
    return content


@dataclass(frozen=True)
class Checkpoints:
    """Where a run's checkpoints lie and what is written into them beside the state."""

    folder: Path
    config: str
    versions: dict[str, str]

    @property
    def last(self) -> Path:
        return self.folder / "last.pt"

    @property
    def best(self) -> Path:
        return self.folder / "best.pt"

    def kept(self, epoch: int) -> "Checkpoints":
        """The checkpoints that `keep` put aside; they are whole if `last` is there."""
        return replace(self, folder=self.folder / f"epoch{epoch}")

    def keep(self, epoch: int) -> None:
        """Put copies aside that later epochs do not replace."""
        for path in (self.best, self.last):
            if path.is_file():
                _copy(path, self.kept(epoch).folder / path.name)

    def save(self, path: Path, state: TrainState) -> None:
        """Save a checkpoint. To be called in the first process alone, whose batch-norm statistics are the ones that
        count.
        """
        save_checkpoint(path, state=state.state_dict(), config=self.config, versions=self.versions)


def _copy(path: Path, target: Path) -> None:
    def write(temporary: Path) -> None:
        shutil.copyfile(path, temporary)

    write_atomically(target, write)
