"""Class-balanced images and crops: rare classes come up more often, and everything follows from seed and place."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch

from segdistill.data.files import LabelledImage
from segdistill.data.loading import EpochBatches, Place, TrainDataset, shared_order, train_loader
from segdistill.data.statistics import class_odds, count_pixels, image_shares
from segdistill.data.taxonomy import CAMVID, Taxonomy
from segdistill.data.transforms import RandomScaleCrop, TrainTransform, train_transforms

RARE = 9
SIZE = (32, 48)


class Streets:
    """Twelve images of class 0, in one of which a single pixel is of class RARE."""

    taxonomy: Taxonomy = CAMVID

    def __len__(self) -> int:
        return 12

    def name(self, index: int) -> str:
        return str(index)

    def load(self, index: int) -> LabelledImage:
        image = np.random.default_rng(index).integers(0, 256, (*SIZE, 3), np.uint8)
        mask = np.zeros(SIZE, np.uint8)
        if index == 5:
            mask[3, 40] = RARE
        return LabelledImage(image, mask)


PIXELS = count_pixels(Streets())
SHARES = image_shares(PIXELS)  # image 5: 1/2 + 1/24, each other one: 1/24


def batches(**changes: int) -> EpochBatches:
    return EpochBatches(length=12, batch_size=4, accumulate=1, seed=3, shares=SHARES, **changes)


def places(epoch: int, **changes: int) -> list[list[Place]]:
    sampler = batches(**changes)
    sampler.start_at(epoch=epoch)
    return list(sampler)


def test_visits_are_what_the_shares_ask_for() -> None:
    assert SHARES.tolist() == pytest.approx([1 / 24] * 5 + [13 / 24] + [1 / 24] * 6)
    counts = []
    for epoch in range(40):
        order = shared_order(SHARES, seed=0, epoch=epoch)
        assert len(order) == 12
        visits = Counter(order)
        assert visits[5] in (6, 7)  # of 12 x 13/24 = 6.5
        assert all(visits[index] <= 1 for index in range(12) if index != 5)
        counts.append([visits[index] for index in range(12)])
    means = np.mean(counts, axis=0)
    assert means[5] == pytest.approx(6.5, abs=0.25)
    assert np.delete(means, 5) == pytest.approx(np.full(11, 0.5), abs=0.3)  # 11 x 0.5 + 6.5 = 12


def test_equal_shares_visit_every_image_once() -> None:
    for epoch in range(10):
        assert sorted(shared_order(np.full(7, 1 / 7), seed=1, epoch=epoch)) == list(range(7))


def test_the_order_follows_from_seed_and_epoch() -> None:
    orders = {tuple(shared_order(SHARES, seed=seed, epoch=epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert shared_order(SHARES, seed=2, epoch=1) == shared_order(SHARES, seed=2, epoch=1)


def test_visits_are_numbered_and_each_has_its_own_pixels() -> None:
    found = [place for place in chain.from_iterable(places(0)) if place.index == 5]
    assert [place.visit for place in found] == list(range(len(found)))
    transforms = train_transforms(size=SIZE, scale=(1, 2), flip=0.5, colour=0, blur=0, ignore_index=11)
    dataset = TrainDataset(Streets(), TrainTransform(transforms, seed=3))
    assert len({dataset[place].images.numpy().tobytes() for place in found}) == len(found) >= 6
    assert torch.equal(dataset[Place(0, 5)].images, dataset[Place(0, 5, 0)].images)


def test_two_processes_share_the_places_of_one() -> None:
    whole = places(1)
    parts = [places(1, rank=rank, world_size=2) for rank in range(2)]
    for batch, even, odd in zip(whole, *parts, strict=True):
        assert (batch[0::2], batch[1::2]) == (even, odd)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_sees_the_same_pixels(workers: int) -> None:
    transforms = train_transforms(
        size=SIZE, scale=(1, 2), flip=0.5, colour=0.3, blur=0, ignore_index=11, crop=(16, 16),
        class_odds=class_odds(PIXELS).tolist(),
    )  # fmt: skip
    dataset = TrainDataset(Streets(), TrainTransform(transforms, seed=3))
    seen = [list(train_loader(dataset, batches(), workers=n, pin_memory=False)) for n in (0, workers)]
    for one, other in zip(*seen, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


# ---- crops


def shows_rare(class_odds: list[float] | None, tries: int = 300) -> float:
    """Share of the crops of image 5 (an eighth of its area each) that show the rare pixel."""
    transform = TrainTransform([RandomScaleCrop(SIZE, (1, 1), 11, (16, 12), class_odds)], seed=0)
    sample = Streets().load(5)
    return np.mean([(transform(sample, epoch=0, index=i)[1] == RARE).any() for i in range(tries)])


def odds(zero: float, rare: float) -> list[float]:
    return [zero, *[0.0] * (RARE - 1), rare, 0.0]


def test_a_crop_shows_the_class_that_was_drawn() -> None:
    assert shows_rare(odds(0, 1)) == 1.0
    # 4 x 8 of the 17 x 37 places of the window contain pixel (3, 40), at random.
    assert shows_rare(None) == pytest.approx(4 * 8 / (17 * 37), abs=0.03)
    # With odds 1/12 : 1 the rare class is drawn 12 times in 13.
    assert shows_rare(class_odds(PIXELS).tolist()) == pytest.approx(12 / 13, abs=0.05)


def test_the_window_around_a_pixel_is_anywhere() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[30, 33] = RARE
    sample = LabelledImage(np.zeros((64, 64, 3), np.uint8), mask)
    transform = TrainTransform([RandomScaleCrop((64, 64), (1, 1), 11, (8, 8), odds(0, 1))], seed=0)
    found = [np.argwhere(transform(sample, epoch=0, index=i)[1] == RARE) for i in range(1200)]
    assert all(len(one) == 1 for one in found)
    assert {tuple(one[0]) for one in found} == {(row, column) for row in range(8) for column in range(8)}


@pytest.mark.parametrize(("scale", "least"), [(0.5, 0.9), (1.0, 1.0), (2.0, 1.0)])
def test_at_every_scale(scale: float, least: float) -> None:
    """Shrinking, a pixel at the window's border may fall between those that are kept."""
    mask = np.zeros((64, 96), np.uint8)
    mask[:4, :4] = RARE
    sample = LabelledImage(np.zeros((64, 96, 3), np.uint8), mask)
    transform = TrainTransform([RandomScaleCrop((64, 96), (scale, scale), 11, (32, 32), odds(0, 1))], seed=0)
    shown = [transform(sample, epoch=0, index=i)[1] for i in range(100)]
    assert all(one.shape == (32, 32) for one in shown)
    assert np.mean([(one == RARE).any() for one in shown]) >= least


def test_without_odds_in_the_image_any_place_will_do() -> None:
    transform = TrainTransform([RandomScaleCrop(SIZE, (1, 1), 11, (16, 12), odds(0, 1))], seed=0)
    assert transform(Streets().load(1), epoch=0, index=0)[1].shape == (16, 12)
