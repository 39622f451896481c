"""Ranges of hand-made values by every method."""

import numpy as np
import pytest

from segdistill.export.ranges import BINS, Spread


def test_ranges_of_a_heavy_tail() -> None:
    """The largest value makes the bins 1 wide; all others lie in the middle of theirs.

    2^20 values lie in the first 128 bins, every other of which has three times as many as its neighbours, 20 lie at
    300.5, one at 2048. The percentile cuts off (2^20 + 21) * 1e-5 / 2 = 5.2 of them: the one. With 128 levels
    for the first 128 bins int8 shows these as they are; any more would have to share levels (at twice as many the
    divergence is ln 2 + 1/4 ln 1/4 + 3/4 ln 3/4 = 0.13), which is worse than to cut off 21 values in a million.
    """
    spread = Spread()
    most = np.repeat(np.arange(128) + 0.5, np.tile([2**12, 3 * 2**12], 64))
    tail = np.concatenate([most, np.full(20, 300.5), [BINS]]).astype(np.float32)
    spread.add(tail, count=True)
    assert spread.range("minmax") == (0, 2048)
    assert spread.range("percentile") == (0, 301)
    assert spread.range("entropy") == (0, 128)

    mirrored = Spread()
    mirrored.add(-tail, count=True)
    assert mirrored.range("minmax") == (-2048, 0)
    assert mirrored.range("percentile") == pytest.approx((-301, 0), abs=1)
    assert mirrored.range("entropy") == pytest.approx((-128, 0), abs=8)


def test_histogram_grows_with_the_values() -> None:
    rng = np.random.default_rng(0)
    chunks = [scale * rng.standard_normal(5000).astype(np.float32) for scale in (0.1, 3, 1, 40)]
    spread = Spread()
    for chunk in chunks:
        spread.add(chunk, count=True)
    values = np.concatenate(chunks)
    assert (spread.lowest, spread.highest) == (values.min(), values.max())
    assert np.abs(values).max() <= spread.reach < 2 * np.abs(values).max()
    expected, _ = np.histogram(values, 2 * BINS, (-spread.reach, spread.reach))
    # Values on the edge between two bins may fall either way.
    assert np.abs(spread.counts - expected).sum() <= 20
    assert spread.counts.sum() == len(values)


def test_nothing_but_zeros_has_a_range() -> None:
    spread = Spread()
    spread.add(np.zeros(10, np.float32), count=True)
    assert {spread.range(method) for method in ("minmax", "percentile", "entropy")} == {(0, 0)}
