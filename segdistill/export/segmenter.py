"""Images of any size to masks of their size, whatever runs the network."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from segdistill.data.loading import to_tensor
from segdistill.data.transforms import EvalTransform
from segdistill.evaluation.predictors import StreamLogits
from segdistill.export.onnx_file import Prediction
from segdistill.normalisation import Normalisation
from segdistill.resolution import resized_argmax


class Segmenter(Protocol):
    """What labels images of any size: an `OnnxFile` or a `TorchSegmenter`."""

    def predict(self, image: np.ndarray) -> Prediction:
        """image: (H, W, 3) uint8, RGB."""


class TorchSegmenter:
    """A stream of a network in torch, fed as it is scored: images resized to its size, logits resized back."""

    def __init__(
        self,
        predictor: Callable[[Tensor], StreamLogits],
        *,
        stream: str,
        size: tuple[int, int],
        normalisation: Normalisation,
    ) -> None:
        """
        Args:
            predictor: (1, 3, h, w) normalised image -> logits of every stream.
            stream: the one that is asked.
            size: (height, width) in pixels that images are resized to.
            normalisation: of the image.
        """
        self._predictor = predictor
        self._stream = stream
        self._transform = EvalTransform(size=size, normalisation=normalisation)

    @torch.inference_mode()
    def predict(self, image: np.ndarray) -> Prediction:
        """image: (H, W, 3) uint8, RGB. The confidence is not computed."""
        pixels = to_tensor(self._transform(image))
        logits = self._predictor(pixels.unsqueeze(0))[self._stream].float()  # (1, C, h, w)
        height, width = image.shape[:2]
        return Prediction(resized_argmax(logits, height, width).cpu().numpy(), None)
