"""fp16 against hand-made weights and the fp32 file; the graphs are written out, not exported."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto

from segdistill.errors import ExportError
from segdistill.export import half
from segdistill.export.half import to_half
from segdistill.export.onnx_graph import network_nodes

HEADER = '<ir_version: 9, opset_import: ["" : 18], producer_name: "segdistill", producer_version: "1.2">'
TENSOR = (
    HEADER
    + """
network (float[batch, 3, height, width] normalized_image) => (float[batch, 5, height, width] logits) {
    first = Conv <pads = [1, 1, 1, 1]> (normalized_image, stem)
    active = Relu (first)
    shape = Shape (active)
    larger = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">
        (active, , , shape)
    logits = Conv (larger, head)
}"""
)
IMAGE = (
    HEADER
    + """
network (uint8[batch, height, width, 3] rgb_image)
    => (uint8[batch, height, width] class_index, float[batch, height, width] confidence) {
    channels_first = Transpose <perm = [0, 3, 1, 2]> (rgb_image)
    image = Cast <to = 1> (channels_first)
    centred = Sub (image, mean)
    normalized = Div (centred, std)
    first = Conv <pads = [1, 1, 1, 1]> (normalized, stem)
    active = Relu (first)
    small_logits = Conv (active, head)
    shape = Shape (small_logits)
    logits = Resize <mode = "linear"> (small_logits, , , shape)
    largest = ArgMax <axis = 1, keepdims = 0> (logits)
    class_index = Cast <to = 2> (largest)
    shares = Softmax <axis = 1> (logits)
    confidence = ReduceMax <keepdims = 0> (shares, channels)
}"""
)


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "stem": rng.standard_normal((16, 3, 3, 3)).astype(np.float32),
        "head": rng.standard_normal((5, 16, 1, 1)).astype(np.float32),
        "mean": np.full((3, 1, 1), 127.5, np.float32),
        "std": np.full((3, 1, 1), 58.4, np.float32),
        "channels": np.array([1], np.int64),
    }


def write(path: Path, text: str, **tensors: np.ndarray) -> Path:
    model = onnx.parser.parse_model(text)
    for node in model.graph.node:
        node.name = ""  # converters know nodes by name, and not every file has names
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name)
        for name, array in (weights() | tensors).items()
        if name in used
    )
    onnx.helper.set_model_props(model, {"task": "semantic segmentation", "size": "[4, 6]"})
    onnx.save(model, str(path))
    return path


def photos(text: str) -> list[np.ndarray]:
    """Two batches as the graph takes them."""
    if text == IMAGE:
        return [np.full((1, 16, 16, 3), value, np.uint8) for value in (7, 255)]
    return [np.full((1, 3, 16, 16), value, np.float32) for value in (0.5, 2)]


def run(path: Path, batch: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    return session.run(None, {image.name: batch})


def types(model: ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def casts(model: ModelProto) -> list[int]:
    return [node.attribute[0].i for node in model.graph.node if node.op_type == "Cast"]


@pytest.mark.parametrize("text", [TENSOR, IMAGE])
def test_interface_and_metadata_survive(tmp_path: Path, text: str) -> None:
    source, target = write(tmp_path / "fp32.onnx", text), tmp_path / "fp16.onnx"
    to_half(source, target, photos(text))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["fp16.onnx", "fp32.onnx"]
    before, after = onnx.load(str(source)), onnx.load(str(target), load_external_data=False)
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    assert list(after.opset_import) == list(before.opset_import)
    assert list(after.metadata_props) == list(before.metadata_props)
    assert (after.producer_name, after.producer_version) == ("segdistill", "1.2")
    assert after.ir_version == 9
    onnx.checker.check_model(after, full_check=True)


def test_weights_take_half_the_bytes(tmp_path: Path) -> None:
    large = np.random.default_rng(0).standard_normal((512, 3, 9, 9)).astype(np.float32)
    source = write(tmp_path / "fp32.onnx", TENSOR, stem=large, head=np.ones((5, 512, 1, 1), np.float32))
    to_half(source, tmp_path / "fp16.onnx", photos(TENSOR))
    assert (tmp_path / "fp16.onnx").stat().st_size < 0.51 * source.stat().st_size
    model = onnx.load(str(tmp_path / "fp16.onnx"))
    assert types(model) == {"stem": TensorProto.FLOAT16, "head": TensorProto.FLOAT16}


def test_weights_are_rounded_to_eleven_bits(tmp_path: Path) -> None:
    """1 + 2^-12 is nearer to 1 than to the next fp16 number, 1 + 2^-10."""
    stem = np.zeros((16, 3, 3, 3), np.float32)
    stem[0, 0, 1, 1] = 1 + 2**-12
    head = np.zeros((5, 16, 1, 1), np.float32)
    head[2, 0] = 1
    source = write(tmp_path / "fp32.onnx", TENSOR, stem=stem, head=head)
    to_half(source, tmp_path / "fp16.onnx", photos(TENSOR))
    images = np.zeros((2, 3, 4, 6), np.float32)
    images[:, 0] = 3
    expected = np.zeros((2, 5, 4, 6), np.float32)
    expected[:, 2] = 3
    np.testing.assert_array_equal(run(tmp_path / "fp16.onnx", images)[0], expected)
    assert run(source, images)[0].max() > 3


def test_work_on_images_stays_in_single_precision(tmp_path: Path) -> None:
    source, target = write(tmp_path / "fp32.onnx", IMAGE), tmp_path / "fp16.onnx"
    to_half(source, target, photos(IMAGE))
    model = onnx.load(str(target))
    assert types(model) == {
        "mean": TensorProto.FLOAT,
        "std": TensorProto.FLOAT,
        "channels": TensorProto.INT64,
        "stem": TensorProto.FLOAT16,
        "head": TensorProto.FLOAT16,
    }
    # uint8 to float, into the network, out of it, classes to uint8: nothing is rounded on the way to the argmax.
    assert casts(model) == [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.UINT8]

    images = np.random.default_rng(1).integers(0, 256, (2, 24, 32, 3), np.uint8)
    (classes, confidence), (expected, expected_confidence) = run(target, images), run(source, images)
    assert classes.dtype == np.uint8
    assert len(np.unique(expected)) == 5
    assert (classes == expected).mean() >= 0.99
    assert 0 < np.abs(confidence - expected_confidence).max() < 0.02


def test_the_network_is_what_lies_between_its_weights() -> None:
    model = onnx.parser.parse_model(IMAGE)
    for node in model.graph.node:
        node.name = node.output[0]
    assert network_nodes(model.graph) == {"first", "active", "small_logits"}


@pytest.mark.parametrize("value", [1e5, -1e5, np.inf, np.nan])
def test_weights_beyond_the_range_are_told(tmp_path: Path, value: float) -> None:
    stem = np.ones((16, 3, 3, 3), np.float32)
    stem[3, 1] = value
    source = write(tmp_path / "fp32.onnx", TENSOR, stem=stem)
    with pytest.raises(ExportError, match=rf"^wanted: stem has a value of {value:.3g}".replace("+", r"\+")):
        to_half(source, tmp_path / "fp16.onnx", photos(TENSOR), name=Path("wanted"))
    assert [one.name for one in tmp_path.iterdir()] == ["fp32.onnx"]


@pytest.mark.parametrize(("weight", "fits"), [(60000 / 54, True), (70000 / 54, False), (-70000 / 54, False)])
def test_maps_beyond_the_range_are_told(tmp_path: Path, weight: float, fits: bool) -> None:
    """Inside the image a 3x3 sum over three channels of 2 is 54; a head of zeros brings the logits back."""
    stem, head = np.full((16, 3, 3, 3), weight, np.float32), np.zeros((5, 16, 1, 1), np.float32)
    source, target = write(tmp_path / "fp32.onnx", TENSOR, stem=stem, head=head), tmp_path / "fp16.onnx"
    if fits:
        to_half(source, target, photos(TENSOR))
        assert target.exists()
    else:
        with pytest.raises(
            ExportError, match=r"first reaches 7e\+04 on the images .*; export the network in fp32"
        ):
            to_half(source, target, photos(TENSOR))
        assert not target.exists()


def test_a_broken_conversion_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_the_head(model: ModelProto, **_keywords: Any) -> ModelProto:
        del model.graph.node[-1]
        return model

    monkeypatch.setattr(half, "convert_float_to_float16", without_the_head)
    source, target = write(tmp_path / "fp32.onnx", TENSOR), tmp_path / "fp16.onnx"
    target.write_bytes(b"the old one")
    with pytest.raises(ExportError, match=r"fp16\.onnx: ONNX Runtime refuses the converted network"):
        to_half(source, target, photos(TENSOR))
    assert target.read_bytes() == b"the old one"
    assert len(list(tmp_path.iterdir())) == 2
