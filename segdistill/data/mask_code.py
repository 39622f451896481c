"""What the stored pixels of a mask mean: grey values, palette indexes or colours to class indexes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import cv2
import numpy as np

from segdistill.data.taxonomy import Taxonomy

Colour = tuple[int, int, int]
#: How masks are read: `index`, one number per pixel; `rgb`, colours; `auto`, each file as it is stored.
MaskForm = Literal["auto", "index", "rgb"]

#: In an encoded mask: the stored pixel means nothing. So a data set has at most 254 classes.
FOREIGN = 254
_VALUES = 1 << 16
_NAMED = 10  # a mask of the wrong sort may hold thousands of wrong values


@dataclass(frozen=True)
class MaskCode:
    """Stored pixel -> class index or the ignore index.

    Attributes:
        values: of grey values and palette indexes, 0..65535.
        colours: of RGB colours.
        ignore_index: of stored pixels that carry no label.
        form: how mask files are read.
        either: numbers that mean the same class, of which a data set uses one; that both occur would be a mistake.
    """

    values: Mapping[int, int]
    colours: Mapping[Colour, int]
    ignore_index: int
    form: MaskForm
    either: tuple[int, ...] = ()

    @classmethod
    def of(cls, taxonomy: Taxonomy) -> "MaskCode":
        """Masks hold the class indexes themselves."""
        return cls({value: value for value in taxonomy.allowed_values()}, {}, taxonomy.ignore_index, "index")

    @property
    def reading(self) -> MaskForm:
        """The form a file is decoded in: without colours of classes there is nothing to read by colour."""
        return "index" if self.form == "auto" and not self.colours else self.form

    def encode(self, stored: np.ndarray) -> np.ndarray:
        """
        Args:
            stored: (H, W) uint8 or uint16 numbers, or (H, W, 3) uint8 colours.

        Returns:
            (H, W) uint8: class index, the ignore index, or FOREIGN.
        """
        if stored.ndim == 3:
            return self._class_of_colour[_packed(stored)]
        if stored.dtype == np.uint8:
            return cv2.LUT(stored, self._class_of_value[:256])
        return self._class_of_value[stored]

    def foreign(self, stored: np.ndarray, encoded: np.ndarray) -> str:
        """The stored pixels without a meaning, with their numbers, and what is allowed; in words.

        Args:
            stored: as in `encode`.
            encoded: its result; some of it is FOREIGN.
        """
        if stored.ndim == 3:
            found, counts = np.unique(_packed(stored)[encoded == FOREIGN], return_counts=True)
            names = [str((code >> 16, code >> 8 & 255, code & 255)) for code in found.tolist()]
        else:
            found, counts = np.unique(stored[encoded == FOREIGN], return_counts=True)
            names = [str(value) for value in found.tolist()]
        # Of thousands of wrong colours (a JPEG, an antialiased edge) the frequent ones tell what happened.
        order = (
            sorted(range(len(names)), key=lambda i: -counts[i]) if len(names) > _NAMED else range(len(names))
        )
        shown = ", ".join(f"{names[i]} ({counts[i]} px)" for i in list(order)[:_NAMED])
        more = f" ... and {len(names) - _NAMED} more values" if len(names) > _NAMED else ""
        return f"{shown}{more}; allowed: {self._allowed(colours=stored.ndim == 3)}"

    def _allowed(self, *, colours: bool) -> str:
        if colours:
            return ", ".join(str(colour) for colour in self.colours) or "no colour, the classes have none"
        classes = [value for value, index in self.values.items() if index != self.ignore_index]
        void = [value for value, index in self.values.items() if index == self.ignore_index]
        return f"{_ranges(classes)}" + (f", and {_ranges(void)} for ignored" if void else "")

    @cached_property
    def _class_of_value(self) -> np.ndarray:
        table = np.full(_VALUES, FOREIGN, np.uint8)
        for value, index in self.values.items():
            table[value] = index
        return table

    @cached_property
    def _class_of_colour(self) -> np.ndarray:
        table = np.full(1 << 24, FOREIGN, np.uint8)
        for (red, green, blue), index in self.colours.items():
            table[red << 16 | green << 8 | blue] = index
        return table


def _packed(colours: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) int32, 0xRRGGBB"""
    wide = colours.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _ranges(values: Iterable[int]) -> str:
    """0, 1, 2, 5 -> "0 to 2, 5" """
    ordered = sorted(values)
    if not ordered:
        return "no value, the classes have none"
    starts = [0, *(place for place, (a, b) in enumerate(pairwise(ordered), 1) if b > a + 1), len(ordered)]
    runs = [ordered[a:b] for a, b in pairwise(starts)]
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
