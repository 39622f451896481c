"""What training and evaluation read: samples, augmented and normalised."""

import re

import cv2
import numpy as np

from segdistill.build.splits import CheckedSplit
from segdistill.config import Config
from segdistill.cores import usable_cores
from segdistill.data.loading import EvalDataset, Place, TrainDataset
from segdistill.data.samples import Samples
from segdistill.data.statistics import class_odds, image_shares
from segdistill.data.transforms import (
    EvalTransform,
    StillAnImage,
    TrainTransform,
    crop_to,
    named_transforms,
    normalising,
    train_transforms,
)
from segdistill.errors import ConfigError
from segdistill.models.primary import expected_normalisation, weight_file
from segdistill.normalisation import Normalisation

MAX_WORKERS = 8
_RESIZING = re.compile("Size|Resize|Scale")  # in the names of Albumentations' transforms


def build_normalisation(config: Config) -> Normalisation:
    """Raises WeightsError if a file of weights that should tell it cannot be read."""
    data, model = config.data, config.model
    if data.mean is not None and data.std is not None:
        return Normalisation(data.mean, data.std)
    return expected_normalisation(
        encoder=model.encoder, encoder_weights=model.encoder_weights, weights=model.weights
    )


def first_weights(config: Config) -> str | None:
    """SHA-256 of the file that the network's first weights come from; None if they come from elsewhere.

    Raises:
        WeightsError: if the file cannot be read.
    """
    file = weight_file(encoder_weights=config.model.encoder_weights, weights=config.model.weights)
    return file.digest() if file else None


def build_train_dataset(config: Config, split: CheckedSplit) -> TrainDataset:
    """
    Raises:
        ConfigError: a transform of `data.augment.custom` is unknown or refuses its arguments.
        DataError: the transforms fail on the first sample.
    """
    augment = config.data.augment
    samples, ignore_index = split.samples, split.samples.taxonomy.ignore_index
    of_classes = config.data.sampling.kind == "class_balanced_crops"
    if augment.custom is None:
        transforms = train_transforms(
            size=config.data.size,
            scale=augment.scale,
            flip=augment.flip,
            colour=augment.colour,
            blur=augment.blur,
            ignore_index=ignore_index,
            crop=config.data.crop,
            class_odds=class_odds(split.pixels).tolist() if of_classes else None,
        )
    elif of_classes:
        raise ConfigError(
            "data.sampling.kind='class_balanced_crops' chooses the crop, and so does data.augment.custom; "
            "use class_balanced_images, or no custom transforms"
        )
    else:
        try:
            transforms = named_transforms(augment.custom, ignore_index=ignore_index)
        except ValueError as error:
            raise ConfigError(f"data.augment.custom: {error}") from None
        transforms += [StillAnImage(), *crop_to(training_size(config), ignore_index=ignore_index)]
    transforms.append(normalising(build_normalisation(config)))
    dataset = TrainDataset(samples, TrainTransform(transforms, seed=config.seed))
    dataset[Place(epoch=0, index=0)]  # what always fails should not wait for the first step
    return dataset


def size_note(config: Config, samples: Samples) -> str:
    """What custom transforms see, if they leave images at another scale than the one they are scored at; or empty."""
    custom, (height, width) = config.data.augment.custom, config.data.size
    stored = samples.load(0).image.shape[:2]
    if custom is None or stored == (height, width) or any(_RESIZING.search(one["name"]) for one in custom):
        return ""
    return (
        f"data.augment.custom resizes nothing: training cuts its crops out of images of {stored[1]}x{stored[0]} pixels "
        f"as they are stored, and they are scored at {width}x{height} (data.size). To train at that scale, begin with "
        f"{{name: Resize, height: {height}, width: {width}, interpolation: {cv2.INTER_AREA}, "
        f"mask_interpolation: {cv2.INTER_NEAREST_EXACT}}}"
    )


def build_image_shares(config: Config, split: CheckedSplit) -> np.ndarray | None:
    """How often an epoch visits each training image; None: each of them once."""
    return None if config.data.sampling.kind == "uniform" else image_shares(split.pixels)


def training_size(config: Config) -> tuple[int, int]:
    """(height, width) in pixels of what the network is trained on."""
    return config.data.crop or config.data.size


def build_eval_dataset(
    config: Config, samples: Samples, *, normalisation: Normalisation | None = None
) -> EvalDataset:
    """The images of a split as a network is evaluated on them. `normalisation` is that of a network that is deployed
    already; by default it is that of the encoder's weights.
    """
    how = normalisation if normalisation is not None else build_normalisation(config)
    return EvalDataset(samples, EvalTransform(size=config.data.size, normalisation=how))


def worker_count(config: Config, *, on_gpu: bool, processes: int = 1) -> int:
    """`data.workers`, or a sensible number for each of the processes that share the cores: on a CPU the training
    itself uses all of them."""
    if config.data.workers is not None:
        return config.data.workers
    return max(1, min(MAX_WORKERS, usable_cores() // processes)) if on_gpu else 0
