"""The folder of a run: what lies where, and whether a run may start in it."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdistill.build.datasets import build_normalisation, first_weights
from segdistill.build.splits import names_elsewhere
from segdistill.commands.settings import changes_that_count, refuse_what_counts
from segdistill.commands.versions import differences, versions
from segdistill.config import Config
from segdistill.config_io import dump_config, load_config
from segdistill.console import new_console
from segdistill.data.samples import Samples, names_of
from segdistill.errors import ConfigError, RunFolderError, first_line
from segdistill.files import alone_in, expanded, read_text, write_text
from segdistill.given_model import CONFIG, PRIMARY_WEIGHTS, refuse_no_run
from segdistill.study.runner import TAKEN_OVER
from segdistill.training.checkpoint import Checkpoints, load_checkpoint
from segdistill.training.state import TrainState

#: What runs, evaluations and exports leave in the folder; `--overwrite` touches nothing else. The configuration is not
#: among it, but replaced: it says that the folder is a run's, also if a run is killed while it clears the folder.
_WRITTEN = (
    "metrics.jsonl",
    "summary.json",
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
_ANEW = "by --overwrite or out=DIR; of a comparison: remove that run's folder and start the comparison again"


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def config(self) -> Path:
        return self.path / CONFIG

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def primary(self) -> Path:
        return self.path / PRIMARY_WEIGHTS

    @property
    def onnx(self) -> Path:
        return self.path / "primary.onnx"

    @property
    def scored(self) -> bool:
        """Whether the training came to its end, whatever became of the export."""
        return self.summary.is_file() and bool(self.load_summary())

    @property
    def finished(self) -> bool:
        """Whether the run came to its end: scores alone are written before the export, which may fail."""
        return self.summary.is_file() and self.load_summary()["onnx"] is not None

    def load_summary(self) -> dict[str, Any]:
        """Raises RunFolderError if the run has no scores yet, or the file is damaged."""
        if not self.summary.is_file():
            raise RunFolderError(
                f"{self.path} has no {self.summary.name}: the run is not finished; --resume it"
            )
        try:
            summary = json.loads(self.summary.read_text())
            if not {"miou", "protocol", "onnx"} <= set(summary):
                raise ValueError("keys are missing")
        except (ValueError, TypeError):
            raise RunFolderError(
                f"{self.summary} is damaged; remove it and resume the run, or remove {self.path}"
            ) from None
        return summary

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

    def note_images(self, names: Mapping[str, Sequence[str]]) -> None:
        """Write down which images each split has, as `data.folder.lists` reads them: who deals images out by chance
        wants to know which ones were held back, and may want the same split again.
        """
        for split, images in names.items():
            write_text(self.path / f"images_{split}.txt", "".join(f"{name}\n" for name in images))

    def refuse_what_it_learnt(self, samples: Samples, config: Config, *, split: str) -> None:
        """Images that are dealt out by shares are dealt out anew when there are more of them.

        Args:
            samples: of a split of the run's own data, as they are now.
            config: of the run.
            split: which one.

        Raises:
            RunFolderError: if the run was trained on some that are of this split now, and of training no more.
        """
        path = self.path / "images_train.txt"
        if not path.is_file():
            return
        # Names may come in several splits, each with a folder of its own.
        apart = names_elsewhere(config, split, console=new_console(quiet=True)).get("train")
        if apart is None:  # nothing is to be trained on any more
            noted = self.path / f"images_{split}.txt"
            apart = read_text(noted).split("\n") if noted.is_file() else []
        names = names_of(samples)
        learnt = sorted(set(names) & set(read_text(path).split("\n")) - set(apart))
        if learnt:
            raise RunFolderError(
                f"{len(learnt)} of the {len(names)} images of {split} are among those that {self.path} was trained on "
                f"({', '.join(learnt[:3])}{', ...' if len(learnt) > 3 else ''}; {path.name}): images have come or gone "
                "since, and the shares of data.folder deal them out anew. Put what has come into a folder of its own, "
                "to be scored by data.root=DIR, or train anew with lists of each split's images (data.folder.lists; "
                f"those of this run are images_*.txt in {self.path})"
            )

    def other_labels(self, split: str, split_hash: str | None) -> str:
        """What to say if a split is not as it was when the run came to its end; empty if it is, as far as is known.

        Args:
            split: of the run's own data.
            split_hash: see `data_hash`, of the split as it is now; None if it has no labels.
        """
        then = self.load_summary().get("data", {}).get("splits", {}).get(split) if self.scored else None
        if None in (then, split_hash) or then == split_hash:
            return ""
        return (
            f"the {split} split is not what it was when the run ended (hash {then}, now {split_hash}, of the images' "
            "names and the labels' pixels): this score and those in summary.json cannot be compared"
        )

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

    def saved(self, config: Config) -> dict[str, Any] | None:
        """The checkpoint to go on from, if the run is one to be resumed and has one by now.

        Raises:
            RunFolderError: if it is damaged.
        """
        last = self.checkpoints(config).last
        return load_checkpoint(last) if config.train.resume and last.is_file() else None

    def go_on(
        self, config: Config, state: TrainState, saved: Mapping[str, Any] | None, *, data_hash: str
    ) -> None:
        """Bring `state` to where the run stopped, and note what a run has to know when it goes on again.

        Args:
            config: by which `state` was built.
            state: changed in place.
            saved: see the method of this name; None for a run that begins.
            data_hash: of the data as they are now.

        Raises:
            RunFolderError: if the checkpoint is of a version of the program with other networks, or of other data: the
                number of images decides where in its schedule a step is.
        """
        position = state.position
        if saved is None:
            position.first_weights = first_weights(config)
        else:
            self._load(state, saved, self.checkpoints(config).last, data_hash=data_hash)
            position = state.position
        normalisation = build_normalisation(config)
        position.normalisation = (normalisation.mean, normalisation.std)
        position.data_hash = data_hash
        now = versions()
        if now not in position.programs[-1:]:
            position.programs.append(now)

    def drop_beginning(self, config: Config) -> None:
        """Remove what of another run was laid here, for a run that does not go on from it. The last checkpoint, without
        which the rest does not count, goes first."""
        checkpoints = self.checkpoints(config)
        for path in (checkpoints.last, checkpoints.best, self.path / TAKEN_OVER):
            path.unlink(missing_ok=True)

    def not_to_go_on_from(self, saved: Mapping[str, Any] | None, data_hash: str) -> str:
        """What is wrong with a beginning after which this run itself has not done a step: that another run has trained
        it on other data. Empty if nothing is.
        """
        position = saved["state"].get("position", {}) if saved else {}
        then = position.get("data_hash")
        if then in (None, data_hash) or position["batch"] or not (self.path / TAKEN_OVER).is_file():
            return ""
        taken = json.loads((self.path / TAKEN_OVER).read_text())
        if taken["epochs"] != position["epoch"]:
            return ""
        return (
            f"{taken['source']}, whose first {taken['epochs']} epochs were to be this run's, was trained on other data "
            f"(hash {then}, now {data_hash})"
        )

    def _load(self, state: TrainState, saved: Mapping[str, Any], path: Path, *, data_hash: str) -> None:
        """Raises RunFolderError if what was saved there is not of these networks and data."""
        try:
            state.load_state_dict(saved["state"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            makers = differences(saved["versions"], versions()) or "the same versions"
            raise RunFolderError(
                f"{path} does not fit the networks that this version of the program makes "
                f"({first_line(error)}); it was made with {makers}. Resume with those, or start anew {_ANEW}"
            ) from None
        state.position.programs = state.position.programs or [saved["versions"]]
        if state.position.data_hash not in (None, data_hash):
            raise RunFolderError(
                f"{self.path} was trained on other data (hash {state.position.data_hash}, now {data_hash}, of the "
                "images' names and the labels' pixels): images were added or removed, or labels changed, since. Put "
                f"them back (data.root=DIR says where they lie now), or start anew {_ANEW}"
            )

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
    """As a run was started with it, to be read again from whichever folder."""
    root = config.data.root
    data = config.data.model_copy(update={"root": root and expanded(root).absolute()})
    train = config.train.model_copy(update={"resume": False})
    return config.model_copy(update={"data": data, "train": train})
