"""The configuration's types, ranges and the files in configs/."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from segdistill.config import Config, Section
from segdistill.config_io import load_config, validate_config
from segdistill.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def sections(model: BaseModel, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], BaseModel]]:
    """Every section of a configuration with its key path."""
    yield path, model
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from sections(value, (*path, name))


SECTIONS = list(sections(Config(name="a")))
SECTION_IDS = [".".join(path) or "top" for path, _ in SECTIONS]


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """{"name": "a", path[0]: {path[1]: ... value}}"""
    for key in reversed(path):
        value = {key: value}
    return {"name": "a", **value}


def refusal(**values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        validate_config({"name": "a", **values}, source="test")
    return str(caught.value)


def test_there_are_config_files() -> None:
    assert len(CONFIGS) >= 2


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_file_is_valid_and_bears_its_own_name(path: Path) -> None:
    assert load_config(path).name == path.stem


def test_every_section_is_found() -> None:
    assert {"data.augment", "method.adversarial", "train.schedule", "export"} <= set(SECTION_IDS)
    assert all(isinstance(section, Section) for _, section in SECTIONS)


@pytest.mark.parametrize(("path", "section"), SECTIONS, ids=SECTION_IDS)
def test_nothing_can_be_assigned(path: tuple[str, ...], section: BaseModel) -> None:
    for name in type(section).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, name, getattr(section, name))


@pytest.mark.parametrize(("path", "section"), SECTIONS, ids=SECTION_IDS)
def test_unknown_keys_are_refused_in_every_section(path: tuple[str, ...], section: BaseModel) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_config(nested((*path, "qqq"), 1), source="test")
    keys = ", ".join(type(section).model_fields)
    assert f"{'.'.join((*path, 'qqq'))}: unknown key (keys here: {keys})" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", -1),
        ("data.size", [31, 480]),
        ("data.workers", -1),
        ("data.augment.flip", 1.5),
        ("data.augment.scale", [0, 1]),
        ("data.augment.scale", [2.0, 1.0]),
        ("method.branches.taps", []),
        ("method.branches.taps", [3, 3]),
        ("method.logit.weight", -0.1),
        ("method.logit.temperature", 0.0),
        ("method.logit.ramp", []),
        ("method.logit.ramp", [[0.5, 1], [0.5, 2]]),
        ("method.logit.ramp", [[0, 1], [1.1, 1]]),
        ("method.supervised.branch_ramp", [[0.5, 1], [0.1, 2]]),
        ("method.supervised.label_smoothing", 1.0),
        ("train.epochs", 0),
        ("train.optimizer.lr", 0.0),
        ("train.optimizer.lr", float("nan")),
        ("train.clip_norm", float("inf")),
        ("train.schedule.warmup", 1.0),
        ("train.ema_decay", 1.0),
        ("export.opset", 17),
        ("name", "a/b"),
        ("name", "../a"),
        ("name", ""),
        ("model.encoder_weights", "imagenett"),
        ("model.options", {"classes": 3}),
    ],
)
def test_out_of_range(path: str, value: Any) -> None:
    assert path in refusal(**nested(tuple(path.split(".")), value))


@pytest.mark.parametrize("path", ["train.epochs", "seed", "train.optimizer.lr", "data.augment.flip"])
@pytest.mark.parametrize("value", [True, "3"])
def test_true_and_quoted_numbers_are_no_numbers(path: str, value: Any) -> None:
    assert f"{path} = {value!r}: should be a valid" in refusal(**nested(tuple(path.split(".")), value))


@pytest.mark.parametrize("value", ["yes", "true", 1, 0])
def test_only_booleans_are_booleans(value: Any) -> None:
    assert f"train.resume = {value!r}: should be a valid boolean" in refusal(train={"resume": value})


def test_a_whole_number_is_also_a_float() -> None:
    config = validate_config({"name": "a", "train": {"optimizer": {"lr": 1}}}, source="test")
    assert config.train.optimizer.lr == 1.0


def test_a_misspelt_encoder_gets_a_hint() -> None:
    assert "did you mean 'resnet18'?" in refusal(model={"encoder": "resnet81", "encoder_weights": "none"})
    message = refusal(model={"encoder": "tu-tf_efficientnet_lite9", "encoder_weights": "none"})
    assert "did you mean 'tu-tf_efficientnet_lite" in message


def test_bundled_weights_belong_to_one_encoder() -> None:
    message = refusal(model={"encoder": "resnet18"})
    assert "model.encoder_weights='bundled'" in message
    assert "'resnet18'" in message
    assert "imagenet" in message
    validate_config({"name": "a", "model": {"encoder": "resnet18", "encoder_weights": "none"}}, source="test")


def test_architecture_names_ignore_case() -> None:
    assert validate_config({"name": "a", "model": {"arch": "UNet"}}, source="test").model.arch == "unet"


def test_run_folder() -> None:
    assert Config(name="a").run_folder == Path("runs/a")
    assert Config(name="a", out=Path("/elsewhere")).run_folder == Path("/elsewhere")


@pytest.mark.parametrize(
    ("kind", "has_branches", "distils"),
    [("baseline", False, False), ("deep_supervision", True, False), ("self_distill", True, True)],
)
def test_method_kinds(kind: str, has_branches: bool, distils: bool) -> None:
    method = validate_config({"name": "a", "method": {"kind": kind}}, source="test").method
    assert (method.has_branches, method.distils) == (has_branches, distils)
