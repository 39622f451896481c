"""fp16: weights and arithmetic of the network in half precision, all that is around it in single."""

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto
from onnxruntime.transformers.float16 import convert_float_to_float16

from segdistill.errors import ExportError
from segdistill.export.onnx_graph import float_tensors, load_named, network_nodes, save_converted, session_of

_LARGEST = float(np.finfo(np.float16).max)


def to_half(source: Path, target: Path, batches: Iterable[np.ndarray], *, name: Path | None = None) -> None:
    """Convert an fp32 file to fp16: half its size, and faster on devices that compute in fp16.

    ONNX Runtime's CPU kernels do not, on x86: there it computes the rounded weights in fp32.

    Args:
        source: a file of segdistill.
        target: gets the same inputs, outputs, opset and metadata.
        batches: images as the file takes them, at least one.
        name: by which messages call the file; None for `target`.

    Raises:
        ExportError: if a weight, or a map of one of the images, is beyond fp16's range, or ONNX Runtime refuses the
            result.
    """
    model = load_named(source)
    name = name or target
    _require_in_range(model.graph, name)
    network = network_nodes(model.graph)
    _require_maps_in_range(model, network, batches, name)
    converted = convert_float_to_float16(
        model,
        keep_io_types=True,
        node_block_list=[node.name for node in model.graph.node if node.name not in network],
    )
    _without_round_trips(converted.graph)
    save_converted(converted, target, like=onnx.load(str(source)), name=name)


def _require_in_range(graph: GraphProto, name: Path) -> None:
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if not (np.abs(values) <= _LARGEST).all():
            raise ExportError(
                f"{name}: {tensor.name} has a value of {values.flat[np.abs(values).argmax()]:.3g}, beyond fp16's "
                f"{_LARGEST:.0f}; export the network in fp32"
            )


def _require_maps_in_range(
    model: ModelProto, network: Collection[str], batches: Iterable[np.ndarray], name: Path
) -> None:
    """A CPU that computes in fp32 does not notice what becomes infinite on a device."""
    observed = onnx.shape_inference.infer_shapes(model)
    inputs = {value.name for value in observed.graph.input}
    maps = [name for name in float_tensors(observed.graph, network) if name not in inputs]
    peaks = {name: f"{name}__peak" for name in maps}
    for one, peak in peaks.items():
        observed.graph.node.append(onnx.helper.make_node("Abs", [one], [f"{one}__abs"]))
        observed.graph.node.append(onnx.helper.make_node("ReduceMax", [f"{one}__abs"], [peak], keepdims=0))
        observed.graph.output.append(onnx.helper.make_tensor_value_info(peak, TensorProto.FLOAT, ()))
    session = session_of(observed.SerializeToString())
    image = session.get_inputs()[0].name
    for batch in batches:
        found = dict(zip(maps, session.run(list(peaks.values()), {image: batch}), strict=True))
        worst = max(found, key=lambda one: found[one])
        if found[worst] > _LARGEST:
            raise ExportError(
                f"{name}: {worst} reaches {found[worst]:.3g} on the images it is checked on, beyond fp16's "
                f"{_LARGEST:.0f}, and would be infinite on a device; export the network in fp32"
            )


def _without_round_trips(graph: GraphProto) -> None:
    """Let fp32 nodes that follow each other pass fp32 on: the converter rounds between them."""
    to_half = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT16
    }
    for node in graph.node:
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT and node.input[0] in to_half:
            node.op_type, node.input[0] = "Identity", to_half[node.input[0]]
            del node.attribute[:]
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [node for node in graph.node if used.intersection(node.output)]
    del graph.node[:], graph.value_info[:]  # whose types are no longer true
    graph.node.extend(kept)
