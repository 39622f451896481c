"""A comparison for the terminal."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from segdistill.report.rows import (
    Grid,
    class_grid,
    main_grid,
    missing_lines,
    protocol_items,
    submodel_grid,
)
from segdistill.study.results import Comparison


def comparison_tables(comparison: Comparison, console: Console) -> list[Table]:
    """Scores and differences of every rung, differences by class, sub-models.

    Each is one table where the console is wide enough, else several below each other, all with the columns that name
    the rows.
    """
    main = main_grid(comparison)
    main = replace(main, note="\n".join([main.note, *missing_lines(comparison)]))
    grids = (main, class_grid(comparison), submodel_grid(comparison))
    return [_table(part) for grid in grids if grid is not None for part in _fitting(grid, console)]


def protocol_line(comparison: Comparison) -> str:
    """How the scores came about; a number without it cannot be compared."""
    return "protocol: " + "; ".join(f"{what} {value}" for what, value in protocol_items(comparison))


def _fitting(grid: Grid, console: Console) -> list[Grid]:
    """The grid cut between its groups of columns, where it would be wider than the console."""
    units = [
        list(members)
        for _, members in groupby(
            range(grid.naming, len(grid.columns)), key=lambda index: grid.columns[index].group or index
        )
    ]
    naming = list(range(grid.naming))
    parts = [naming[:]]
    for unit in units:
        if parts[-1] != naming and _width(_part(grid, [*parts[-1], *unit]), console) > console.width:
            parts.append(naming[:])
        parts[-1] += unit
    last = len(parts) - 1
    return [
        replace(
            _part(grid, indexes),
            title=grid.title if place == 0 else "",
            note=grid.note if place == last else "",
        )
        for place, indexes in enumerate(parts)
    ]


def _part(grid: Grid, indexes: Sequence[int]) -> Grid:
    return replace(
        grid,
        columns=tuple(grid.columns[index] for index in indexes),
        rows=tuple(tuple(row[index] for index in indexes) for row in grid.rows),
    )


def _width(grid: Grid, console: Console) -> int:
    """Characters that the table's columns need, whatever the console has."""
    table = _table(replace(grid, title="", note=""))
    return Measurement.get(console, console.options.update(width=10_000), table).maximum


def _table(grid: Grid) -> Table:
    """A grid as a table to print; all its cells are `Text`, for a name with brackets is no markup."""
    table = Table(
        title=Text(grid.title, style="bold") if grid.title else None,
        caption=Text(grid.note) if grid.note else None,
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        show_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    columns = _joined(grid)
    for index, (heading, _) in enumerate(columns):
        table.add_column(
            Text(heading), justify="right" if index else "left", no_wrap=index > 0, overflow="fold"
        )
    for index, row in enumerate(grid.rows):
        style = "bold" if row[0] in grid.strong else None
        table.add_row(*(Text(cells[index]) for _, cells in columns), style=style)
    return table


def _joined(grid: Grid) -> list[tuple[str, list[str]]]:
    """(heading, cells) of each column on the screen. The columns of a group make one, which saves width."""
    joined = []
    for group, members in groupby(range(len(grid.columns)), key=lambda index: grid.columns[index].group):
        indexes = list(members)
        if not group:
            joined += [
                (grid.columns[i].heading.replace("_", "_\n"), [row[i] for row in grid.rows]) for i in indexes
            ]
            continue
        parts = []
        for i in indexes:
            lines = [grid.columns[i].heading, *(row[i] for row in grid.rows)]
            width = max(map(len, lines))
            parts.append([line.rjust(width) for line in lines])
        heading, *cells = (" ".join(pieces) for pieces in zip(*parts, strict=True))
        joined.append((f"{group}\n{heading}", cells))
    return joined
