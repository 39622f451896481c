"""A confusion matrix as a picture and as a table for other programs."""

import csv
import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from segdistill.files import write_atomically, write_text
from segdistill.report.lettering import families_for

_MOST_NUMBERED = 40  # classes; beyond, the numbers in the cells would be too small to read
_LONGEST = 40  # letters of a class's name
_TITLE_WIDTH = 4.2  # inches


def confusion_csv(path: Path, shares: np.ndarray, names: Sequence[str]) -> None:
    """Rows are true classes, columns predicted ones.

    Args:
        path: of the file.
        shares: (C, C) of each true class's pixels, 0..1; the row of a class that does not occur is NaN and
            stays empty.
        names: of the classes.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true \\ predicted", *names])
    for name, row in zip(names, shares.tolist(), strict=True):
        writer.writerow([name, *("" if math.isnan(share) else repr(share) for share in row)])
    write_text(path, text.getvalue())


def confusion_picture(path: Path, shares: np.ndarray, names: Sequence[str], *, title: str) -> None:
    """A PNG with the shares in percent; the arguments are those of `confusion_csv`. Long names are shortened, and what
    no installed font has is drawn as a box.
    """
    names = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names]
    longest = max(map(len, names))
    # Inches: cells, and the names beside (lying) and below them (aslant).
    cells = min(40.0, max(2.0, 0.52 * len(names)))
    width, height = cells + 0.08 * longest + 0.8, cells + 0.06 * longest + 1.6
    families = families_for("".join([*names, title]))
    with (
        mpl.rc_context({"font.family": families, "font.size": 9, "text.parse_math": False}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure = Figure(figsize=(max(width, _TITLE_WIDTH), height), layout="constrained")
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        figure.suptitle(
            f"{title}\nshare of each true class's pixels, in percent", fontsize=10, x=0.02, ha="left"
        )
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for edges in (axes.set_xticks, axes.set_yticks):
            edges(np.arange(len(names) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1)
        axes.tick_params(which="minor", length=0)
        if len(names) <= _MOST_NUMBERED:
            for (row, column), share in np.ndenumerate(shares):
                if share >= 0.0005:  # what would be rounded to 0.0 is left out, as is NaN
                    ink = "white" if share > 0.55 else "black"
                    text = f"{100 * share:.1f}" if share < 0.9995 else "100"
                    axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8)
        write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=130))
