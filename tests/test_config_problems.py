"""The messages for what is wrong with a configuration."""

from collections.abc import Iterator
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel, TypeAdapter

from segdistill.config import Config
from segdistill.config_io import resolve
from segdistill.config_yaml import parse_yaml
from segdistill.errors import ConfigError


def refusal(text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(parse_yaml(text, source="run.yaml"), overrides, source="run.yaml")
    return str(caught.value)


def test_every_problem_at_once_with_key_value_and_remedy() -> None:
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


def test_a_number_as_key() -> None:
    assert "\n  1: unknown key (keys here: name, seed, " in refusal("name: a\n1: 3\n")


def test_one_problem_is_counted_as_one() -> None:
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
def test_messages(override: str, line: str) -> None:
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
def test_a_key_in_the_wrong_section_is_told_where_it_belongs(override: str, meant: str) -> None:
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
