"""Which layers int8 hurts, and int8 files that keep their score by leaving these in float."""

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from segdistill.errors import ExportError
from segdistill.export.onnx_graph import session_of
from segdistill.export.quantize import Quantizer
from segdistill.export.ranges import Feed
from segdistill.files import write_atomically


@dataclass(frozen=True)
class Sensitivity:
    """What quantising one group alone does to the network's output.

    Attributes:
        group: its name.
        equal_argmax: share of pixels (0..1) that keep their class.
        sqnr_db: signal to quantisation noise of the logits in dB; None for a file that gives classes alone.
    """

    group: str
    equal_argmax: float
    sqnr_db: float | None


def sensitivity(quantizer: Quantizer, feeds: Sequence[Feed]) -> list[Sensitivity]:
    """Every group quantised alone and compared with the fp32 file, the most harmful first.

    Args:
        quantizer: calibrated.
        feeds: a few images.
    """
    references = list(_first_outputs(quantizer.source, feeds))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "alone.onnx"
        for group in quantizer.groups:
            quantizer.write(alone, keep_float=set(quantizer.groups) - {group})
            found.append(compared(group, references, list(_first_outputs(alone, feeds))))
    return sorted(found, key=lambda one: (one.equal_argmax, one.sqnr_db or 0.0))


@dataclass(frozen=True)
class Outcome:
    """Of quantising within a limit.

    Attributes:
        score: of the file.
        kept_float: groups left in float, the most harmful first.
        sensitivities: of all groups, the most harmful first; empty if none had to stay in float.
    """

    score: float
    kept_float: tuple[str, ...]
    sensitivities: tuple[Sensitivity, ...]


def quantize_within(
    quantizer: Quantizer,
    target: Path,
    feeds: Sequence[Feed],
    *,
    score: Callable[[Path], float],
    reference: float,
    limit: float,
) -> Outcome:
    """Quantise everything; while the score is off by more than the limit, leave one more group in float.

    Args:
        quantizer: calibrated.
        target: is written once a file keeps the limit.
        feeds: images to find the harmful groups by, if need be.
        score: of a file, such as its mIoU on the whole split.
        reference: the score in fp32.
        limit: largest |score - reference|.

    Raises:
        ExportError: if the limit is not kept even with all groups but one in float; the message has the scores.
    """
    ranking: list[Sensitivity] = []
    scores: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        candidate = Path(folder) / "candidate.onnx"
        for kept in range(len(quantizer.groups)):
            if kept == 1:
                ranking = sensitivity(quantizer, feeds)
            keep_float = tuple(one.group for one in ranking[:kept])
            quantizer.write(candidate, keep_float=keep_float)
            scores.append(score(candidate))
            if abs(scores[-1] - reference) <= limit:
                break
        else:
            told = ", ".join(f"{value:.4f}" for value in scores)
            raise ExportError(
                f"{quantizer.name}: int8 scores {told} with 0 to {len(scores) - 1} of {len(quantizer.groups)} layer "
                f"groups in float, which is not within {limit:.4f} of {reference:.4f} in fp32; calibrate on more "
                "images or by another method, or export in fp16"
            )
        model = onnx.load(str(candidate))
    write_atomically(target, lambda temporary: onnx.save(model, str(temporary)))
    return Outcome(scores[-1], keep_float, tuple(ranking))


def _first_outputs(path: Path, feeds: Iterable[Feed]) -> Iterator[np.ndarray]:
    session = session_of(path.read_bytes())
    name = session.get_outputs()[0].name
    return (session.run([name], dict(feed))[0] for feed in feeds)


def compared(group: str, references: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Sensitivity:
    """How far the outputs with this group in int8 are from the references."""
    is_logits = np.issubdtype(references[0].dtype, np.floating)  # (B, C, H, W), otherwise classes (B, H, W)
    pairs = list(zip(references, outputs, strict=True))
    same = [ours.argmax(1) == theirs.argmax(1) if is_logits else ours == theirs for ours, theirs in pairs]
    equal = sum(int(one.sum()) for one in same) / sum(one.size for one in same)
    if not is_logits:
        return Sensitivity(group, equal, None)
    signal = sum(float(np.square(ours, dtype=np.float64).sum()) for ours, _ in pairs)
    noise = sum(float(np.square(ours - theirs, dtype=np.float64).sum()) for ours, theirs in pairs)
    return Sensitivity(group, equal, 10 * math.log10(signal / noise) if noise else math.inf)
