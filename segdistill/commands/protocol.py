"""The protocols of scores that a run's networks get."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from segdistill.build.splits import data_place
from segdistill.config import Config
from segdistill.errors import PathError
from segdistill.evaluation.boundary import DIAGONAL_SHARE
from segdistill.evaluation.calibration import BINS
from segdistill.evaluation.looking import View
from segdistill.evaluation.metrics import Scores
from segdistill.protocol import Protocol

#: What the labels leave out, in every data set.
IGNORED = "void pixels"


def run_protocol(
    config: Config, *, split: str, images: int, view: View | None = None, weights: str | None = None
) -> Protocol:
    """How the scores come about that a run's networks get on a split of its data.

    Args:
        config: of the run.
        split: of the data.
        images: in it.
        view: how the networks looked at them; by default as during training.
        weights: by default those that the run deploys.
    """
    return Protocol(
        data=config.data.kind,
        split=split,
        images=images,
        **of_view(view or View(config.data.size)),
        scored_at="label size, logits resized bilinearly",
        ignored=IGNORED,
        weights=weights or weights_in_words(config, config.export.weights),
        epochs=config.train.epochs,
        training_crop=config.data.crop or config.data.size,
        sampling=config.data.sampling.kind,
    )


def of_view(view: View) -> dict[str, Any]:
    """What the protocol says of how a network looked at images."""
    return {
        "input_size": view.size,
        "view": view.mode,
        "test_time_augmentation": view.augmentation,
    }


def weights_in_words(config: Config, which: str, *, so_far: int | None = None) -> str:
    """Which weights they are: of the `last` or the `best` epoch, of which one in a training that goes on, and whether
    they are its running average, which is scored if there is one.
    """
    decay = config.train.ema_decay
    progress = "" if so_far is None else f" so far ({so_far} of {config.train.epochs})"
    return f"{which} epoch{progress}" + (f", running average (EMA {decay:g})" if decay else "")


def other_data(config: Config, own: Config) -> Path | None:
    """The folder of the data if it is not the network's own: their score stands beside the score on those."""
    place = data_place(config)
    with suppress(PathError):  # the network may come from a machine with other users
        if place == data_place(own):
            return None
    return place


def of_measures(scores: Scores) -> dict[str, str]:
    """What the protocol says of what was measured beside the confusion."""
    found: dict[str, str] = {}
    if scores.boundary is not None:
        narrowest, widest = scores.boundary.widths
        pixels = f"{narrowest}" if narrowest == widest else f"{narrowest} to {widest}"
        found["boundary"] = f"within {DIAGONAL_SHARE:g} of the diagonal ({pixels} px) of an outline"
    if scores.calibration is not None:
        found["calibration"] = f"{BINS} bins of the largest softmax"
    return found
