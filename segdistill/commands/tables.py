"""Scores as tables for the terminal."""

import math
from collections.abc import Mapping

from rich.table import Table

from segdistill.evaluation.metrics import Scores
from segdistill.export.check import Check


def stream_table(scores: Mapping[str, Scores], class_names: tuple[str, ...]) -> Table:
    """IoU of every class, mIoU and pixel accuracy in percent, one column for each stream."""
    table = Table("", *scores)
    for column in table.columns[1:]:
        column.justify = "right"
    for index, name in enumerate(class_names):
        table.add_row(name, *(percent(one.iou[index]) for one in scores.values()))
    table.add_section()
    table.add_row("mIoU", *(percent(one.miou) for one in scores.values()), style="bold")
    table.add_row("pixel accuracy", *(percent(one.pixel_accuracy) for one in scores.values()))
    return table


def check_table(check: Check) -> Table:
    """What was measured, what is asked, and whether it holds."""
    table = Table("check", "measured", "limit", "")
    for line in check.lines:
        table.add_row(line.name, line.value, line.limit, "ok" if line.holds else "[bold red]FAILED[/]")
    return table


def percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f}"
