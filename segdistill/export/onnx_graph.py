"""What every conversion of an fp32 file needs: its network told from the work around it, and the result written."""

import graphlib
from collections.abc import Collection
from pathlib import Path

import onnx
import onnxruntime
from onnx import GraphProto, ModelProto, TensorProto

from segdistill.errors import ExportError, first_line
from segdistill.files import write_atomically

#: Operations with weights: the network is what lies between the first and the last of them.
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


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


def _sort(graph: GraphProto) -> None:
    """The converters append nodes at the end; the standard wants every tensor made before its use."""
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output}
    needs = {
        index: [maker[name] for name in node.input if name in maker] for index, node in enumerate(graph.node)
    }
    ordered = [graph.node[index] for index in graphlib.TopologicalSorter(needs).static_order()]
    del graph.node[:]
    graph.node.extend(ordered)
