"""How far an exported file and the trained network are apart, image by image."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import torch

from segdistill.data.transforms import EvalTransform
from segdistill.errors import ExportError, first_line
from segdistill.export.description import CLASS_INDEX, LOGITS, Description
from segdistill.export.graphs import ImageGraph, TensorGraph
from segdistill.export.onnx import Interface
from segdistill.export.onnx_file import OnnxFile

_LARGEST = 1280  # pixels a side of an image that is compared


@dataclass(frozen=True)
class Parity:
    """How far a file and the graph it was made from are apart.

    Attributes:
        images: number of images compared.
        equal_argmax: share of pixels (0..1) with the same class.
        max_logit_difference: largest |dlogit|; None for a file that gives classes alone.
        max_logit: largest finite |logit| of the graph.
    """

    images: int
    equal_argmax: float
    max_logit_difference: float | None
    max_logit: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.inference_mode()
def compare(graph: TensorGraph | ImageGraph, file: OnnxFile, batches: Iterable[np.ndarray]) -> Parity:
    """Run both on the same batches. A network with a logit that is not finite is equal to nothing.

    Args:
        graph: what the file was made from, on the CPU.
        file: under ONNX Runtime.
        batches: of the dtype and layout that the file's description names.

    Raises:
        ExportError: if one of the two cannot take a batch.
    """
    gives_logits = file.description.input == "tensor"
    graph.eval()
    largest_difference, largest, equal, pixels, images = 0.0, 0.0, 0, 0, 0
    for batch in batches:
        ours = _logits(graph, batch)
        theirs = file.run(batch)
        finite = np.isfinite(ours)
        largest = max(largest, float(np.abs(ours[finite]).max(initial=0.0)))
        if gives_logits:
            difference = float(np.abs(ours - theirs[LOGITS]).max())
            # NaN compares as smaller than anything, so max() would lose it.
            largest_difference = max(
                largest_difference, difference if math.isfinite(difference) else math.inf
            )
        classes = theirs[LOGITS].argmax(1) if gives_logits else theirs[CLASS_INDEX]
        equal += int(((classes == ours.argmax(1)) & finite.all(1)).sum())
        pixels += classes.size
        images += len(batch)
    assert images, "parity needs images"
    return Parity(images, equal / pixels, largest_difference if gives_logits else None, largest)


def _logits(graph: TensorGraph | ImageGraph, batch: np.ndarray) -> np.ndarray:
    try:
        return graph.logits(torch.from_numpy(batch)).numpy()
    except Exception as error:  # whatever the network raises
        shape = "x".join(map(str, batch.shape))
        raise ExportError(
            f"the network cannot be run on a batch of {shape} ({type(error).__name__}: {first_line(error)}); if it "
            "holds for one size of image only, export it with --size HxW"
        ) from error


def batches_of(
    images: Sequence[np.ndarray], description: Description, interface: Interface
) -> Iterator[np.ndarray]:
    """Real images as a file takes them: singly, one of another size, two at once, as far as its shapes are free.

    The other size is a pixel more than the others are padded to, mirrored at its ends, so that the network's maps have
    one cell more: a network that holds for one size alone is noticed, and one that holds for an even number of cells.

    Args:
        images: (H, W, 3) uint8, RGB; of large ones a part is enough, for a file of free size gives a photo's logits at
            its own size: 0.5 GB for 12 megapixels and 11 classes.
        description: of the file.
        interface: of the file.
    """
    images = (list(images) * 3)[: max(3, len(images))]  # two at once and one of another size, even of one
    prepared = [_prepared(_part(image), description, interface) for image in images]
    if interface.size is None:
        rows, columns = (-side % description.stride + 1 for side in prepared[-1].shape[:2])
        prepared[-1] = np.pad(prepared[-1], ((0, rows), (0, columns), (0, 0)), mode="symmetric")
    if interface.batch is not None:
        alike = [np.stack([one] * interface.batch) for one in prepared]
    else:
        shared = tuple(min(one.shape[axis] for one in prepared[:2]) for axis in (0, 1))
        pair = np.stack([one[: shared[0], : shared[1]] for one in prepared[:2]])
        alike = [pair, *(one[None] for one in prepared[2:])]
    for batch in alike:
        yield np.ascontiguousarray(batch if description.layout == "nhwc" else batch.transpose(0, 3, 1, 2))


def _part(image: np.ndarray) -> np.ndarray:
    """Of an image (H, W, 3) its upper left corner of at most `_LARGEST` pixels a side."""
    return image[:_LARGEST, :_LARGEST]


def _prepared(image: np.ndarray, description: Description, interface: Interface) -> np.ndarray:
    """(h, w, 3), normalised float32 at the network's size, or uint8 at the image's own."""
    if description.input == "tensor":
        size = interface.size or description.size
        return EvalTransform(size=size, normalisation=description.normalisation)(image)
    return image if interface.size is None else cv2.resize(image, interface.size[::-1])
