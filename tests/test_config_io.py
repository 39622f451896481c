"""YAML and overrides to a Config, and the messages for what is wrong with them."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel, TypeAdapter

from segdistill.config import Config
from segdistill.config_io import dump_config, load_config, parse_yaml, validate_config
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


# ---- the file


def test_load(load: Any) -> None:
    config = load("name: a\nseed: 3\ndata: {size: [64, 96]}\ntrain:\n  optimizer: {lr: 1e-3}\n")
    assert (config.name, config.seed, config.data.size, config.train.optimizer.lr) == ("a", 3, (64, 96), 1e-3)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.yaml: No such file"):
        load_config(tmp_path / "none.yaml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
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


def test_a_control_character(refusal: Any) -> None:
    assert "run.yaml is not a text file: " in refusal("name: a\x01\n")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- a\n- b\n", "just words", "3"])
def test_no_keys(refusal: Any, text: str) -> None:
    assert "run.yaml holds no keys; see configs/" in refusal(text)


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
def test_broken_yaml_names_file_and_line(refusal: Any, text: str, line: int) -> None:
    message = refusal(text)
    assert "run.yaml is not valid YAML" in message
    assert f"line {line}," in message


def test_a_value_that_is_not_what_its_tag_says(refusal: Any) -> None:
    assert "'abc' cannot be read as int" in refusal("name: a\nseed: !!int abc\n")
    assert len(refusal(f"name: a\nseed: {'1' * 5000}\n")) < 400, "not all of the digits"


def test_nested_too_deeply(refusal: Any) -> None:
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
def test_a_key_given_twice(refusal: Any, text: str, key: str, lines: tuple[int, int]) -> None:
    message = refusal(text)
    assert f"run.yaml, line {lines[0]}: key {key!r} was already given in line {lines[1]}" in message


def test_the_same_key_in_two_sections_is_fine(load: Any) -> None:
    config = load("name: a\nmethod:\n  logit: {weight: 1}\n  feature: {weight: 2}\n")
    assert (config.method.logit.weight, config.method.feature.weight) == (1.0, 2.0)


@pytest.mark.parametrize(
    "text", ["name: a\n? [x]\n: 3\n", "name: a\n? {x: 1}\n: 3\n", "name: a\n<<: {seed: 3}\n"]
)
def test_keys_are_words(refusal: Any, text: str) -> None:
    assert "run.yaml, line 2: keys are plain words" in refusal(text)


def test_a_number_as_key(refusal: Any) -> None:
    assert "\n  1: unknown key (keys here: name, seed, " in refusal("name: a\n1: 3\n")


# ---- problems


def test_every_problem_at_once_with_key_value_and_remedy(refusal: Any) -> None:
    message = refusal(
        """
metod: {}
seed: -1
data: {kind: camvit, size: [16, 480], cache: yes}
train:
  epochs: true
  optimiser: {}
  optimizer: {lr: true, kind: adam, momentun: 0.5}
"""
    )
    first, *lines = message.splitlines()
    assert first.startswith("11 problems in the configuration ")
    assert first.endswith("run.yaml:")
    expected = [
        "name: this key is required",
        "metod: unknown key; did you mean 'method'? (keys here: name, seed, out, data, model, method, train, export)",
        "seed = -1: should be greater than or equal to 0",
        "data.kind = 'camvit': should be one of camvid, cityscapes, folder, synthetic; did you mean 'camvid'?",
        "data.size.0 = 16: should be greater than or equal to 32",
        "data.cache = 'yes': should be a valid boolean",
        "train.epochs = True: should be a valid integer",
        "train.optimizer.lr = True: should be a valid number",
        "train.optimizer.kind = 'adam': should be one of adamw, sgd; did you mean 'adamw'?",
        "train.optimizer.momentun: unknown key; did you mean 'momentum'? "
        "(keys here: kind, lr, encoder_lr_scale, weight_decay, momentum)",
    ]
    optimiser = [
        line for line in lines if line.startswith("  train.optimiser: unknown key; did you mean 'optimizer'?")
    ]
    assert len(optimiser) == 1
    assert sorted(line for line in lines if line not in optimiser) == sorted("  " + one for one in expected)


def test_one_problem_is_counted_as_one(refusal: Any) -> None:
    assert refusal("name: a\nseed: -1\n").startswith("1 problem in the configuration ")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("method.kind=selfdistill", "method.kind = 'selfdistill': should be one of baseline, reparam, "
         "deep_supervision, self_distill; did you mean 'self_distill'?"),
        ("method.kind=reparam", "method.kind=reparam would be plain training while method.reparam.copies is 0; "
         "set it to 1 or more"),
        ("method.branches.stride=3", "method.branches.stride = 3: should be one of 2, 4"),
        ("method.branches.stride='4'", "method.branches.stride = '4': should be one of 2, 4, without quotes"),
        ("train.devices=foo", "train.devices = 'foo': should be a valid integer or auto"),
        ("train.devices=Auto", "train.devices = 'Auto': should be a valid integer or auto; did you mean 'auto'?"),
        ("train.devices=0", "train.devices = 0: should be greater than or equal to 1 or auto"),
        ("train.devices=true", "train.devices = True: should be a valid integer or auto"),
        ("train.clip_norm=foo", "train.clip_norm = 'foo': should be a valid number"),
        ("method.branches.taps=[3, 1.5]", "method.branches.taps.1 = 1.5: should be a valid integer or text (in "
         "quotes if it looks like a number)"),
        ("method.branches.taps=3", "method.branches.taps = 3: should be a list, e.g. [3, 4, 5]"),
        ("data.size=[96]", "data.size.1: this list is too short"),
        ("data.size=96x128", "data.size = '96x128': should be a list of height and width, e.g. [96, 128]"),
        ("data.crop='64,96'", "data.crop = '64,96': should be a list of height and width, e.g. [64, 96]"),
        ("data.size=64", "data.size = 64: should be a list of height and width, e.g. [360, 480]"),
        ("data.augment.scale=0.5-2", "data.augment.scale = '0.5-2': should be a list, e.g. [0.5, 2]"),
        ("method.logit.ramp=[1]", "method.logit.ramp.0 = 1: should be a list, e.g. [0.7, 0.0]"),
        ("data.folder.classes=[{name: a, colour: '#400080'}]", "data.folder.classes.0.colour = '#400080': should be a "
         "list, e.g. [64, 0, 128]"),
        ("data.folder.ignore_colours=['#400080']", "data.folder.ignore_colours.0 = '#400080': should be a list, e.g. "
         "[255, 255, 255]"),
        ("data.folder.classes=[{name: a}, road]", "data.folder.classes.1 = 'road': should be a section with keys, e.g. "
         "{name: background, colour: [0, 0, 0]}"),
        ("data.folder.classes={a: [0, 0, 0]}", "data.folder.classes = {'a': [0, 0, 0]}: should be a list of sections, "
         "e.g. [{name: background, colour: [0, 0, 0]}, {name: road, colour: [128, 64, 128]}]"),
        ("train.epochs=1e1", "train.epochs = 10.0: should be a valid integer (write 10)"),
        ("train.epochs=1.5", "train.epochs = 1.5: should be a valid integer"),
        ("train.epochs='5'", "train.epochs = '5': should be a valid integer (without quotes)"),
        ("train.epochs='5.5'", "train.epochs = '5.5': should be a valid integer"),
        ("train.devices='2'", "train.devices = '2': should be a valid integer (without quotes) or auto"),
        ("train.optimizer.lr='1e-3'", "train.optimizer.lr = '1e-3': should be a valid number (without quotes)"),
        ("train.optimizer.lr='3'", "train.optimizer.lr = '3': should be a valid number (without quotes)"),
        ("data.cache='true'", "data.cache = 'true': should be a valid boolean (without quotes)"),
        ("data.folder.mask_suffix=", "data.folder.mask_suffix = None: should be text (in quotes if it looks like a "
         "number, '' for none, which a shell wants in further quotes)"),
        ("data.size=[96, 96, 3]", "data.size = [96, 96, 3]: should be a list of 2"),
        ("data.root=3", "data.root = 3: should be a path"),
        ("data.augment.custom=[{name: Blur}, Blur]", "data.augment.custom.1 = 'Blur': should be a section of key: "
         "value lines, e.g. {name: RandomCrop, height: 96, width: 96}"),
        ("model.options=3", "model.options = 3: should be a section of key: value lines, e.g. {decoder_channels: [256, "
         "128, 64, 32, 16]}"),
        ("name=3", "name = 3: should be text (in quotes if it looks like a number)"),
        ("train=3", "train = 3: should be a section with keys"),
        ("train.optimizer=null", "train.optimizer = None: should be a section with keys; leave it out for its "
         "defaults"),
        ("train.optimizer.lr=.nan", "train.optimizer.lr = nan: should be a finite number"),
    ],
)  # fmt: skip
def test_messages(refusal: Any, override: str, line: str) -> None:
    assert refusal("name: a\n", override).splitlines()[1:] == [f"  {line}"]


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("epochs=5", "'train.epochs'"),
        ("optimizer={lr: 1}", "'train.optimizer'"),
        ("train.warmup=0.2", "'train.schedule.warmup'"),
        ("lr=1", "'method.adversarial.lr' or 'train.optimizer.lr'"),
        ("train.seed=1", "'seed' or 'data.synthetic.seed'"),
        ("data.folder.classes=[{name: a, colours: 1}]", "'colour'"),
    ],
)
def test_a_key_in_the_wrong_section_is_told_where_it_belongs(refusal: Any, override: str, meant: str) -> None:
    assert f": unknown key; did you mean {meant}? (keys here: " in refusal("name: a\n", override)


def sections(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A section and all below it, also those in lists."""
    yield section
    for field in section.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from sections(kind)


def test_every_list_has_an_example_that_its_field_takes() -> None:
    lists = 0
    for section in sections(Config):
        for name, field in section.model_fields.items():
            if {tuple, dict} & {get_origin(kind) for kind in (field.annotation, *get_args(field.annotation))}:
                example = field.examples[0] if field.examples else field.default
                assert example, f"{section.__name__}.{name}"
                TypeAdapter(field.annotation).validate_python(example)
                lists += 1
    assert lists >= 15


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
