"""How words of the command line are read: types of arguments that say what they want."""

import argparse
import re
from collections.abc import Callable
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def take_overrides(command: argparse.ArgumentParser, *, help: str, metavar: str = "key.sub=value") -> None:
    """Any number of overrides, also none: without a default argparse calls them required when others are missing."""
    command.add_argument("overrides", nargs="*", default=[], metavar=metavar, help=help)


def whole_number(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least `least`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"\d+", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} should be a whole number of at least {least}")
        return int(text)

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """Reads a number from `least` to `most`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} should be a number from {least:g} to {most:g}")
        return value

    return read


def size(text: str) -> tuple[int, int]:
    """HxW -> (height, width) in pixels."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} should be height x width in pixels, e.g. 360x480")
    return int(found[1]), int(found[2])
