"""Several processes that work on one job, one per device."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning_fabric import Fabric
from torch import distributed

from segdistill.errors import InterruptedRunError, UserError


@contextmanager
def launched(fabric: Fabric) -> Iterator[Fabric]:
    """Start the processes, and take their group down at the end, as torch asks for.

    A group that is left to the end of the interpreter may abort it ("terminate called without an active
    exception"), and Fabric then kills the others, whose work is done. After an error of another kind it is
    left: the group would wait for an exchange that never ends.
    """
    fabric.launch()
    try:
        yield fabric
    except (UserError, InterruptedRunError):
        _leave()
        raise
    _leave()


def _leave() -> None:
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
