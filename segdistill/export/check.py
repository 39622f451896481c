"""What an exported file has to keep of the trained network, and whether it does."""

from dataclasses import dataclass

from segdistill.export.description import Precision
from segdistill.export.parity import Parity


@dataclass(frozen=True)
class Limits:
    """What a file has to keep to pass; None where nothing is asked.

    Attributes:
        logit_difference: largest |dlogit|, for logits up to `LARGE_LOGIT`; for larger ones in proportion.
        equal_argmax: smallest share of pixels with the same class; a tie between two logits may fall either way.
        miou_difference: largest change of the mIoU (0..1) on the whole split.
    """

    logit_difference: float | None
    equal_argmax: float | None
    miou_difference: float = 0.01

    def logit_difference_at(self, max_logit: float) -> float | None:
        """What |dlogit| may be in a network with logits as large as this."""
        if self.logit_difference is None:
            return None
        return self.logit_difference * max(1.0, max_logit / LARGE_LOGIT)


#: Rounding grows with the logits, and they with the training: 100 epochs of CamVid end with 26, and 1.6e-4 of rounding.
LARGE_LOGIT = 5.0

LIMITS: dict[Precision, Limits] = {
    "fp32": Limits(logit_difference=1e-4, equal_argmax=0.9999),
    "fp16": Limits(logit_difference=None, equal_argmax=0.999),
    "int8": Limits(logit_difference=None, equal_argmax=None),
}


@dataclass(frozen=True)
class Line:
    """One measurement of a check, in words."""

    name: str
    value: str
    limit: str
    holds: bool


@dataclass(frozen=True)
class Check:
    """Parity on a few images, and the mIoU on the whole split.

    Attributes:
        precision: decides on the limits.
        parity: with the graph in torch.
        miou: (0..1) of the file; None if the split is not at hand.
        reference_miou: of the trained network in torch, prepared and resized as in training.
    """

    precision: Precision
    parity: Parity
    miou: float | None = None
    reference_miou: float | None = None

    @property
    def computes_the_same(self) -> bool:
        """Image by image, whatever the score on the split says."""
        return all(line.holds for line in self._parity_lines)

    @property
    def _parity_lines(self) -> list[Line]:
        limits, parity = LIMITS[self.precision], self.parity
        lines = [_at_least("equal argmax", parity.equal_argmax, limits.equal_argmax)]
        if parity.max_logit_difference is not None:
            limit = limits.logit_difference_at(parity.max_logit)
            lines.append(_at_most("max |dlogit|", parity.max_logit_difference, limit, ".1e"))
        return lines

    @property
    def lines(self) -> list[Line]:
        """What was measured, with its limit."""
        limits, lines = LIMITS[self.precision], self._parity_lines
        if self.miou is not None and self.reference_miou is not None:
            points = 100 * (self.miou - self.reference_miou)
            lines.append(
                Line(
                    "mIoU on the split",
                    f"{100 * self.miou:.2f} % ({points:+.2f})",
                    f"within {100 * limits.miou_difference:.1f} of torch's {100 * self.reference_miou:.2f} %",
                    abs(points) <= 100 * limits.miou_difference,
                )
            )
        return lines

    @property
    def holds(self) -> bool:
        return all(line.holds for line in self.lines)

    @property
    def failures(self) -> str:
        """The lines that do not hold, in words."""
        return "; ".join(
            f"{line.name} {line.value}, wanted {line.limit}" for line in self.lines if not line.holds
        )


def _at_most(name: str, value: float, limit: float | None, form: str) -> Line:
    """NaN is at most nothing, so it fails."""
    return Line(
        name,
        format(value, form),
        "-" if limit is None else f"<= {limit:{form}}",
        limit is None or value <= limit,
    )


def _at_least(name: str, share: float, limit: float | None) -> Line:
    """NaN is at least nothing, so it fails."""
    return Line(
        name, f"{share:.4%}", "-" if limit is None else f">= {limit:.2%}", limit is None or share >= limit
    )
