"""Several processes that work on one job, one per device."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning_fabric import Fabric
from torch import distributed

from segdistill.errors import InterruptedRunError, UserError


@contextmanager
def launched(fabric: Fabric) -> Iterator[Fabric]:
    """Start the processes, and take their group down at the end, as torch asks for.

    A group of gloo's that is left to the end of the interpreter may abort it ("terminate called without an active
    exception"), and Fabric then kills the others, whose work is done. After an error that perhaps one process alone
    has met, NCCL's is left, for it would wait for the others; after one that nobody expected, any.
    """
    fabric.launch()
    try:
        yield fabric
    except InterruptedRunError:  # of all processes
        _leave()
        raise
    except UserError:
        if distributed.is_initialized() and distributed.get_backend() == "gloo":
            _leave()
        raise
    _leave()


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
