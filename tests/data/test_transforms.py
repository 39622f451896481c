"""Augmentation: a pure function of (seed, epoch, index), image and mask moved as one."""

import zlib
from collections.abc import Sequence

import albumentations as A
import cv2
import numpy as np
import pytest
from albumentations.core.transforms_interface import BasicTransform

from segdistill.data.samples import LabelledImage
from segdistill.data.transforms import (
    EvalTransform,
    RandomScaleCrop,
    TrainTransform,
    crop_to,
    named_transforms,
    normalising,
    train_transforms,
)
from segdistill.normalisation import Normalisation

IGNORE = 11
NORMALISATION = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def noise(height: int = 40, width: int = 56) -> LabelledImage:
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (height, width, 3), np.uint8)
    mask = rng.integers(0, 11, (height, width), np.uint8)
    image.flags.writeable = mask.flags.writeable = False  # cached samples must never change
    return LabelledImage(image, mask)


def coordinates(height: int = 96, width: int = 120) -> LabelledImage:
    """Every pixel of the image says where it comes from: (2 row + 10, 2 column + 10, 100); the mask says so, too,
    in cells of 24 x 24: class 2 * (row // 24 % 2) + column // 24 % 2 + 4 * (row // 48)."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([2 * rows + 10, 2 * columns + 10, np.full_like(rows, 100)], axis=-1).astype(np.uint8)
    return LabelledImage(image, label_at(rows, columns).astype(np.uint8))


def label_at(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return 2 * (rows // 24 % 2) + columns // 24 % 2 + 4 * (rows // 48)


def place_of(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of a transformed `coordinates` image come from; meaningless in the padding."""
    return (image[..., 0].astype(float) - 10) / 2, (image[..., 1].astype(float) - 10) / 2


def pipeline(**changes: object) -> list[BasicTransform]:
    keywords = {
        "size": (40, 56),
        "scale": (0.5, 2.0),
        "flip": 0.5,
        "colour": 0.4,
        "blur": 0.3,
        "ignore_index": IGNORE,
    }
    return train_transforms(**{**keywords, **changes})


def crop(size: tuple[int, int], scale: float | tuple[float, float]) -> list[BasicTransform]:
    bounds = scale if isinstance(scale, tuple) else (scale, scale)
    return [RandomScaleCrop(size, bounds, IGNORE)]


def run(
    transforms: Sequence[BasicTransform],
    sample: LabelledImage,
    index: int = 0,
    *,
    epoch: int = 0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    return TrainTransform(transforms, seed=seed)(sample, epoch=epoch, index=index)


# ---- a pure function of (seed, epoch, index)


def test_neither_order_nor_instance_matters() -> None:
    sample = noise()
    keys = [(epoch, index) for epoch in range(3) for index in range(4)]
    one = TrainTransform([*pipeline(), normalising(NORMALISATION)], seed=5)
    other = TrainTransform([*pipeline(), normalising(NORMALISATION)], seed=5)
    forward = {key: one(sample, epoch=key[0], index=key[1]) for key in keys}
    backward = {key: other(sample, epoch=key[0], index=key[1]) for key in reversed(keys)}
    again = {key: one(sample, epoch=key[0], index=key[1]) for key in keys}
    for key in keys:
        for a, b, c in zip(forward[key], backward[key], again[key], strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(a, c)


def test_global_random_states_do_not_matter_and_are_left_alone() -> None:
    import random

    transform = TrainTransform(pipeline(), seed=5)
    np.random.seed(0)
    random.seed(0)
    first = transform(noise(), epoch=0, index=0)
    np.random.seed(1)
    random.seed(1)
    second = transform(noise(), epoch=0, index=0)
    np.testing.assert_array_equal(first[0], second[0])
    assert np.random.rand() == np.random.RandomState(1).rand()
    assert random.random() == random.Random(1).random()


def test_every_key_has_its_own_pixels() -> None:
    sample = noise()
    images = [
        run(pipeline(), sample, index, epoch=epoch, seed=seed)[0].tobytes()
        for seed, epoch, index in [
            (0, 0, 0),
            (0, 0, 1),
            (0, 1, 0),
            (1, 0, 0),
            (0, 1, 1),
            (1, 1, 0),
            (0, 0, 10**6),
        ]
    ]
    assert len(set(images)) == len(images)


def test_transforms_of_one_sample_draw_independently() -> None:
    sample = coordinates()
    flips = named_transforms([{"name": "HorizontalFlip"}, {"name": "VerticalFlip"}], ignore_index=IGNORE)
    transform = TrainTransform(flips, seed=0)
    outcomes = []
    for index in range(60):
        image, _ = transform(sample, epoch=0, index=index)
        rows, columns = place_of(image)
        outcomes.append((columns[0, 0] > 60, rows[0, 0] > 48))
    assert set(outcomes) == {(False, False), (False, True), (True, False), (True, True)}


def test_the_flips_share_is_what_was_asked_for() -> None:
    transform = TrainTransform(
        pipeline(scale=(1.0, 1.0), flip=0.25, colour=0, blur=0, size=(96, 120)), seed=0
    )
    flipped = [
        place_of(transform(coordinates(), epoch=0, index=index)[0])[1][0, 0] > 60 for index in range(400)
    ]
    assert 0.18 < np.mean(flipped) < 0.32


# ---- RandomScaleCrop


def test_scale_1_is_a_plain_resize_of_everything() -> None:
    sample = noise(40, 56)
    image, mask = run(crop((80, 112), 1.0), sample)
    np.testing.assert_array_equal(image, cv2.resize(sample.image, (112, 80), interpolation=cv2.INTER_LINEAR))
    np.testing.assert_array_equal(mask, np.repeat(np.repeat(sample.mask, 2, 0), 2, 1))
    image, mask = run(crop((40, 56), 1.0), sample)
    np.testing.assert_array_equal(image, sample.image)
    np.testing.assert_array_equal(mask, sample.mask)


def test_shrinking_averages_the_image() -> None:
    sample = noise(40, 56)
    image, mask = run(crop((20, 28), 1.0), sample)
    means = sample.image.reshape(20, 2, 28, 2, 3).astype(float).mean((1, 3))
    assert np.abs(image - means).max() <= 0.5
    blocks = sample.mask.reshape(20, 2, 28, 2)
    assert (blocks == mask[:, None, :, None]).any((1, 3)).all()  # a label that occurs there, never a mixture


def test_scale_2_shows_a_window_of_half_the_height_and_width() -> None:
    sample = coordinates()
    corners = set()
    for index in range(20):
        image, mask = run(crop((96, 120), 2.0), sample, index)
        rows, columns = place_of(image)
        assert image.shape == (96, 120, 3)
        assert not (mask == IGNORE).any()
        top, left = round(rows.min()), round(columns.min())
        corners.add((top, left))
        # Magnified twice, every source pixel of a 48 x 60 window occurs as a block of 2 x 2 in the mask.
        window = sample.mask[top : top + 48, left : left + 60]
        np.testing.assert_array_equal(mask, np.repeat(np.repeat(window, 2, 0), 2, 1))
        assert (round(rows.max()), round(columns.max())) == (top + 47, left + 59)
    assert len(corners) > 15
    assert max(top for top, _ in corners) <= 48
    assert max(left for _, left in corners) <= 60


def test_scale_half_shows_everything_at_half_size() -> None:
    sample = coordinates()
    places = set()
    for index in range(20):
        image, mask = run(crop((96, 120), 0.5), sample, index)
        padded = mask == IGNORE
        assert padded.mean() == 0.75
        assert (image[padded] == 0).all()
        assert (image[~padded] > 0).all()
        rows, columns = np.nonzero(~padded)
        top, left = rows.min(), columns.min()
        assert (rows.max(), columns.max()) == (top + 47, left + 59)
        places.add((top, left))
        small = cv2.resize(sample.image, (60, 48), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(image[top : top + 48, left : left + 60], small)
    assert len(places) > 15


def test_the_scale_is_spread_over_its_range() -> None:
    transform = TrainTransform(crop((40, 40), (0.5, 1.0)), seed=0)
    shares = [
        np.sqrt((transform(noise(40, 40), epoch=0, index=index)[1] != IGNORE).mean()) for index in range(200)
    ]
    assert 0.5 <= min(shares) < 0.53
    assert 0.97 < max(shares) <= 1.0
    assert 0.72 < np.mean(shares) < 0.78


@pytest.mark.parametrize("size", [(96, 120), (64, 80), (61, 131), (150, 90)])
@pytest.mark.parametrize("scale", [(0.5, 1.0), (1.0, 2.5), (0.3, 3.0)])
def test_image_and_mask_stay_aligned(size: tuple[int, int], scale: tuple[float, float]) -> None:
    sample = coordinates()
    transform = TrainTransform([*crop(size, scale), A.HorizontalFlip(p=0.5)], seed=1)
    for index in range(25):
        image, mask = transform(sample, epoch=0, index=index)
        assert image.shape == (*size, 3)
        assert mask.shape == size
        padded = mask == IGNORE
        np.testing.assert_array_equal(padded, (image == 0).all(-1))
        rows, columns = place_of(image)
        # Where the source lies clear of a cell's edge, colour and label must name the same cell. A place is
        # known to half a pixel of the result, which is up to 1 / scale source pixels.
        shown = (~padded).any(1).sum(), (~padded).any(0).sum()
        slack = 1.5 + max(96 / shown[0], 120 / shown[1]) / 2
        clear = ~padded
        for place in (rows, columns):
            distance = np.minimum((place + 0.5) % 24, 24 - (place + 0.5) % 24)
            clear &= distance > slack
        assert clear.mean() > 0.02
        expected = label_at(np.round(rows).astype(int), np.round(columns).astype(int))
        np.testing.assert_array_equal(mask[clear], expected[clear])


@pytest.mark.parametrize("source", [(37, 53), (1, 1), (3, 200), (101, 64)])
@pytest.mark.parametrize("size", [(45, 31), (32, 32)])
def test_odd_sizes(source: tuple[int, int], size: tuple[int, int]) -> None:
    sample = noise(*source)
    transform = TrainTransform([*pipeline(size=size, scale=(0.01, 20.0)), normalising(NORMALISATION)], seed=3)
    for index in range(20):
        image, mask = transform(sample, epoch=0, index=index)
        assert (image.shape, image.dtype) == ((*size, 3), np.float32)
        assert (mask.shape, mask.dtype) == (size, np.uint8)
        assert (mask != IGNORE).any()


def test_masks_hold_classes_and_the_ignore_index_only() -> None:
    sample = LabelledImage(noise().image, np.where(noise().mask < 5, 2, 9).astype(np.uint8))
    transform = TrainTransform([*pipeline(), normalising(NORMALISATION)], seed=0)
    seen = set()
    for index in range(40):
        seen |= set(np.unique(transform(sample, epoch=0, index=index)[1]).tolist())
    assert seen == {2, 9, IGNORE}


def test_what_has_no_strength_is_left_out() -> None:
    assert [type(one).__name__ for one in pipeline()] == [
        "RandomScaleCrop", "HorizontalFlip", "ColorJitter", "GaussianBlur",
    ]  # fmt: skip
    assert [type(one) for one in pipeline(flip=0, colour=0, blur=0)] == [RandomScaleCrop]


def test_colour_and_blur_leave_the_mask() -> None:
    sample = noise()
    changed = 0
    for index in range(10):
        image, mask = run(pipeline(scale=(1.0, 1.0), flip=0, colour=0.5, blur=1.0), sample, index)
        np.testing.assert_array_equal(mask, sample.mask)
        changed += not np.array_equal(image, sample.image)
    assert changed == 10


# ---- crop_to


def test_crop_to_pads_with_black_and_the_ignore_index() -> None:
    sample = noise(20, 100)
    places = set()
    for index in range(30):
        image, mask = run(crop_to((40, 56), ignore_index=IGNORE), sample, index)
        assert (image.shape, mask.shape) == ((40, 56, 3), (40, 56))
        padded = mask == IGNORE
        assert padded.mean() == 0.5
        assert (image[padded] == 0).all()
        assert (image[~padded] > 0).all()
        top = int(np.flatnonzero(~padded.all(1))[0])
        found = [
            left
            for left in range(45)
            if np.array_equal(sample.mask[:, left : left + 56], mask[top : top + 20])
        ]
        assert len(found) == 1
        np.testing.assert_array_equal(image[top : top + 20], sample.image[:, found[0] : found[0] + 56])
        places.add((top, found[0]))
    assert len(places) > 20


# ---- named_transforms


def test_named_transforms_in_order_with_their_arguments() -> None:
    transforms = named_transforms(
        [{"name": "CLAHE", "p": 0.25}, {"name": "RandomCrop", "height": 8, "width": 9}], ignore_index=IGNORE
    )
    assert [type(one) for one in transforms] == [A.CLAHE, A.RandomCrop]
    assert transforms[0].p == 0.25
    image, mask = run(transforms, noise())
    assert (image.shape, mask.shape) == ((8, 9, 3), (8, 9))


def test_advice_to_use_another_transform_is_no_error() -> None:
    (one,) = named_transforms([{"name": "ShiftScaleRotate", "rotate_limit": (-7, 7)}], ignore_index=11)
    assert one.rotate == (-7, 7)


def test_the_entries_are_not_changed() -> None:
    entry = {"name": "HorizontalFlip", "p": 1.0}
    named_transforms([entry], ignore_index=IGNORE)
    assert entry == {"name": "HorizontalFlip", "p": 1.0}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"name": "Rotat"}, "entry 1: Albumentations has no transform named 'Rotat'; did you mean 'Rotate'?"),
        ({"name": "OneOf", "transforms": []}, "entry 1: Albumentations has no transform named 'OneOf'"),
        ({"p": 1.0}, "entry 1: Albumentations has no transform named None"),
        ({"name": "os"}, "entry 1: Albumentations has no transform named 'os'"),
        ({"name": "Rotate", "limt": 3}, "entry 1: Rotate does not accept {'limt': 3}: Argument(s) 'limt'"),
        ({"name": "HorizontalFlip", "p": 2}, "entry 1: HorizontalFlip does not accept {'p': 2}: "),
        ({"name": "RandomCrop"}, "entry 1: RandomCrop does not accept {}: "),
        ({"name": ["a"]}, "entry 1: Albumentations has no transform named ['a']"),
        ({"name": "Rotate", "mask_interpolation": 1}, "mask_interpolation=1 would mix class numbers"),
        ({"name": "Morphological"}, "entry 1: Morphological dilates or erodes masks by their numbers"),
    ],
)
def test_bad_entries_are_named(entry: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        named_transforms([{"name": "HorizontalFlip"}, entry], ignore_index=IGNORE)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- normalisation and evaluation


def test_normalisation_by_hand() -> None:
    normalise = normalising(Normalisation(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 0.2)))
    image = np.full((2, 3, 3), (255, 0, 51), np.uint8)
    out = normalise(image=image)["image"]
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, np.broadcast_to([1.0, -1.0, 1.0], (2, 3, 3)), atol=1e-6)


def test_eval_transform_resizes_and_normalises() -> None:
    sample = noise(40, 56)
    transform = EvalTransform(size=(80, 112), normalisation=NORMALISATION)
    out = transform(sample.image)
    expected = cv2.resize(sample.image, (112, 80), interpolation=cv2.INTER_LINEAR) / 127.5 - 1
    assert (out.shape, out.dtype) == ((80, 112, 3), np.float32)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    np.testing.assert_array_equal(out, transform(sample.image))


def test_eval_transform_averages_when_it_shrinks() -> None:
    sample = noise(40, 56)
    out = EvalTransform(size=(10, 14), normalisation=NORMALISATION)(sample.image)
    means = sample.image.reshape(10, 4, 14, 4, 3).astype(float).mean((1, 3))
    assert np.abs((out + 1) * 127.5 - means).max() <= 0.51


def striped() -> LabelledImage:
    """Of every four rows two are white; their mean is grey, and the two in the middle are black."""
    rows = np.tile(np.array([255, 0, 0, 255], np.uint8), 10)
    return LabelledImage(np.tile(rows[:, None, None], (1, 56, 3)), np.zeros((40, 56), np.uint8))


def test_an_axis_that_shrinks_is_averaged_also_where_the_other_grows() -> None:
    grey = np.full((10, 112, 3), 128 / 127.5 - 1)
    evaluated = EvalTransform(size=(10, 112), normalisation=NORMALISATION)(striped().image)
    np.testing.assert_allclose(evaluated, grey, atol=1 / 127)
    trained, _ = run([*crop((10, 112), 1.0), normalising(NORMALISATION)], striped())
    np.testing.assert_allclose(trained, grey, atol=1 / 127)


@pytest.mark.parametrize("entry", [{"name": "Rotate", "limit": [45, 45], "p": 1.0}, {"name": "Affine", "p": 1.0,
                                   "translate_percent": 0.5}, {"name": "Pad", "padding": 5, "p": 1.0}])  # fmt: skip
def test_padding_of_named_transforms_is_ignored(entry: dict[str, object]) -> None:
    sample = LabelledImage(noise().image, np.full((40, 56), 5, np.uint8))
    _, mask = run(named_transforms([entry], ignore_index=IGNORE), sample)
    assert set(np.unique(mask).tolist()) == {5, IGNORE}


# ---- crops smaller than what evaluation sees


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_crop_is_cut_out_of_the_resized_image(scale: float) -> None:
    sample = coordinates()
    height, width = round(96 * scale), round(120 * scale)
    whole = np.repeat(np.repeat(sample.mask, int(scale), 0), int(scale), 1)
    corners = set()
    for index in range(20):
        image, mask = run([RandomScaleCrop((96, 120), (scale, scale), IGNORE, (32, 40))], sample, index)
        assert (image.shape, mask.shape) == ((32, 40, 3), (32, 40))
        rows, columns = place_of(image)
        top, left = (round(float(places.min()) * scale) for places in (rows, columns))
        assert 0 <= top <= height - 32
        assert 0 <= left <= width - 40
        np.testing.assert_array_equal(mask, whole[top : top + 32, left : left + 40])
        corners.add((top, left))
    assert len(corners) > 15


def test_a_crop_of_a_smaller_image_is_padded() -> None:
    sample = noise(40, 56)
    for index in range(5):
        image, mask = run([RandomScaleCrop((40, 56), (0.5, 0.5), IGNORE, (32, 48))], sample, index)
        assert image.shape == (32, 48, 3)
        assert (mask != IGNORE).sum() == 20 * 28


def test_a_crop_as_large_as_the_image_is_no_crop() -> None:
    sample = noise(43, 57)
    for index in range(10):
        plain = run([RandomScaleCrop((40, 56), (0.5, 2.0), IGNORE)], sample, index)
        same = run([RandomScaleCrop((40, 56), (0.5, 2.0), IGNORE, (40, 56))], sample, index)
        for a, b in zip(plain, same, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("epoch", "index", "expected"), [(3, 7, 2536169199), (0, 0, 905052560), (1, 10, 2755987230)]
)
def test_the_pixels_of_a_seed_stay_what_they_were(epoch: int, index: int, expected: int) -> None:
    """CRC-32 of masks that the program gave before it knew crops, balanced sampling and visits."""
    _, mask = run(pipeline(), noise(), index, epoch=epoch, seed=5)
    assert zlib.crc32(mask.tobytes()) == expected
