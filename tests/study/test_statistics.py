"""Paired differences against scipy's own paired t test and numbers worked out by hand."""

import math

import pytest
from scipy.stats import ttest_rel

from segdistill.study.statistics import PairedDifference, Spread, points


def test_spread_by_hand() -> None:
    assert Spread.of([1.0, 2.0, 6.0]) == Spread(3.0, pytest.approx(math.sqrt(7.0)), 3)
    assert Spread.of([0.5]) == Spread(0.5, None, 1)


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    ours, theirs = [0.51, 0.55, 0.50, 0.58], [0.48, 0.53, 0.51, 0.52]
    expected = ttest_rel(ours, theirs).confidence_interval(0.95)
    found = PairedDifference.of({seed: a - b for seed, (a, b) in enumerate(zip(ours, theirs, strict=True))})
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.won == 3


def test_the_interval_of_two_seeds_by_hand() -> None:
    # t(0.975, 1) = 12.7062; mean 2, sd sqrt(2), so half of it is 12.7062 * sqrt(2) / sqrt(2).
    found = PairedDifference.of({0: 1.0, 7: 3.0})
    assert (found.low, found.high) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)


@pytest.mark.parametrize(
    ("by_seed", "beyond", "words"),
    [
        ({0: 0.03, 1: 0.031, 2: 0.029}, True, "a is better than b beyond the noise between seeds: +3.00"),
        ({0: -0.03, 1: -0.031, 2: -0.029}, True, "a is worse than b beyond the noise between seeds: -3.00"),
        ({0: 0.03, 1: -0.02, 2: 0.01}, False, "a against b cannot be told from noise with 3 seeds: +0.67"),
        (
            {0: 0.00001, 1: 0.000011},
            True,
            "a and b differ by less than a hundredth of a point, if also beyond",
        ),
        (
            {0: 0.1 + 0.2, 1: 0.3},
            True,
            "a against b: +30.00 mIoU points in each of 2 seeds; differences that do not",
        ),
        ({0: 0.0, 1: 0.0, 2: 0.0}, False, "a and b have the same mIoU in each of 3 seeds."),
        ({4: 0.03}, None, "a against b: +3.00 mIoU points with one seed, which says nothing about noise"),
    ],
)
def test_words_say_what_the_interval_says(by_seed: dict[int, float], beyond: bool | None, words: str) -> None:
    found = PairedDifference.of(by_seed)
    assert found.beyond_noise is beyond
    assert found.in_words("a", "b").startswith(words)


def test_won_counts_only_gains() -> None:
    found = PairedDifference.of({0: 0.01, 1: 0.0, 2: -0.01, 3: 0.02})
    assert found.won == 2
    assert "won 2 of 4 seeds" in found.in_words("a", "b")


def test_points_are_percent_with_a_sign() -> None:
    assert [points(value) for value in (0.0123, -0.0004, 0.0, -0.00001)] == [
        "+1.23",
        "-0.04",
        "+0.00",
        "+0.00",
    ]
