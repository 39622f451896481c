"""The command line: `segdistill train | compare | evaluate | predict | export | prepare-data`.

`tools/*.py` are the same commands as scripts.
"""

import argparse
import errno
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from segdistill.cli import compare, evaluate, export, predict, prepare_data, train
from segdistill.console import new_console
from segdistill.errors import InterruptedRunError, ToldByAnotherError, UserError
from segdistill.memory import memory_told
from segdistill.orphans import STOPPING
from segdistill.stop_signals import heeded, leave_terminal

USER_ERROR, INTERRUPTED = 2, 130
#: Errors of a file's place. Our own words for a full disk, and Pillow's, have no number.
_OF_PLACES = {
    None,
    *(errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
}
_OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")
_TEXT_OPTIONS = (
    "--out",
    "--root",
    "--archive",
    "--rung",
    "--masks",
    "--submit",
    "--web",
    "--web-runtime",
)  # what follows them may look like an override
#: In words of other commands nothing is looked for: `k=v/a.png` is an image.
_TAKE_OVERRIDES = (("train",), ("compare",), ("evaluate",), ("export",), ("prepare-data", "stats"))
#: In the order of the help. Each says which words it takes and, in `_run`, what it does with them; torch takes
#: seconds to import, so what needs it is imported when the command runs.
_COMMANDS = (train, compare, evaluate, export, predict, prepare_data)
_TO_SAVE_MEMORY = "Smaller images need less: data.size, or --size where a command has it"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, 2 for an error the user can put right (its message is printed alone), 130 after an interruption.
    """
    arguments = parse(argv)
    console = new_console()
    try:
        with _termination_as_interruption(), memory_told("this machine", to_save_it=_TO_SAVE_MEMORY):
            arguments.run(arguments, console)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except OSError as error:
        hint = " (is there such a folder, may it be written to, is the disk full?)"
        print(f"error: {error}{hint if error.errno in _OF_PLACES else ''}", file=sys.stderr)
        return USER_ERROR
    except InterruptedRunError as interruption:
        print(interruption, file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except ToldByAnotherError:
        return 0  # for another code Fabric would kill the first process, which may not be done with telling
    return 0


@contextmanager
def _termination_as_interruption() -> Iterator[None]:
    """SIGTERM and a closed terminal end a command as Ctrl-C does, so that it removes what it has half written.
    Trainings and studies answer to all of them themselves, as long as they have something to save."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        STOPPING.set()
        leave_terminal(number)
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in heeded() - {signal.SIGINT}}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Overrides may stand anywhere, also behind an option or its values, which argparse alone does not allow."""
    given = list(sys.argv[1:] if argv is None else argv)
    words: list[str] = []
    overrides: list[str] = []
    command = next((names for names in _TAKE_OVERRIDES if tuple(given[: len(names)]) == names), None)
    for place, word in enumerate(given):
        is_override = (
            command is not None
            and _OVERRIDE.match(word)
            and given[place - 1] not in _TEXT_OPTIONS
            and not (place == len(command) and Path(word).exists())  # a run may be called lr=1e-3
        )
        (overrides if is_override else words).append(word)
    arguments = parser().parse_args(words)
    if overrides:
        arguments.overrides += overrides
    return arguments


def parser() -> argparse.ArgumentParser:
    """Every command with its arguments."""
    top: argparse.ArgumentParser = _Parser(prog="segdistill", description=__doc__)
    top.add_argument(
        "--version",
        action=_Version,
        help="of this program, with a hash of its code, and of what its numbers depend on",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return top


class _Parser(argparse.ArgumentParser):
    """Refuses by its own usage what it does not know, and so do the commands' parsers, which argparse makes of the
    same class; by itself it would leave that to the outermost one, whose usage names no option of theirs."""

    def parse_known_args(self, *args: Any, **kwargs: Any) -> tuple[Any, list[str]]:
        arguments, strangers = super().parse_known_args(*args, **kwargs)
        if strangers:
            self.error(f"unrecognized arguments: {' '.join(strangers)}")
        return arguments, strangers


class _Version(argparse.Action):
    """Prints the versions and ends; they are looked up when somebody asks."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(
            option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=help
        )

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from segdistill.commands.versions import versions

        print("\n".join(f"{name} {version}" for name, version in versions().items()))
        parser.exit()
