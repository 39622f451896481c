"""Every smp architecture as a file: with free shapes where torch can export them, else with fixed ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from networks import ARCHITECTURES, described, with_random_statistics

from segdistill.errors import ExportError
from segdistill.export.check import Check
from segdistill.export.graphs import TensorGraph
from segdistill.export.onnx import Interface, export_onnx
from segdistill.export.onnx_file import OnnxFile
from segdistill.export.parity import compare

#: (encoder, side of the image in pixels); timm's smallest, at 64 pixels, unless it is named here.
SMALLEST = {
    "pspnet": ("resnet18", 64),
    "deeplabv3plus": ("resnet18", 64),
    "pan": ("tu-test_efficientnet", 128),
    "dpt": ("tu-test_vit", 64),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "dpt": {
        "decoder_intermediate_channels": [8, 16, 32, 32],
        "decoder_fusion_channels": 16,
        "dynamic_img_size": True,
    }
}
#: What can be exported for one size of image alone: pooling to a grid is exported for one size of the map.
FIXED_ONLY = ("pspnet", "upernet")


def network(arch: str) -> tuple[TensorGraph, int]:
    encoder, side = SMALLEST.get(arch, ("tu-test_efficientnet", 64))
    torch.manual_seed(0)
    model = smp.create_model(arch, encoder, encoder_weights=None, classes=11, **OPTIONS.get(arch, {}))
    return TensorGraph(with_random_statistics(model).eval(), stride=32), side


def normal(*shape: int) -> np.ndarray:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5)).numpy()


@pytest.mark.parametrize("arch", FIXED_ONLY)
def test_fixed_shapes(arch: str, tmp_path: Path) -> None:
    graph, side = network(arch)
    path = tmp_path / "fixed.onnx"
    export_onnx(path, graph, described(network={"arch": arch}), Interface(1, (side, 2 * side)))
    parity = compare(graph, OnnxFile(path), [normal(1, 3, side, 2 * side)])
    assert Check("fp32", parity).holds, parity


def exported_with_free_shapes(arch: str, path: Path) -> tuple[TensorGraph, list[np.ndarray]]:
    """The graph that the file was made of, and batches of two shapes for both."""
    graph, side = network(arch)
    export_onnx(path, graph, described(size=(side, 2 * side), network={"arch": arch}), Interface())
    return graph, [normal(3, 3, side, 2 * side), normal(1, 3, 2 * side - 3, side + 5)]


@pytest.mark.parametrize("arch", [one for one in ARCHITECTURES if one not in FIXED_ONLY])
def test_free_shapes(arch: str, tmp_path: Path) -> None:
    graph, batches = exported_with_free_shapes(arch, tmp_path / "free.onnx")
    parity = compare(graph, OnnxFile(tmp_path / "free.onnx"), batches)
    assert Check("fp32", parity).holds, parity


def test_free_shapes_that_are_none_are_told(tmp_path: Path) -> None:
    graph, batches = exported_with_free_shapes("upernet", tmp_path / "free.onnx")
    file = OnnxFile(tmp_path / "free.onnx", name=Path("wanted"))
    told = r"^wanted: ONNX Runtime cannot run it on a batch of .* export it with --size HxW"
    with pytest.raises(ExportError, match=told):
        compare(graph, file, batches)
