"""The primary stream as one ONNX file."""

import copy
import json
import logging
import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from segdistill import __version__
from segdistill.errors import ExportError
from segdistill.export.weights import Deployed
from segdistill.files import write_atomically

INPUT, OUTPUT = "image", "logits"
#: torch's exporter writes no older one.
OLDEST_OPSET = 18


class ExportGraph(nn.Module):
    """The deployed network for images of any size: pad to the stride, predict, crop."""

    def __init__(self, primary: nn.Module, *, multiple: int) -> None:
        super().__init__()
        self.primary = primary
        self.multiple = multiple

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) float32, normalised -> (B, C, H, W) logits"""
        height, width = image.shape[-2:]
        rows = (height + self.multiple - 1) // self.multiple * self.multiple
        columns = (width + self.multiple - 1) // self.multiple * self.multiple
        padded = nn.functional.pad(image, (0, columns - width, 0, rows - height))
        return self.primary(padded)[..., :height, :width]


def with_static_padding(module: nn.Module) -> nn.Module:
    """Replace, in place, timm's TensorFlow-style convolutions, which compute their padding from the input's size.

    The graph pads images to the stride, so every such convolution sees a multiple of its own stride and its
    padding is a constant. The file gets simpler, and its export takes seconds: the symbolic arithmetic of
    that padding took torch 2.14 eight minutes for a U-Net.
    """
    for name, child in module.named_children():
        if isinstance(child, Conv2dSame):
            setattr(module, name, _static_same(child))
        else:
            with_static_padding(child)
    return module


def _static_same(conv: Conv2dSame) -> nn.Sequential:
    (kernel_y, kernel_x), (stride_y, stride_x), (dilation_y, dilation_x) = (
        conv.kernel_size,
        conv.stride,
        conv.dilation,
    )
    total_y = max((kernel_y - 1) * dilation_y + 1 - stride_y, 0)
    total_x = max((kernel_x - 1) * dilation_x + 1 - stride_x, 0)
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        (kernel_y, kernel_x),
        (stride_y, stride_x),
        0,
        (dilation_y, dilation_x),
        conv.groups,
        conv.bias is not None,
    )
    plain.weight, plain.bias = conv.weight, conv.bias
    pad = nn.ZeroPad2d((total_x // 2, total_x - total_x // 2, total_y // 2, total_y - total_y // 2))
    return nn.Sequential(pad, plain)


def export_onnx(path: Path, primary: nn.Module, deployed: Deployed, *, opset: int) -> None:
    """Write one self-contained file with dynamic batch, height and width; its metadata says how to feed it.

    Args:
        path: of the file.
        primary: the deployed network; a copy on the CPU in evaluation mode is exported.
        deployed: what the metadata tells.
        opset: of the ONNX standard.

    Raises:
        ExportError: if torch cannot export this architecture; the message gives torch's reason.
    """
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ExportError(f"opset {opset} cannot be written; choose one of {OLDEST_OPSET} to {newest}")
    graph = ExportGraph(with_static_padding(copy.deepcopy(primary)), multiple=deployed.multiple).cpu().eval()
    height, width = deployed.size
    # A batch of 1 would be taken for a constant.
    example = torch.zeros(2, 3, height, width).to(memory_format=torch.contiguous_format)
    dynamic = {"image": {0: "batch", 2: "height", 3: "width"}}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=dynamic,
            )
    except Exception as error:  # torch's exporter raises many kinds
        reason = next(iter(str(error).strip().splitlines()), "")
        raise ExportError(
            f"torch cannot export {deployed.arch!r} to ONNX opset {opset}: {type(error).__name__}: {reason}"
        ) from error
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "model.onnx"
        program.save(str(raw), external_data=False)
        model = onnx.load(str(raw))
    onnx.helper.set_model_props(model, _metadata(deployed))
    model.producer_name, model.producer_version = "segdistill", __version__
    onnx.checker.check_model(model)
    write_atomically(path, lambda temporary: onnx.save(model, str(temporary)))


def _metadata(deployed: Deployed) -> dict[str, str]:
    return {
        "task": "semantic segmentation",
        "input": f"{INPUT}: float32 (batch, 3, height, width), RGB / 255, minus mean, divided by std",
        "output": f"{OUTPUT}: float32 (batch, classes, height, width); the class is the argmax over classes",
        "class_names": json.dumps(deployed.taxonomy.names),
        "class_colours": json.dumps(deployed.taxonomy.colours),
        "ignore_index": json.dumps(deployed.taxonomy.ignore_index),
        "mean": json.dumps(deployed.normalisation.mean),
        "std": json.dumps(deployed.normalisation.std),
        "size": json.dumps(deployed.size),
        "arch": deployed.arch,
    }
