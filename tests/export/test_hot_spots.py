"""Where a file's time goes, on a network whose second layer has almost all the work."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segdistill.export.hot_spots import hot_spots


def test_the_heavy_layer_is_named(tmp_path: Path) -> None:
    light, heavy = np.ones((64, 256), np.float32), np.ones((256, 1024), np.float32)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [512, 64])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [512, 1024])
    nodes = [
        helper.make_node("MatMul", ["image", "network.stem.weight"], ["features"], "first"),
        helper.make_node("MatMul", ["features", "core.network.decoder.0.weight"], ["logits"], "second"),
    ]
    weights = [
        numpy_helper.from_array(light, "network.stem.weight"),
        numpy_helper.from_array(heavy, "core.network.decoder.0.weight"),
    ]
    graph = helper.make_graph(nodes, "two", [image], [logits], weights)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    spots = hot_spots(path, {"image": np.ones((512, 64), np.float32)})
    assert sum(spots.operations.values()) == pytest.approx(1)
    assert next(iter(spots.operations)) == "MatMul"
    assert list(tmp_path.iterdir()) == [path], "the profile is taken away"
    assert list(spots.layers) == ["decoder.0", "stem"], "by the paths of their weights, the heavier first"
    assert spots.layers["decoder.0"] > 0.6  # 16 times the products of the other
