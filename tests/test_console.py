import io

import pytest

from segdistill.console import new_console, tracked, warn
from segdistill.errors import first_line


@pytest.mark.parametrize(
    "message", ["runs/[a]study", "shapes [s0, 3] and [batch] in [/usr/lib/x.py]", "x" * 200]
)
def test_what_is_printed_stands_there_as_it_is(message: str) -> None:
    console = new_console(file=io.StringIO(), width=40)
    console.print(message)
    warn(console, message)
    assert console.file.getvalue() == f"{message}\n{message}\n"


def test_a_progress_bar_shows_brackets_as_they_are_and_vanishes() -> None:
    console = new_console(file=io.StringIO(), force_terminal=True, width=80, legacy_windows=False)
    assert list(tracked([1, 2], "scoring [red]a[/red].onnx", console=console)) == [1, 2]
    assert "scoring [red]a[/red].onnx" in console.file.getvalue()
    assert console.file.getvalue().endswith("\x1b[1A\x1b[2K")


def test_without_a_terminal_there_is_no_progress_bar() -> None:
    console = new_console(file=io.StringIO())
    assert list(tracked([1, 2], "scoring", console=console)) == [1, 2]
    assert console.file.getvalue() == ""


def test_warnings_are_seen() -> None:
    console = new_console(file=io.StringIO(), force_terminal=True, color_system="standard")
    warn(console, "mind this")
    assert console.file.getvalue() == "\x1b[33mmind this\x1b[0m\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n  two sizes\ndo not fit"), "two sizes"),
        (AssertionError(), "AssertionError"),
        (RuntimeError("\x1b[1;31mFailed\x1b[0m to export"), "Failed to export"),
    ],
)
def test_the_first_line_of_an_error(error: Exception, line: str) -> None:
    assert first_line(error) == line
