"""Files with weights that a network begins with: of safetensors, of torch, of Lightning; the encoder or all of it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from segdistill.data.taxonomy import CAMVID
from segdistill.errors import WeightsError
from segdistill.export.weights import Deployed, save_deployed
from segdistill.models.primary import build_primary, expected_normalisation
from segdistill.models.weight_files import WeightFile
from segdistill.normalisation import Normalisation

SMALL = "tu-mobilenetv3_small_050"
REMEDY = r"model\.encoder_weights=none"
HEAD = "segmentation_head.0"


def unet(
    weights: str = "none", *, whole: str | None = None, classes: int = 4, new_head: bool = False
) -> nn.Module:
    return build_primary(
        arch="unet",
        encoder=SMALL,
        encoder_weights=weights,
        num_classes=classes,
        options={},
        weights=whole,
        new_head=new_head,
    )


def same_tensors(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def in_front(words: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {words + name: tensor for name, tensor in tensors.items()}


# ---- the encoder


@pytest.fixture(scope="module")
def donor() -> nn.Module:
    torch.manual_seed(9)
    return unet()


def written(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> str:
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path, metadata=metadata)
    return str(path)


@pytest.mark.parametrize("whole_model", [False, True])
def test_round_trip(donor: nn.Module, tmp_path: Path, whole_model: bool) -> None:
    tensors = donor.state_dict() if whole_model else donor.encoder.state_dict()
    torch.manual_seed(10)
    model = unet(weights=written(tmp_path / "w.safetensors", tensors))
    assert same_tensors(model.encoder.state_dict(), donor.encoder.state_dict())
    head = "segmentation_head.0.weight"
    assert not torch.equal(model.state_dict()[head], donor.state_dict()[head])


def test_a_file_may_lack_the_counters_of_batch_norm(donor: nn.Module, tmp_path: Path) -> None:
    tensors = {k: v for k, v in donor.encoder.state_dict().items() if not k.endswith("num_batches_tracked")}
    model = unet(weights=written(tmp_path / "w.safetensors", tensors))
    assert same_tensors(model.encoder.state_dict(), donor.encoder.state_dict())


def test_a_whole_model_may_lack_them_too(donor: nn.Module, tmp_path: Path) -> None:
    tensors = {k: v for k, v in donor.state_dict().items() if not k.endswith("num_batches_tracked")}
    model = unet(weights=written(tmp_path / "w.safetensors", tensors))
    assert same_tensors(model.encoder.state_dict(), donor.encoder.state_dict())


def test_of_several_networks_none_is_taken_in_silence(donor: nn.Module, tmp_path: Path) -> None:
    """A teacher and a student; two names of one network are no choice."""
    own = donor.encoder.state_dict()
    student = {f"student.{name}": tensor for name, tensor in own.items()}
    alike = {f"a.teacher.{name}": tensor.clone() for name, tensor in own.items()}
    model = unet(weights=written(tmp_path / "w.safetensors", alike | student))
    assert same_tensors(model.encoder.state_dict(), own)
    other = {name: tensor + 1 for name, tensor in alike.items()}
    with pytest.raises(
        WeightsError, match=r"w\.safetensors holds several networks that differ: 'student\.', 'a\.teacher\.'"
    ):
        unet(weights=written(tmp_path / "w.safetensors", other | student))


@pytest.mark.parametrize("whole_model", [False, True])
@pytest.mark.parametrize("lost", ["model.blocks.0.0.conv_dw.weight", "model.bn1.running_var"])
def test_missing_tensor_is_named(donor: nn.Module, tmp_path: Path, lost: str, whole_model: bool) -> None:
    tensors = donor.state_dict() if whole_model else donor.encoder.state_dict()
    lost = f"encoder.{lost}" if whole_model else lost
    del tensors[lost]
    with pytest.raises(
        WeightsError, match=rf"w\.safetensors does not fit .*tensor '{lost}' is missing.*{REMEDY}"
    ):
        unet(weights=written(tmp_path / "w.safetensors", tensors))


@pytest.mark.parametrize("whole_model", [False, True])
def test_wrong_shape_is_named(donor: nn.Module, tmp_path: Path, whole_model: bool) -> None:
    tensors = donor.state_dict() if whole_model else donor.encoder.state_dict()
    name = f"{'encoder.' if whole_model else ''}model.conv_stem.weight"
    tensors[name] = torch.zeros(2, 5)
    wanted = rf"tensor '{name}' has shape \(2, 5\), wanted \(16, 3, 3, 3\).*{REMEDY}"
    with pytest.raises(WeightsError, match=wanted):
        unet(weights=written(tmp_path / "w.safetensors", tensors))


def of_timm(name: str) -> dict[str, Tensor]:
    torch.manual_seed(12)
    return timm.create_model(name, pretrained=False).state_dict()


@pytest.mark.parametrize("words", ["", "module.", "backbone.model."])
@pytest.mark.parametrize("classifier", [True, False])
def test_timms_own_files_fill_its_encoders(tmp_path: Path, classifier: bool, words: str) -> None:
    theirs = of_timm("resnet18")
    tensors = {name: one for name, one in theirs.items() if classifier or not name.startswith("fc.")}
    path = written(tmp_path / "w.safetensors", in_front(words, tensors) | {"loss.weight": torch.ones(4)})
    encoder = smp.encoders.get_encoder("tu-resnet18", weights=None)
    WeightFile.of_encoder(path).fill_encoder(nn.ModuleDict({"encoder": encoder}))
    filled = encoder.state_dict()
    assert len(filled) == 120
    assert all(torch.equal(one, theirs[name.removeprefix("model.")]) for name, one in filled.items())


@pytest.mark.parametrize(
    ("name", "example", "in_timm"),
    [
        ("convnext_atto", "model.stages_0.blocks.0.norm.weight", "stages.0.blocks.0.norm.weight"),
        ("efficientvit_b0", "model.stem_in_conv.conv.weight", "stem.in_conv.conv.weight"),
        ("efficientformer_l1", "model.model.stem.conv1.weight", "stem.conv1.weight"),
        (SMALL.removeprefix("tu-"), "model.conv_stem.weight", "conv_stem.weight"),
    ],
)
def test_also_where_timm_renames_what_it_takes_out_of_a_model(
    tmp_path: Path, name: str, example: str, in_timm: str
) -> None:
    theirs = of_timm(name)
    encoder = smp.encoders.get_encoder(f"tu-{name}", weights=None)
    path = written(tmp_path / "w.safetensors", theirs)
    WeightFile.of_encoder(path).fill_encoder(nn.ModuleDict({"encoder": encoder}))
    assert torch.equal(encoder.state_dict()[example], theirs[in_timm])
    joined = {f"model_{one.replace('.', '_')}": tensor for one, tensor in theirs.items()}
    for own, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, joined[own.replace("model.model.", "model.").replace(".", "_")])


def test_the_transformers_of_dpt_take_timms_files_too(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    theirs = of_timm(name)
    model = build_primary(
        arch="dpt",
        encoder=f"tu-{name}",
        encoder_weights=written(tmp_path / "w.safetensors", theirs),
        num_classes=4,
        options={},
    )
    filled = model.encoder.state_dict()
    assert all(torch.equal(one, theirs[own.removeprefix("model.")]) for own, one in filled.items())


@pytest.mark.parametrize("other", [True, False])
def test_what_is_lacking_in_a_file_of_timm_is_told_by_its_name_there(tmp_path: Path, other: bool) -> None:
    """And what file would do: not that a file should be named, which one was."""
    name = SMALL.removeprefix("tu-")
    tensors = of_timm("resnet18" if other else name)
    tensors.pop("blocks.0.0.conv_dw.weight", None)
    with pytest.raises(WeightsError) as told:
        unet(weights=written(tmp_path / "w.safetensors", tensors))
    wrong = "'conv_stem.weight'" if other else "'blocks.0.0.conv_dw.weight'"
    assert f"w.safetensors does not fit the network: tensor {wrong} is missing" in str(told.value)
    assert str(told.value).endswith(
        f"; the file should hold the state_dict() of timm's {name}; go on without pretrained weights by "
        "model.encoder_weights=none"
    )


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"cannot read .*none\.safetensors: .*{REMEDY}"):
        unet(weights=str(tmp_path / "none.safetensors"))


def test_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("not tensors")
    with pytest.raises(WeightsError, match=rf"cannot read .*text\.safetensors: .*{REMEDY}"):
        unet(weights=str(tmp_path / "text.safetensors"))


# ---- the whole network


def saved(path: Path, content: Any) -> str:
    torch.save(content, path)
    return str(path)


@pytest.mark.parametrize("kind", ["safetensors", "torch", "data parallel", "Lightning"])
def test_whole_networks_come_from_many_kinds_of_files(donor: nn.Module, tmp_path: Path, kind: str) -> None:
    tensors = donor.state_dict()
    match kind:
        case "safetensors":
            path = written(tmp_path / "w.safetensors", tensors)
        case "torch":
            path = saved(tmp_path / "w.pth", tensors)
        case "data parallel":
            path = saved(tmp_path / "w.pt", in_front("module.", tensors))
        case _:
            others = {"loss.weight": torch.ones(4)}
            content = {"epoch": 3, "state_dict": in_front("model.", tensors) | others}
            path = saved(tmp_path / "w.ckpt", content)
    torch.manual_seed(10)
    assert same_tensors(unet(whole=path).state_dict(), tensors)
    assert same_tensors(unet(path).encoder.state_dict(), donor.encoder.state_dict()), "its encoder alone"


def test_weights_of_the_whole_network_come_before_those_of_the_encoder(
    donor: nn.Module, tmp_path: Path
) -> None:
    path = written(tmp_path / "w.safetensors", donor.state_dict())
    assert same_tensors(unet("gone.safetensors", whole=path).state_dict(), donor.state_dict())
    assert same_tensors(unet("imagenet", whole=path).state_dict(), donor.state_dict()), "no hub is asked"


def test_a_network_for_other_classes_begins_with_a_new_head(donor: nn.Module, tmp_path: Path) -> None:
    path = written(tmp_path / "w.safetensors", donor.state_dict())
    with pytest.raises(
        WeightsError,
        match=rf"model\.weights: .*tensor '{HEAD}\.weight' has shape \(4, 16, 3, 3\), wanted \(7, 16, 3, 3\); "
        r".*model\.new_head=true",
    ):
        unet(whole=path, classes=7)
    model = unet(whole=path, classes=7, new_head=True).state_dict()
    assert model.pop(f"{HEAD}.weight").shape == (7, 16, 3, 3)
    assert model.pop(f"{HEAD}.bias").shape == (7,)
    assert all(torch.equal(tensor, donor.state_dict()[name]) for name, tensor in model.items())
    assert len(model) == len(donor.state_dict()) - 2


def test_a_new_head_for_as_many_classes_is_new(donor: nn.Module, tmp_path: Path) -> None:
    path = written(tmp_path / "w.safetensors", donor.state_dict())
    torch.manual_seed(11)
    head = unet(whole=path, new_head=True).state_dict()[f"{HEAD}.weight"]
    assert not torch.equal(head, donor.state_dict()[f"{HEAD}.weight"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": "resnet18"}, r"is no state_dict\(\) of a network; of a run .* primary\.safetensors"),
        ([torch.ones(3)], r"is no state_dict\(\) of a network"),
        (
            nn.Linear(2, 2),
            r"holds other things than tensors, or is damaged .* save model\.state_dict\(\) alone",
        ),
    ],
)
def test_what_torch_saved_of_something_else(tmp_path: Path, content: Any, said: str) -> None:
    path = saved(tmp_path / "w.pth", content)
    with pytest.raises(WeightsError, match=rf"model\.weights: .*w\.pth {said}.*without model\.weights"):
        unet(whole=path)


def test_files_of_torch_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"model\.weights: cannot read .*gone\.pth: .*without model\.weights"
    ):
        unet(whole=str(tmp_path / "gone.pth"))
    (tmp_path / "text.pth").write_text("no tensors")
    with pytest.raises(WeightsError, match=r"text\.pth .*damaged"):
        unet(whole=str(tmp_path / "text.pth"))


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"abc")
    expected = hashlib.sha256(b"abc").hexdigest()
    assert WeightFile.of_network(str(tmp_path / "w.pth")).digest() == expected
    with pytest.raises(WeightsError, match=r"model\.encoder_weights: cannot read .*gone\.pth"):
        WeightFile.of_encoder(str(tmp_path / "gone.pth")).digest()


# ---- colours


def test_colours_in_the_metadata_of_a_file(tmp_path: Path) -> None:
    metadata = {"mean": json.dumps((0.1, 0.2, 0.3)), "std": json.dumps([0.4, 0.5, 1])}
    path = written(tmp_path / "w.safetensors", {"a": torch.zeros(1)}, metadata)
    assert expected_normalisation(encoder="resnet18", encoder_weights=path) == (
        (0.1, 0.2, 0.3),
        (0.4, 0.5, 1.0),
    )


@pytest.mark.parametrize(
    ("encoder", "mean"), [("resnet18", (0.485, 0.456, 0.406)), ("tu-tf_efficientnet_lite0", (0.5, 0.5, 0.5))]
)
def test_colours_of_a_file_that_tells_none(tmp_path: Path, encoder: str, mean: tuple[float, ...]) -> None:
    path = written(tmp_path / "w.safetensors", {"a": torch.zeros(1)})
    assert expected_normalisation(encoder=encoder, encoder_weights=path).mean == mean


def test_a_deployed_network_is_a_source_of_weights_and_colours(donor: nn.Module, tmp_path: Path) -> None:
    colours = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    path = tmp_path / "primary.safetensors"
    save_deployed(path, donor, Deployed("unet", {}, CAMVID, colours, (64, 64), 32))
    assert expected_normalisation(encoder=SMALL, encoder_weights=str(path)) == (colours.mean, colours.std)
    assert same_tensors(unet(weights=str(path)).encoder.state_dict(), donor.encoder.state_dict())


@pytest.mark.parametrize("content", [None, b"not tensors"])
def test_colours_of_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"w\.safetensors.*{REMEDY}"):
        expected_normalisation(encoder="resnet18", encoder_weights=str(path))


def test_unreadable_colours_in_the_metadata(tmp_path: Path) -> None:
    path = written(tmp_path / "w.safetensors", {"a": torch.zeros(1)}, {"mean": "[0.5]", "std": "[1, 2, 3]"})
    with pytest.raises(WeightsError, match=r"w\.safetensors.*mean"):
        expected_normalisation(encoder="resnet18", encoder_weights=path)


def test_colours_are_those_of_the_whole_network(donor: nn.Module, tmp_path: Path) -> None:
    told = {"mean": "[0.1, 0.2, 0.3]", "std": "[0.4, 0.5, 0.6]"}
    path = written(tmp_path / "w.safetensors", donor.state_dict(), told)
    found = expected_normalisation(encoder=SMALL, encoder_weights="none", weights=path)
    assert found == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    untold = saved(tmp_path / "w.pth", donor.state_dict())
    found = expected_normalisation(encoder="tu-tf_efficientnet_lite0", encoder_weights="none", weights=untold)
    assert found.mean == (0.5, 0.5, 0.5), "timm's, for there are weights"
