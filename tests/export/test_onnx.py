"""The exported file under ONNX Runtime against the network it was made from.

An export takes tens of seconds on a small machine, so there are two, each made once.
"""

import copy
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import segmentation_models_pytorch as smp
import torch
from networks import NORMALISATION, described, with_random_statistics
from torch import Tensor, nn

from segdistill.data.taxonomy import CAMVID
from segdistill.errors import ExportError
from segdistill.export.check import LIMITS, Check
from segdistill.export.graphs import BranchStream, ImageGraph, TensorGraph
from segdistill.export.onnx import Cost, Interface, export_onnx, refuse_idle_weights
from segdistill.export.onnx_file import OnnxFile
from segdistill.export.parity import compare
from segdistill.models.multi_branch import BranchSpec, MultiBranchNet
from segdistill.models.taps import survey

ENCODERS = ("tu-tf_efficientnet_lite0", "resnet18")


def plain(encoder: str) -> nn.Module:
    return smp.create_model(
        "unet",
        encoder,
        encoder_weights=None,
        classes=CAMVID.num_classes,
        decoder_channels=[32, 24, 16, 16, 16],
    )


def make_net(encoder: str) -> MultiBranchNet:
    torch.manual_seed(0)
    primary = with_random_statistics(plain(encoder))
    return MultiBranchNet(
        primary,
        tap_map=survey(primary, ("decoder.blocks.2",), height=64, width=64),
        num_classes=CAMVID.num_classes,
        branches=BranchSpec((3, 4, 5), 64, 4, 0.0, 1.0),
        feature_stride=8,
        feature_path="decoder.blocks.2",
    )


Exported = tuple[MultiBranchNet, Path, Cost]


@pytest.fixture(scope="module", params=ENCODERS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    net = make_net(request.param)
    path = tmp_path_factory.mktemp(request.param) / "model.onnx"
    before = copy.deepcopy(net.deploy()).train()
    cost = export_onnx(path, TensorGraph(net.deploy().train(), stride=32), described(), Interface())

    # The network that is exported stays as it was.
    after = net.deploy()
    assert all(module.training for module in after.modules())
    assert [type(module) for module in before.modules()] == [type(module) for module in after.modules()]
    ours, theirs = before.state_dict(), after.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    return net, path, cost


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [(97, 131), (64, 96), (33, 32), (7, 70)])
def test_parity(exported: Exported, batch: int, size: tuple[int, int]) -> None:
    net, path, _ = exported
    images = torch.randn(batch, 3, *size)
    logits = torch.from_numpy(OnnxFile(path).run(images.numpy())["logits"])
    padded = torch.zeros(batch, 3, *(-(-one // 32) * 32 for one in size))
    padded[..., : size[0], : size[1]] = images
    with torch.no_grad():
        expected = copy.deepcopy(net.deploy()).eval()(padded)[..., : size[0], : size[1]]
    assert logits.shape == expected.shape == (batch, CAMVID.num_classes, *size)
    assert expected.std() > 0.05
    assert (logits - expected).abs().max() <= 1e-4


def test_another_network_has_no_parity(exported: Exported) -> None:
    net, path, _ = exported
    images = [torch.randn(2, 3, 64, 64).numpy()]
    same = compare(TensorGraph(copy.deepcopy(net.deploy()), stride=32), OnnxFile(path), images)
    assert Check("fp32", same).holds
    other = copy.deepcopy(net.deploy())
    with torch.no_grad():
        other.segmentation_head[0].weight.mul_(1.01)
    different = compare(TensorGraph(other, stride=32), OnnxFile(path), images)
    assert not Check("fp32", different).holds


def test_one_file_that_holds_everything(exported: Exported) -> None:
    _, path, _ = exported
    assert [one.name for one in path.parent.iterdir()] == ["model.onnx"]
    model = onnx.load(str(path), load_external_data=False)
    assert {one.data_location for one in model.graph.initializer} == {onnx.TensorProto.DEFAULT}
    assert [one.version for one in model.opset_import if one.domain == ""] == [18]
    onnx.checker.check_model(model, full_check=True)
    assert b"segdistill/" not in path.read_bytes(), "paths of the machine that exported it"


def elements(tensors: list[Any]) -> int:
    return sum(torch.Size(one.dims).numel() for one in tensors)


def test_nothing_of_the_training_is_inside(exported: Exported) -> None:
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
    assert not [name for name in names if "branch" in name or "adapter" in name or "discriminator" in name]
    integers = [one for one in model.graph.initializer if one.data_type != onnx.TensorProto.FLOAT]
    assert elements(integers) < 1000  # shapes and indexes


@pytest.mark.parametrize("exported", ["resnet18"], indirect=True)
def test_it_is_the_export_of_plain_smp(exported: Exported, tmp_path: Path) -> None:
    net, path, cost = exported
    model = plain("resnet18")
    model.load_state_dict(net.deploy().state_dict())
    plain_cost = export_onnx(tmp_path / "plain.onnx", TensorGraph(model, stride=32), described(), Interface())
    assert cost == plain_cost
    ours, theirs = onnx.load(str(path)), onnx.load(str(tmp_path / "plain.onnx"))
    assert ours.graph == theirs.graph, "node for node, weight for weight"
    assert path.stat().st_size == (tmp_path / "plain.onnx").stat().st_size


def test_cost_is_that_of_the_network(exported: Exported) -> None:
    net, _, cost = exported
    assert cost.parameters == sum(p.numel() for p in net.deploy().parameters())
    # The head: 3x3 convolution from 16 channels to the classes at every pixel.
    head = 64 * 96 * 9 * 16 * CAMVID.num_classes
    assert head < cost.macs < 100 * head


def test_interface_and_metadata(exported: Exported) -> None:
    _, path, _ = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (image,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type) == ("normalized_image", "tensor(float)")
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
    assert json.loads(metadata["stride"]) == 32
    assert json.loads(metadata["score"])["miou"] == 0.5
    assert json.loads(metadata["network"])["arch"] == "unet"
    assert "RGB / 255, minus mean, divided by std" in metadata["input_description"]
    assert session.get_modelmeta().producer_name == "segdistill"


# ---- other graphs of one network


@pytest.fixture(scope="module")
def net() -> MultiBranchNet:
    return make_net("resnet18").eval()


def image_graph(net: nn.Module, **changes: Any) -> ImageGraph:
    values: dict[str, Any] = {"fit": "resize", "layout": "nhwc", "confidence": True, "size": (64, 96)}
    return ImageGraph(net, normalisation=NORMALISATION, stride=32, **(values | changes))


@pytest.fixture(scope="module")
def image_file(net: MultiBranchNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "image.onnx"
    description = described(input="image", layout="nhwc", fit="resize", confidence=True)
    export_onnx(path, image_graph(net.deploy()), description, Interface(opset=20, simplify=True))
    return path


def photos(*shape: int) -> Tensor:
    """Smooth uint8 images, (B, H, W, 3)."""
    coarse = torch.rand(shape[0], 3, 6, 8, generator=torch.Generator().manual_seed(3))
    smooth = nn.functional.interpolate(coarse, size=shape[1:], mode="bicubic").clamp(0, 1)
    return (255 * smooth).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@pytest.mark.parametrize("shape", [(1, 64, 96), (2, 131, 200), (3, 40, 50)])
def test_an_image_graph_does_all_the_work(
    net: MultiBranchNet, image_file: Path, shape: tuple[int, ...]
) -> None:
    images = photos(*shape)
    out = OnnxFile(image_file).run(images.numpy())
    # By hand, with OpenCV and plain torch.
    mean, std = (torch.tensor(one).reshape(3, 1, 1) for one in (NORMALISATION.mean, NORMALISATION.std))
    with torch.no_grad():
        how = cv2.INTER_AREA if shape[1] > 64 else cv2.INTER_LINEAR
        smaller = [cv2.resize(one.numpy().astype(np.float32), (96, 64), interpolation=how) for one in images]
        resized = torch.from_numpy(np.stack(smaller)).permute(0, 3, 1, 2) / 255
        logits = nn.functional.interpolate(net.deploy()((resized - mean) / std), shape[1:], mode="bilinear")
    assert out["class_index"].shape == shape
    assert out["class_index"].dtype == "uint8"
    assert (torch.from_numpy(out["class_index"]) == logits.argmax(1)).float().mean() >= 0.9999
    assert len(logits.argmax(1).unique()) > 1
    confidence = torch.from_numpy(out["confidence"])
    torch.testing.assert_close(confidence, logits.softmax(1).amax(1), rtol=0, atol=1e-4)


# With random weights logits are close; OpenVINO's antialiased resize rounds differently.
@pytest.mark.parametrize(("size", "share"), [((64, 96), 0.9999), ((120, 160), 0.999)])
def test_openvino_reads_the_same_file(image_file: Path, size: tuple[int, int], share: float) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is a development extra")
    images = photos(1, *size).numpy()
    expected = OnnxFile(image_file).run(images)["class_index"]
    compiled = openvino.Core().compile_model(str(image_file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert (compiled(images)["class_index"] == expected).mean() >= share


def test_fixed_shapes_and_padding(net: MultiBranchNet, tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    description = described(input="image", layout="nchw", fit="pad")
    graph = image_graph(net.deploy(), layout="nchw", fit="pad", confidence=False)
    export_onnx(path, graph, description, Interface(batch=1, size=(50, 70)))
    file = OnnxFile(path)
    assert (file.fixed_batch, file.fixed_size) == (1, (50, 70))
    images = photos(1, 50, 70).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        (expected,) = graph(images)
    assert (file.run(images.numpy())["class_index"] == expected.numpy()).mean() >= 0.9999
    assert file.predict(photos(1, 100, 140)[0].numpy()).classes.shape == (100, 140)


def test_a_branch_is_a_smaller_network(net: MultiBranchNet, tmp_path: Path) -> None:
    stream = BranchStream(net, "branch3")
    cost = export_onnx(
        tmp_path / "branch3.onnx", TensorGraph(stream, stride=32), described(stream="branch3"), Interface()
    )
    branch = net.branches["branch3"]
    encoder = net.primary.encoder
    parts = (encoder.conv1, encoder.bn1, encoder.layer1, encoder.layer2, branch)
    assert cost.parameters == sum(p.numel() for part in parts for p in part.parameters())
    model = onnx.load(str(tmp_path / "branch3.onnx"))
    names = " ".join(one.name for one in model.graph.initializer)
    assert "branch3" in names
    assert not [part for part in ("branch4", "branch5", "primary.decoder", "layer3") if part in names]
    images = torch.randn(1, 3, 64, 96)
    logits = OnnxFile(tmp_path / "branch3.onnx").run(images.numpy())["logits"]
    with torch.no_grad():
        expected = nn.functional.interpolate(net(images).branches["branch3"], (64, 96), mode="bilinear")
    assert (torch.from_numpy(logits) - expected).abs().max() <= LIMITS["fp32"].logit_difference


@pytest.mark.parametrize(
    ("size", "counted", "padded"),
    [(None, None, (64, 96)), (None, (90, 110), (96, 128)), ((50, 70), (90, 110), (64, 96))],
)
def test_macs_are_counted_at_the_size_that_is_asked_for(
    size: tuple[int, int] | None, counted: tuple[int, int] | None, padded: tuple[int, int], tmp_path: Path
) -> None:
    """Of an input of any size, that is; the network sees it padded to the stride."""
    graph = image_graph(nn.Conv2d(3, 11, 1), fit="pad", confidence=False)
    description = described(input="image", layout="nhwc", fit="pad")
    cost = export_onnx(tmp_path / "a.onnx", graph, description, Interface(size=size), counted=counted)
    assert cost.macs == padded[0] * padded[1] * 3 * 11


# ---- without an export


@pytest.mark.parametrize("opset", [17, 99])
def test_an_opset_that_cannot_be_written_is_told(opset: int, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=rf"opset {opset} cannot be written; choose one of 18 to \d+"):
        export_onnx(tmp_path / "model.onnx", nn.Identity(), described(), Interface(opset=opset))


def test_what_torch_cannot_export_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any, **_keywords: Any) -> None:
        try:
            raise RuntimeError("\x1b[96mno symbolic for this\x1b[0m\nand a page more")
        except RuntimeError as error:
            raise ValueError("this is step 3/3 of exporting") from error

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(ExportError, match=r"'unet' to ONNX opset 18: RuntimeError: no symbolic for this$"):
        export_onnx(tmp_path / "model.onnx", nn.Identity(), described(), Interface())
    assert list(tmp_path.iterdir()) == []


def test_lack_of_memory_is_no_reason_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("export failed") from RuntimeError("DefaultCPUAllocator: can't allocate memory")

    def without_cause(*_: object, **__: object) -> None:
        raise MemoryError

    for end in (refuse, without_cause):
        monkeypatch.setattr(torch.onnx, "export", end)
        with pytest.raises((MemoryError, RuntimeError)):
            export_onnx(
                tmp_path / "n.onnx", TensorGraph(nn.Conv2d(3, 11, 1), stride=32), described(), Interface()
            )


def test_a_failed_save_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_model: Any, path: str, **_keywords: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    save = onnx.save
    (tmp_path / "model.onnx").write_bytes(b"the old one")
    monkeypatch.setattr(
        onnx,
        "save",
        lambda model, path, **keywords: (fail if Path(path).parent == tmp_path else save)(
            model, path, **keywords
        ),
    )
    graph = TensorGraph(nn.Conv2d(3, 4, 3, padding=1), stride=32)
    with pytest.raises(OSError, match="no space left"):
        export_onnx(tmp_path / "model.onnx", graph, described(), Interface())
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"the old one"


def graph_with_an_if() -> onnx.GraphProto:
    """y = x + used, or x + inner, as `flag` says; both weights are read by a graph inside the node."""
    tensor = onnx.TensorProto
    one = np.ones(1, np.float32)
    branches = {
        f"{name}_branch": onnx.helper.make_graph(
            [onnx.helper.make_node("Add", ["x", weight], [f"{name}_sum"])],
            name,
            [],
            [onnx.helper.make_tensor_value_info(f"{name}_sum", tensor.FLOAT, [1])],
        )
        for name, weight in (("then", "used"), ("else", "inner"))
    }
    return onnx.helper.make_graph(
        [onnx.helper.make_node("If", ["flag"], ["y"], **branches)],
        "tiny",
        [
            onnx.helper.make_tensor_value_info("x", tensor.FLOAT, [1]),
            onnx.helper.make_tensor_value_info("flag", tensor.BOOL, []),
        ],
        [onnx.helper.make_tensor_value_info("y", tensor.FLOAT, [1])],
        [onnx.numpy_helper.from_array(one, name) for name in ("used", "inner")],
    )


def test_weights_that_lead_to_no_output_are_refused() -> None:
    graph = graph_with_an_if()
    refuse_idle_weights(graph)
    graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "foreign"))
    graph.node.append(onnx.helper.make_node("Add", ["x", "foreign"], ["nowhere"]))
    with pytest.raises(ExportError, match=r"1 tensors that no output depends on \(foreign\)"):
        refuse_idle_weights(graph)
