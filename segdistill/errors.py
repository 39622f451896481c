"""Errors that a user can cause. The command line prints their message alone and exits with code 2."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

#: How numpy, torch, OpenCV and ONNX Runtime say that an allocation failed.
_NO_MEMORY = re.compile(
    "out of memory|insufficient memory|(can't|cannot|unable to|failed to) allocate", re.IGNORECASE
)

#: How torch says that workers cannot hand on what they have loaded.
_NO_SHARED_MEMORY = re.compile(
    r"unable to (allocate|open) shared memory|unable to (write to|mmap \d+ bytes from) file </torch|"
    "workers are out of shared memory"
)


def first_line(error: BaseException) -> str:
    """What an error of another library says in its first line, without colours; its type if it says nothing."""
    said = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip()
    return said.partition("\n")[0].rstrip() or type(error).__name__


class UserError(Exception):
    """Something the user can put right; the message names what, its value, and the remedy."""


class ConfigError(UserError):
    """The configuration is not valid; the message lists every problem found."""


class PathError(UserError):
    """A path that leads nowhere on this machine."""


class DataError(UserError):
    """The data set is missing or not what it should be; the message lists every problem by file."""

    def __init__(self, message: str) -> None:
        """A loader's error reaches the main process as one of its type whose message is the worker's traceback, at the
        end of which stands the worker's own message."""
        if message.startswith("Caught "):
            message = message.rpartition(f"{__name__}.{type(self).__name__}: ")[2].strip()
        super().__init__(message)


class DataMissingError(DataError):
    """The data set, or a split of it, is not where it should be."""


class MaskFormError(DataError):
    """A mask is whole, but not stored as masks are."""


class WeightsError(UserError):
    """Pretrained weights cannot be had or do not fit."""


class NonFiniteError(UserError):
    """A loss or gradient became NaN or infinite; the run was stopped."""


class RunFolderError(UserError):
    """A run folder is in the way, incomplete, or not a run folder."""


class ExportError(UserError):
    """An exported file could not be made or failed its check."""


class EvaluationError(UserError):
    """A scoring was asked for what the network, the file or the data cannot give."""


class OutOfMemoryError(UserError):
    """A device has not the memory for what was asked for."""


class LostProcessError(UserError):
    """One of several processes ended by what it met alone."""


class ToldByAnotherError(Exception):
    """One of several processes ends as all do, and the first one tells the user why."""


class InterruptedRunError(Exception):
    """The run was asked to stop by a signal; its state is saved. No mistake of anybody: exit code 130."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it is about memory that could not be had, on whatever device and by whatever library."""
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


@contextmanager
def memory_told(where: str, *, to_save_it: str) -> Iterator[None]:
    """What lacks memory ends with one message.

    Args:
        where: the device, in words.
        to_save_it: what the user can change.

    Raises:
        OutOfMemoryError: instead of what the libraries raise.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError):
            raise
        if _NO_SHARED_MEMORY.search(str(error)):
            raise OutOfMemoryError(
                "the shared memory (/dev/shm) through which images come from the processes that load them does not "
                "suffice. Give it more, e.g. by docker run --shm-size=8g, or take fewer data.workers; a training goes "
                "on by --resume"
            ) from None
        if not is_out_of_memory(error):
            raise
        sentences = re.split(r"(?<=[a-z])\. |\n", str(error))
        reason = next((one for one in sentences if _NO_MEMORY.search(one)), type(error).__name__)
        raise OutOfMemoryError(
            f"the memory of {where} does not suffice ({reason.strip()}). {to_save_it}"
        ) from None
