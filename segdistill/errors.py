"""Errors that a user can cause. The command line prints their message alone and exits with code 2."""

import re


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
