"""Several processes that work on one job, one per device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from lightning_fabric import Fabric
from torch import distributed

from segdistill.errors import InterruptedRunError, ToldByAnotherError, UserError

Made = TypeVar("Made")


@contextmanager
def launched(fabric: Fabric) -> Iterator[Fabric]:
    """Start the processes, and take their group down at the end, as torch asks for.

    A group of gloo's that is left to the end of the interpreter may abort it ("terminate called without an active
    exception"), and Fabric then kills the others, whose work is done. After an error that perhaps one process alone
    has met, NCCL's is left, for it would wait for the others; after one that nobody expected, any.

    Raises:
        ToldByAnotherError: instead of an interruption, which all processes share, in all but the first one.
    """
    fabric.launch()
    try:
        yield fabric
    except (InterruptedRunError, ToldByAnotherError) as end:  # of all processes
        _leave()
        if fabric.is_global_zero:
            raise
        raise ToldByAnotherError from end
    except UserError:
        if distributed.is_initialized() and distributed.get_backend() == "gloo":
            _leave()
        raise
    _leave()


def in_turn(fabric: Fabric, make: Callable[[], Made]) -> Made:
    """`make()` in every process: in the first one before the others, which find what it has put in place.

    Raises:
        UserError: what the first process met, or another one, in the first one alone.
        ToldByAnotherError: in the others, if any process met an error.
    """
    problem: UserError | None = None
    with fabric.rank_zero_first():  # who leaves it by an exception leaves the others waiting
        try:
            made = make()
        except UserError as error:
            problem = error
    problems = [problem]
    if fabric.world_size > 1:
        problems = [None] * fabric.world_size
        distributed.all_gather_object(problems, problem)
    met = [one for one in problems if one is not None]
    if not met:
        return made
    if fabric.is_global_zero:
        raise met[0]
    raise ToldByAnotherError


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
