"""The configuration's types, ranges and the files in configs/."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from segdistill.build.network import build_net
from segdistill.build.objective import build_objective
from segdistill.build.splits import build_taxonomy
from segdistill.config import Config, Section
from segdistill.config_data import FolderConfig, values_of
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
        ("data.crop", [16, 64]),
        ("data.sampling.kind", "balanced"),
        ("data.folder.images", "/images"),
        ("data.folder.val_share", 0.0),
        ("data.folder.ignore_values", [65536]),
        ("data.folder.classes", [{"colour": [0, 0, 0]}, {"name": "b"}]),
        ("data.folder.classes", [{"name": "a", "colour": [0, 0]}, {"name": "b"}]),
        ("data.folder.classes", [{"name": "a", "colour": [0, 0, 256]}, {"name": "b"}]),
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
    for none in ("none", None):  # smp has None
        model = {"encoder": "resnet18", "encoder_weights": none}
        assert validate_config({"name": "a", "model": model}, source="test").model.encoder_weights == "none"


def test_architecture_names_ignore_case() -> None:
    assert validate_config({"name": "a", "model": {"arch": "UNet"}}, source="test").model.arch == "unet"


def test_run_folder() -> None:
    assert Config(name="a").run_folder == Path("runs/a")
    assert Config(name="a", out=Path("/elsewhere")).run_folder == Path("/elsewhere")
    assert Config(name="a", out=Path("~/a")).run_folder == Path.home() / "a"


@pytest.mark.parametrize(
    "method",
    [
        {"supervised": {"branch_weight": 0}},
        {"supervised": {"branch_weight": 0}, "logit": {"weight": 0}, "feature": {"weight": 0.1}},
        {"supervised": {"branch_weight": 0}, "kind": "deep_supervision"},
        {"supervised": {"branch_ramp": [[0, 0]]}},
    ],
)
def test_branches_that_learn_nothing_teach_nobody(method: dict[str, Any]) -> None:
    (silent,) = method["supervised"]
    assert f"method.supervised.{silent} is 0" in refusal(method=method)
    for others in ({"logit": {"students": "all"}, "kind": "self_distill"}, {"kind": "baseline"}):
        validate_config({"name": "a", "method": method | others}, source="test")


@pytest.mark.parametrize("term", ["logit", "feature", "adversarial"])
def test_a_ramp_that_is_0_throughout_is_no_training_with_that_loss(term: str) -> None:
    silent = {"ramp": [[0, 0], [0.7, 0]]}
    told = refusal(method={term: {"weight": 1, **silent}})
    assert re.search(rf"method\.{term}\.ramp( = \[\[0, 0\], \[0\.7, 0\]\]:)? is 0 throughout, so that", told)
    validate_config({"name": "a", "method": {term: {"weight": 0, **silent}}}, source="test")


def test_views_alone_may_teach() -> None:
    logit = {"weight": 1, "ramp": [[0, 0]], "views": {"weight": 1, "ramp": [[0.5, 0], [0.6, 1]]}}
    config = validate_config({"name": "a", "method": {"logit": logit}}, source="test")
    objective = build_objective(config, None)
    assert [term.name for term in objective.active(0.9)] == ["primary", "branches", "views", "feature"]


@pytest.mark.parametrize(
    ("kind", "has_branches", "distils"),
    [("baseline", False, False), ("deep_supervision", True, False), ("self_distill", True, True)],
)
def test_method_kinds(kind: str, has_branches: bool, distils: bool) -> None:
    method = validate_config({"name": "a", "method": {"kind": kind}}, source="test").method
    assert (method.has_branches, method.distils) == (has_branches, distils)


# ---- classes of a folder


def folder(*classes: dict[str, Any], **others: Any) -> FolderConfig:
    values = {"name": "a", "data": {"kind": "folder", "folder": {"classes": list(classes), **others}}}
    return validate_config(values, source="test").data.folder


def folder_refusal(*classes: dict[str, Any], **others: Any) -> str:
    return refusal(data={"kind": "folder", "folder": {"classes": list(classes), **others}})


def test_a_folder_needs_classes() -> None:
    assert "data.folder.classes is needed for data.kind='folder'" in refusal(data={"kind": "folder"})


def test_mask_values_are_places_in_the_list_unless_given() -> None:
    classes = folder({"name": "a"}, {"name": "b", "values": [9, 300]}, {"name": "c"}).told_apart
    assert [values_of(one, place) for place, one in enumerate(classes)] == [(0,), (9, 300), (2,)]


def test_a_single_class_has_a_background() -> None:
    background, crack = folder({"name": "crack"}).told_apart
    assert (background.name, background.colour, background.values) == ("background", (0, 0, 0), (0,))
    assert (crack.name, crack.colour, crack.values) == ("crack", (255, 255, 255), (1, 255))
    assert folder({"name": "crack", "values": [4]}).told_apart[1].values == (4,)
    void = FolderConfig.model_validate({"classes": [{"name": "crack"}], "ignore_values": [255]})
    assert void.told_apart[1].values == (1,)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([{"name": "a"}, {"name": "a"}], "classes: name a belongs to two of them"),
        ([{"name": "a"}, {"name": "b", "values": [0]}], "classes: mask value 0 belongs to two of them"),
        (
            [{"name": "a", "colour": [1, 2, 3]}, {"name": "b", "colour": [1, 2, 3]}],
            "classes: colour (1, 2, 3) belongs to two of them",
        ),
        ([{"name": str(n)} for n in range(255)], "classes: there are 255; at most 254 fit"),
    ],
)
def test_classes_that_cannot_be_told_apart(classes: list[dict[str, Any]], words: str) -> None:
    assert words in folder_refusal(*classes)


def test_what_is_ignored_is_no_class() -> None:
    classes = [{"name": "a", "colour": [0, 0, 0]}, {"name": "b"}]
    assert "  data.folder.ignore_values: 0 is of class 'a', 1 is of class 'b'; remove" in folder_refusal(
        *classes, ignore_values=[1, 2, 0]
    )
    assert "  data.folder.ignore_colours: (0, 0, 0) is of class 'a'; remove" in folder_refusal(
        *classes, ignore_colours=[[0, 0, 0]]
    )


def test_masks_are_read_by_colours_that_classes_have() -> None:
    """Told before a single mask is opened."""
    classes = [{"name": "a"}, {"name": "b"}]
    message = folder_refusal(*classes, mask_format="rgb")
    assert "data.folder.mask_format is 'rgb', and no class of data.folder.classes has a colour" in message
    assert folder(*classes, mask_format="index").classes
    assert folder(classes[0], {"name": "b", "colour": [0, 0, 0]}, mask_format="rgb").classes
    assert folder({"name": "crack"}, mask_format="rgb").classes, "its masks are black and white"
    assert FolderConfig(mask_format="rgb"), "of another kind of data"


@pytest.mark.parametrize("sign", ["\n", "\r", "\t", "\x00", "\x85", "\u2028"])
def test_the_name_of_a_class_is_one_line(sign: str) -> None:
    message = folder_refusal({"name": "a"}, {"name": f"traffic{sign}light"})
    assert "data.folder.classes.1.name = " in message
    assert f"a line break or another control character (U+{ord(sign):04X})" in message
    assert folder({"name": "a"}, {"name": "Stra\u00dfe 道路"}).classes


def test_something_is_left_to_train_on() -> None:
    message = folder_refusal({"name": "a"}, val_share=0.6, test_share=0.4)
    assert "val_share 0.6 and test_share 0.4 leave nothing to train on" in message


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_networks_of_every_config_file_can_be_built(path: Path) -> None:
    config = load_config(path)
    net = build_net(config)
    assert len(net.branches) == len(config.method.branches.taps) * config.method.has_branches
    assert build_taxonomy(config).num_classes == net.primary.segmentation_head[0].out_channels


def test_an_epoch_to_keep_has_to_be_one_of_the_training() -> None:
    assert validate_config({"name": "a", "train": {"epochs": 3, "keep_epochs": [1, 3]}}, source="test")
    with pytest.raises(ConfigError, match=r"keep_epochs: there is no epoch 4 in a training of 3"):
        validate_config({"name": "a", "train": {"epochs": 3, "keep_epochs": [1, 4]}}, source="test")


def test_a_batch_is_shared_out_evenly() -> None:
    """Known before anything is started where the processes are counted, else when they are there."""
    told = r"train\.batch_size=4 .* 3 processes; use a multiple, e\.g\. 6, or other train\.devices"
    assert f"  {'train.batch_size=4 cannot be'}" in refusal(train={"batch_size": 4, "devices": 3})
    config = validate_config({"name": "a", "train": {"batch_size": 4, "devices": "auto"}}, source="test")
    config.train.refuse_uneven_shares(2)
    with pytest.raises(ValueError, match=told):
        config.train.refuse_uneven_shares(3)


@pytest.mark.parametrize(
    ("batch_size", "available", "processes"),
    [
        (4, 0, 1),
        (4, 1, 1),
        (4, 8, 2),
        (8, 3, 2),
        (8, 4, 4),
        (8, 8, 4),
        (9, 4, 3),
        (2, 2, 1),
        (7, 8, 1),
        (1, 4, 1),
    ],
)
def test_so_many_devices_get_an_even_share_of_two_images(
    batch_size: int, available: int, processes: int
) -> None:
    config = validate_config({"name": "a", "train": {"batch_size": batch_size}}, source="test")
    assert config.train.most_processes(available) == processes


def test_logits_are_compared_where_branches_have_them() -> None:
    coarse = {"branches": {"stride": 4}, "grid_stride": 2}
    with pytest.raises(ConfigError, match=r"method\.grid_stride is 2.*method\.branches\.stride \(4\)"):
        validate_config({"name": "a", "method": coarse}, source="test")
    for works in (coarse | {"grid_stride": 4}, coarse | {"kind": "deep_supervision"}):
        assert validate_config({"name": "a", "method": works}, source="test")


def test_a_kind_that_would_be_plain_training_is_refused() -> None:
    for copies in (None, 0):
        method: dict[str, Any] = {"kind": "reparam"} | (
            {} if copies is None else {"reparam": {"copies": copies}}
        )
        with pytest.raises(ConfigError, match=r"method\.reparam\.copies is 0; set it to 1 or more"):
            validate_config({"name": "a", "method": method}, source="test")
    copies_of = {
        kind: validate_config(
            {"name": "a", "method": {"kind": kind, "reparam": {"copies": 2}}}, source="test"
        ).method.copies
        for kind in ("baseline", "reparam", "deep_supervision", "self_distill")
    }
    assert copies_of == {"baseline": 0, "reparam": 2, "deep_supervision": 0, "self_distill": 2}


def test_crops_are_no_larger_than_images() -> None:
    data = {"kind": "synthetic", "size": [64, 96], "augment": {"scale": [0.5, 1.5]}}
    for crop in ([96, 144], [64, 32], None):
        validate_config({"name": "a", "data": data | {"crop": crop}}, source="test")
    for crop in ([97, 96], [64, 145]):
        assert f"data.crop={crop} is larger than any image is, [96, 144]" in refusal(
            data=data | {"crop": crop}
        )
    own = data | {"crop": [97, 96], "augment": {"custom": [{"name": "PadIfNeeded"}]}}
    validate_config({"name": "a", "data": own}, source="test")


def test_a_mean_wants_a_standard_deviation() -> None:
    assert "data.mean is given and data.std is not; give both, or neither" in refusal(
        data={"mean": [0, 0, 0]}
    )
    assert "data.std is given and data.mean is not" in refusal(data={"std": [1, 1, 1]})
    assert "data.std.1 = 0" in refusal(data={"mean": [0, 0, 0], "std": [1, 0, 1]})
    assert "data.mean.0 = 123.7" in refusal(data={"mean": [123.7, 116.3, 103.5], "std": [1, 1, 1]})


def test_weights_are_known_by_how_their_files_are_called() -> None:
    for key in ("weights", "encoder_weights"):
        message = refusal(model={key: "net.onnx"})
        assert f"model.{key} = 'net.onnx'" in message
        assert ".safetensors, .pt, .pth, .ckpt, .bin" in message
