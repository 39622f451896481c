"""mIoU of a network and of the file made of it, on the same images."""

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from segdistill.commands.trained import Trained
from segdistill.commands.wanted_file import Wanted
from segdistill.console import tracked
from segdistill.data.loading import to_tensor
from segdistill.data.samples import Samples
from segdistill.data.transforms import EvalTransform, resize_image
from segdistill.evaluation.evaluator import score_classes
from segdistill.evaluation.predictors import PlainPredictor
from segdistill.export.onnx_file import OnnxFile, nearest
from segdistill.resolution import resized_argmax
from segdistill.streams import PRIMARY

#: Images of a comparison tensor by tensor.
PARITY_IMAGES = 8


def spread(samples: Samples, count: int) -> list[np.ndarray]:
    """Evenly spaced images (H, W, 3), at most `count`."""
    count = min(count, len(samples))
    return [samples.load(place * len(samples) // count).image for place in range(count)]


def torch_miou(trained: Trained, wanted: Wanted, samples: Samples, *, console: Console) -> float:
    """mIoU of the network in torch, on every image, prepared and resized as in training, at the sizes the file gives
    it.
    """
    deployed = trained.deployed
    predictor = PlainPredictor(trained.network, multiple=deployed.multiple, device=torch.device("cpu"))

    def logits_of(image: np.ndarray) -> Tensor:
        native = (image.shape[0], image.shape[1])
        size = wanted.network_size(native, trained=deployed.size)
        pixels = EvalTransform(size=size, normalisation=deployed.normalisation)(image)
        return predictor(to_tensor(pixels)[None])[PRIMARY]

    def segment(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        if wanted.input == "tensor" or wanted.size is None:
            return resized_argmax(logits_of(image), height, width).numpy()
        # Whoever calls the file fits the image to it, and the classes back to the image.
        logits = logits_of(resize_image(image, *wanted.size))
        return nearest(resized_argmax(logits, *wanted.size).numpy(), height, width)

    places = tracked(range(len(samples)), f"scoring {trained.name} in torch", console=console)
    return score_classes(segment, map(samples.load, places), samples.taxonomy).miou


def file_miou(file: OnnxFile, samples: Samples, *, console: Console) -> float:
    """mIoU of an exported file over the whole split, under ONNX Runtime; every image at its own size."""
    title = f"scoring {file.name.name} under ONNX Runtime"
    places = tracked(range(len(samples)), title, console=console)
    return score_classes(
        lambda image: file.predict(image).classes, map(samples.load, places), samples.taxonomy
    ).miou
