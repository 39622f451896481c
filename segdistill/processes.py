"""Several processes that work on one job, one per device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from torch import distributed

from segdistill.errors import (
    ConfigError,
    InterruptedRunError,
    LostProcessError,
    NonFiniteError,
    ToldByAnotherError,
    UserError,
    first_line,
)
from segdistill.launchers import launcher
from segdistill.memory import memory_told
from segdistill.orphans import end_with_parent

Made = TypeVar("Made")


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
        ConfigError: if torchrun or srun has started another number of processes, or some on other machines.
        OutOfMemoryError: if it does not.
        LostProcessError: if another process ended alone, or one that loads images for this one.
        ToldByAnotherError: instead of what all processes meet, such as an interruption, in all but the first one.
    """
    _launch(fabric)
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
        if str(error).startswith("DataLoader worker"):
            raise LostProcessError(
                f"a process that loads images is gone ({first_line(error)}). If this machine's memory did not "
                "suffice, take fewer data.workers, or data.cache=false; a training goes on by --resume"
            ) from None
        if "closed by peer" not in str(error):  # gloo's word for a process that is gone
            raise
        raise LostProcessError(
            "another process of this run has ended, so that it cannot go on; that process says why"
        ) from None
    _leave()


def _launch(fabric: Fabric) -> None:
    """Raises ConfigError if torchrun or srun has started other processes than one for each device of this machine."""
    found = launcher()
    if found is None:
        fabric.launch()
        return
    try:
        # Of a single device Fabric asks nobody: each of several processes would take itself for the only one.
        if not fabric.world_size == found.processes == found.here:
            raise ValueError(
                f"{found.processes} processes, {found.here} of them here, for {fabric.world_size}"
            )
        fabric.launch()
    except ValueError as error:
        raise ConfigError(
            "torchrun or srun has not started one process for each of the devices that are wanted, on one machine "
            f"({first_line(error)}); leave train.devices as it is by default, or start the program alone (by neither "
            "of them, or by srun --ntasks=1): it starts the other processes itself"
        ) from None


def in_turn(fabric: Fabric, make: Callable[[], Made]) -> Made:
    """Call `make()` in every process: in the first one before the others, which find what it has put in place, and do
    not try what has failed there.

    Raises:
        UserError, OSError: what the first process met, or another one, in the first one alone.
        ToldByAnotherError: in the others, if any process met an error.
    """
    made: list[Made] = []
    problem: UserError | OSError | None = None
    by_first(fabric, lambda: made.append(make()))
    if not fabric.is_global_zero:
        try:
            made.append(make())
        except (UserError, OSError) as error:
            problem = error
    end_together(fabric, problem)
    return made[0]


def end_together(fabric: Fabric, problem: UserError | OSError | None) -> None:
    """Return in all processes if none has met a problem.

    Raises:
        UserError, OSError: what the first process met, or another one, in the first one alone.
        ToldByAnotherError: in the others, if any process met one.
    """
    problems = [problem]
    if fabric.world_size > 1:
        problems = [None] * fabric.world_size
        distributed.all_gather_object(problems, problem)
    met = [one for one in problems if one is not None]
    if met and fabric.is_global_zero:
        raise met[0]
    if met:
        raise ToldByAnotherError


def by_first(fabric: Fabric, act: Callable[[], None]) -> None:
    """Call `act()` in the first process alone; the others go on when it is done.

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


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
