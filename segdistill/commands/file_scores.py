"""mIoU of a network and of the file made of it, on the same images."""

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from segdistill.commands.evaluate import score_file
from segdistill.commands.trained import Trained
from segdistill.commands.wanted_file import Wanted
from segdistill.data.loading import EvalItem, to_tensor
from segdistill.data.samples import Samples
from segdistill.data.transforms import EvalTransform
from segdistill.evaluation.evaluator import evaluate
from segdistill.evaluation.predictors import PlainPredictor
from segdistill.export.onnx_file import OnnxFile
from segdistill.models.ensemble import PRIMARY

#: Images of a comparison tensor by tensor.
PARITY_IMAGES = 8


def spread(samples: Samples, count: int) -> list[np.ndarray]:
    """Evenly spaced images (H, W, 3), at most `count`."""
    count = min(count, len(samples))
    return [samples.load(place * len(samples) // count).image for place in range(count)]


def torch_miou(trained: Trained, wanted: Wanted, samples: Samples, *, console: Console) -> float:
    """Of the network, on every image, prepared and resized as in training, at the size the file gives it."""
    deployed = trained.deployed
    predictor = PlainPredictor(trained.network, multiple=deployed.multiple, device=torch.device("cpu"))

    def item(index: int) -> EvalItem:
        image, mask = samples.load(index)
        native = (image.shape[0], image.shape[1])
        size = wanted.network_size(native, trained=deployed.size)
        pixels = EvalTransform(size=size, normalisation=deployed.normalisation)(image)
        return EvalItem(index, to_tensor(pixels), torch.from_numpy(mask.astype(np.int64)))

    places = track(range(len(samples)), f"scoring {trained.name} in torch", console=console, transient=True)
    return evaluate(predictor, map(item, places), samples.taxonomy)[PRIMARY].miou


def file_miou(file: OnnxFile, samples: Samples, *, console: Console) -> float:
    """Of a file, on every image."""
    return score_file(file, samples, console=console).miou
