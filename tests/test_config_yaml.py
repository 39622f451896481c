"""The strict YAML of configurations: what its values are, and what it refuses."""

import math
from typing import Any

import pytest

from segdistill.config_yaml import parse_yaml
from segdistill.errors import ConfigError


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, source="run.yaml")
    return str(caught.value)


# ---- values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1e3", 1000.0), ("1E+3", 1000.0), (".5", 0.5), ("-1e-3", -1e-3), ("+.5e1", 5.0), ("2.", 2.0),
        (".inf", math.inf), ("-.inf", -math.inf),
        ("3", 3), ("-3", -3), ("0", 0),
        ("true", True), ("False", False), ("null", None), ("", None), ("~", None),
    ],
)  # fmt: skip
def test_numbers_booleans_and_null(text: str, value: Any) -> None:
    parsed = parse_yaml(f"key: {text}", source="test")["key"]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "no",
        "on",
        "off",
        "Yes",
        "ON",
        "y",
        "e3",
        "1e",
        ".",
        "-.",
        "1.2.3",
        "010",
        "1:30",
        "1_000",
        "2024-01-31",
    ],
)
def test_these_are_text(text: str) -> None:
    assert parse_yaml(f"key: {text}", source="test")["key"] == text


def test_nan_is_a_number() -> None:
    assert math.isnan(parse_yaml(".nan", source="test"))


# ---- mistakes


def test_a_control_character() -> None:
    assert "run.yaml is not a text file: " in refusal("name: a\x01\n")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: a\nseed: [1\ntrain: 3\n", 3),
        ("name: a\ntrain:\n\tepochs: 3\n", 3),
        ("name: a\n---\nname: b\n", 2),
        ("name: a\nout: !!python/object/apply:os.getcwd []\n", 2),
        ("name: a\nseed: *nowhere\n", 2),
        ("name: a\nseed: !!int abc\n", 2),
        ("name: a\nseed: !!int ''\n", 2),
        ("name: a\ndata: {cache: !!bool abc}\n", 2),
        ("name: a\nout:\n  !!timestamp abc\n", 3),
        (f"name: a\nseed: {'1' * 5000}\n", 2),
    ],
)
def test_broken_yaml_names_file_and_line(text: str, line: int) -> None:
    message = refusal(text)
    assert "run.yaml is not valid YAML" in message
    assert f"line {line}," in message


def test_a_value_that_is_not_what_its_tag_says() -> None:
    assert "'abc' cannot be read as int" in refusal("name: a\nseed: !!int abc\n")
    assert len(refusal(f"name: a\nseed: {'1' * 5000}\n")) < 400, "not all of the digits"


def test_nested_too_deeply() -> None:
    assert "run.yaml is nested too deeply" in refusal("name: a\nseed: " + "[" * 3000 + "]" * 3000)


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("name: a\nseed: 1\nname: b\n", "name", (3, 1)),
        ("name: a\ntrain:\n  epochs: 3\n  batch_size: 2\n  epochs: 3\n", "epochs", (5, 3)),
        ("name: a\ntrain: {epochs: 3,\n  epochs: 4}\n", "epochs", (3, 2)),
        ("name: a\ndata:\n  augment:\n    custom:\n    - {name: Blur, p: 1,\n       p: 0.5}\n", "p", (6, 5)),
        ("name: a\n'name': b\n", "name", (2, 1)),
    ],
)
def test_a_key_given_twice(text: str, key: str, lines: tuple[int, int]) -> None:
    message = refusal(text)
    assert f"run.yaml, line {lines[0]}: key {key!r} was already given in line {lines[1]}" in message


def test_the_same_key_in_two_sections_is_fine() -> None:
    text = "name: a\nmethod:\n  logit: {weight: 1}\n  feature: {weight: 2}\n"
    method = parse_yaml(text, source="test")["method"]
    assert method == {"logit": {"weight": 1}, "feature": {"weight": 2}}


@pytest.mark.parametrize(
    "text", ["name: a\n? [x]\n: 3\n", "name: a\n? {x: 1}\n: 3\n", "name: a\n<<: {seed: 3}\n"]
)
def test_keys_are_words(text: str) -> None:
    assert "run.yaml, line 2: keys are plain words" in refusal(text)
