"""Scores as tables and in words for the terminal."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote

from rich.table import Table
from rich.text import Text

from segdistill.evaluation.metrics import Scores
from segdistill.export.check import Check
from segdistill.streams import ENSEMBLE, PRIMARY


def stream_table(scores: Mapping[str, Scores], class_names: tuple[str, ...]) -> Table:
    """IoU of every class and the scores over all of them, in percent, one column for each stream."""
    table = Table("", *scores)
    for column in table.columns[1:]:
        column.justify = "right"
        column.overflow = "fold"  # streams may differ in their last letter
    for index, name in enumerate(class_names):
        table.add_row(Text(name), *(percent(one.iou[index]) for one in scores.values()))
    table.add_section()
    table.add_row("mIoU", *(percent(one.miou) for one in scores.values()), style="bold")
    for name, value in _OVERALL.items():
        known = [value(one) for one in scores.values()]
        if any(one is not None for one in known):
            table.add_row(name, *(percent(math.nan if one is None else one) for one in known))
    return table


_OVERALL: dict[str, Callable[[Scores], float | None]] = {
    "frequency-weighted IoU": lambda scores: scores.frequency_weighted_iou,
    "pixel accuracy": lambda scores: scores.pixel_accuracy,
    "mean accuracy": lambda scores: scores.mean_accuracy,
    "boundary IoU": lambda scores: None if scores.boundary is None else scores.boundary.miou,
    "calibration error": lambda scores: None if scores.calibration is None else scores.calibration.error,
}


def better_branch(scores: Mapping[str, Scores], run: Path) -> str:
    """A sentence if a branch of a run scored higher than the primary, for it can be deployed as well; empty if none
    did.
    """
    branches = {name: one.miou for name, one in scores.items() if name not in (PRIMARY, ENSEMBLE)}
    best = max(branches, key=lambda name: branches[name], default=PRIMARY)
    if not branches or not branches[best] > scores[PRIMARY].miou:
        return ""
    return (
        f"{best} has {percent(branches[best])} % here, the primary {percent(scores[PRIMARY].miou)} %. A branch is a "
        f"network, too, and may be the smaller one: tools/export.py {quote(str(run))} --stream all exports each and "
        "lists its cost"
    )


def check_table(check: Check) -> Table:
    """What was measured, what is asked, and whether it holds."""
    table = Table("check", "measured", "limit", "")
    for line in check.lines:
        table.add_row(line.name, line.value, line.limit, "ok" if line.holds else Text("FAILED", "bold red"))
    return table


def percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f}"
