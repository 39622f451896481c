"""Labelled images as every data set of this project offers them."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from segdistill.data.taxonomy import Taxonomy


class LabelledImage(NamedTuple):
    """One decoded sample, before any transform."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    mask: np.ndarray  # (H, W) uint8, class index or the ignore index


class Samples(Protocol):
    """One split of a data set: decoded images and masks by index, in an order that never changes."""

    @property
    def taxonomy(self) -> Taxonomy: ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """A name a person can find the sample by."""
        ...

    def load(self, index: int) -> LabelledImage: ...


def names_of(samples: Samples) -> list[str]:
    """All sample names, in the order of their indexes."""
    return [samples.name(index) for index in range(len(samples))]


@dataclass(frozen=True)
class CachedSamples:
    """All samples decoded once and kept in memory; forked workers share the pages."""

    source: Samples
    decoded: tuple[LabelledImage, ...]

    @property
    def taxonomy(self) -> Taxonomy:
        return self.source.taxonomy

    def __len__(self) -> int:
        return len(self.decoded)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def load(self, index: int) -> LabelledImage:
        return self.decoded[index]
