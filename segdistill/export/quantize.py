"""int8: static QDQ quantisation, weights per channel, with the layers that it hurts most left in float."""

import platform
import re
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorsData

from segdistill.errors import ExportError
from segdistill.export.description import Calibration
from segdistill.export.int8_graph import QUANTISED, measure_shapes_in_int8, prepared
from segdistill.export.onnx_graph import float_tensors, save_converted
from segdistill.export.ranges import Feed, calibrated

CPUINFO = Path("/proc/cpuinfo")


class Quantizer:
    """An fp32 file, calibrated once, that can be quantised many times with different layers in float.

    Attributes:
        groups: layer groups of the network, in its order: a group is a block by its module path, such as
            `encoder.model.blocks.3` or `decoder.blocks.0`, and names the nodes in it.
        ranges: (lowest, highest) value of every tensor, the result of the calibration.
        name: by which messages call what is made of the file.
    """

    def __init__(
        self,
        source: Path,
        feeds: Iterable[Feed],
        *,
        method: Calibration,
        reduce_range: bool = False,
        name: Path | None = None,
    ) -> None:
        """
        Args:
            source: a file of segdistill in fp32.
            feeds: prepared calibration images, not augmented; at least one.
            method: of finding a tensor's range. `minmax` takes all that was seen, `percentile` cuts
                off `100 - PERCENTILE` percent of the values, `entropy` what changes the distribution least.
            reduce_range: weights of 7 bits, see `needs_reduce_range`.
            name: by which messages call what is made of it; None for `source`.

        Raises:
            ExportError: if ONNX Runtime cannot prepare the file or the network gives NaN or infinity.
        """
        self.source, self.name = source, name or source
        self.reduce_range = reduce_range
        self._model, self.groups = prepared(source, self.name)
        inside = {name for names in self.groups.values() for name in names}
        self.ranges = calibrated(self._model, float_tensors(self._model.graph, inside), feeds, method)

    def write(self, target: Path, *, keep_float: Collection[str] = ()) -> None:
        """Quantise all groups but some.

        Args:
            target: gets the inputs, outputs, opset and metadata of the source.
            keep_float: names of groups.

        Raises:
            ExportError: if there is no such group, or ONNX Runtime refuses the result.
        """
        if unknown := set(keep_float) - set(self.groups):
            raise ExportError(
                f"keep_float: no layer group {', '.join(sorted(unknown))}; there are {', '.join(self.groups)}"
            )
        chosen = {name for group, names in self.groups.items() if group not in keep_float for name in names}
        model = ModelProto()
        model.CopyFrom(self._model)
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=self.reduce_range,
            weight_qType=QuantType.QInt8,
            # Unsigned: x86 has no fast kernel for signed activations, and clipping at 0 needs no operation.
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(
                CalibrationMethod.MinMax,
                {
                    name: (np.float32(lowest), np.float32(highest))
                    for name, (lowest, highest) in self.ranges.items()
                },
            ),
            nodes_to_quantize=[],
            nodes_to_exclude=[node.name for node in model.graph.node if node.name not in chosen],
            op_types_to_quantize=sorted(QUANTISED),
            extra_options={},
        )
        quantizer.quantize_model()
        converted = quantizer.model.model
        measure_shapes_in_int8(converted.graph)
        save_converted(converted, target, like=onnx.load(str(self.source)), name=self.name)


def needs_reduce_range() -> bool:
    """Whether this CPU computes int8 right only with weights of 7 bits.

    x86 CPUs without VNNI add two products of a uint8 and an int8 in 16 bits, which saturate: 2 * 255 * 127 is
    beyond 32767, 2 * 255 * 64 is not. With VNNI, and on other architectures, sums have 32 bits. An x86 CPU that
    does not tell (no /proc/cpuinfo) is taken for an old one, since a bit of the weights is the smaller loss.
    """
    if platform.machine().lower() not in {"x86_64", "amd64", "i386", "i686"}:
        return False
    flags = set(re.findall(r"\w+", CPUINFO.read_text())) if CPUINFO.is_file() else set()
    return flags.isdisjoint({"avx512_vnni", "avx_vnni"})
