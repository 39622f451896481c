"""Deterministic loading: which samples a step sees, and in which pixels, depends on seed and position alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from albumentations.augmentations.crops.transforms import CropSizeError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from segdistill.data.samples import LabelledImage, Samples
from segdistill.data.transforms import EvalTransform, TrainTransform
from segdistill.data.workers import WorkerLoader
from segdistill.errors import DataError
from segdistill.memory import is_out_of_memory
from segdistill.seeds import stream_seed


class Batch(NamedTuple):
    images: Tensor  # (B, 3, H, W) float32, normalised
    labels: Tensor  # (B, H, W) int64


@dataclass(frozen=True)
class EvalItem:
    index: int
    image: Tensor  # (3, h, w) float32, normalised, at the network's input size
    labels: Tensor  # (H, W) uint8, at the label's own size


@dataclass(frozen=True)
class Place:
    """One sample of one epoch, what the sampler asks the data set for.

    Attributes:
        epoch: from 0.
        index: of the sample.
        visit: how often the epoch has come by the sample before; it is augmented anew each time.
    """

    epoch: int
    index: int
    visit: int = 0


@dataclass(frozen=True)
class TrainDataset(Dataset[Batch]):
    """Augmented training samples by `Place`; it has no state that could go stale in a worker.

    A transform that fails is a DataError that names the sample.
    """

    samples: Samples
    transform: TrainTransform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: Place) -> Batch:
        sample = self.samples.load(place.index)
        try:
            image, mask = self.transform(sample, epoch=place.epoch, index=place.index, visit=place.visit)
            self._refuse_other_labels(mask)
        except Exception as error:  # of any type: it may be a transform of the user's choice
            if is_out_of_memory(error):
                raise
            raise DataError(
                f"data.augment: the transforms fail on {self.samples.name(place.index)} "
                f"({sample.image.shape[1]}x{sample.image.shape[0]}): {type(error).__name__}: {error}"
                + (" (give it pad_if_needed: true)" if isinstance(error, CropSizeError) else "")
            ) from error
        return Batch(to_tensor(image), torch.from_numpy(mask.astype(np.int64)))

    def _refuse_other_labels(self, mask: np.ndarray) -> None:
        found = np.bincount(mask.ravel()).nonzero()[0].tolist()
        if strangers := sorted({*found} - {*self.samples.taxonomy.allowed_values()}):
            raise ValueError(
                f"they give labels {strangers[:5]}, which are no classes (check their fill_mask)"
            )


@dataclass(frozen=True)
class EvalDataset(Dataset[EvalItem]):
    """Evaluation samples by index: the image resized, the labels untouched."""

    samples: Samples
    transform: EvalTransform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> EvalItem:
        sample: LabelledImage = self.samples.load(index)
        return EvalItem(index, to_tensor(self.transform(sample.image)), torch.tensor(sample.mask))


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) float32 -> (3, H, W)"""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def epoch_order(*, seed: int, epoch: int, length: int) -> list[int]:
    """The permutation of 0..length-1 in which an epoch visits the samples."""
    return np.random.default_rng(stream_seed(seed, "order", epoch)).permutation(length).tolist()


def shared_order(shares: np.ndarray, *, seed: int, epoch: int) -> list[int]:
    """The samples that an epoch of as many visits as there are samples comes by, in shares of their own.

    Systematic sampling: sample i is visited floor(N p_i) or ceil(N p_i) times, N p_i in the mean over epochs. A
    pure function of its arguments.

    Args:
        shares: (N,) p, sums to 1.
        seed: of the run.
        epoch: from 0.
    """
    rng = np.random.default_rng(stream_seed(seed, "shares", epoch))
    length = len(shares)
    mixed = rng.permutation(length)  # else neighbours in the data set would take turns
    marks = (np.arange(length) + rng.random()) / length
    visited = mixed[np.searchsorted(np.cumsum(shares[mixed]), marks, side="right").clip(max=length - 1)]
    return rng.permutation(visited).tolist()


class EpochBatches(Sampler[list[Place]]):
    """One process's share of every batch of one epoch.

    Batch b holds places b*B .. (b+1)*B of the epoch's order, dealt out to the processes in turn, so the
    union over processes does not depend on their number. An epoch's last, incomplete step is left out;
    the order being new each epoch, no sample is left out for long.
    """

    def __init__(
        self,
        *,
        length: int,
        batch_size: int,
        accumulate: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        shares: np.ndarray | None = None,
    ) -> None:
        """
        Args:
            length: samples in the data set.
            batch_size: images per batch over all processes, a multiple of `world_size`.
            accumulate: batches per optimiser step.
            seed: of the run.
            rank: of this process.
            world_size: number of processes.
            shares: (length,) how often each sample is visited, see `shared_order`; None: once per epoch.
        """
        assert batch_size % world_size == 0, "checked where the configuration is known"
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.shares = shares
        self.steps = length // (batch_size * accumulate)
        self.batches = self.steps * accumulate
        self._epoch = 0
        self._first_batch = 0

    def start_at(self, *, epoch: int, batch: int = 0) -> None:
        """Choose what the next iteration yields: this epoch, from this batch on."""
        self._epoch, self._first_batch = epoch, batch

    def __len__(self) -> int:
        return self.batches - self._first_batch

    def __iter__(self) -> Iterator[list[Place]]:
        places = self._places()
        for batch in range(self._first_batch, self.batches):
            whole = places[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield whole[self.rank :: self.world_size]

    def _places(self) -> list[Place]:
        """All places of the epoch, those of the other processes among them."""
        if self.shares is None:
            order = epoch_order(seed=self.seed, epoch=self._epoch, length=self.length)
        else:
            order = shared_order(self.shares, seed=self.seed, epoch=self._epoch)
        visits = [0] * self.length
        places = []
        for index in order:
            places.append(Place(self._epoch, index, visits[index]))
            visits[index] += 1
        return places


def train_loader(
    dataset: TrainDataset, batches: EpochBatches, *, workers: int, pin_memory: bool
) -> "DataLoader[Batch]":
    """The batches of one process in their order; the pixels do not depend on the number of workers."""
    return WorkerLoader(
        dataset,
        workers=workers,
        batch_sampler=batches,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
    )


def eval_loader(
    dataset: EvalDataset, *, workers: int, rank: int = 0, world_size: int = 1
) -> "DataLoader[EvalItem]":
    """Single items, so that labels of different sizes need no padding.

    Each process gets its share of the indexes without padding them, so that every image counts once.
    """
    return WorkerLoader(
        dataset,
        workers=workers,
        sampler=range(rank, len(dataset), world_size),
        batch_size=None,
        collate_fn=_in_shared_memory if workers else None,
        persistent_workers=workers > 0,
    )


def _in_shared_memory(item: EvalItem) -> EvalItem:
    """Move it to shared memory, where it is sent from anyway. If that does not suffice, the error is told here; a
    worker's queue would drop the item, and the other side would wait for it.
    """
    item.image.share_memory_()
    item.labels.share_memory_()
    return item


def refuse_too_few(*, length: int, batch_size: int, accumulate: int) -> None:
    """Raises ValueError, with the way out, if the images are less than one step takes."""
    if length < batch_size * accumulate:
        raise ValueError(
            f"train.batch_size={batch_size} times train.accumulate={accumulate} is more than the {length} "
            "training images; use a smaller one"
        )
