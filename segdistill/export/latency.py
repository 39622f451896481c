"""How long files take, measured in turn so that a busy machine treats them alike."""

import statistics
import time
from collections.abc import Mapping

import numpy as np

from segdistill.export.onnx_file import OnnxFile

WARM_UP, ROUNDS = 3, 15


def milliseconds(files: Mapping[str, OnnxFile], image: np.ndarray) -> dict[str, float]:
    """Median time of one image under ONNX Runtime, all files taken in turn.

    Args:
        files: by name; each is fed the image as its description says.
        image: (H, W, 3) uint8, RGB.

    Returns:
        Name -> milliseconds, pre- and postprocessing outside the file not included.
    """
    batches = {name: file.batch_of(image) for name, file in files.items()}
    seen: dict[str, list[float]] = {name: [] for name in files}
    for turn in range(WARM_UP + ROUNDS):
        for name, file in files.items():
            started = time.perf_counter()
            file.run(batches[name])
            if turn >= WARM_UP:
                seen[name].append(1000 * (time.perf_counter() - started) / len(batches[name]))
    return {name: statistics.median(times) for name, times in seen.items()}
