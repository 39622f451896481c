"""How often the classes of a data set occur, and what follows from it: loss weights and sampling shares.

`pixels` is throughout an (N, C + 1) int64 array: pixels of each class in each of N samples, the last column
being those that are ignored.
"""

from dataclasses import dataclass

import numpy as np

from segdistill.data.samples import Samples
from segdistill.data.taxonomy import Taxonomy


def pixels_by_class(mask: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """(H, W) class indexes or the ignore index -> (C + 1,) int64, ignored pixels last."""
    counts = np.bincount(mask.ravel(), minlength=256)
    return np.append(counts[: taxonomy.num_classes], counts[taxonomy.ignore_index])


def count_pixels(samples: Samples) -> np.ndarray:
    """The pixels of each class in samples that no check has counted; loads every one of them."""
    return np.stack(
        [pixels_by_class(samples.load(index).mask, samples.taxonomy) for index in range(len(samples))]
    )


@dataclass(frozen=True)
class ClassStatistics:
    """Statistics of one split; each has C entries, one per class.

    Attributes:
        pixels: labelled with the class.
        shares: of all labelled pixels, 0..1.
        images: in which it occurs.
        weights: median-frequency weights; None for a class that never occurs.
    """

    pixels: tuple[int, ...]
    shares: tuple[float, ...]
    images: tuple[int, ...]
    weights: tuple[float | None, ...]


def class_statistics(pixels: np.ndarray) -> ClassStatistics:
    """Counts, shares and median-frequency weights.

        freq(c) = pixels of c / pixels of all images in which c occurs (ignored ones count, too)
        weight(c) = median over occurring classes of freq / freq(c)

    Eigen and Fergus, arXiv:1411.4734, section 6.3.2.
    """
    labelled = pixels[:, :-1]
    occurs = labelled > 0
    totals = labelled.sum(0)
    area = (occurs * pixels.sum(1, keepdims=True)).sum(0)
    frequency = np.divide(totals, area, out=np.zeros(len(totals)), where=area > 0)
    median = np.median(frequency[totals > 0]) if totals.any() else 0.0
    return ClassStatistics(
        pixels=tuple(totals.tolist()),
        shares=tuple((totals / max(1, totals.sum())).tolist()),
        images=tuple(occurs.sum(0).tolist()),
        weights=tuple(float(median / one) if one else None for one in frequency.tolist()),
    )


def class_odds(pixels: np.ndarray) -> np.ndarray:
    """(C,) float: 1 / the number of samples in which a class occurs; 0 if it never does.

    Given a sample, these are the odds of its classes under `image_shares`' draw.
    """
    samples_with = (pixels[:, :-1] > 0).sum(0)
    return np.divide(1.0, samples_with, out=np.zeros(len(samples_with)), where=samples_with > 0)


def image_shares(pixels: np.ndarray) -> np.ndarray:
    """(N,) float that sums to 1: how often to visit each sample so that all classes come up equally often.

        p(i) = 1 / C' * sum over classes c in sample i of 1 / N(c)

    It is the chance of sample i if one of the C' occurring classes is drawn, and then one of the N(c) samples
    in which it occurs.
    """
    odds = class_odds(pixels)
    return (pixels[:, :-1] > 0) @ odds / (odds > 0).sum()
