"""Class statistics, weights and sampling shares, against numbers worked out by hand."""

import numpy as np
import pytest

from segdistill.data.statistics import class_odds, class_statistics, count_pixels, image_shares
from segdistill.data.synthetic import SyntheticStreets

#: Four images of 100 pixels, classes a, b, c, d and, last, ignored. d never occurs.
PIXELS = np.array([[60, 40, 0, 0, 0], [90, 0, 0, 0, 10], [50, 40, 10, 0, 0], [100, 0, 0, 0, 0]])


def test_counts_shares_and_median_frequency_weights() -> None:
    found = class_statistics(PIXELS)
    assert found.pixels == (300, 80, 10, 0)
    assert found.images == (4, 2, 1, 0)
    assert found.shares == pytest.approx((300 / 390, 80 / 390, 10 / 390, 0))
    # Frequencies: 300 of 400, 80 of 200 (images 0 and 2), 10 of 100 (image 2); their median is 0.4.
    assert found.weights[:3] == pytest.approx((0.4 / 0.75, 1.0, 4.0))
    assert found.weights[3] is None


def test_image_shares_make_all_classes_equally_likely() -> None:
    # A class of three, then one of its images: a in all four, b in 0 and 2, c in 2 alone.
    expected = [1 / 12 + 1 / 6, 1 / 12, 1 / 12 + 1 / 6 + 1 / 3, 1 / 12]
    assert image_shares(PIXELS).tolist() == pytest.approx(expected)
    assert sum(expected) == pytest.approx(1)


def test_odds_of_the_classes_of_an_image() -> None:
    assert class_odds(PIXELS).tolist() == pytest.approx([1 / 4, 1 / 2, 1, 0])


def test_pixels_are_counted_from_samples() -> None:
    scenes = SyntheticStreets(split="val", length=2, height=32, width=48, seed=0)
    pixels = count_pixels(scenes)
    assert (pixels.shape, pixels.dtype) == ((2, 12), np.int64)
    for index in range(2):
        mask = scenes.load(index).mask
        assert pixels[index].tolist() == [(mask == value).sum() for value in range(12)]
