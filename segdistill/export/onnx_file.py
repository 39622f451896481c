"""An exported file under ONNX Runtime, fed as its own metadata says."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import onnxruntime
import torch

from segdistill.data.transforms import EvalTransform, resize_image
from segdistill.errors import ExportError, first_line
from segdistill.evaluation.predictors import StreamLogits
from segdistill.export.description import CLASS_INDEX, CONFIDENCE, LOGITS, Description
from segdistill.given_model import refuse_no_onnx
from segdistill.memory import is_out_of_memory
from segdistill.resolution import resized_argmax


class Prediction(NamedTuple):
    classes: np.ndarray  # (H, W) uint8, class indexes at the image's own size
    confidence: np.ndarray | None  # (H, W) float32 in 0..1, softmax of the class; None if it is not asked for


class OnnxFile:
    """A file made by `segdistill export`.

    Attributes:
        description: its metadata.
        path: where it lies.
        name: by which messages call it.
    """

    def __init__(self, path: Path, *, name: Path | None = None, threads: int = 0) -> None:
        """
        Args:
            path: of the file.
            name: by which messages call it; None for its path.
            threads: of the CPU; 0 lets ONNX Runtime choose.

        Raises:
            ExportError: if the file is missing, no ONNX file, or not one of segdistill's.
        """
        refuse_no_onnx(path)
        self.path, self.name = path, name or path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what goes wrong is raised, and said once
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises many kinds, none of them public
            if is_out_of_memory(error):
                raise
            raise ExportError(f"{self.name}: ONNX Runtime cannot load it ({first_line(error)})") from None
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.description = Description.from_metadata(metadata, file=str(self.name))

    @property
    def fixed_batch(self) -> int | None:
        """Images per call; None for any number."""
        return self._fixed_axis(0)

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels that the input has to have; None for any."""
        first = 2 if self.description.layout == "nchw" else 1
        height, width = self._fixed_axis(first), self._fixed_axis(first + 1)
        return None if height is None or width is None else (height, width)

    def _fixed_axis(self, axis: int) -> int | None:
        extent = self._session.get_inputs()[0].shape[axis]
        return extent if isinstance(extent, int) else None

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Name -> output for a batch of the dtype and layout that the description names.

        Raises:
            ExportError: if the graph cannot take a batch of that shape.
        """
        names = self.description.output_names
        try:
            outputs = self._session.run(names, {self.description.input_name: batch})
        except Exception as error:  # ONNX Runtime raises many kinds, none of them public
            if is_out_of_memory(error):
                raise
            shape = "x".join(map(str, batch.shape))
            raise ExportError(
                f"{self.name}: ONNX Runtime cannot run it on a batch of {shape} ({first_line(error)}); if the network "
                "holds for one size of image only, export it with --size HxW"
            ) from None
        return dict(zip(names, outputs, strict=True))

    def predict(self, image: np.ndarray) -> Prediction:
        """Segment one image of any size.

        Args:
            image: (H, W, 3) uint8, RGB.
        """
        if self.description.input == "image":
            return self._predict_from_image(image)
        return self._predict_from_tensor(image)

    def batch_of(self, image: np.ndarray) -> np.ndarray:
        """One image (H, W, 3) uint8 as the file takes it; a file for a fixed batch gets it in every place."""
        described = self.description
        if described.input == "tensor":  # as the network is scored
            size = self.fixed_size or described.size
            fitted = EvalTransform(size=size, normalisation=described.normalisation)(image)
        else:
            fitted = resize_image(image, *(self.fixed_size or image.shape[:2]))
        return self._batched(fitted)

    def _batched(self, fitted: np.ndarray) -> np.ndarray:
        """(h, w, 3) -> a batch in the file's layout."""
        one = fitted if self.description.layout == "nhwc" else fitted.transpose(2, 0, 1)
        return np.ascontiguousarray(np.repeat(one[None], self.fixed_batch or 1, axis=0))

    def logits(self, images: torch.Tensor) -> StreamLogits:
        """The network of a `tensor` file as a predictor: (1, 3, h, w) normalised -> (1, C, h, w) by stream."""
        assert self.description.input == "tensor", "checked where the user is told"
        out = self.run(self._batched(images[0].permute(1, 2, 0).numpy()))
        return {self.description.stream: torch.from_numpy(out[LOGITS][:1]).float()}

    def _predict_from_image(self, image: np.ndarray) -> Prediction:
        height, width = image.shape[:2]
        out = self.run(self.batch_of(image))
        classes = nearest(out[CLASS_INDEX][0], height, width)
        if CONFIDENCE not in out:
            return Prediction(classes, None)
        return Prediction(classes, cv2.resize(out[CONFIDENCE][0], (width, height)))

    def _predict_from_tensor(self, image: np.ndarray) -> Prediction:
        """The logits are resized to the image, as in scoring."""
        height, width = image.shape[:2]
        logits = torch.from_numpy(self.run(self.batch_of(image))[LOGITS][:1])
        return Prediction(resized_argmax(logits.float(), height, width).numpy(), None)


def nearest(classes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a mask (h, w) by taking the place under each pixel's centre; of two equally near, the later.

    OpenCV's INTER_NEAREST_EXACT leaves open which of the two it takes, so a browser could not do the same.
    """
    rows, columns = (
        (2 * np.arange(wanted) + 1) * there // (2 * wanted)
        for wanted, there in zip((height, width), classes.shape, strict=True)
    )
    return classes[np.ix_(rows, columns)]
