"""What a few paired seeds can say."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t as student_t

CONFIDENCE = 0.95
#: Shares closer than this are equal but for rounding.
_SAME = 1e-9


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) of one number over seeds; no deviation of a single seed."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        return cls(
            statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values)
        )


@dataclass(frozen=True)
class PairedDifference:
    """A rung minus its reference, seed by seed: both saw the same batches and started from the same weights.

    Attributes:
        by_seed: seed -> difference.
        spread: of the differences.
        low: lower end of the confidence interval of the mean; None with one seed.
        high: its upper end.
    """

    by_seed: dict[int, float]
    spread: Spread
    low: float | None
    high: float | None

    @classmethod
    def of(cls, by_seed: dict[int, float]) -> "PairedDifference":
        """Student's t interval of the mean difference (a paired t test, turned around).

        mean +- t(1 - (1 - c) / 2, n - 1) * sd / sqrt(n)
        """
        spread = Spread.of(list(by_seed.values()))
        if spread.sd is None:
            return cls(by_seed, spread, None, None)
        half = float(student_t.ppf((1 + CONFIDENCE) / 2, spread.n - 1)) * spread.sd / math.sqrt(spread.n)
        return cls(by_seed, spread, spread.mean - half, spread.mean + half)

    @property
    def won(self) -> int:
        """Seeds in which the rung was better."""
        return sum(value > 0 for value in self.by_seed.values())

    @property
    def beyond_noise(self) -> bool | None:
        """Whether the interval leaves out 0; None if one seed gives no interval."""
        return None if self.low is None or self.high is None else self.low > 0 or self.high < 0

    def in_words(self, rung: str, reference: str) -> str:
        """One sentence a reader may quote."""
        n = self.spread.n
        if self.low is None or self.high is None:
            return (
                f"{rung} against {reference}: {points(self.spread.mean)} mIoU points with one seed, which says "
                "nothing about noise; run more seeds."
            )
        if self.spread.sd is not None and self.spread.sd < _SAME:
            return self._in_words_without_spread(rung, reference)
        interval = f"{points(self.low)} to {points(self.high)}"
        how = f"{points(self.spread.mean)} mIoU points on average, won {self.won} of {n} seeds"
        if self.beyond_noise and points(self.spread.mean) == points(0.0):
            return (
                f"{rung} and {reference} differ by less than a hundredth of a point, if also beyond the noise between "
                f"seeds: {how}."
            )
        if self.beyond_noise:
            better = "better" if self.spread.mean > 0 else "worse"
            return (
                f"{rung} is {better} than {reference} beyond the noise between seeds: {how}; "
                f"{CONFIDENCE:.0%} interval {interval}."
            )
        return (
            f"{rung} against {reference} cannot be told from noise with {n} seeds: {how}; "
            f"{CONFIDENCE:.0%} interval {interval}."
        )

    def _in_words_without_spread(self, rung: str, reference: str) -> str:
        n = self.spread.n
        if abs(self.spread.mean) < _SAME:
            return f"{rung} and {reference} have the same mIoU in each of {n} seeds."
        return (
            f"{rung} against {reference}: {points(self.spread.mean)} mIoU points in each of {n} seeds; differences "
            "that do not scatter at all say nothing about noise."
        )


def points(share: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{round(100 * share, 2) + 0.0:+.2f}"  # -0.0 + 0.0 is 0.0
