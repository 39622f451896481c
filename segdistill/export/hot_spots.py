"""Where an exported file's time goes, as ONNX Runtime's own profiler sees it."""

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime

from segdistill.export.onnx_graph import WEIGHTED

RUNS = 10
_DEQUANTIZED = "_DequantizeLinear_Output"  # what ONNX Runtime's quantiser appends to the name of a weight


class HotSpots(NamedTuple):
    """Shares (0..1) of a file's time, the largest first.

    Attributes:
        operations: by the operation that ONNX Runtime runs, fused ones under its own names.
        layers: by the module path of a layer's weight; operations without a weight are left out.
    """

    operations: dict[str, float]
    layers: dict[str, float]


def hot_spots(path: Path, feed: Mapping[str, np.ndarray]) -> HotSpots:
    """Run a file under the profiler, on one thread.

    Each node counts with its fastest of `RUNS` runs, so other work on the machine is not taken for its own.

    Args:
        path: of a file of segdistill.
        feed: input name -> batch.
    """
    graph = onnx.load(str(path)).graph
    layers = {node.name: _layer(node.input[1]) for node in graph.node if node.op_type in WEIGHTED}
    operations: Counter[str] = Counter()
    by_layer: Counter[str] = Counter()
    for (operation, name), microseconds in _fastest(path, feed).items():
        operations[operation] += microseconds
        # A fused node is called after the one that it began with, and a number.
        if layer := layers.get(name.split("_token_")[0]):
            by_layer[layer] += microseconds
    whole = operations.total() or 1
    return HotSpots(
        *({key: value / whole for key, value in one.most_common()} for one in (operations, by_layer))
    )


def _layer(weight: str) -> str:
    """The path of a layer in the network, of which an image file's graph is a part."""
    _, _, inside = weight.partition("network.")
    return (inside or weight).removesuffix(_DEQUANTIZED).removesuffix(".weight")


def _fastest(path: Path, feed: Mapping[str, np.ndarray]) -> dict[tuple[str, str], int]:
    """(operation, node) -> microseconds."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(RUNS):
            session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text())
    seen: dict[tuple[str, str], list[int]] = defaultdict(list)
    for event in events:
        name = event["name"]
        if event["cat"] == "Node" and name.endswith("_kernel_time"):
            seen[event["args"]["op_name"], name.removesuffix("_kernel_time")].append(event["dur"])
    return {node: min(times) for node, times in seen.items()}
