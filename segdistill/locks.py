"""Folders in which only one process may work at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def alone_in(folder: Path, *, otherwise: Exception) -> Iterator[None]:
    """Hold a folder, which is made if need be, so that nobody else may hold it meanwhile. The lock goes with the
    process, however it ends.

    Raises:
        Exception: `otherwise`, if another process does.
    """
    if fcntl is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise otherwise from None
        yield
    finally:
        os.close(handle)


def somebody_in(folder: Path) -> bool:
    """Whether another process holds the folder by `alone_in`."""
    if not folder.is_dir():
        return False
    taken = Exception()
    try:
        with alone_in(folder, otherwise=taken):
            return False
    except Exception as error:
        if error is taken:
            return True
        raise
