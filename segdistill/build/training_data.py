"""From a `Config` to what a training reads: checked images, their order, loaders."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from lightning_fabric import Fabric
from rich.console import Console

from segdistill.build.datasets import (
    build_eval_dataset,
    build_image_shares,
    build_train_dataset,
    size_note,
    worker_count,
)
from segdistill.build.splits import build_splits, data_hash
from segdistill.config import Config
from segdistill.console import warn
from segdistill.data.loading import (
    Batch,
    EpochBatches,
    EvalDataset,
    EvalItem,
    eval_loader,
    refuse_too_few,
    train_loader,
)
from segdistill.data.samples import names_of
from segdistill.errors import ConfigError


@dataclass(frozen=True)
class TrainingData:
    """What one process of a training reads.

    Attributes:
        training_images: of all processes.
        val: the validation split.
        batches: which training images come when.
        train_loader: gives them.
        val_loader: gives this process's share of the validation split.
        names: split -> names of its images.
        hash: see `data_hash`; of all splits together.
        split_hashes: the same of each.
    """

    training_images: int
    val: EvalDataset
    batches: EpochBatches
    train_loader: Iterable[Batch]
    val_loader: Iterable[EvalItem]
    names: Mapping[str, Sequence[str]]
    hash: str
    split_hashes: dict[str, str]


def build_training_data(config: Config, fabric: Fabric, *, console: Console) -> TrainingData:
    """Read and check the training and the validation split.

    Raises:
        DataError: naming every problem by file.
        ConfigError: if images, batch size and processes do not go together.
    """
    splits = build_splits(config, ("train", "val"), console=console)
    train_set = build_train_dataset(config, splits["train"])
    if seen_otherwise := size_note(config, splits["train"].samples):
        warn(console, seen_otherwise)
    val_set = build_eval_dataset(config, splits["val"].samples)
    shares = build_image_shares(config, splits["train"])
    batches = epoch_batches(config, fabric, length=len(train_set), val_length=len(val_set), shares=shares)
    on_gpu = fabric.device.type == "cuda"
    workers = worker_count(config, on_gpu=on_gpu, processes=fabric.world_size)
    return TrainingData(
        training_images=len(train_set),
        val=val_set,
        batches=batches,
        train_loader=train_loader(train_set, batches, workers=workers, pin_memory=on_gpu),
        val_loader=eval_loader(
            val_set, workers=workers, rank=fabric.global_rank, world_size=fabric.world_size
        ),
        names={split: names_of(checked.samples) for split, checked in splits.items()},
        hash=data_hash(splits),
        split_hashes={split: data_hash({split: checked}) for split, checked in splits.items()},
    )


def epoch_batches(
    config: Config, fabric: Fabric, *, length: int, val_length: int, shares: np.ndarray | None = None
) -> EpochBatches:
    """Raises ConfigError if images, batch size and processes do not go together."""
    batch_size, accumulate = config.train.batch_size, config.train.accumulate
    if val_length < fabric.world_size:
        raise ConfigError(
            f"train.devices={fabric.world_size} is more than the {val_length} validation images; use fewer"
        )
    try:
        config.train.refuse_uneven_shares(fabric.world_size)
        refuse_too_few(length=length, batch_size=batch_size, accumulate=accumulate)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return EpochBatches(
        length=length,
        batch_size=batch_size,
        accumulate=accumulate,
        seed=config.seed,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        shares=shares,
    )
