"""Which samples a step sees, and in which pixels: a matter of seed and position alone."""

from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import pytest
import torch
from torch import Tensor

from segdistill.data.loading import (
    Batch,
    EpochBatches,
    EvalDataset,
    Place,
    TrainDataset,
    epoch_order,
    eval_loader,
    refuse_too_few,
    to_tensor,
    train_loader,
)
from segdistill.data.samples import CachedSamples, LabelledImage
from segdistill.data.taxonomy import CAMVID, Taxonomy
from segdistill.data.transforms import (
    EvalTransform,
    TrainTransform,
    named_transforms,
    normalising,
    train_transforms,
)
from segdistill.errors import DataError
from segdistill.normalisation import Normalisation

SIZE = (16, 24)
NORMALISATION = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@dataclass
class Noise:
    """Random samples, each of its own size."""

    length: int
    taxonomy: Taxonomy = CAMVID
    loaded: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"noise {index}"

    def load(self, index: int) -> LabelledImage:
        self.loaded.append(index)
        rng = np.random.default_rng(index)
        shape = (20 + index, 33 - index)
        return LabelledImage(
            rng.integers(0, 256, (*shape, 3), np.uint8), rng.integers(0, 12, shape, np.uint8)
        )


def train_dataset(length: int = 13, seed: int = 4) -> TrainDataset:
    transforms = train_transforms(size=SIZE, scale=(0.5, 2), flip=0.5, colour=0.4, blur=0.2, ignore_index=11)
    return TrainDataset(Noise(length), TrainTransform([*transforms, normalising(NORMALISATION)], seed=seed))


def eval_dataset(length: int) -> EvalDataset:
    return EvalDataset(Noise(length), EvalTransform(size=SIZE, normalisation=NORMALISATION))


def epoch_batches(length: int = 13, batch_size: int = 4, accumulate: int = 1, **others: int) -> EpochBatches:
    return EpochBatches(length=length, batch_size=batch_size, accumulate=accumulate, seed=4, **others)


def indexes(batches: EpochBatches, epoch: int = 0, batch: int = 0) -> list[list[int]]:
    batches.start_at(epoch=epoch, batch=batch)
    return [[place.index for place in one] for one in batches]


# ---- order


def test_the_order_is_a_permutation() -> None:
    for epoch in range(5):
        assert sorted(epoch_order(seed=0, epoch=epoch, length=17)) == list(range(17))


def test_every_epoch_and_seed_has_its_order() -> None:
    orders = {
        tuple(epoch_order(seed=seed, epoch=epoch, length=17)) for seed in range(4) for epoch in range(5)
    }
    assert len(orders) == 20
    assert epoch_order(seed=3, epoch=2, length=17) == epoch_order(seed=3, epoch=2, length=17)


def test_batches_are_the_order_cut_up() -> None:
    batches = epoch_batches()
    order = epoch_order(seed=4, epoch=2, length=13)
    assert indexes(batches, epoch=2) == [order[0:4], order[4:8], order[8:12]]
    assert {place.epoch for one in batches for place in one} == {2}


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_batches_of_one(world_size: int) -> None:
    whole = indexes(epoch_batches(), epoch=1)
    shares = [indexes(epoch_batches(rank=rank, world_size=world_size), epoch=1) for rank in range(world_size)]
    for place, batch in enumerate(whole):
        parts = [share[place] for share in shares]
        assert [len(part) for part in parts] == [4 // world_size] * world_size
        assert sorted(chain.from_iterable(parts)) == sorted(batch)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_later_start_gives_exactly_the_rest(rank: int) -> None:
    batches = epoch_batches(rank=rank, world_size=2)
    whole = indexes(batches, epoch=1)
    for first in range(len(whole) + 1):
        assert indexes(batches, epoch=1, batch=first) == whole[first:]
        assert len(batches) == len(whole) - first
    assert indexes(batches, epoch=1) == whole


@pytest.mark.parametrize(
    ("length", "batch_size", "accumulate", "steps", "batches"),
    [
        (13, 4, 1, 3, 3),
        (12, 4, 1, 3, 3),
        (13, 4, 2, 1, 2),
        (16, 4, 2, 2, 4),
        (11, 2, 3, 1, 3),
        (3, 4, 1, 0, 0),
    ],
)
def test_incomplete_steps_are_dropped(
    length: int, batch_size: int, accumulate: int, steps: int, batches: int
) -> None:
    sampler = epoch_batches(length, batch_size, accumulate)
    assert (sampler.steps, sampler.batches, len(sampler)) == (steps, batches, batches)
    found = indexes(sampler)
    assert [len(batch) for batch in found] == [batch_size] * batches


def test_no_sample_is_left_out_for_long() -> None:
    batches = epoch_batches()
    left_out = [
        set(range(13)) - set(chain.from_iterable(indexes(batches, epoch=epoch))) for epoch in range(12)
    ]
    assert all(len(one) == 1 for one in left_out)
    assert len(set.union(*left_out)) > 3


# ---- pixels


def test_one_item() -> None:
    dataset = train_dataset()
    item = dataset[Place(epoch=1, index=5)]
    image, mask = dataset.transform(dataset.samples.load(5), epoch=1, index=5)
    assert len(dataset) == 13
    assert (item.images.shape, item.images.dtype) == ((3, *SIZE), torch.float32)
    assert (item.labels.shape, item.labels.dtype) == (SIZE, torch.int64)
    np.testing.assert_array_equal(item.images.numpy(), image.transpose(2, 0, 1))
    np.testing.assert_array_equal(item.labels.numpy(), mask)


def test_to_tensor() -> None:
    image = np.arange(2 * 4 * 3, dtype=np.float32).reshape(2, 4, 3)
    tensor = to_tensor(image[:, ::-1])  # a flipped view, as Albumentations may return it
    assert tensor.shape == (3, 2, 4)
    assert tensor.is_contiguous()
    assert tensor[1, 0].tolist() == [10.0, 7.0, 4.0, 1.0]


def seen(workers: int) -> list[list[Batch]]:
    """Two epochs by one loader, then the second one once more from its batch 2 on."""
    batches = epoch_batches()
    loader = train_loader(train_dataset(), batches, workers=workers, pin_memory=False)
    epochs = []
    for epoch, batch in ((0, 0), (1, 0), (1, 2)):
        batches.start_at(epoch=epoch, batch=batch)
        epochs.append(list(loader))
    return epochs


def assert_same(a: list[Batch], b: list[Batch]) -> None:
    assert len(a) == len(b)
    for left, right in zip(a, b, strict=True):
        assert torch.equal(left.images, right.images)
        assert torch.equal(left.labels, right.labels)


@pytest.fixture(scope="module")
def without_workers() -> list[list[Batch]]:
    return seen(workers=0)


def test_a_batch(without_workers: list[list[Batch]]) -> None:
    batch = without_workers[0][0]
    assert isinstance(batch, Batch)
    assert (batch.images.shape, batch.labels.shape) == ((4, 3, *SIZE), (4, *SIZE))
    dataset = train_dataset()
    for place, index in enumerate(epoch_order(seed=4, epoch=0, length=13)[:4]):
        alone = dataset[Place(0, index)]
        assert torch.equal(batch.images[place], alone.images)
        assert torch.equal(batch.labels[place], alone.labels)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_sees_the_same_pixels(without_workers: list[list[Batch]], workers: int) -> None:
    for one, other in zip(without_workers, seen(workers), strict=True):
        assert_same(one, other)


def test_epochs_differ(without_workers: list[list[Batch]]) -> None:
    first, second, _ = without_workers
    assert not any(torch.equal(a.images, b.images) for a in first for b in second)


def test_a_resumed_epoch_sees_the_rest_of_the_same_pixels(without_workers: list[list[Batch]]) -> None:
    _, whole, rest = without_workers
    assert len(whole) == 3
    assert_same(rest, whole[2:])


def test_a_new_program_resumes_in_the_same_pixels(without_workers: list[list[Batch]]) -> None:
    batches = epoch_batches()
    loader = train_loader(train_dataset(), batches, workers=0, pin_memory=False)
    batches.start_at(epoch=1, batch=1)
    assert len(loader) == 2
    assert_same(list(loader), without_workers[1][1:])


def test_two_processes_see_the_pixels_of_one(without_workers: list[list[Batch]]) -> None:
    shares = []
    for rank in range(2):
        batches = epoch_batches(rank=rank, world_size=2)
        batches.start_at(epoch=1)
        shares.append(list(train_loader(train_dataset(), batches, workers=0, pin_memory=False)))
    for whole, even, odd in zip(without_workers[1], *shares, strict=True):
        assert torch.equal(whole.images[0::2], even.images)
        assert torch.equal(whole.images[1::2], odd.images)


# ---- evaluation


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("length", [5, 6])
def test_evaluation_counts_every_image_once(world_size: int, length: int) -> None:
    found: list[int] = []
    for rank in range(world_size):
        loader = eval_loader(eval_dataset(length), workers=0, rank=rank, world_size=world_size)
        items = list(loader)
        assert len(items) == len(loader)
        found += [item.index for item in items]
    assert sorted(found) == list(range(length))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_leaves_the_labels_as_they_are(workers: int) -> None:
    items = list(eval_loader(eval_dataset(4), workers=workers))
    for index, item in enumerate(items):
        sample = Noise(4).load(index)
        assert item.index == index
        assert (item.image.shape, item.image.dtype) == ((3, *SIZE), torch.float32)
        assert isinstance(item.labels, Tensor)
        assert item.labels.dtype == torch.uint8
        np.testing.assert_array_equal(item.labels.numpy(), sample.mask)
        transform = EvalTransform(size=SIZE, normalisation=NORMALISATION)
        np.testing.assert_array_equal(item.image.numpy(), transform(sample.image).transpose(2, 0, 1))


# ---- samples in memory, sizes that cannot work


def test_cached_samples_are_decoded_once() -> None:
    source = Noise(4)
    cached = CachedSamples(source, tuple(map(source.load, range(4))))
    assert source.loaded == [0, 1, 2, 3]
    assert (len(cached), cached.name(2), cached.taxonomy) == (4, "noise 2", CAMVID)
    np.testing.assert_array_equal(cached.load(3).image, Noise(4).load(3).image)
    assert source.loaded == [0, 1, 2, 3]


def test_a_step_needs_enough_images() -> None:
    refuse_too_few(length=8, batch_size=4, accumulate=2)
    with pytest.raises(
        ValueError, match=r"train\.batch_size=4 times train\.accumulate=2 is more than the 7 training"
    ):
        refuse_too_few(length=7, batch_size=4, accumulate=2)


@dataclass
class Broken(Noise):
    """Its second sample cannot be read."""

    def load(self, index: int) -> LabelledImage:
        if index:
            raise DataError("b.png: cannot be decoded: Error: cut short\n  c.png: no such file")
        return super().load(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_is_told_in_the_same_words_by_a_worker(workers: int) -> None:
    dataset = EvalDataset(Broken(2), EvalTransform(size=SIZE, normalisation=NORMALISATION))
    with pytest.raises(DataError) as caught:
        list(eval_loader(dataset, workers=workers))
    assert str(caught.value) == "b.png: cannot be decoded: Error: cut short\n  c.png: no such file"


def test_a_worker_that_cannot_hand_on_an_image_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container /dev/shm may be small. A queue of torch's would print the error and wait for ever."""

    def full(_: Tensor) -> Tensor:
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"
        )

    monkeypatch.setattr(Tensor, "share_memory_", full)  # in the worker, too, which is forked
    with pytest.raises(RuntimeError, match="unable to allocate shared memory"):
        list(eval_loader(eval_dataset(3), workers=1))


def test_a_transform_that_fills_masks_with_no_class_is_named_with_its_sample() -> None:
    transforms = named_transforms(
        [{"name": "Rotate", "limit": (45, 45), "p": 1.0, "fill_mask": 200}], ignore_index=11
    )
    dataset = TrainDataset(Noise(1), TrainTransform(transforms, seed=0))
    with pytest.raises(DataError, match=r"fail on noise 0 .*labels \[200\], which are no classes"):
        dataset[Place(epoch=0, index=0)]
