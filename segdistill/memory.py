"""Memory that could not be had: how to recognise it, and what to tell the user."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from segdistill.errors import OutOfMemoryError, UserError, first_line

#: How numpy, torch, OpenCV, ONNX Runtime and CUDA's libraries say that an allocation failed. The last ones name a
#: status: CUDNN_STATUS_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED.
_NO_MEMORY = re.compile(
    "out of memory|insufficient memory|(can't|cannot|unable to|failed to) allocate|_ALLOC(ATION)?_FAILED",
    re.IGNORECASE,
)

#: What torch says when each of cuDNN's ways to compute a convolution has failed, however each did: after a lack of
#: memory, too, it goes on to the next one.
_NO_WAY = re.compile(
    "unable to find (an engine to execute this computation|a valid cuDNN algorithm)", re.IGNORECASE
)

#: How torch says that workers cannot hand on what they have loaded.
_NO_SHARED_MEMORY = re.compile(
    r"unable to (allocate|open) shared memory|unable to (write to|mmap \d+ bytes from) file </torch|"
    "workers are out of shared memory"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, on whatever device and by whatever library.

    That cuDNN has found no way to compute something does not say so: a card that it does not know has none, either.
    """
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


@contextmanager
def memory_told(where: str, *, to_save_it: str) -> Iterator[None]:
    """End with one message if memory is lacking.

    Args:
        where: the device, in words.
        to_save_it: what the user can change.

    Raises:
        OutOfMemoryError: instead of what the libraries raise; also if memory is but one of the causes that there may
            be, which it then says.
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
        if _NO_WAY.search(str(error)):
            raise OutOfMemoryError(
                f"cuDNN found no way to compute a convolution on {where} ({first_line(error)}). Either the memory does "
                "not suffice for any, or this build of torch does not fit the card and its driver "
                f"(https://pytorch.org/get-started says which one does). If it is the memory: {to_save_it}"
            ) from None
        if not is_out_of_memory(error):
            raise
        sentences = re.split(r"(?<=[a-z])\. |\n", str(error))
        reason = next((one for one in sentences if _NO_MEMORY.search(one)), type(error).__name__)
        raise OutOfMemoryError(
            f"the memory of {where} does not suffice ({reason.strip()}). {to_save_it}"
        ) from None
