"""What masks say about the numbers they hold: each by the colours it is shown in, and all of them together."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segdistill.console import counted
from segdistill.data.files import shown_colours
from segdistill.data.mask_code import FOREIGN, MaskCode
from segdistill.data.problems import Kind, Problem, by_kind
from segdistill.errors import DataError


@dataclass
class Evidence:
    """What no mask shows alone; of all splits that are read by the same code.

    Attributes:
        doubtful: a line for each mask whose numbers are of a class and are shown in the grey of what is ignored.
        plain: a mask whose numbers are shown as they are, that of what is ignored among them.
        users: of `MaskCode.either`: number -> a mask that holds it.
    """

    doubtful: list[str] = field(default_factory=list)
    plain: Path | None = None
    users: dict[int, Path] = field(default_factory=dict)

    def add(self, other: "Evidence") -> None:
        self.doubtful += other.doubtful
        self.plain = self.plain or other.plain
        self.users = other.users | self.users

    def judge(self) -> None:
        """Raises DataError if masks give different meanings to a number, or different numbers to a class."""
        found = []
        if self.plain is not None:
            found += [
                Problem(Kind.CONTRADICTION, f"{line}, which {self.plain} holds as a number")
                for line in self.doubtful
            ]
        if len(self.users) > 1:
            where = (f"{number} in {path}" for number, path in sorted(self.users.items()))
            found.append(Problem(Kind.EITHER, " and ".join(where)))
        if found:
            raise DataError(f"{counted(len(found), 'problem')} of masks beside each other\n{by_kind(found)}")


def look_at(path: Path, stored: np.ndarray, encoded: np.ndarray, code: MaskCode) -> tuple[str, Evidence]:
    """A mask's part of the evidence, and where it contradicts itself, in words (or "").

    Args:
        path: of its file.
        stored: as it was read, see `MaskCode.encode`.
        encoded: (H, W) uint8, what it means.
        code: by which.
    """
    if stored.ndim == 3:  # read by its colours: no numbers count
        return "", Evidence()
    users = {number: path for number in code.either if (stored == number).any()}
    colours = shown_colours(path) if code.form == "auto" else None
    if colours is None:
        return "", Evidence(users=users)
    void = _void_if_shown(encoded, colours, code)
    doubtful = [f"{path}: {void} pixels of a class are shown in the grey of what is ignored"] if void else []
    plain = (encoded == code.ignore_index).any() and (colours == stored[..., None]).all()
    found = _contradiction(stored, encoded, colours, code)
    return found, Evidence(doubtful, path if plain else None, users)


def _contradiction(stored: np.ndarray, encoded: np.ndarray, colours: np.ndarray, code: MaskCode) -> str:
    """Where a mask's numbers say one class and their colours another, in words; empty if they agree, or if some of
    the colours are no class's: then nobody meant them. A grey that is no class's colour stands for its number.

    A program that makes PNG files small may store a mask of few colours as a palette of its own order.

    Args:
        stored: (H, W) numbers.
        encoded: (H, W) uint8, what they mean.
        colours: (H, W, 3) uint8, the same file as it is shown.
        code: of the numbers and colours.
    """
    by_colour = code.encode(colours)
    apart = encoded != by_colour
    if (by_colour == FOREIGN).any() and (grey := _grey(colours)) is not None:
        by_colour = code.encode(grey)
        apart = (encoded != by_colour) & (by_colour != code.ignore_index)  # see `_void_if_shown`
    if (by_colour == FOREIGN).any() or not apart.any():
        return ""
    row, column = np.argwhere(apart)[0]
    colour = tuple(colours[row, column].tolist())
    return f"{apart.sum()} pixels, e.g. number {stored[row, column]} in colour {colour}"


def _void_if_shown(encoded: np.ndarray, colours: np.ndarray, code: MaskCode) -> int:
    """Pixels that are of a class by their number, and ignored by the grey they are shown in.

    1 shown as white is how masks of two levels are often stored, and also what becomes of void in a grey mask that has
    been made small; the other masks of a data set tell. Arguments as in `_contradiction`.
    """
    grey = _grey(colours)
    if grey is None:
        return 0
    of_a_class = (encoded != FOREIGN) & (encoded != code.ignore_index)
    return int((of_a_class & (code.encode(grey) == code.ignore_index)).sum())


def _grey(colours: np.ndarray) -> np.ndarray | None:
    """(H, W, 3) uint8 -> (H, W); None if a pixel is not grey."""
    first = np.ascontiguousarray(colours[..., 0])
    return first if (colours == first[..., None]).all() else None
