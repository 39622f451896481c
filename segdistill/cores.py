"""How many cores are there for a process."""

import os

#: In the environment of a process that shares the machine with others: how many cores are its own.
CORES_VARIABLE = "SEGDISTILL_CORES"


def threads_asked_for() -> int | None:
    """The number of threads in OMP_NUM_THREADS; of the outermost parallel region if it is a list (`2,1`), which OpenMP
    allows.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() else None


def usable_cores() -> int:
    """The number of cores this process may use; where neither its parent nor the platform tells, all of the machine."""
    if told := os.environ.get(CORES_VARIABLE):
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
