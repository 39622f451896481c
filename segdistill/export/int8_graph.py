"""The graph of an fp32 file in the form that ONNX Runtime's int8 kernels take."""

import itertools
import math
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto
from onnxruntime.quantization import quant_pre_process

from segdistill.errors import ExportError, first_line
from segdistill.export.onnx_graph import WEIGHTED, load_named, network_nodes

#: What ONNX Runtime computes in int8 on a CPU. Softmax and normalisations are left out: 8 bits ruin them.
QUANTISED = WEIGHTED | {
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "Gather", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul",
    "Pad", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip

#: ONNX Runtime's fast int8 convolution wants at least 16 output channels, and a multiple of 8 on any x86 CPU.
MIN_CHANNELS, CHANNEL_MULTIPLE = 16, 8


def prepared(source: Path, name: Path) -> tuple[ModelProto, dict[str, tuple[str, ...]]]:
    """The model in a form that int8 kernels take, and its layer groups; messages call it `name`."""
    model = load_named(source)
    network = network_nodes(model.graph)
    blocks = _blocks(model.graph)
    _widen(model)
    _copy_instead_of_resizing(model, network)
    del model.graph.value_info[:]  # shapes are inferred anew
    with tempfile.TemporaryDirectory() as folder:
        rewritten, ready = Path(folder) / "rewritten.onnx", Path(folder) / "ready.onnx"
        onnx.save(model, str(rewritten))
        try:
            quant_pre_process(str(rewritten), str(ready), skip_symbolic_shape=True)
        except Exception as error:  # ONNX Runtime raises many kinds, none of them public
            raise ExportError(
                f"{name}: ONNX Runtime cannot prepare it for int8 ({first_line(error)})"
            ) from error
        model = onnx.load(str(ready))
    groups: dict[str, list[str]] = {}
    block = ""
    network = network_nodes(model.graph)
    for node in model.graph.node:
        block = blocks.get(node.name, block)
        # What is cut out of the logits is quantised as they are.
        if block and node.op_type in QUANTISED and (node.name in network or node.op_type == "Slice"):
            groups.setdefault(block, []).append(node.name)
    return model, {name: tuple(nodes) for name, nodes in groups.items()}


def _blocks(graph: GraphProto) -> dict[str, str]:
    """Weighted node -> the first numbered module on the path of its weight, without what all paths share.

    Weights without a path, such as those of a product of two activations, belong to the block before.
    """
    weights = {tensor.name for tensor in graph.initializer}
    paths = {
        node.name: node.input[1].split(".")[:-1]
        for node in graph.node
        if node.op_type in WEIGHTED and node.input[1] in weights and "." in node.input[1]
    }
    shared = 0
    if len(paths) > 1:
        alike = (len(set(parts)) == 1 for parts in zip(*paths.values(), strict=False))
        shared = sum(itertools.takewhile(bool, alike))
    blocks = {}
    for node, path in paths.items():
        own = path[shared:] or path[-1:]
        end = next((place for place, part in enumerate(own, 1) if part.isdigit()), len(own))
        blocks[node] = ".".join(own[:end])
    first = next(node.name for node in graph.node if node.op_type in WEIGHTED)
    return {first: first} | blocks


def _widen(model: ModelProto) -> None:
    """Give convolutions with odd numbers of output channels more, empty ones, and cut these off again.

    ONNX Runtime's fast int8 kernel passes them by otherwise: an 11-class head at full resolution took more than
    twice as long as with 16 channels, and as in fp32.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        own = [tensors[name] for name in node.input[1:] if uses[name] == 1 and name in tensors]
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type != "Conv" or attributes.get("group", 1) > 1 or len(own) < len(node.input) - 1:
            continue
        channels = own[0].dims[0]
        wide = max(MIN_CHANNELS, math.ceil(channels / CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE)
        if wide == channels:
            continue
        for tensor in own:
            values = onnx.numpy_helper.to_array(tensor)
            padding = [(0, wide - channels)] + [(0, 0)] * (values.ndim - 1)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.pad(values, padding), tensor.name))
        narrow = node.output[0]
        node.output[0] = f"{narrow}_wide"
        bounds = _constants(graph, f"{node.name}_narrow", starts=[0], ends=[channels], axes=[1])
        nodes.append(
            onnx.helper.make_node("Slice", [node.output[0], *bounds], [narrow], f"{node.name}_narrow")
        )
    del graph.node[:]
    graph.node.extend(nodes)


def _copy_instead_of_resizing(model: ModelProto, network: Collection[str]) -> None:
    """Express nearest-neighbour resizing by the copying of rows and of columns, channels last.

    ONNX Runtime keeps int8 channels last and resizes such maps value by value: in a U-Net that took 4.5 times as
    long as in fp32. Copied are whole pixels, of as many bytes as there are channels.
    """
    graph = model.graph
    factors = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    nodes: list[NodeProto] = []
    for node in graph.node:
        resizes = node.op_type == "Resize" and node.name in network and _is_nearest(node, factors)
        nodes += _copies(node, graph) if resizes else [node]
    del graph.node[:]
    graph.node.extend(nodes)


def _copies(resize: NodeProto, graph: GraphProto) -> list[NodeProto]:
    """Nodes that give what a `Resize` gives; the constants that they need are added to the graph."""
    made = _Nodes(resize.name)
    maps = resize.input[0]
    zero, one, column, row = _constants(graph, resize.name, zero=0, one=1, columns=3, rows=2)
    shape = made.add("Shape", [maps], "shape")
    if len(resize.input) > 3 and resize.input[3]:
        wanted = resize.input[3]
    else:
        scales = made.add("Cast", [resize.input[2]], "scales", to=TensorProto.INT64)
        wanted = made.add("Mul", [shape, scales], "sizes")
    pixels = made.add("Transpose", [maps], "channels_last", perm=[0, 2, 3, 1])
    for axis, place in ((2, column), (1, row)):  # columns first: fewer small copies
        have = made.add("Gather", [shape, place], f"have_{axis}")
        want = made.add("Gather", [wanted, place], f"want_{axis}")
        places = made.add("Range", [zero, want, one], f"places_{axis}")
        scaled = made.add("Mul", [places, have], f"scaled_{axis}")
        origins = made.add("Div", [scaled, want], f"origins_{axis}")
        pixels = made.add("Gather", [pixels, origins], f"copied_{axis}", axis=axis)
    made.add("Transpose", [pixels], "back", output=resize.output[0], perm=[0, 3, 1, 2])
    return made.nodes


@dataclass(frozen=True)
class _Nodes:
    """New nodes, named after the one that they replace."""

    prefix: str
    nodes: list[NodeProto] = field(default_factory=list)

    def add(
        self, op: str, inputs: list[str], name: str, *, output: str | None = None, **attributes: Any
    ) -> str:
        """The name of what the node gives, by default its own."""
        name = f"{self.prefix}_{name}"
        output = output or name
        self.nodes.append(onnx.helper.make_node(op, inputs, [output], name, **attributes))
        return output


def _is_nearest(node: NodeProto, tensors: Mapping[str, np.ndarray]) -> bool:
    """As torch's `interpolate(mode="nearest")` is exported, to a size or by whole factors."""
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    how = [
        attributes.get(name) for name in ("mode", "coordinate_transformation_mode", "nearest_mode", "axes")
    ]
    has_size = len(node.input) > 3 and node.input[3]
    factors = tensors.get(node.input[2], np.array(math.nan))
    return how == [b"nearest", b"asymmetric", b"floor", None] and bool(
        has_size or (factors == np.floor(factors)).all()
    )


def _constants(graph: GraphProto, prefix: str, **values: int | list[int]) -> list[str]:
    """Add int64 constants; their names."""
    for name, value in values.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.int64), f"{prefix}_{name}"))
    return [f"{prefix}_{name}" for name in values]


def measure_shapes_in_int8(graph: GraphProto) -> None:
    """Take shapes from int8 tensors: otherwise these are made float for nothing but their size."""
    quantised = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in quantised:
            node.input[0] = quantised[node.input[0]]
