"""How a run goes on from its last checkpoint, or from a beginning that another run has trained."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segdistill.build.datasets import build_normalisation, first_weights
from segdistill.commands.run_folder import RunFolder
from segdistill.commands.versions import differences, versions
from segdistill.config import Config
from segdistill.errors import RunFolderError, first_line
from segdistill.study.runner import TAKEN_OVER
from segdistill.training.checkpoint import load_checkpoint
from segdistill.training.state import TrainState

_ANEW = "by --overwrite or out=DIR; of a comparison: remove that run's folder and start the comparison again"


def saved_checkpoint(folder: RunFolder, config: Config) -> dict[str, Any] | None:
    """The checkpoint to go on from, if the run is one to be resumed and has one by now.

    Raises:
        RunFolderError: if it is damaged.
    """
    last = folder.checkpoints(config).last
    return load_checkpoint(last) if config.train.resume and last.is_file() else None


def not_to_go_on_from(folder: RunFolder, saved: Mapping[str, Any] | None, data_hash: str) -> str:
    """Why a beginning copied from another run cannot be used (trained on other data); empty if it can.

    A run that has done steps of its own since has no such beginning any more.

    Args:
        folder: of the run that would go on.
        saved: see `saved_checkpoint`; None for a run that begins.
        data_hash: of the data as they are now.
    """
    if saved is None or not (folder.path / TAKEN_OVER).is_file():
        return ""
    position = saved["state"]["position"]
    then = position["data_hash"]
    if then == data_hash or position["batch"]:
        return ""
    taken = json.loads((folder.path / TAKEN_OVER).read_text())
    if taken["epochs"] != position["epoch"]:
        return ""
    return (
        f"{taken['source']}, whose first {taken['epochs']} epochs were to be this run's, was trained on other data "
        f"(hash {then}, now {data_hash})"
    )


def drop_beginning(folder: RunFolder, config: Config) -> None:
    """Remove the beginning that another run has trained, for a run that does not go on from it. The last checkpoint
    goes first: without it the rest does not count.
    """
    checkpoints = folder.checkpoints(config)
    for path in (checkpoints.last, checkpoints.best, folder.path / TAKEN_OVER):
        path.unlink(missing_ok=True)


def go_on(
    folder: RunFolder, config: Config, state: TrainState, saved: Mapping[str, Any] | None, *, data_hash: str
) -> None:
    """Bring `state` to where the run stopped, and note what a run has to know when it goes on again.

    Args:
        folder: of the run.
        config: by which `state` was built.
        state: changed in place.
        saved: see `saved_checkpoint`; None for a run that begins.
        data_hash: of the data as they are now.

    Raises:
        RunFolderError: if the checkpoint is of a version of the program with other networks, or of other data: the
            number of images decides where in its schedule a step is.
    """
    position = state.position
    if saved is None:
        position.first_weights = first_weights(config)
    else:
        _load(folder, state, saved, folder.checkpoints(config).last, data_hash=data_hash)
        position = state.position
    position.normalisation = build_normalisation(config)
    position.data_hash = data_hash
    if position.epoch < config.train.epochs:  # else what is left is to score or to export
        note_change(position.programs, versions())
        note_change(position.devices, f"{state.fabric.world_size} x {state.fabric.device.type}")


def note_change(seen: list[Any], now: Any) -> None:
    """Add what trains now to what trained before, unless it is the same."""
    if now not in seen[-1:]:
        seen.append(now)


def _load(
    folder: RunFolder, state: TrainState, saved: Mapping[str, Any], path: Path, *, data_hash: str
) -> None:
    """Raises RunFolderError if the checkpoint at `path` is of other networks or other data."""
    try:
        state.load_state_dict(saved["state"])
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        makers = differences(saved["versions"], versions()) or "the same versions"
        raise RunFolderError(
            f"{path} does not fit the networks that this version of the program makes "
            f"({first_line(error)}); it was made with {makers}. Resume with those, or start anew {_ANEW}"
        ) from None
    if state.position.data_hash != data_hash:
        raise RunFolderError(
            f"{folder.path} was trained on other data (hash {state.position.data_hash}, now {data_hash}, of the "
            "images' names and files and of their labels): something was added, removed or changed since. Put it "
            f"back (data.root=DIR says where the data lie now), or start anew {_ANEW}"
        )
