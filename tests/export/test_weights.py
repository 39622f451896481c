"""`primary.safetensors`: everything that rebuilds the deployed network, readable without segdistill."""

import json
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from full_disk import files_of_at_most
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segdistill.data.taxonomy import CAMVID
from segdistill.errors import RunFolderError
from segdistill.export.weights import Deployed, load_deployed, save_deployed
from segdistill.normalisation import Normalisation

KEYWORDS = {
    "encoder_name": "tu-test_efficientnet",
    "encoder_weights": None,
    "classes": CAMVID.num_classes,
    "decoder_channels": [32, 16, 16, 8, 8],
}
DEPLOYED = Deployed(
    arch="unet",
    keywords=KEYWORDS,
    taxonomy=CAMVID,
    normalisation=Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
    size=(96, 160),
    multiple=32,
)


@pytest.fixture(scope="module")
def primary() -> nn.Module:
    """A network with a past: statistics that are not the initial ones."""
    torch.manual_seed(0)
    model = smp.create_model("unet", **KEYWORDS).train()
    with torch.no_grad():
        for _ in range(2):
            model(3 * torch.randn(2, 3, 64, 64) + 1)
    return model.eval()


@pytest.fixture(scope="module")
def file(primary: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "export" / "primary.safetensors"
    save_deployed(path, primary, DEPLOYED)
    return path


def rebuild_without_segdistill(path: Path) -> nn.Module:
    """What a user's own program does; json, torch, safetensors and smp are all it needs."""
    with safe_open(path, framework="pt") as stored:
        metadata = {key: json.loads(text) for key, text in stored.metadata().items()}
    model = smp.create_model(metadata["arch"], **metadata["keywords"])
    model.load_state_dict(load_file(path), strict=True)
    return model.eval()


def logits_of(model: nn.Module) -> Tensor:
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(images)


def test_round_trip(primary: nn.Module, file: Path) -> None:
    torch.manual_seed(99)
    model, deployed = load_deployed(file)
    assert deployed == DEPLOYED
    assert not model.training
    assert torch.equal(logits_of(model), logits_of(primary))
    assert not torch.equal(logits_of(DEPLOYED.rebuild().eval()), logits_of(primary))


def test_smp_and_safetensors_are_enough(primary: nn.Module, file: Path) -> None:
    torch.manual_seed(98)
    model = rebuild_without_segdistill(file)
    assert type(model) is smp.Unet
    assert torch.equal(logits_of(model), logits_of(primary))


def test_the_same_network_gives_the_same_bytes(primary: nn.Module, file: Path, tmp_path: Path) -> None:
    """Its metadata are in order; the safetensors package gives them another one in each file."""
    deployed = load_deployed(file)[1]
    for number in range(5):
        save_deployed(tmp_path / f"{number}.safetensors", primary, deployed)
        assert (tmp_path / f"{number}.safetensors").read_bytes() == file.read_bytes()


def test_metadata_is_json(file: Path) -> None:
    with safe_open(file, framework="pt") as stored:
        metadata = {key: json.loads(text) for key, text in stored.metadata().items()}
    assert metadata == {
        "arch": "unet",
        "keywords": KEYWORDS,
        "class_names": list(CAMVID.names),
        "class_colours": [list(colour) for colour in CAMVID.colours],
        "ignore_index": 11,
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "size": [96, 160],
        "multiple": 32,
    }


def test_the_file_holds_the_networks_tensors_and_no_others(primary: nn.Module, file: Path) -> None:
    stored = load_file(file)
    assert set(stored) == set(primary.state_dict())
    assert all(torch.equal(stored[name], tensor) for name, tensor in primary.state_dict().items())
    assert [path.name for path in file.parent.iterdir()] == ["primary.safetensors"]


def test_channels_last_is_saved_as_it_means(primary: nn.Module, tmp_path: Path) -> None:
    trained = smp.create_model("unet", **KEYWORDS).to(memory_format=torch.channels_last)
    trained.load_state_dict(primary.state_dict())
    save_deployed(tmp_path / "w.safetensors", trained, DEPLOYED)
    assert torch.equal(logits_of(rebuild_without_segdistill(tmp_path / "w.safetensors")), logits_of(primary))


def test_saving_leaves_the_network_alone(primary: nn.Module, tmp_path: Path) -> None:
    primary.train()
    before = {name: tensor.clone() for name, tensor in primary.state_dict().items()}
    save_deployed(tmp_path / "w.safetensors", primary, DEPLOYED)
    assert primary.training
    assert all(torch.equal(before[name], tensor) for name, tensor in primary.state_dict().items())
    primary.eval()


# ---- what is not such a file


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(
        RunFolderError, match=r"none\.safetensors: no such file; its run makes it .* by --resume"
    ):
        load_deployed(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},  # as transformers and timm write it: a word, no JSON
        {"arch": '"unet"', "keywords": "{}"},
    ],
)
def test_foreign_safetensors(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata=metadata)
    with pytest.raises(RunFolderError, match=r"foreign\.safetensors is not a network deployed by segdistill"):
        load_deployed(path)


def test_text_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("not tensors")
    for path in (tmp_path / "text.safetensors", tmp_path):
        with pytest.raises(RunFolderError, match="is not a network deployed by segdistill"):
            load_deployed(path)


@pytest.mark.parametrize("kept", [0.99, 0.5, 0.001])
def test_truncated_file(file: Path, tmp_path: Path, kept: float) -> None:
    content = file.read_bytes()
    (tmp_path / "half.safetensors").write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(RunFolderError, match=r"half\.safetensors is not a network deployed by segdistill"):
        load_deployed(tmp_path / "half.safetensors")


# ---- a save that fails


@pytest.mark.parametrize("there_before", [False, True])
def test_a_failed_save_leaves_nothing_half_written(
    primary: nn.Module, file: Path, tmp_path: Path, there_before: bool
) -> None:
    path = tmp_path / "primary.safetensors"
    if there_before:
        path.write_bytes(file.read_bytes())
    with files_of_at_most(1000), pytest.raises(OSError, match="File too large"):
        save_deployed(path, primary, DEPLOYED)
    assert [one.name for one in tmp_path.iterdir()] == ([path.name] if there_before else [])
    if there_before:
        assert path.read_bytes() == file.read_bytes()
