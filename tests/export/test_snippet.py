"""The printed lines, run where neither segdistill nor torch can be imported."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import described
from onnx import TensorProto, helper
from PIL import Image

from segdistill.export.description import LOGITS, Description
from segdistill.export.onnx_file import OnnxFile
from segdistill.export.snippet import python_snippet

BLOCK = """
import sys
for name in ("segdistill", "torch", "torchvision", "cv2"):
    sys.modules[name] = None  # an import of it fails
"""


def tensor_file(path: Path, *, batch: int | None) -> None:
    """Logits are the normalised colours: the class is the brightest channel."""
    shape = [batch or "batch", 3, "height", "width"]
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("normalized_image", "logits")
    ]
    node = helper.make_node("Identity", ["normalized_image"], ["logits"])
    description = described(size=(20, 30))
    save(path, [node], values, description)


def image_file(
    path: Path,
    *,
    layout: Any,
    batch: int | None,
    confidence: bool = False,
    size: tuple[int, int] | None = None,
) -> None:
    """The class is the brightest channel."""
    first, (h, w) = batch or "batch", size or ("h", "w")
    axis, shape = (1, [first, 3, h, w]) if layout == "nchw" else (3, [first, h, w, 3])
    values = [
        helper.make_tensor_value_info("rgb_image", TensorProto.UINT8, shape),
        helper.make_tensor_value_info("class_index", TensorProto.UINT8, [first, h, w]),
    ]
    nodes = [
        helper.make_node("Cast", ["rgb_image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ArgMax", ["floats"], ["indexes"], axis=axis, keepdims=0),
        helper.make_node("Cast", ["indexes"], ["class_index"], to=TensorProto.UINT8),
    ]
    if confidence:  # half of every pixel's largest value
        values.append(helper.make_tensor_value_info("confidence", TensorProto.FLOAT, [first, h, w]))
        nodes += [
            helper.make_node("Constant", [], ["axis"], value_ints=[axis]),
            helper.make_node("Constant", [], ["half"], value_float=0.5),
            helper.make_node("ReduceMax", ["floats", "axis"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["largest", "half"], ["confidence"]),
        ]
    description = described(input="image", layout=layout, fit="pad", confidence=confidence)
    save(path, nodes, values, description)


def save(path: Path, nodes: list[Any], values: list[Any], description: Description) -> None:
    graph = helper.make_graph(nodes, "brightest", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, description.to_metadata())
    onnx.save(model, str(path))


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("kind", ["tensor", "nchw", "nhwc"])
def test_it_runs_without_the_package(kind: str, batch: int | None, tmp_path: Path) -> None:
    path = tmp_path / "modèle 😀.onnx"
    if kind == "tensor":
        tensor_file(path, batch=batch)
    else:
        image_file(path, layout=kind, batch=batch)
    colours = np.zeros((20, 30, 3), np.uint8)
    colours[:, :10, 0], colours[:, 10:20, 1], colours[:, 20:, 2] = 250, 250, 250
    Image.fromarray(colours).save(tmp_path / "photo.png")
    snippet = python_snippet(OnnxFile(path)).replace("photo.jpg", "photo.png")
    assert len(snippet.splitlines()) <= 15
    classes = classes_of(snippet, tmp_path)
    expected = np.repeat([0, 1, 2], 10)[None].repeat(20, 0)
    assert np.array_equal(classes, expected)
    assert np.array_equal(OnnxFile(path).predict(colours).classes, expected)


def test_the_confidence_is_shown(tmp_path: Path) -> None:
    image_file(tmp_path / "a.onnx", layout="nhwc", batch=None, confidence=True, size=(20, 30))
    colours = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "photo.png")
    snippet = python_snippet(OnnxFile(tmp_path / "a.onnx")).replace("photo.jpg", "photo.png")
    classes, confidence = classes_of(f"{snippet}\nclasses = np.stack([classes, confidence])", tmp_path)
    assert np.array_equal(classes, colours.argmax(2))
    assert np.array_equal(confidence, colours.max(2) / 2)


@pytest.mark.parametrize("times", [(4, 4), (1.365, 1.875), (0.5, 0.5), (0.8, 2.3), (2.3, 0.8), (1, 1)])
def test_a_photo_is_resized_as_it_is_scored(tmp_path: Path, times: tuple[float, float]) -> None:
    tensor_file(tmp_path / "a.onnx", batch=None)
    file = OnnxFile(tmp_path / "a.onnx")
    height, width = file.fixed_size or file.description.size
    shape = (int(times[0] * height), int(times[1] * width), 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    classes = classes_of(python_snippet(file).replace("photo.jpg", "photo.png"), tmp_path)
    expected = file.run(file.batch_of(noise))[LOGITS][0].argmax(0)
    assert (classes == expected).mean() > 0.99  # the two round half a grey level differently


def classes_of(snippet: str, folder: Path) -> np.ndarray:
    """What the lines leave, run in a process that can import neither segdistill nor torch."""
    script = BLOCK + snippet + "\nnp.save('classes.npy', classes)\n"
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, timeout=60)
    return np.load(folder / "classes.npy")


def test_the_readme_has_these_lines(tmp_path: Path) -> None:
    image_file(tmp_path / "primary_image.onnx", layout="nhwc", batch=None)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert f"```python\n{python_snippet(OnnxFile(tmp_path / 'primary_image.onnx'))}\n```" in readme
