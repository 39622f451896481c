"""The figures of a comparison, as SVG that may stand inside an HTML page.

Text and lines in `currentColor`, so that a page may be light or dark; equal data give equal bytes.
"""

import contextlib
import io
import re
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from segdistill.report.rows import class_names, measured_against_baseline, references
from segdistill.study.results import Comparison
from segdistill.study.run_results import RunResult
from segdistill.study.rungs import BASELINE, DEEP_SUPERVISION, REPARAM, SELF_DISTILL
from segdistill.study.statistics import PairedDifference

_INK = "#1f2328"  # becomes currentColor
_GRID = "#8f979f"
#: Of the ladder, for lines and dots on white or dark paper, not for text. Chosen so that any two stay at least 19
#: apart in CIELAB, also as a protanope, deuteranope or tritanope sees them (Machado et al. 2009, severity 1).
_COLOURS = {
    BASELINE: "#8a8a8a",
    REPARAM: "#7755ee",
    DEEP_SUPERVISION: "#3388cc",
    "+logit": "#006d4c",
    "+feature": "#92337f",
    "+adversarial": "#d9a85c",
    SELF_DISTILL: "#d55e00",
}
_OTHER_COLOURS = ("#33bbcc", "#ee77bb")  # in the curves their lines are dashed, too

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 10,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.width": 0.6,
    "ytick.major.size": 0,
    "figure.constrained_layout.h_pad": 0.09,
    "text.parse_math": False,  # a dollar sign in a name is one
    "svg.fonttype": "none",
    "svg.hashsalt": "segdistill",
}


def paired_differences(comparison: Comparison) -> str | None:
    """A row for each rung, a dot for each seed, the mean with its interval; a panel for each reference.

    None if nothing is measured against anything.
    """
    against = references(comparison)
    if not against:
        return None
    results = [result for result in comparison.results if result.against]
    with _style():
        figure = Figure(figsize=(3.2 * len(against) + 3.8, 0.55 * len(results) + 1.1), layout="constrained")
        panels = figure.subplots(1, len(against), sharex=True, sharey=True, squeeze=False)[0]
        for axes, reference in zip(panels, against, strict=True):
            for row, result in enumerate(results):
                if reference in result.against:
                    name = result.rung.name
                    colour = _colour(comparison, name)
                    _draw_difference(axes, row, result.against[reference].miou, name=name, colour=colour)
            _zero_line(axes)
            axes.set_title(f"minus {reference}")
            axes.set_xlabel("mIoU difference, percentage points")
            axes.grid(axis="y", visible=False)
            axes.spines["left"].set_visible(False)
        panels[0].set_yticks(range(len(results)), [result.rung.name for result in results])
        panels[0].set_ylim(len(results) - 0.5, -0.5)
        for label in panels[0].get_yticklabels():
            if label.get_text() == SELF_DISTILL:
                label.set_fontweight("bold")
        return _svg(figure, "differences")


def _draw_difference(axes: Axes, row: int, difference: PairedDifference, *, name: str, colour: str) -> None:
    """Mean and interval in the upper half of the row, the seeds below, where neither hides the other."""
    prominent = name == SELF_DISTILL
    upper, lower = row - 0.12, row + 0.2
    if difference.low is not None and difference.high is not None:
        axes.plot(
            [100 * difference.low, 100 * difference.high],
            [upper, upper],
            color=colour,
            linewidth=4 if prominent else 2.2,
            solid_capstyle="butt",
        )
    axes.plot(100 * difference.spread.mean, upper, "D", color=colour, markersize=9 if prominent else 7)
    _draw_seeds(axes, lower, difference, colour=colour, size=5)


def _draw_seeds(axes: Axes, height: float, difference: PairedDifference, *, colour: str, size: float) -> None:
    values = [100 * value for value in difference.by_seed.values()]
    axes.plot(
        values, [height] * len(values), "o", color=colour, markersize=size, markeredgewidth=0, alpha=0.8
    )


def class_differences(comparison: Comparison) -> str | None:
    """A panel for each rung, a row for each class: the mean difference to the baseline, a dot for each seed.

    None if nothing is measured against the baseline.
    """
    measured = measured_against_baseline(comparison)
    if not measured:
        return None
    names = class_names(comparison)
    down = -(-len(measured) // 4)
    across = -(-len(measured) // down)
    with _style():
        size = (1.5 + min(max(2.9 * across, 5.9), 8.7), down * (0.22 * len(names) + 0.55) + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        panels = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
        for axes, (result, against) in zip(panels, measured, strict=False):
            colour = _colour(comparison, result.rung.name)
            for row, name in enumerate(names):
                if name in against.classes:
                    difference = against.classes[name]
                    axes.barh(row, 100 * difference.spread.mean, height=0.62, color=colour, alpha=0.55)
                    _draw_seeds(axes, row, difference, colour=colour, size=3.5)
            _zero_line(axes)
            axes.set_title(
                result.rung.name,
                fontweight="bold" if result.rung.name == SELF_DISTILL else "normal",
            )
            axes.grid(axis="y", visible=False)
            axes.spines["left"].set_visible(False)
            axes.tick_params(labelbottom=True)
        for axes in panels[len(measured) :]:
            axes.set_visible(False)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.4, -0.6)
        figure.supxlabel(f"IoU difference to {BASELINE}, percentage points", fontsize=10)
        return _svg(figure, "classes")


def learning_curves(comparison: Comparison) -> str | None:
    """mIoU over epochs: a line for the mean of each rung, a band from the lowest to the highest seed. Beside it
    the last third again, where rungs that started apart have come close.

    None if no rung has an epoch that all its runs have scored.
    """
    found = {result.rung.name: _curve(result.runs) for result in comparison.results}
    curves = {name: curve for name, curve in found.items() if curve}
    if not curves:
        return None
    colours = {name: _colour(comparison, name) for name in curves}
    late = {
        name: {epoch: shares for epoch, shares in curve.items() if 3 * epoch >= 2 * max(curve)}
        for name, curve in curves.items()
    }
    with _style():
        figure = Figure(figsize=(10.2, 4.4), layout="constrained")
        panels = figure.subplots(1, 2)
        for axes, title, part in zip(panels, ("all epochs", "the last third"), (curves, late), strict=True):
            for name, curve in part.items():
                _draw_curve(axes, curve, name=name, colour=colours[name])
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        panels[0].set_ylabel("mIoU, percent")
        _label_ends(panels[1], late, colours)
        return _svg(figure, "curves")


def _curve(runs: Sequence[RunResult]) -> dict[int, list[float]]:
    """The mIoU of each seed, by epoch, for the epochs that every seed scored."""
    curves = [dict(run.curve) for run in runs]
    epochs = sorted(set.intersection(*(set(curve) for curve in curves)))
    return {epoch: [curve[epoch] for curve in curves] for epoch in epochs}


def _draw_curve(axes: Axes, curve: Mapping[int, Sequence[float]], *, name: str, colour: str) -> None:
    epochs = list(curve)
    axes.fill_between(
        epochs,
        [100 * min(shares) for shares in curve.values()],
        [100 * max(shares) for shares in curve.values()],
        color=colour,
        alpha=0.1,
        linewidth=0,
    )
    axes.plot(
        epochs,
        [100 * statistics.fmean(shares) for shares in curve.values()],
        color=colour,
        linestyle="-" if name in _COLOURS else "--",
        linewidth=2.8 if name == SELF_DISTILL else 1.6,
        marker="o" if len(epochs) == 1 else "",
        zorder={BASELINE: 3, SELF_DISTILL: 4}.get(name, 2),
    )


def _label_ends(
    axes: Axes, curves: Mapping[str, Mapping[int, Sequence[float]]], colours: Mapping[str, str]
) -> None:
    """Name each line at the right edge, apart from one another, with a thread to its end. Threads look like no curve:
    a rung may end long before the edge."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    axes.set(xlim=(left, right), ylim=(bottom, top))  # as they are: the names are outside
    ends = sorted(
        (100 * statistics.fmean(curve[epoch]), epoch, name)
        for name, curve in curves.items()
        for epoch in [max(curve)]
    )
    heights = spread_out([value for value, _, _ in ends], gap=(top - bottom) / 16)
    for (value, epoch, name), height in zip(ends, heights, strict=True):
        axes.plot(epoch, value, "o", color=colours[name], markersize=4, clip_on=False)
        axes.annotate(
            name,
            (epoch, value),
            xytext=(right + 0.06 * (right - left), height),
            va="center",
            fontweight="bold" if name == SELF_DISTILL else "normal",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": _GRID,
                "linestyle": ":",
                "linewidth": 0.8,
                "relpos": (0, 0.5),
                "shrinkA": 1,
                "shrinkB": 2,
            },
        )


def spread_out(places: Sequence[float], *, gap: float) -> list[float]:
    """Move ascending places apart to at least `gap`, as little as possible: neighbours too close form a block
    around the mean of their own places."""
    blocks: list[tuple[float, int]] = []  # (centre, members)
    for place in places:
        centre, members = place, 1
        while blocks and centre - blocks[-1][0] < gap * (members + blocks[-1][1]) / 2:
            before, count = blocks.pop()
            centre, members = (
                (before * count + centre * members) / (count + members),
                count + members,
            )
        blocks.append((centre, members))
    return [
        centre + gap * (index - (members - 1) / 2) for centre, members in blocks for index in range(members)
    ]


def _colour(comparison: Comparison, rung: str) -> str:
    """The same in every figure; rungs outside the ladder take theirs in turn."""
    if rung in _COLOURS:
        return _COLOURS[rung]
    others = [result.rung.name for result in comparison.results if result.rung.name not in _COLOURS]
    return _OTHER_COLOURS[others.index(rung) % len(_OTHER_COLOURS)]


def _zero_line(axes: Axes) -> None:
    axes.axvline(0, color=_INK, linewidth=1, zorder=1)


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """Whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def _svg(figure: Figure, name: str) -> str:
    """One `<svg>` element, its ids begin with `name`: matplotlib numbers them alike in every figure."""
    buffer = io.StringIO()
    unstated: dict[str, None] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with warnings.catch_warnings():  # text stays text, and the browser has more fonts
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(buffer, format="svg", transparent=True, metadata=unstated)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return text.replace(_INK, "currentColor")
