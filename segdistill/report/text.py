"""A comparison for the terminal."""

from itertools import groupby

from rich import box
from rich.table import Table
from rich.text import Text

from segdistill.report.rows import (
    Grid,
    class_grid,
    main_grid,
    missing_line,
    protocol_items,
    submodel_grid,
)
from segdistill.study.results import Comparison


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Scores and differences of every rung, differences by class, sub-models; readable at 120 columns."""
    main = main_grid(comparison)
    others = (class_grid(comparison), submodel_grid(comparison))
    return [
        _table(main, below=missing_line(comparison)),
        *(_table(grid) for grid in others if grid is not None),
    ]


def protocol_line(comparison: Comparison) -> str:
    """How the scores came about; a number without it cannot be compared."""
    return "protocol: " + "; ".join(f"{what} {value}" for what, value in protocol_items(comparison))


def _table(grid: Grid, *, below: str = "") -> Table:
    """`Text` throughout: a name with brackets is no markup."""
    table = Table(
        title=Text(grid.title, style="bold"),
        caption=Text("\n".join(filter(None, (grid.note, below)))),
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
