"""The exported file under ONNX Runtime against the network it was made from.

An export takes tens of seconds on a small machine, so there are two, each made once.
"""

import copy
import json
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from segdistill.data.taxonomy import CAMVID
from segdistill.data.transforms import Normalisation
from segdistill.errors import ExportError
from segdistill.evaluation.predictors import OnnxPredictor, PlainPredictor
from segdistill.export.onnx import ExportGraph, export_onnx, with_static_padding
from segdistill.export.parity import compare
from segdistill.export.weights import Deployed
from segdistill.models.ensemble import BranchSpec, MultiBranchNet
from segdistill.models.primary import input_multiple
from segdistill.models.taps import survey

ENCODERS = ("tu-tf_efficientnet_lite0", "resnet18")
KEYWORDS = {
    "encoder_weights": None,
    "classes": CAMVID.num_classes,
    "decoder_channels": [32, 24, 16, 16, 16],
}


def deployed_of(encoder: str, arch: str = "unet", **keywords: Any) -> Deployed:
    return Deployed(
        arch=arch,
        keywords={**KEYWORDS, "encoder_name": encoder, **keywords},
        taxonomy=CAMVID,
        normalisation=Normalisation((0.5, 0.4, 0.3), (0.25, 0.5, 0.75)),
        size=(64, 96),
        multiple=32,
    )


def with_random_statistics(model: nn.Module) -> nn.Module:
    """Fresh batch norms do next to nothing, which hides how they are folded into convolutions."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2.0)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    return model


def make_net(encoder: str) -> MultiBranchNet:
    torch.manual_seed(0)
    primary = with_random_statistics(deployed_of(encoder).rebuild())
    return MultiBranchNet(
        primary,
        tap_map=survey(primary, (), height=64, width=64),
        num_classes=CAMVID.num_classes,
        branches=BranchSpec((3, 4, 5), 64, 4, 0.0, 1.0),
        adapter_width=64,
        feature_stride=8,
    )


@pytest.fixture(scope="module", params=ENCODERS)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MultiBranchNet, Path, Deployed]:
    net = make_net(request.param)
    path = tmp_path_factory.mktemp(request.param) / "model.onnx"
    deployed = deployed_of(request.param)
    before = copy.deepcopy(net.deploy()).train()
    export_onnx(path, net.deploy().train(), deployed, opset=18)

    # The network that is exported stays as it was.
    after = net.deploy()
    assert all(module.training for module in after.modules())
    assert [type(module) for module in before.modules()] == [type(module) for module in after.modules()]
    ours, theirs = before.state_dict(), after.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    return net, path, deployed


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [(97, 131), (64, 96), (33, 32), (7, 70)])
def test_parity(exported: tuple[MultiBranchNet, Path, Deployed], batch: int, size: tuple[int, int]) -> None:
    net, path, deployed = exported
    assert input_multiple(net.deploy()) == deployed.multiple
    reference = PlainPredictor(
        copy.deepcopy(net.deploy()), multiple=deployed.multiple, device=torch.device("cpu")
    )
    images = torch.randn(batch, 3, *size)
    logits = OnnxPredictor(path)(images)["primary"]
    expected = reference(images)["primary"]
    assert logits.shape == expected.shape == (batch, CAMVID.num_classes, *size)
    assert expected.std() > 0.05
    assert (logits - expected).abs().max() <= 1e-4
    assert compare(reference, OnnxPredictor(path), [images]).holds


def test_another_network_has_no_parity(exported: tuple[MultiBranchNet, Path, Deployed]) -> None:
    net, path, deployed = exported
    other = copy.deepcopy(net.deploy())
    with torch.no_grad():
        other.segmentation_head[0].weight.mul_(1.01)
    reference = PlainPredictor(other, multiple=deployed.multiple, device=torch.device("cpu"))
    assert not compare(reference, OnnxPredictor(path), [torch.randn(1, 3, 64, 64)]).holds


def test_one_file_that_holds_everything(exported: tuple[MultiBranchNet, Path, Deployed]) -> None:
    _, path, _ = exported
    assert [one.name for one in path.parent.iterdir()] == ["model.onnx"]
    model = onnx.load(str(path), load_external_data=False)
    assert {one.data_location for one in model.graph.initializer} == {onnx.TensorProto.DEFAULT}
    assert [one.version for one in model.opset_import if one.domain == ""] == [18]
    onnx.checker.check_model(model, full_check=True)


def elements(tensors: list[Any]) -> int:
    return sum(torch.Size(one.dims).numel() for one in tensors)


def test_nothing_of_the_training_is_inside(exported: tuple[MultiBranchNet, Path, Deployed]) -> None:
    net, path, _ = exported
    model = onnx.load(str(path))
    floats = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT]
    primary = net.deploy()
    weights = sum(p.numel() for p in primary.parameters() if p.ndim > 1)
    all_of_it = sum(t.numel() for t in primary.state_dict().values())
    # Batch norms may be folded into the convolutions, and every convolution has to be there.
    assert weights <= elements(floats) <= all_of_it
    assert all_of_it - weights < sum(p.numel() for p in net.branches.parameters())
    names = [one.name for one in model.graph.initializer] + [one.name for one in model.graph.node]
    assert not [name for name in names if "branch" in name or "adapter" in name]
    integers = [one for one in model.graph.initializer if one.data_type != onnx.TensorProto.FLOAT]
    assert elements(integers) < 1000  # shapes and indexes


def test_interface_and_metadata(exported: tuple[MultiBranchNet, Path, Deployed]) -> None:
    _, path, _ = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (image,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type) == ("image", "tensor(float)")
    assert (logits.name, logits.type) == ("logits", "tensor(float)")
    assert image.shape == ["batch", 3, "height", "width"]
    assert logits.shape[:2] == ["batch", CAMVID.num_classes]
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == list(CAMVID.names)
    assert json.loads(metadata["class_colours"]) == [list(colour) for colour in CAMVID.colours]
    assert json.loads(metadata["ignore_index"]) == 11
    assert json.loads(metadata["mean"]) == [0.5, 0.4, 0.3]
    assert json.loads(metadata["std"]) == [0.25, 0.5, 0.75]
    assert json.loads(metadata["size"]) == [64, 96]
    assert metadata["arch"] == "unet"
    assert "RGB / 255, minus mean, divided by std" in metadata["input"]
    assert session.get_modelmeta().producer_name == "segdistill"


# ---- without an export


@pytest.mark.parametrize(("arch", "keywords"), [("unet", {}), ("deeplabv3plus", {"decoder_channels": 32})])
def test_static_padding_computes_the_same(arch: str, keywords: dict[str, Any]) -> None:
    torch.manual_seed(0)
    primary = with_random_statistics(
        deployed_of("tu-tf_efficientnet_lite0", arch, **keywords).rebuild()
    ).eval()
    static = with_static_padding(copy.deepcopy(primary))
    assert [module for module in primary.modules() if isinstance(module, Conv2dSame)]
    assert not [module for module in static.modules() if isinstance(module, Conv2dSame)]
    with torch.no_grad():
        for size in [(32, 32), (64, 96), (160, 128)]:
            images = torch.randn(2, 3, *size)
            assert torch.equal(static(images), primary(images))


@pytest.mark.parametrize("stride", [1, 2, (2, 1)])
@pytest.mark.parametrize("kernel", [1, 3, 5, (3, 5)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_static_padding_of_one_convolution(kernel: Any, stride: Any, dilation: int) -> None:
    one = nn.Sequential(Conv2dSame(4, 6, kernel, stride, dilation=dilation, groups=2, bias=True))
    static = with_static_padding(copy.deepcopy(one))
    assert not isinstance(static[0], Conv2dSame)
    images = torch.randn(2, 4, 12, 20)
    assert torch.equal(static(images), one(images))


class Doubles(nn.Module):
    """Notes what it is given; its output depends on the place."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.empty(0)

    def forward(self, image: Tensor) -> Tensor:
        self.seen = image
        return 2 * image


@pytest.mark.parametrize(
    ("size", "padded"), [((33, 40), (64, 64)), ((64, 32), (64, 32)), ((1, 65), (32, 96))]
)
def test_graph_pads_with_the_mean_colour_and_crops(size: tuple[int, int], padded: tuple[int, int]) -> None:
    network = Doubles()
    images = torch.randn(2, 3, *size)
    assert torch.equal(ExportGraph(network, multiple=32)(images), 2 * images)
    assert network.seen.shape == (2, 3, *padded)
    assert torch.equal(network.seen[..., : size[0], : size[1]], images)
    assert network.seen.abs().sum() == images.abs().sum()


def test_what_torch_cannot_export_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any, **_keywords: Any) -> None:
        raise RuntimeError("no symbolic for this\nand a page more")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    deployed = deployed_of("resnet18")
    with pytest.raises(ExportError, match=r"'unet' to ONNX opset 18: RuntimeError: no symbolic for this$"):
        export_onnx(tmp_path / "model.onnx", nn.Identity(), deployed, opset=18)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Program:
        def save(self, path: str, **_keywords: Any) -> None:
            node = onnx.helper.make_node("Identity", ["image"], ["logits"])
            value = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in ("image", "logits")]
            graph = onnx.helper.make_graph([node], "graph", value[:1], value[1:])
            onnx.save(onnx.helper.make_model(graph), path)

    def fail(_model: Any, path: str, **_keywords: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    save = onnx.save
    monkeypatch.setattr(torch.onnx, "export", lambda *_args, **_keywords: Program())
    (tmp_path / "model.onnx").write_bytes(b"the old one")
    monkeypatch.setattr(
        onnx,
        "save",
        lambda model, path, **keywords: (fail if Path(path).parent == tmp_path else save)(
            model, path, **keywords
        ),
    )
    with pytest.raises(OSError, match="no space left"):
        export_onnx(tmp_path / "model.onnx", nn.Identity(), deployed_of("resnet18"), opset=18)
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"the old one"
