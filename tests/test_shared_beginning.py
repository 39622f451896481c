"""Which runs of a study begin alike, and until when."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from segdistill.build.training import build_fabric, build_state
from segdistill.commands import shared_beginning
from segdistill.commands.resuming import drop_beginning
from segdistill.commands.run_folder import RunFolder
from segdistill.commands.shared_beginning import (
    epochs_of_deep_supervision,
    take_over,
    with_beginnings,
)
from segdistill.commands.versions import versions
from segdistill.config import Config
from segdistill.errors import RunFolderError
from segdistill.study.rungs import Rung
from segdistill.study.runner import TAKEN_OVER, Beginning, PlannedRun
from segdistill.training.checkpoint import save_checkpoint

LOSSES = ("logit", "feature", "adversarial")


def settings_of(**sections: Any) -> Config:
    return Config.model_validate({"name": "tiny"} | sections)


def method(kind: str = "self_distill", **losses: Mapping[str, Any]) -> dict[str, Any]:
    """Losses that are not named have no weight, and no convolution is several."""
    return {"kind": kind, "reparam": {"copies": 0}} | {
        name: losses.get(name, {"weight": 0.0}) for name in LOSSES
    }


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        (method("deep_supervision", logit={"weight": 1.0}), 0),
        (method("baseline"), 0),
        (method(logit={"weight": 1.0, "ramp": [[0.7, 0.0], [0.75, 1.0]]}), 7),
        (method(logit={"weight": 1.0, "ramp": [[0.0, 0.0], [0.68, 0.0], [0.75, 1.0]]}), 6),
        (method(logit={"weight": 1.0, "ramp": [[0.7, 1.0], [0.75, 0.0]]}), 0),
        (method(logit={"weight": 1.0, "ramp": [[0.0, 0.0], [0.5, 1.0]]}), 0),
        (method(logit={"weight": 1.0}, feature={"weight": 0.1, "ramp": [[0.35, 0.0], [0.4, 1.0]]}), 3),
        (method(logit={"weight": 1.0, "views": {"weight": 1.0, "ramp": [[0.4, 0.0], [0.5, 1.0]]}}), 4),
        (method(logit={"weight": 1.0, "views": {"weight": 0.0, "ramp": [[0.4, 0.0], [0.5, 1.0]]}}), 7),
        (method(logit={"weight": 0.0, "views": {"weight": 1.0, "ramp": [[0.4, 0.0], [0.5, 1.0]]}}), 10),
        (method(), 10),
    ],
)
def test_epochs_in_which_only_labels_teach(settings: dict[str, Any], epochs: int) -> None:
    config = settings_of(method=settings, train={"epochs": 10})
    assert epochs_of_deep_supervision(config) == epochs


def planned(config: Config, name: str) -> tuple[PlannedRun, Config]:
    folder = Path("study") / name / f"seed{config.seed}"
    run = PlannedRun(Rung(name, ()), config.seed, folder, config.train.epochs, "")
    return run, config.model_copy(update={"out": folder})


def test_a_study_knows_which_runs_begin_alike() -> None:
    train = {"epochs": 10, "keep_epochs": [9]}
    late, later = ({"weight": 1.0, "ramp": [[start, 0.0], [1.0, 1.0]]} for start in (0.5, 0.8))
    study = [
        planned(settings_of(method=method("baseline"), train=train), "baseline"),
        planned(
            # It has no parallel convolutions, whatever is asked for.
            settings_of(method=method("deep_supervision") | {"reparam": {"copies": 2}}, train=train),
            "deep_supervision",
        ),
        planned(settings_of(method=method(logit=late), train=train), "late"),
        planned(settings_of(method=method(feature=later) | {"grid_stride": 8}, train=train), "later"),
        planned(settings_of(method=method(logit=later), train=train, seed=1), "another_seed"),
        planned(settings_of(method=method(logit=later), train=train | {"batch_size": 3}), "another_batch"),
        planned(
            settings_of(method=method(logit=later) | {"branches": {"taps": [4], "width": 16}}, train=train),
            "other_branches",
        ),
        planned(
            settings_of(method=method(logit=later) | {"reparam": {"copies": 1}}, train=train),
            "other_convolutions",
        ),
    ]
    runs = {run.rung.name: run for run in with_beginnings(study)}
    assert list(runs) == [run.rung.name for run, _ in study]
    folder = runs["deep_supervision"].folder

    def beginning(epochs: int) -> Beginning:
        checkpoint = folder / "checkpoints" / f"epoch{epochs}" / "last.pt"
        return Beginning("deep_supervision, seed 0", folder, epochs, checkpoint)

    assert runs["late"].beginning == beginning(5)
    assert runs["later"].beginning == beginning(8)
    assert {name for name, run in runs.items() if run.beginning} == {"late", "later"}
    kept = {name: yaml.safe_load(run.settings)["train"]["keep_epochs"] for name, run in runs.items()}
    assert kept == {name: [9] for name in runs} | {"deep_supervision": [5, 8, 9]}


def source_at(folder: Path, *, state: dict[str, Any], versions: dict[str, str]) -> Beginning:
    """Two epochs of a run that lies there."""
    checkpoint = folder / "checkpoints" / "epoch2" / "last.pt"
    save_checkpoint(checkpoint, state=state, config="", versions=versions)
    rows = [json.dumps({"epoch": epoch, "seconds": 1.0}) for epoch in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(f"{row}\n" for row in rows))
    return Beginning("deep, seed 0", folder, 2, checkpoint)


def test_what_another_version_has_trained_is_not_taken_over(tmp_path: Path) -> None:
    run, config = planned(settings_of(method=method()), "late")
    beginning = source_at(tmp_path / "deep", state={}, versions={"segdistill": "0.0"})
    run = replace(run, folder=tmp_path / "late", beginning=beginning)
    with pytest.raises(RunFolderError, match="another version of the program"):
        take_over(run, config)
    assert not run.folder.exists()


@pytest.mark.parametrize("held", ["\0\0\n", "{}\n", "[]\n", '{"epoch": "1"}\n'])
def test_a_damaged_learning_curve_is_told_before_anything_is_laid(tmp_path: Path, held: str) -> None:
    run, config = planned(settings_of(method=method()), "late")
    beginning = source_at(tmp_path / "deep", state={}, versions=versions())
    (beginning.folder / "metrics.jsonl").write_text(held)
    run = replace(run, folder=tmp_path / "late", beginning=beginning)
    with pytest.raises(RunFolderError, match=r"deep/metrics\.jsonl is damaged"):
        take_over(run, config)
    assert not run.folder.exists()


@pytest.mark.parametrize("full", [True, False])
def test_what_is_half_laid_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """The disk is full when the last checkpoint is written; if it is not, everything is there."""
    sections = {
        "model": {"encoder": "tu-test_efficientnet", "encoder_weights": "none"},
        "train": {"epochs": 4, "accelerator": "cpu"},
    }
    trained = settings_of(method=method("deep_supervision"), **sections)
    state = build_state(trained, build_fabric(trained), total_steps=4).state_dict()
    beginning = source_at(tmp_path / "deep", state=state, versions=versions())
    run, config = planned(settings_of(method=method(), **sections), "late")
    run = replace(run, folder=tmp_path / "late", beginning=beginning)

    def no_room(path: Path, **_: object) -> None:
        raise OSError(f"{path}: no room")

    if full:
        monkeypatch.setattr(shared_beginning, "save_checkpoint", no_room)
        with pytest.raises(OSError, match="no room"):
            take_over(run, config)
    else:
        take_over(run, config)
        assert len(run.epoch_seconds()) == 2
        assert (run.folder / TAKEN_OVER).is_file()
    folder = RunFolder(run.folder)
    assert folder.checkpoints(config).last.is_file() == (not full)
    drop_beginning(folder, config)  # as a run without a checkpoint does
    assert not (run.folder / TAKEN_OVER).exists()
