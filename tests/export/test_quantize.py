"""int8 against the arithmetic of quantisation, ONNX Runtime's own kernels, and a network with a known weak spot."""

import platform
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import GraphProto, TensorProto
from torch import Tensor, nn
from torch.nn import functional as F

from segdistill.errors import ExportError
from segdistill.export import int8_graph, quantize
from segdistill.export.description import Calibration
from segdistill.export.quantize import Quantizer, needs_reduce_range
from segdistill.export.ranges import Feed
from segdistill.export.sensitivity import Outcome, Sensitivity, compared, quantize_within, sensitivity

CLASSES = 5


def conv(inputs: int, outputs: int, **keywords: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, **keywords), nn.ReLU())


class Net(nn.Module):
    """A small U-Net with a depthwise convolution, for sizes that need not be even."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.ModuleList([conv(3, 16), conv(16, 32, stride=2), conv(32, 32, groups=32)])
        self.decoder = nn.ModuleList([conv(48, 24), conv(24, 16)])
        self.head = nn.Conv2d(16, CLASSES, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        skip = self.encoder[0](image)
        deep = self.encoder[2](self.encoder[1](skip))
        larger = F.interpolate(deep, size=skip.shape[-2:], mode="nearest")
        logits: Tensor = self.head(self.decoder[1](self.decoder[0](torch.cat([larger, skip], 1))))
        return logits


class ImageNet(nn.Module):
    """The network with the work on images around it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, rgb: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, H, W) uint8"""
        image = (rgb.permute(0, 3, 1, 2).float() - 127.5) / 64
        logits = self.net(F.interpolate(image, size=(24, 32), mode="bilinear"))
        return F.interpolate(logits, size=rgb.shape[1:3], mode="bilinear").argmax(1).to(torch.uint8)


GROUPS = ("encoder.0", "encoder.1", "encoder.2", "decoder.0", "decoder.1", "head")


def export(path: Path, net: nn.Module, example: Tensor, *, rows: int) -> Path:
    dynamic = {0: "batch", rows: "height", rows + 1: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net.eval(),
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=18,
            input_names=["picture"],
            output_names=["answer"],
            dynamic_shapes=(dynamic,),
        )
    assert program is not None
    program.save(str(path), external_data=False)
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {"task": "semantic segmentation", "arch": "tiny"})
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def network() -> Net:
    return Net().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tensor_file(tmp_path_factory: pytest.TempPathFactory, network: Net) -> Path:
    return export(tmp_path_factory.mktemp("tensor") / "fp32.onnx", network, torch.zeros(2, 3, 24, 32), rows=2)


@pytest.fixture(scope="module")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    example = torch.zeros(2, 40, 56, 3, dtype=torch.uint8)
    return export(tmp_path_factory.mktemp("image") / "fp32.onnx", ImageNet(), example, rows=1)


def smooth(count: int, *, height: int = 24, width: int = 32) -> np.ndarray:
    """(count, 3, height, width) float32 noise that looks like an image: large patches."""
    coarse = torch.randn(count, 3, 6, 8, generator=torch.Generator().manual_seed(count))
    return F.interpolate(coarse, size=(height, width), mode="bicubic").numpy()


def feeds(count: int) -> list[Feed]:
    return [{"picture": one[None]} for one in smooth(count)]


def pictures(count: int) -> list[Feed]:
    images = np.clip(127.5 + 64 * smooth(count, height=41, width=57), 0, 255).astype(np.uint8)
    return [{"picture": np.ascontiguousarray(one.transpose(1, 2, 0))[None]} for one in images]


@pytest.fixture(scope="module")
def quantizer(tensor_file: Path) -> Quantizer:
    return Quantizer(tensor_file, feeds(4), method="minmax")


def run(path: Path, feed: Feed) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, dict(feed))[0]


def equal_argmax(path: Path, other: Path, images: list[Feed]) -> float:
    return float(np.mean([run(path, one).argmax(1) == run(other, one).argmax(1) for one in images]))


def weight_of(graph: GraphProto, parameter: str) -> tuple[np.ndarray, np.ndarray | None]:
    """A convolution's weight as it is stored and, if it is int8, the scale of every channel."""
    tensors = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    (used,) = (n.input[1] for n in graph.node if n.op_type == "Conv" and n.input[1].startswith(parameter))
    if used in tensors:
        return tensors[used], None
    dequantize = makers[used]
    assert onnx.helper.get_attribute_value(dequantize.attribute[0]) == 0  # the axis
    assert not tensors[dequantize.input[2]].any()  # symmetric
    return tensors[dequantize.input[0]], tensors[dequantize.input[1]]


# ---- the file


@pytest.mark.parametrize(("reduce_range", "largest"), [(False, 127), (True, 64)])
def test_weights_are_int8_per_channel(
    tmp_path: Path, tensor_file: Path, network: Net, reduce_range: bool, largest: int
) -> None:
    Quantizer(tensor_file, feeds(1), method="minmax", reduce_range=reduce_range).write(tmp_path / "int8.onnx")
    graph = onnx.load(str(tmp_path / "int8.onnx")).graph
    for parameter, expected in network.named_parameters():
        if expected.ndim == 1:
            continue
        stored, scale = weight_of(graph, parameter)
        assert stored.dtype == np.int8
        assert scale is not None
        channels = len(expected)
        # The scale is that of the channel's largest weight.
        peaks = expected.abs().amax((1, 2, 3)).numpy()
        np.testing.assert_allclose(scale[:channels], peaks / largest, rtol=0.01)
        assert np.abs(stored).max() == largest
        restored = stored[:channels] * scale[:channels, None, None, None]
        assert (np.abs(restored - expected.numpy()) <= 0.51 * scale[:channels, None, None, None]).all()
        assert not stored[channels:].any()


def test_groups_are_the_blocks_of_the_network(quantizer: Quantizer) -> None:
    assert tuple(quantizer.groups) == GROUPS
    nodes = [name for names in quantizer.groups.values() for name in names]
    assert len(nodes) == len(set(nodes))


def test_groups_stay_in_float(tmp_path: Path, quantizer: Quantizer, network: Net) -> None:
    quantizer.write(tmp_path / "int8.onnx", keep_float=["encoder.1", "head"])
    graph = onnx.load(str(tmp_path / "int8.onnx")).graph
    kept = {
        parameter
        for parameter, _ in network.named_parameters()
        if parameter.startswith(("encoder.1", "head"))
    }
    for parameter, expected in network.named_parameters():
        if expected.ndim == 1:
            continue
        stored, _ = weight_of(graph, parameter)
        assert stored.dtype == (np.float32 if parameter in kept else np.int8), parameter
        if parameter in kept:
            np.testing.assert_array_equal(stored[: len(expected)], expected.numpy())
    with pytest.raises(ExportError, match=r"no layer group neck; there are encoder\.0, encoder\.1"):
        quantizer.write(tmp_path / "other.onnx", keep_float=["neck"])
    assert not (tmp_path / "other.onnx").exists()


def test_all_groups_in_float_compute_what_the_source_computes(
    tmp_path: Path, quantizer: Quantizer, network: Net
) -> None:
    """Wider convolutions and copied rows change nothing, at any size and batch."""
    quantizer.write(tmp_path / "float.onnx", keep_float=quantizer.groups)
    graph = onnx.load(str(tmp_path / "float.onnx")).graph
    assert "QuantizeLinear" not in {node.op_type for node in graph.node}
    assert "Resize" not in {node.op_type for node in graph.node}
    for batch, height, width in [(1, 24, 32), (2, 23, 31), (3, 7, 10)]:
        images = torch.from_numpy(smooth(batch, height=height, width=width))
        expected = network(images).numpy()
        assert expected.std() > 0.01
        np.testing.assert_allclose(
            run(tmp_path / "float.onnx", {"picture": images.numpy()}), expected, atol=1e-5
        )


def test_every_convolution_runs_in_int8(tmp_path: Path, quantizer: Quantizer) -> None:
    quantizer.write(tmp_path / "int8.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(tmp_path / "int8.onnx"), options, providers=["CPUExecutionProvider"])
    ops = [node.op_type for node in onnx.load(str(tmp_path / "optimized.onnx")).graph.node]
    assert ops.count("QLinearConv") == 6
    assert ops.count("QLinearConcat") == 1
    # In at the beginning, out at the end, nothing between: not even for the sizes of maps.
    assert ops.count("QuantizeLinear") == ops.count("DequantizeLinear") == 1
    assert not {"Conv", "FusedConv", "Relu", "Clip", "Resize"}.intersection(ops)


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_classes_stay_what_they_were(tmp_path: Path, tensor_file: Path, method: Calibration) -> None:
    Quantizer(tensor_file, feeds(6), method=method).write(tmp_path / "int8.onnx")
    assert 0.9 < equal_argmax(tensor_file, tmp_path / "int8.onnx", feeds(3)) < 1


def test_image_file(tmp_path: Path, image_file: Path) -> None:
    quantizer = Quantizer(image_file, pictures(4), method="minmax")
    assert tuple(quantizer.groups) == GROUPS
    quantizer.write(tmp_path / "int8.onnx")
    before, after = onnx.load(str(image_file)), onnx.load(str(tmp_path / "int8.onnx"))
    # Images and logits are resized in float.
    assert [node.op_type for node in after.graph.node].count("Resize") == 2
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    assert list(after.opset_import) == list(before.opset_import)
    assert list(after.metadata_props) == list(before.metadata_props)
    assert (after.producer_name, after.ir_version) == (before.producer_name, before.ir_version)
    assert {one.data_location for one in after.graph.initializer} == {TensorProto.DEFAULT}
    assert [one.name for one in tmp_path.iterdir()] == ["int8.onnx"]
    classes = [(run(image_file, one), run(tmp_path / "int8.onnx", one)) for one in pictures(3)]
    assert all(theirs.dtype == np.uint8 and theirs.shape == (1, 41, 57) for _, theirs in classes)
    assert np.mean([ours == theirs for ours, theirs in classes]) > 0.9
    # Classes alone have no signal and no noise.
    assert all(one.sqnr_db is None for one in sensitivity(quantizer, pictures(2)))


@pytest.mark.parametrize("factor", [None, 2, 3, 1.5])
def test_copying_is_nearest_neighbour(tmp_path: Path, factor: float | None) -> None:
    """To any size, or by whole factors; others stay as they are."""
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
    network (float[1, 8, h, w] x{"" if factor else ", int64[4] sizes"}) => (float[1, 8, H, W] y) {{
        a = Conv (x, eye)
        b = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">
            ({"a, , factors" if factor else "a, , , sizes"})
        y = Conv (b, eye)
    }}"""
    model = onnx.parser.parse_model(text)
    tensors = {"eye": np.eye(8, dtype=np.float32)[:, :, None, None]}
    if factor:
        tensors["factors"] = np.array([1, 1, factor, factor], np.float32)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()
    )
    onnx.save(model, str(tmp_path / "fp32.onnx"))
    values = np.random.default_rng(0).standard_normal((1, 8, 5, 7)).astype(np.float32)
    size = None if factor else (13, 9)
    feed = {"x": values} | ({"sizes": np.array([1, 8, *size], np.int64)} if size else {})
    quantizer = Quantizer(tmp_path / "fp32.onnx", [feed], method="minmax")
    quantizer.write(tmp_path / "float.onnx", keep_float=quantizer.groups)
    copied = "Resize" not in {node.op_type for node in onnx.load(str(tmp_path / "float.onnx")).graph.node}
    assert copied is (factor != 1.5)
    expected = F.interpolate(torch.from_numpy(values), size=size, scale_factor=factor, mode="nearest").numpy()
    np.testing.assert_array_equal(run(tmp_path / "float.onnx", feed), expected)


# ---- calibration


def test_ranges_are_those_of_the_network(tensor_file: Path, network: Net) -> None:
    images = feeds(3)
    ranges = Quantizer(tensor_file, images, method="minmax").ranges
    batch = np.concatenate([one["picture"] for one in images])
    assert ranges["picture"] == (batch.min(), batch.max())
    answers = network(torch.from_numpy(batch)).numpy()
    assert answers.min() < 0 < answers.max()
    assert ranges["answer"] == pytest.approx((answers.min(), answers.max()), rel=1e-4)


def test_images_that_make_the_network_fail_are_told(tensor_file: Path) -> None:
    broken = {"picture": np.full((1, 3, 24, 32), np.nan, np.float32)}
    with pytest.raises(ExportError, match="NaN or infinity on calibration image 3 "):
        Quantizer(tensor_file, [*feeds(2), broken], method="minmax")


def test_what_onnx_runtime_cannot_prepare_is_told(tensor_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_keywords: object) -> None:
        raise RuntimeError("no such operator\nand a page more")

    monkeypatch.setattr(int8_graph, "quant_pre_process", refuse)
    with pytest.raises(ExportError, match=r"^wanted: .* cannot prepare it for int8 \(no such operator\)$"):
        Quantizer(tensor_file, feeds(1), method="minmax", name=Path("wanted"))


# ---- which layers hurt


@pytest.fixture(scope="module")
def weak_spot(tmp_path_factory: pytest.TempPathFactory, network: Net) -> Quantizer:
    """The network with a channel of `decoder.0` a thousand times as large, and its readers' weights as much smaller.

    In float it computes the same. In int8 one scale has to serve all channels of that map.
    """
    weak = Net()
    weak.load_state_dict(network.state_dict())
    with torch.no_grad():
        weak.decoder[0][0].weight[5] *= 1000
        weak.decoder[0][0].bias[5] *= 1000
        weak.decoder[1][0].weight[:, 5] /= 1000
    path = tmp_path_factory.mktemp("weak") / "fp32.onnx"
    export(path, weak, torch.zeros(2, 3, 24, 32), rows=2)
    # As export does: without VNNI sums of 8-bit weights saturate, which would be a weak spot of its own.
    return Quantizer(path, feeds(4), method="minmax", reduce_range=needs_reduce_range())


def test_the_scan_finds_the_weak_spot(weak_spot: Quantizer, quantizer: Quantizer) -> None:
    found = sensitivity(weak_spot, feeds(2))
    assert {one.group for one in found} == set(GROUPS)
    # Quantising either side of the map is enough to spoil it.
    assert {found[0].group, found[1].group} == {"decoder.0", "decoder.1"}
    assert found[1].equal_argmax < 0.9 < found[2].equal_argmax
    assert [one.equal_argmax for one in found] == sorted(one.equal_argmax for one in found)
    assert all(one.sqnr_db is not None and one.sqnr_db > 25 for one in sensitivity(quantizer, feeds(2)))


def test_noise_is_measured_in_decibels() -> None:
    signal = np.array([3.0, -4.0, 12.0, 0.0], np.float32).reshape(1, 2, 1, 2)
    noisy = signal + np.array([0.0, 1.3, 0.0, 0.0], np.float32).reshape(1, 2, 1, 2)
    # 10 log10(169 / 1.69); channels (3, 12) and (-4, 0) keep their order.
    assert compared("one", [signal], [noisy]) == Sensitivity("one", 1.0, pytest.approx(20, abs=1e-4))
    assert compared("one", [signal], [signal]).sqnr_db == np.inf
    classes = np.array([[[1, 2, 3, 4]]], np.uint8)
    assert compared("one", [classes], [classes // 2 * 2]) == Sensitivity("one", 0.5, None)


def test_layers_stay_in_float_until_the_limit_holds(tmp_path: Path, weak_spot: Quantizer) -> None:
    target, images = tmp_path / "int8.onnx", feeds(3)

    def score(path: Path) -> float:
        assert not target.exists()
        return equal_argmax(weak_spot.source, path, images)

    outcome = quantize_within(weak_spot, target, images, score=score, reference=1.0, limit=0.05)
    assert set(outcome.kept_float) == {"decoder.0", "decoder.1"}
    assert outcome.kept_float == tuple(one.group for one in outcome.sensitivities[:2])
    assert [one.name for one in tmp_path.iterdir()] == ["int8.onnx"]
    assert outcome.score == equal_argmax(weak_spot.source, target, images) >= 0.95
    graph = onnx.load(str(target)).graph
    assert weight_of(graph, "decoder.0")[0].dtype == np.float32
    assert weight_of(graph, "encoder.1")[0].dtype == np.int8


def test_nothing_is_scanned_if_the_limit_holds_at_once(tmp_path: Path, quantizer: Quantizer) -> None:
    scores = iter([0.595])
    outcome = quantize_within(
        quantizer, tmp_path / "int8.onnx", [], score=lambda _: next(scores), reference=0.6, limit=0.01
    )
    assert outcome == Outcome(0.595, (), ())


def test_a_limit_that_cannot_be_kept_is_told(tmp_path: Path, tensor_file: Path) -> None:
    quantizer = Quantizer(tensor_file, feeds(1), method="minmax", name=Path("wanted"))
    scores = iter([0.2, 0.3, 0.4, 0.45, 0.46, 0.47])
    with pytest.raises(
        ExportError,
        match=r"^wanted: int8 scores 0\.2000, .*0\.4700 with 0 to 5 of 6 layer groups in float, .* 0\.0100 of 0\.6000",
    ):
        quantize_within(
            quantizer,
            tmp_path / "int8.onnx",
            feeds(1),
            score=lambda _: next(scores),
            reference=0.6,
            limit=0.01,
        )
    assert list(tmp_path.iterdir()) == []


# ---- the CPU


@pytest.mark.parametrize(
    ("machine", "flags", "needed"),
    [
        ("x86_64", "fpu avx2 avx512f", True),
        ("x86_64", "fpu avx2 avx512f avx512_vnni", False),
        ("AMD64", "fpu avx2 avx_vnni", False),
        ("x86_64", None, True),
        ("aarch64", "fp asimd", False),
    ],
)
def test_reduce_range_where_sums_saturate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, flags: str | None, needed: bool
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(quantize, "CPUINFO", tmp_path / "cpuinfo")
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: spectre_v1\n")
    assert needs_reduce_range() is needed
