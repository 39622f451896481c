"""Networks of a moment, as the files that the program reads: nothing is trained or exported."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from networks import NORMALISATION, described
from torch import nn

from segdistill.data.taxonomy import CAMVID, Taxonomy
from segdistill.export.description import LOGITS, NORMALIZED_IMAGE
from segdistill.export.weights import Deployed, save_deployed

TAXONOMY = Taxonomy(("ground", "thing", "sky"), ((10, 20, 30), (200, 100, 0), (0, 128, 255)), 255)


def convolution(classes: int = 3) -> nn.Conv2d:
    """3 colours to 3 classes, 3x3 pixels: sees where it is put and how it is fed."""
    torch.manual_seed(0)
    return nn.Conv2d(3, classes, 3, padding=1).requires_grad_(False)


def write_onnx(path: Path, network: nn.Conv2d, *, size: tuple[int, int], **said: Any) -> Path:
    """The convolution as a `tensor` file of segdistill for images of any size; `said` goes into its description."""
    assert network.bias is not None
    arrays = {"weight": network.weight.numpy(), "bias": network.bias.numpy()}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", [NORMALIZED_IMAGE, *arrays], [LOGITS], pads=[1, 1, 1, 1])],
        "tiny",
        [onnx.helper.make_tensor_value_info(NORMALIZED_IMAGE, 1, ["batch", 3, "height", "width"])],
        [onnx.helper.make_tensor_value_info(LOGITS, 1, ["batch", network.out_channels, "height", "width"])],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    description = described(**({"taxonomy": TAXONOMY, "size": size} | said))
    onnx.helper.set_model_props(model, description.to_metadata())
    onnx.save(model, str(path))
    return path


def write_deployed(path: Path, *, size: tuple[int, int], taxonomy: Taxonomy = CAMVID) -> nn.Module:
    """`primary.safetensors` of a U-Net with random weights, which is returned."""
    torch.manual_seed(0)
    keywords = {
        "encoder_name": "tu-test_efficientnet",
        "encoder_weights": None,
        "classes": taxonomy.num_classes,
        "decoder_channels": [32, 24, 16, 12, 8],
    }
    deployed = Deployed("unet", keywords, taxonomy, NORMALISATION, size, 32)
    network = deployed.rebuild().eval()
    save_deployed(path, network, deployed)
    return network
