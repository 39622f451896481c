"""Which runs a folder lets go on."""

from pathlib import Path
from typing import Any

import pytest

from segdistill.commands.run_folder import RunFolder
from segdistill.config import Config
from segdistill.config_io import dump_config, validate_config
from segdistill.errors import ConfigError, RunFolderError


def config(kind: str, *, resume: bool = True, **method: Any) -> Config:
    values = {
        "name": "one",
        "data": {"kind": "synthetic"},
        "method": {"kind": kind, **method},
        "train": {"resume": resume},
    }
    return validate_config(values, source="test")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("baseline", {"feature": {"weight": 7}, "branches": {"width": 8}, "grid_stride": 8}),
        ("baseline", {"supervised": {"branch_weight": 3}}),
        ("deep_supervision", {"feature": {"weight": 7}, "logit": {"temperature": 9}, "grid_stride": 8}),
    ],
)
def test_settings_without_effect_do_not_keep_a_run_from_going_on(
    folder: RunFolder, kind: str, method: dict[str, Any]
) -> None:
    folder.begin(config(kind, resume=False))
    folder.check(config(kind, **method), overwrite=False)


def test_settings_of_a_silent_term_do_not_matter(folder: RunFolder) -> None:
    folder.begin(config("self_distill", resume=False, feature={"weight": 0, "stride": 8}))
    folder.check(config("self_distill", feature={"weight": 0, "stride": 16}), overwrite=False)


def test_nor_do_views_that_nobody_takes(folder: RunFolder) -> None:
    folder.begin(config("self_distill", resume=False))
    folder.check(config("self_distill", logit={"views": {"rotate": 90}}), overwrite=False)


@pytest.mark.parametrize(
    ("kind", "method", "words"),
    [
        ("baseline", {"supervised": {"dice_weight": 3}}, "method.supervised.dice_weight: 1.0 when"),
        (
            "deep_supervision",
            {"branches": {"width": 8}},
            "method.branches.width: 32 when it was started, 8 now",
        ),
        (
            "self_distill",
            {"feature": {"weight": 0}},
            "method.feature.weight: 0.1 when it was started, 0.0 now",
        ),
        ("self_distill", {"feature": {"stride": 16}}, "method.feature.stride: 8 when it was started, 16 now"),
        ("self_distill", {"grid_stride": 8}, "method.grid_stride: 2 when it was started, 8 now"),
    ],
)
def test_settings_that_count_do(folder: RunFolder, kind: str, method: dict[str, Any], words: str) -> None:
    folder.begin(config(kind, resume=False))
    with pytest.raises(ConfigError) as caught:
        folder.check(config(kind, **method), overwrite=False)
    assert words in str(caught.value)
    assert str(caught.value).count("when it was started") == 1
    assert str(caught.value).endswith(
        f"resume with the same ones ({folder.config}), choose another folder by out=DIR or name=NAME, or replace it by "
        "--overwrite without --resume"
    )


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_other_things_is_left_alone(folder: RunFolder, resume: bool) -> None:
    folder.path.mkdir()
    (folder.path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="is not empty and is no run's folder"):
        folder.check(config("baseline", resume=resume), overwrite=False)


def test_another_kind_is_another_run(folder: RunFolder) -> None:
    folder.begin(config("baseline", resume=False))
    with pytest.raises(ConfigError, match=r"method\.kind: 'baseline' when it was started"):
        folder.check(config("self_distill"), overwrite=False)


def test_a_folder_that_was_being_cleared_may_be_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = config("baseline", resume=False).model_copy(update={"out": tmp_path / "run"})
    folder = RunFolder(tmp_path / "run")
    (folder.path / "checkpoints").mkdir(parents=True)
    (folder.path / "metrics.jsonl").touch()
    folder.config.write_text(dump_config(new))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            folder.begin(new)
    folder.check(new, overwrite=True)
    folder.begin(new)
    assert sorted(one.name for one in folder.path.iterdir()) == ["config.yaml"]


def test_a_run_finds_its_data_from_wherever_it_is_asked(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"name": "one", "data": {"kind": "camvid", "root": "photos"}, "train": {"resume": True}}
    here, there = tmp_path / "here", tmp_path / "there"
    for place in (here, there):
        place.mkdir()
    (here / "photos").symlink_to(there)  # which may lead elsewhere tomorrow
    monkeypatch.chdir(here)
    started = validate_config(values, source="test")
    folder.begin(started)
    folder.check(started, overwrite=False)
    monkeypatch.chdir(there)
    assert folder.load_config().data.root == here / "photos"
    assert not folder.load_config().train.resume


def begins_with(model: dict[str, str]) -> Config:
    values = {
        "name": "one",
        "data": {"kind": "synthetic"},
        "model": {"encoder": "resnet18", **model},
        "train": {"resume": True},
    }
    return validate_config(values, source="test")


@pytest.fixture
def two_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The folder that a run is started in, where this is called from, and another one."""
    here, there = tmp_path / "here", tmp_path / "there"
    for place in (here, there):
        place.mkdir()
    monkeypatch.chdir(here)
    return here, there


WEIGHTS = {"weights": "w/own.safetensors", "encoder_weights": "../encoder.pth"}


def test_a_run_finds_its_first_weights_from_wherever_it_is_trained_again(
    folder: RunFolder, two_places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = two_places
    folder.begin(begins_with(WEIGHTS))
    monkeypatch.chdir(there)
    again = folder.load_config().model
    assert again.weights == str(here / "w" / "own.safetensors")
    assert again.encoder_weights == f"{here}/../encoder.pth", "as a link would lead"


@pytest.mark.parametrize("given", ["none", "imagenet"])
def test_what_is_no_file_stays_a_word(folder: RunFolder, given: str) -> None:
    folder.begin(begins_with({"encoder_weights": given}))
    again = folder.load_config().model
    assert (again.weights, again.encoder_weights) == (None, given)


@pytest.mark.parametrize("key", WEIGHTS)
@pytest.mark.parametrize("of_before", [True, False])
@pytest.mark.parametrize("from_elsewhere", [True, False])
def test_a_run_goes_on_by_the_path_that_it_was_started_with(
    folder: RunFolder,
    two_places: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    of_before: bool,
    from_elsewhere: bool,
) -> None:
    """Also a run from when paths were written down as they were given, and from its like on another machine."""
    started = begins_with({key: WEIGHTS[key]})
    folder.begin(started)
    if of_before:
        folder.config.write_text(dump_config(started))
    if from_elsewhere:
        monkeypatch.chdir(two_places[1])
    folder.check(started, overwrite=False)
    whole = begins_with({key: f"{two_places[0]}/{WEIGHTS[key]}"})
    folder.check(whole, overwrite=False)
    for other in (
        f"{two_places[1]}/w/other.pth",
        "v/own.safetensors",
        "../w/encoder.pth",
        "x/w/own.safetensors",
    ):
        with pytest.raises(ConfigError, match=rf"model\.{key}: .* when it was started, .*{other}' now"):
            folder.check(begins_with({key: other}), overwrite=False)


def test_two_ways_to_one_file_are_one(
    folder: RunFolder, two_places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.begin(begins_with(WEIGHTS))
    folder.check(begins_with({"weights": "./../here/w/own.safetensors"}), overwrite=False)
    (two_places[0] / "w").mkdir()
    monkeypatch.chdir(two_places[0] / "w")
    folder.check(begins_with({"weights": "own.safetensors"}), overwrite=False)


def test_the_cpu_has_two_names_where_there_is_nothing_else(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on(accelerator: str) -> Config:
        values = {
            "name": "one",
            "data": {"kind": "synthetic"},
            "train": {"resume": True, "accelerator": accelerator},
        }
        return validate_config(values, source="test")

    folder.begin(on("cpu"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    folder.check(on("auto"), overwrite=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(ConfigError, match=r"train\.accelerator: 'cpu' when it was started, 'auto' now"):
        folder.check(on("auto"), overwrite=False)
