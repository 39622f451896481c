"""YAML files and overrides to a Config, and back."""

from pathlib import Path
from typing import Any

import pytest

from segdistill.config import Config
from segdistill.config_io import dump_config, load_config, validate_config
from segdistill.config_yaml import parse_yaml
from segdistill.errors import ConfigError


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def load(text: str = "name: a\n", *overrides: str) -> Config:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return load_config(path, overrides)

    return load


@pytest.fixture
def refusal(load: Any) -> Any:
    def refusal(text: str = "name: a\n", *overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load(text, *overrides)
        return str(caught.value)

    return refusal


# ---- the file


def test_load(load: Any) -> None:
    config = load("name: a\nseed: 3\ndata: {size: [64, 96]}\ntrain:\n  optimizer: {lr: 1e-3}\n")
    assert (config.name, config.seed, config.data.size, config.train.optimizer.lr) == ("a", 3, (64, 96), 1e-3)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.yaml: No such file"):
        load_config(tmp_path / "none.yaml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a folder; name a configuration, a YAML file$"):
        load_config(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ConfigError, match=r"YAML file; a run has its own, .*/config\.yaml$"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        *("name: a # größer\n".encode(encoding) for encoding in ("cp1252", "utf-16", "utf-16-le")),
        b"name: a\x00",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_a_file_that_is_not_utf8_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == f"the configuration {path} is not UTF-8 text: save it as UTF-8"
    table = with_table(tmp_path, "")
    (tmp_path / "data" / "classes.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"classes\.yaml .*: not UTF-8 text: save it as UTF-8$"):
        load_config(table)


def test_the_mark_that_editors_put_in_front(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes("name: a # größer\n".encode("utf-8-sig"))
    assert load_config(path).name == "a"


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- a\n- b\n", "just words", "3"])
def test_no_keys(refusal: Any, text: str) -> None:
    assert "run.yaml holds no keys; see configs/" in refusal(text)


def test_broken_yaml_is_told_with_the_file_that_holds_it(refusal: Any) -> None:
    assert "run.yaml is not valid YAML: " in refusal("name: a\nseed: [1\n")


# ---- overrides


def test_overrides_in_order(load: Any) -> None:
    config = load(
        "name: a\ntrain: {epochs: 3, batch_size: 2}\n",
        "train.epochs=7",
        "train.optimizer.lr=1e-4",
        "method.logit.ramp=[[0, 0], [0.5, 1]]",
        "data.size=[64, 96]",
        "data.augment.custom=[{name: HorizontalFlip, p: 1}]",
        "name=b=c.d",
        "name=b.c",
        "train.clip_norm=null",
        "train.epochs=9",
    )
    assert config.name == "b.c"
    assert (config.train.epochs, config.train.batch_size, config.train.optimizer.lr) == (9, 2, 1e-4)
    assert config.train.clip_norm is None
    assert config.method.logit.ramp == ((0.0, 0.0), (0.5, 1.0))
    assert config.data.size == (64, 96)
    assert config.data.augment.custom == ({"name": "HorizontalFlip", "p": 1},)


def test_a_whole_section_as_override(load: Any) -> None:
    config = load("name: a\ntrain: {epochs: 3}\n", "train={batch_size: 2}", "train.eval_every=4")
    assert (config.train.epochs, config.train.batch_size, config.train.eval_every) == (80, 2, 4)


@pytest.mark.parametrize(
    "override", ["train.epochs", "=3", "train..epochs=3", ".epochs=3", "train.=3", "epochs: 3"]
)
def test_malformed_override(refusal: Any, override: str) -> None:
    assert f"override {override!r} is not of the form key.sub=value" in refusal("name: a\n", override)


def test_override_into_a_value(refusal: Any) -> None:
    message = refusal("name: a\ntrain: {epochs: 3}\n", "train.epochs.most=4")
    assert message == "override 'train.epochs.most=4': train.epochs is 3, not a section with keys"


def test_an_override_changes_no_other_section_with_the_same_anchor(load: Any) -> None:
    text = "name: a\nmethod: {logit: &soft {weight: 2, ramp: [[0, 1]]}, feature: *soft}\n"
    method = load(text, "method.logit.weight=4").method
    assert (method.logit.weight, method.feature.weight) == (4.0, 2.0)
    assert method.logit.ramp == method.feature.ramp == ((0.0, 1.0),)


def test_an_empty_section_is_refused_with_and_without_an_override_in_it(refusal: Any) -> None:
    remedy = "not a section with keys; leave it out for its defaults"
    assert refusal("name: a\ntrain:\n").splitlines()[1:] == [
        f"  train = None: {remedy.replace('not', 'should be')}"
    ]
    assert refusal("name: a\ntrain:\n", "train.epochs=3").endswith(f"train is None, {remedy}")


def test_override_with_broken_yaml(refusal: Any) -> None:
    assert "override 'data.size=[3' is not valid YAML" in refusal("name: a\n", "data.size=[3")


def test_override_with_a_key_twice(refusal: Any) -> None:
    message = refusal("name: a\n", "data={kind: camvid, kind: camvid}")
    assert "key 'kind' was already given" in message


def test_misspelt_override(refusal: Any) -> None:
    assert "train.epoch: unknown key; did you mean 'epochs'?" in refusal("name: a\n", "train.epoch=3")


# ---- and back


@pytest.mark.parametrize(
    "name", ["a", "1e-3", "1e3", "1.5", "010", "12", "true", "yes", "null", "2024-01-31", "0x10"]
)
def test_dump_and_load_give_an_equal_object(tmp_path: Path, name: str) -> None:
    config = validate_config(
        {
            "name": name,
            "seed": 2**40,
            "out": "1e3",
            "data": {
                "root": "/some where/é",
                "size": [64, 96],
                "augment": {
                    "scale": [1e-5, 1],
                    "custom": [{"name": "Blur", "blur_limit": [3, 5], "p": 1e-7}],
                },
            },
            "model": {
                "options": {"decoder_channels": [8, 4], "text": ["off", ".5", "-1e-3", "", "a: b", "="]}
            },
            "method": {
                "branches": {"taps": [3, "decoder.blocks.1", "4"]},
                "logit": {"ramp": [[0, 1], [1, 1e-12]]},
            },
            "train": {"clip_norm": None, "optimizer": {"lr": 1e-300}, "devices": 2},
        },
        source="test",
    )
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config


def test_the_dump_spells_out_every_default() -> None:
    values = parse_yaml(dump_config(Config(name="a")), source="dump")
    assert set(values) == set(Config.model_fields)
    assert values["train"]["optimizer"]["lr"] == 1e-3
    for term in ("logit", "feature", "adversarial"):
        assert values["method"][term]["ramp"] == [[0.7, 0.0], [0.75, 1.0]]


# ---- class tables in files of their own


def with_table(tmp_path: Path, table: str, folder: str = "classes: classes.yaml") -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "classes.yaml").write_text(table)
    path = tmp_path / "run.yaml"
    path.write_text(f"name: a\ndata: {{kind: folder, root: {tmp_path / 'data'}, folder: {{{folder}}}}}\n")
    return path


def test_a_class_table_is_read_from_the_data_root(tmp_path: Path) -> None:
    path = with_table(tmp_path, "- {name: sky, colour: [1, 2, 3]}\n- {name: rest}\n")
    config = load_config(path)
    assert [(one.name, one.colour) for one in config.data.folder.classes] == [
        ("sky", (1, 2, 3)),
        ("rest", None),
    ]
    (tmp_path / "data" / "classes.yaml").unlink()
    again = tmp_path / "resolved.yaml"
    again.write_text(dump_config(config))
    assert load_config(again) == config  # a run tells its classes by itself


def test_a_class_table_may_say_what_is_ignored(tmp_path: Path) -> None:
    table = "classes: [{name: a}, {name: b}]\nignore_values: [9]\nignore_colours: [[7, 7, 7]]\n"
    folder = load_config(with_table(tmp_path, table, "classes: classes.yaml, ignore_values: [8]")).data.folder
    assert (folder.ignore_values, folder.ignore_colours) == ((8,), ((7, 7, 7),))


def test_a_class_table_by_override(tmp_path: Path) -> None:
    path = with_table(tmp_path, "[{name: a}, {name: b}]", "classes: [{name: x}]")
    config = load_config(path, ["data.folder.classes=classes.yaml"])
    assert [one.name for one in config.data.folder.classes] == ["a", "b"]


@pytest.mark.parametrize(
    ("table", "folder", "words"),
    [
        ("[]", "classes: none.yaml", ["data.folder.classes = 'none.yaml'", "relative to data.root", "No such file"]),
        ("[]", r'classes: "a\0b.yaml"', ["data.folder.classes = 'a\\x00b.yaml'", "null byte"]),
        ("clases: []", "classes: classes.yaml", ["classes.yaml: unknown key clases; did you mean 'classes'?"]),
        ("- {name: a, color: [0, 0, 0]}\n- {name: b}", "classes: classes.yaml",
         ["data.folder.classes.0.color: unknown key; did you mean 'colour'? (keys here: name, colour, values)"]),
        ("- {name: a}\n- {colour: [0, 0, 0]}", "classes: classes.yaml",
         ["data.folder.classes.1.name: this key is required"]),
        ("- {name: a}\n- {name: b, values: [-1]}", "classes: classes.yaml",
         ["data.folder.classes.1.values.0 = -1: should be greater than or equal to 0"]),
        ("just words", "classes: classes.yaml", ["data.folder.classes = 'just words': should be a list"]),
    ],
)  # fmt: skip
def test_a_bad_class_table_is_told(tmp_path: Path, table: str, folder: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(with_table(tmp_path, table, folder))
    for word in words:
        assert word in str(caught.value)
