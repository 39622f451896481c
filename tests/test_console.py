import io

import pytest

from segdistill.console import new_console, warn
from segdistill.errors import first_line


@pytest.mark.parametrize(
    "message", ["runs/[a]study", "shapes [s0, 3] and [batch] in [/usr/lib/x.py]", "x" * 200]
)
def test_what_is_printed_stands_there_as_it_is(message: str) -> None:
    console = new_console(file=io.StringIO(), width=40)
    console.print(message)
    warn(console, message)
    assert console.file.getvalue() == f"{message}\n{message}\n"


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
