"""Several processes that work on one job, one per device."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from torch import distributed

from segdistill.errors import (
    InterruptedRunError,
    LostProcessError,
    NonFiniteError,
    ToldByAnotherError,
    UserError,
    memory_told,
)

Made = TypeVar("Made")


_WATCH_SECONDS = 1.0


@contextmanager
def launched(fabric: Fabric, *, to_save_memory: str) -> Iterator[Fabric]:
    """Start the processes, and take their group down at the end, as torch asks for.

    A group of gloo's that is left to the end of the interpreter may abort it ("terminate called without an active
    exception"), and Fabric then kills the others, whose work is done. After an error that perhaps one process alone
    has met, NCCL's is left, for it would wait for the others; after one that nobody expected, any. Fabric ends all
    processes if another than the first one fails; if the first one is gone, they end by themselves.

    Args:
        fabric: not yet launched.
        to_save_memory: what the user can change where the device's memory does not suffice.

    Raises:
        OutOfMemoryError: if it does not.
        LostProcessError: if another process ended alone.
        ToldByAnotherError: instead of what all processes meet, such as an interruption, in all but the first one.
    """
    fabric.launch()
    if not fabric.is_global_zero:
        end_with_parent()
    try:
        with memory_told(str(fabric.device), to_save_it=to_save_memory):
            yield fabric
    except (InterruptedRunError, NonFiniteError, ToldByAnotherError) as end:  # of all processes
        _leave()
        if fabric.is_global_zero:
            raise
        raise ToldByAnotherError from end
    except (UserError, OSError):
        if distributed.is_initialized() and distributed.get_backend() == "gloo":
            _leave()
        raise
    except RuntimeError as error:
        if "closed by peer" not in str(error):  # gloo's word for a process that is gone
            raise
        raise LostProcessError(
            "another process of this run has ended, so that it cannot go on; that process says why"
        ) from None
    _leave()


def in_turn(fabric: Fabric, make: Callable[[], Made]) -> Made:
    """`make()` in every process: in the first one before the others, which find what it has put in place.

    Raises:
        UserError, OSError: what the first process met, or another one, in the first one alone.
        ToldByAnotherError: in the others, if any process met an error.
    """
    problem: UserError | OSError | None = None
    with fabric.rank_zero_first():  # who leaves it by an exception leaves the others waiting
        try:
            made = make()
        except (UserError, OSError) as error:
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


def by_first(fabric: Fabric, act: Callable[[], None]) -> None:
    """`act()` in the first process; the others go on when it is done.

    Raises:
        UserError, OSError: what the first process met.
        ToldByAnotherError: in the others, if it met one.
    """
    problem: UserError | OSError | None = None
    if fabric.is_global_zero:
        try:
            act()
        except (UserError, OSError) as error:
            problem = error
    met = fabric.broadcast(problem is not None)
    if problem is not None:
        raise problem
    if met:
        raise ToldByAnotherError


def agreed(fabric: Fabric, *wishes: bool) -> list[bool]:
    """What any process wishes, all do: clocks and signals differ between them, collective calls must not."""
    if fabric.world_size == 1:
        return list(wishes)
    votes = fabric.all_reduce(
        torch.tensor(wishes, dtype=torch.float32, device=fabric.device), reduce_op="sum"
    )
    assert isinstance(votes, torch.Tensor)
    return (votes > 0).tolist()


def end_with_parent() -> None:
    """End this process when the one that started it is gone: a collective call of NCCL's would wait half an hour."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
