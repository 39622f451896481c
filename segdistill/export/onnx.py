"""A graph as one ONNX file."""

import logging
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnxslim
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from segdistill import __version__
from segdistill.errors import ExportError, first_line
from segdistill.export.description import Description
from segdistill.export.preparation import prepare
from segdistill.files import write_atomically
from segdistill.memory import is_out_of_memory

#: torch's exporter writes no older one.
OLDEST_OPSET = 18


@dataclass(frozen=True)
class Interface:
    """The shapes a file accepts and the standard it is written in.

    Attributes:
        batch: images per call; None for any number.
        size: (height, width) in pixels of the input; None for any.
        opset: of the ONNX standard.
        simplify: let onnxslim fold and merge nodes.
    """

    batch: int | None = None
    size: tuple[int, int] | None = None
    opset: int = OLDEST_OPSET
    simplify: bool = False


@dataclass(frozen=True)
class Cost:
    """Of a file's network.

    Attributes:
        parameters: numbers in the network's weights; the file has fewer, as batch norms are folded into convolutions.
        macs: multiply-adds of one image of the size that was asked for (convolutions and matrix products).
    """

    parameters: int
    macs: int


def refuse_opset(opset: int) -> None:
    """Raises ExportError for one that cannot be written."""
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ExportError(f"opset {opset} cannot be written; choose one of {OLDEST_OPSET} to {newest}")


def export_onnx(
    path: Path,
    graph: nn.Module,
    description: Description,
    interface: Interface,
    *,
    counted: tuple[int, int] | None = None,
) -> Cost:
    """Write one self-contained file whose metadata says how to feed it.

    Args:
        path: of the file.
        graph: a `TensorGraph` or `ImageGraph`; it is not changed.
        description: of the graph.
        interface: shapes and opset.
        counted: (height, width) in pixels of the input whose multiply-adds are counted, if the interface takes any;
            None for the trained size.

    Raises:
        ExportError: if torch cannot export this network; the message gives torch's reason.
        MemoryError, RuntimeError: for lack of memory, as torch tells it.
    """
    refuse_opset(interface.opset)
    program, folded_away = _exported(graph, description, interface)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "model.onnx"
        program.save(str(raw), external_data=False)
        model = onnx.load(str(raw))
    written = {entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")}
    if written != {interface.opset}:
        raise ExportError(
            f"torch wrote opset {max(written)} instead of {interface.opset}: the network has operations that cannot be "
            f"translated; use opset {max(written)}"
        )
    if interface.simplify:
        model = onnxslim.slim(model)
    at = replace(interface, size=interface.size or counted)
    cost = Cost(_parameters(program, folded_away), _macs(program, description, at))
    refuse_idle_weights(model.graph)
    without_traces(model)
    onnx.helper.set_model_props(model, description.to_metadata())
    model.producer_name, model.producer_version = "segdistill", __version__
    onnx.checker.check_model(model, full_check=True)
    write_atomically(path, lambda temporary: onnx.save(model, str(temporary)))
    return cost


def refuse_idle_weights(graph: onnx.GraphProto) -> None:
    """Nothing of other branches or of the discriminator may be in a file: whatever it holds leads to an output.

    Weights are not looked for by name, for a network's own layers may be called `branches` (HRNet's are), nor counted,
    for what a network computes from its weights alone is stored beside them (Swin's biases of relative positions).

    Raises:
        ExportError: naming some of the weights that no output depends on.
    """
    needed = {output.name for output in graph.output}
    for node in reversed(graph.node):  # every node stands behind those whose outputs it reads
        if needed & set(node.output):
            needed |= _read_by(node)
    if idle := [weight.name for weight in graph.initializer if weight.name not in needed]:
        shown = ", ".join(idle[:3]) + (" ..." if len(idle) > 3 else "")
        raise ExportError(
            f"the graph holds {len(idle)} tensors that no output depends on ({shown}), which do not belong to the "
            "deployed network, so no file was written"
        )


def _read_by(node: onnx.NodeProto) -> set[str]:
    """Names of its inputs, and of what the graphs in its attributes (of an If, a Loop) read."""
    names = set(node.input)
    for inner in (attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH):
        names |= {output.name for output in inner.output}.union(*map(_read_by, inner.node))
    return names


def without_traces(model: onnx.ModelProto) -> None:
    """Remove what torch notes about every node: stack traces with this machine's paths, half a megabyte."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def _exported(
    graph: nn.Module, description: Description, interface: Interface
) -> tuple[torch.onnx.ONNXProgram, dict[str, int]]:
    """The program, and what `Prepared` says was folded away."""
    rows, columns = (2, 3) if description.layout == "nchw" else (1, 2)
    dynamic = {0: "batch"} if interface.batch is None else {}
    dynamic |= {rows: "height", columns: "width"} if interface.size is None else {}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            example = example_input(description, interface)
            prepared = prepare(graph, example)
            program = torch.onnx.export(
                prepared.graph,
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=interface.opset,
                input_names=[description.input_name],
                output_names=list(description.output_names),
                dynamic_shapes=(dynamic,) if dynamic else None,
            )
    except Exception as error:  # torch's exporter raises many kinds
        cause = _first_cause(error)  # what torch raises last says no more than in which of its steps it was
        if is_out_of_memory(cause):
            raise cause from None
        raise ExportError(
            f"torch cannot export {description.network['arch']!r} to ONNX opset {interface.opset}: "
            f"{type(cause).__name__}: {first_line(cause)}"
        ) from error
    assert program is not None
    return program, prepared.folded_away


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def example_input(description: Description, interface: Interface) -> Tensor:
    """An empty batch of the input's dtype and layout; a batch of 1 would be taken for a constant."""
    height, width = interface.size or description.size
    batch = interface.batch or 2
    shape = (batch, 3, height, width) if description.layout == "nchw" else (batch, height, width, 3)
    return torch.zeros(shape, dtype=torch.float32 if description.input == "tensor" else torch.uint8)


def _parameters(program: torch.onnx.ONNXProgram, folded_away: dict[str, int]) -> int:
    """Of the layers that lead to the output: torch lists all, an exported branch uses a part of them."""
    exported = program.exported_program
    assert exported is not None
    names = exported.graph_signature.inputs_to_parameters
    used = {names[node.name] for node in exported.graph.nodes if node.name in names and node.users}
    return sum(
        tensor.numel() + folded_away.get(name, 0)
        for name, tensor in exported.named_parameters()
        if name in used
    )


def _macs(program: torch.onnx.ONNXProgram, description: Description, interface: Interface) -> int:
    """As torch's counter sees the exported program, in which only what leads to the output is left.

    Shapes alone count, so nothing is computed: a large photo takes no memory, and a network that holds for one size
    alone does not fail here, but where it is compared with torch, which has more to say.
    """
    assert program.exported_program is not None
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
    ):
        example = example_input(description, interface)
        program.exported_program.module()(example)
    return counter.get_total_flops() // 2 // len(example)
