"""The screen: what is printed stands there as it is, brackets of paths and of other programs' messages included."""

from typing import Any

from rich.console import Console


def new_console(**options: Any) -> Console:
    """A console without markup, highlighting and broken lines; `options` are those of `rich.console.Console`."""
    return Console(**{"soft_wrap": True, "highlight": False, "markup": False, **options})


def warn(console: Console, message: str) -> None:
    """Print what does not stop the program but has to be seen."""
    console.print(message, style="yellow")


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
