"""The range of every tensor of a network, from what calibration images leave in it."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from onnx import ModelProto

from segdistill.errors import ExportError
from segdistill.export.description import Calibration
from segdistill.export.onnx_graph import session_of

#: Input name -> batch, as the file takes it.
Feed = Mapping[str, np.ndarray]
Range = tuple[float, float]

#: Of the values of a tensor, in percent; the rest is cut off, half of it at either end.
PERCENTILE = 99.999
#: Bins on either side of zero, and the levels that int8 has there (pytorch-quantization's numbers).
BINS, LEVELS = 2048, 128
#: Candidate thresholds of the entropy method are this many bins apart.
STRIDE = 8


class Spread:
    """The values of a tensor over many images: their extremes, and a histogram that grows with them."""

    def __init__(self) -> None:
        self.lowest = self.highest = 0.0  # zero is always a level of int8
        self.reach = 0.0  # the histogram spans -reach..reach
        self.counts = np.zeros(2 * BINS, np.int64)

    def add(self, values: np.ndarray, *, count: bool) -> None:
        """Note the extremes of finite values and, if wanted, count them."""
        lowest, highest = float(values.min()), float(values.max())
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)
        reach = max(-lowest, highest)
        if not (count and reach):
            return
        self.reach = self.reach or reach
        while self.reach < reach:  # bins merge by pairs around zero
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.pad(merged, BINS // 2)
            self.reach *= 2
        bins = ((values.ravel() / self.reach + 1) * BINS).astype(np.int32)
        self.counts += np.bincount(np.minimum(bins, 2 * BINS - 1), minlength=2 * BINS)

    def range(self, method: Calibration) -> Range:
        """(lowest, highest) by the method."""
        if method == "minmax" or not self.reach:
            return self.lowest, self.highest
        lowest, highest = self._percentile() if method == "percentile" else self._entropy()
        return max(self.lowest, lowest), min(self.highest, highest)

    def _percentile(self) -> Range:
        below = np.cumsum(self.counts)
        cut = below[-1] * (1 - PERCENTILE / 100) / 2
        edges = np.linspace(-self.reach, self.reach, 2 * BINS + 1)
        first = np.searchsorted(below, cut, side="right")
        last = np.searchsorted(below, below[-1] - cut)
        return float(edges[first]), float(edges[last + 1])

    def _entropy(self) -> Range:
        """The threshold on |x| with the smallest divergence between values as they are and as `LEVELS` show them.

        Migacz, "8-bit inference with TensorRT" (GTC 2017), with the empty bins and the zeros treated as in
        pytorch-quantization: the zeros of a ReLU would hide all else, so they count as much as the bin beside
        them. ONNX Runtime's own search has as many bins as levels, so that it cuts off next to nothing.
        """
        counts = (self.counts[BINS:] + self.counts[BINS - 1 :: -1]).astype(np.float64)  # of |x|
        counts[0] = counts[1]
        best, threshold = math.inf, BINS
        for size in range(LEVELS, BINS + 1, STRIDE):
            inside = counts[:size]
            clipped = inside.copy()
            clipped[-1] += counts[size:].sum()
            starts = np.arange(LEVELS) * size // LEVELS
            filled = np.add.reduceat((inside > 0).astype(np.int64), starts)
            mean = np.add.reduceat(inside, starts) / np.maximum(filled, 1)
            divergence = _divergence(clipped, np.repeat(mean, np.diff(starts, append=size)) * (inside > 0))
            if divergence <= best:
                best, threshold = divergence, size
        limit = self.reach * threshold / BINS
        return -limit, limit


def _divergence(counts: np.ndarray, shown: np.ndarray) -> float:
    """Kullback-Leibler, in nats; where values are cut off and nothing is shown, 1e-4 of a value stands for it."""
    there = counts > 0
    counts, shown = counts[there], np.maximum(shown[there], 1e-4)
    share, other = counts / counts.sum(), shown / shown.sum()
    return float((share * np.log(share / other)).sum())


def calibrated(
    model: ModelProto, tensors: Sequence[str], feeds: Iterable[Feed], method: Calibration
) -> dict[str, Range]:
    """The range of every named tensor of the graph while it runs on `feeds`, by `method`."""
    observed = ModelProto()
    observed.CopyFrom(model)
    graph = observed.graph
    known = {value.name: value for value in graph.value_info}
    inputs = {value.name for value in graph.input}
    present = inputs | {value.name for value in graph.output}
    graph.output.extend(known[name] for name in tensors if name not in present)
    session = session_of(observed.SerializeToString())
    computed = [name for name in tensors if name not in inputs]
    spreads = {name: Spread() for name in tensors}
    image = 0
    for image, feed in enumerate(feeds, 1):
        values = dict(zip(computed, session.run(computed, dict(feed)), strict=True))
        for name, spread in spreads.items():
            value = values[name] if name in values else feed[name]
            if not np.isfinite(value).all():
                raise ExportError(
                    f"the network gives NaN or infinity on calibration image {image} (tensor {name}); "
                    "check the run's losses and train again"
                )
            spread.add(value, count=method != "minmax")
    assert image, "calibration needs images"
    return {name: spread.range(method) for name, spread in spreads.items()}
