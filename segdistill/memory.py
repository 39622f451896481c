"""Memory that could not be had: how to recognise it, and what to tell the user."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from segdistill.errors import OutOfMemoryError, UserError

#: How numpy, torch, OpenCV and ONNX Runtime say that an allocation failed.
_NO_MEMORY = re.compile(
    "out of memory|insufficient memory|(can't|cannot|unable to|failed to) allocate", re.IGNORECASE
)

#: How torch says that workers cannot hand on what they have loaded.
_NO_SHARED_MEMORY = re.compile(
    r"unable to (allocate|open) shared memory|unable to (write to|mmap \d+ bytes from) file </torch|"
    "workers are out of shared memory"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is about memory that could not be had, on whatever device and by whatever library."""
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


@contextmanager
def memory_told(where: str, *, to_save_it: str) -> Iterator[None]:
    """End with one message if memory is lacking.

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
