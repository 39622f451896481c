"""fp16: weights and arithmetic of the network in half precision, all that is around it in single."""

import graphlib
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import GraphProto, ModelProto, TensorProto
from onnxruntime.transformers.float16 import convert_float_to_float16

from segdistill.errors import ExportError, first_line
from segdistill.files import write_atomically

#: Operations with weights: the network is what lies between the first and the last of them.
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

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


def load_named(source: Path) -> ModelProto:
    """The file with a name for every node: ONNX Runtime's converters know nodes by name."""
    model = onnx.load(str(source))
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return model


def network_nodes(graph: GraphProto) -> set[str]:
    """Names of the nodes from the first to the last operation with weights, on every path between them.

    Not among them is what an `image` graph does to its input and to the logits.
    """
    after: set[str] = set()  # tensors that depend on a weighted operation
    for node in graph.node:
        if node.op_type in WEIGHTED or after.intersection(node.input):
            after.update(node.output)
    before: set[str] = set()  # tensors that a weighted operation depends on
    inside: set[str] = set()
    for node in reversed(graph.node):
        weighted = node.op_type in WEIGHTED
        if weighted or before.intersection(node.output):
            before.update(node.input)
            if weighted or after.intersection(node.input):
                inside.add(node.name)
    return inside


def float_tensors(graph: GraphProto, nodes: Collection[str]) -> list[str]:
    """Activations in and out of the nodes."""
    weights = {tensor.name for tensor in graph.initializer}
    floats = {
        value.name
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    used = {name: None for node in graph.node if node.name in nodes for name in (*node.input, *node.output)}
    return [name for name in used if name in floats - weights]


def save_converted(model: ModelProto, target: Path, *, like: ModelProto, name: Path) -> None:
    """Write a converted model as one file, once ONNX Runtime has loaded it.

    Args:
        model: gets the opset, metadata and producer of `like`.
        target: where to; nothing is left there if this fails.
        like: what the model was made from.
        name: by which messages call the file.

    Raises:
        ExportError: if ONNX Runtime refuses the model.
    """
    _sort(model.graph)
    # The converters import domains that no node uses, and note themselves in the metadata.
    del model.opset_import[:], model.metadata_props[:]
    model.opset_import.extend(like.opset_import)
    model.metadata_props.extend(like.metadata_props)
    model.producer_name, model.producer_version = like.producer_name, like.producer_version
    model.ir_version = like.ir_version
    try:
        onnx.checker.check_model(model, full_check=True)
        session_of(model.SerializeToString())
    except Exception as error:  # neither's exceptions are public
        raise ExportError(
            f"{name}: ONNX Runtime refuses the converted network ({first_line(error)}); export it in fp32"
        ) from error
    write_atomically(target, lambda temporary: onnx.save(model, str(temporary)))


def session_of(model: bytes) -> onnxruntime.InferenceSession:
    """The model on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: ONNX Runtime warns of its own optimisations
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


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


def _sort(graph: GraphProto) -> None:
    """The converters append nodes at the end; the standard wants every tensor made before its use."""
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output}
    needs = {
        index: [maker[name] for name in node.input if name in maker] for index, node in enumerate(graph.node)
    }
    ordered = [graph.node[index] for index in graphlib.TopologicalSorter(needs).static_order()]
    del graph.node[:]
    graph.node.extend(ordered)
