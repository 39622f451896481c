"""The screen: what is printed stands there as it is, brackets of paths and of other programs' messages included."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")


def new_console(**options: Any) -> Console:
    """A console without markup, highlighting and broken lines; `options` are those of `rich.console.Console`."""
    return Console(**{"soft_wrap": True, "highlight": False, "markup": False, **options})


def warn(console: Console, message: str) -> None:
    """Print what does not stop the program but has to be seen."""
    console.print(message, style="yellow")


def progress_bar(console: Console, *columns: str | ProgressColumn, transient: bool = True) -> Progress:
    """A progress bar, which is not drawn where there is no terminal.

    Args:
        console: to draw on.
        columns: of the bar, text as it stands but for `{task...}`; by default what is done, the bar, how many of how
            many are done, and the time that remains.
        transient: whether it vanishes when it is done.
    """
    chosen = columns or ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    plain = (TextColumn(one, markup=False) if isinstance(one, str) else one for one in chosen)
    return Progress(*plain, console=console, transient=transient, disable=not console.is_terminal)


def tracked(items: Iterable[Item], what: str, *, console: Console) -> Iterator[Item]:
    """The items, with a progress bar while they are gone through.

    Args:
        items: to go through; the bar shows how many remain if they have a length.
        what: is done with them, in words.
        console: to draw on.
    """
    with progress_bar(console) as progress:
        yield from progress.track(items, description=what)


def counted(number: int, what: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {what}{'s' if number != 1 else ''}"


def duration(seconds: float) -> str:
    """`3 h 05 min`, `12 min 40 s`, `8 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
