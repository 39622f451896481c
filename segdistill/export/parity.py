"""The proof that an exported file computes what the trained network computes."""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from segdistill.errors import ExportError
from segdistill.evaluation.predictors import StreamLogits
from segdistill.models.ensemble import PRIMARY

#: Largest |dlogit| of a float32 export.
MAX_LOGIT_DIFFERENCE = 1e-4
#: Smallest share of pixels with the same argmax: a tie between two logits may fall either way.
MIN_EQUAL_ARGMAX = 0.9999

Predict = Callable[[Tensor], StreamLogits]


@dataclass(frozen=True)
class Parity:
    """How far two predictors are apart.

    Attributes:
        max_logit_difference: largest |dlogit|.
        equal_argmax: share of pixels (0..1) with the same class.
        images: number of images compared.
    """

    max_logit_difference: float
    equal_argmax: float
    images: int

    @property
    def holds(self) -> bool:
        return self.max_logit_difference <= MAX_LOGIT_DIFFERENCE and self.equal_argmax >= MIN_EQUAL_ARGMAX

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(reference: Predict, exported: Predict, batches: Iterable[Tensor]) -> Parity:
    """Compare the primary's logits on batches of normalised images (B, 3, H, W)."""
    largest, equal, pixels, images = 0.0, 0, 0, 0
    for batch in batches:
        ours, theirs = reference(batch)[PRIMARY].cpu(), exported(batch)[PRIMARY]
        difference = float((ours - theirs).abs().max())
        # NaN compares as smaller than anything, so max() would lose it.
        largest = max(largest, difference if math.isfinite(difference) else math.inf)
        equal += int((ours.argmax(1) == theirs.argmax(1)).sum())
        pixels += ours[:, 0].numel()
        images += len(batch)
    assert images, "parity needs images"
    return Parity(largest, equal / pixels, images)


def require(parity: Parity, *, file: str) -> None:
    """Raises ExportError, with the numbers, if the exported file is not the trained network."""
    if not parity.holds:
        raise ExportError(
            f"{file} does not compute what the checkpoint computes: max |dlogit| "
            f"{parity.max_logit_difference:.2e} (limit {MAX_LOGIT_DIFFERENCE:.0e}), equal argmax "
            f"{parity.equal_argmax:.4%} (limit {MIN_EQUAL_ARGMAX:.2%}) on {parity.images} images"
        )
