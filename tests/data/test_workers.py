"""Processes that load images: whom they obey, and that they end when they should."""

import multiprocessing
import multiprocessing.context
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch.utils.data import Dataset

from segdistill.data.workers import WorkerLoader


class Numbers(Dataset[int]):
    """Slow enough to be disturbed; holds what only a forked worker can have."""

    def __init__(self) -> None:
        self.held: Callable[[int], int] = lambda number: number

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        time.sleep(0.01)
        return self.held(index)


def loader_of(workers: int) -> WorkerLoader[int]:
    return WorkerLoader(Numbers(), workers=workers, batch_size=None)


@pytest.mark.parametrize("workers", [0, 2])
def test_in_their_order(workers: int) -> None:
    loader = loader_of(workers)
    assert list(loader) == list(loader) == list(range(8))


def send(number: signal.Signals, process: multiprocessing.process.BaseProcess) -> None:
    """From another process than the worker's parent."""
    subprocess.run(["kill", f"-{number.value}", str(process.pid)], check=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_workers_outlive_a_signal_to_all_processes(number: signal.Signals) -> None:
    """The run may need further batches on its way to a checkpoint."""
    before = set(multiprocessing.active_children())
    loader = iter(loader_of(2))
    got = [next(loader), next(loader)]  # one of each: both are at work
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    for worker in workers:
        send(number, worker)
    got += loader
    assert got == list(range(8))


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_workers_outlive_a_signal_while_they_start(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = multiprocessing.context.ForkProcess.start

    def start(process: multiprocessing.context.ForkProcess) -> None:
        begin(process)
        send(signal.SIGTERM, process)

    monkeypatch.setattr(multiprocessing.context.ForkProcess, "start", start)
    assert list(loader_of(2)) == list(range(8))
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGINT, signal.SIGTERM}, "held no more"


def test_workers_end_when_their_parent_tells_them() -> None:
    before = set(multiprocessing.active_children())
    loader = iter(loader_of(2))
    next(loader)
    for worker in set(multiprocessing.active_children()) - before:
        worker.terminate()
        worker.join(timeout=10)
        assert worker.exitcode == 0, "which torch does not take for a failure"


@pytest.fixture
def other_start_method() -> Iterator[None]:
    """Python's own from 3.14 on."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("forkserver", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere forking is not safe, or not there")
@pytest.mark.usefixtures("other_start_method")
def test_workers_share_the_memory_of_the_samples() -> None:
    assert list(loader_of(1)) == list(range(8))


PROGRAM = """
import multiprocessing, sys, time
import numpy as np
from segdistill.data.workers import WorkerLoader

class Large:
    def __len__(self):
        return 100
    def __getitem__(self, index):
        return np.zeros(10**6, np.uint8)  # more than a pipe holds

loader = iter(WorkerLoader(Large(), workers=2, batch_size=None, collate_fn=lambda item: item))
next(loader)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
pool = multiprocessing.Pool(2)  # of somebody else
pool.map(abs, range(9))
if sys.argv[1] == "fail":
    raise RuntimeError("what nobody has foreseen")
time.sleep(600)
"""


def started(how: str) -> tuple["subprocess.Popen[str]", list[int]]:
    """The program, and its workers."""
    command = [sys.executable, "-c", PROGRAM, how]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout
    return program, list(map(int, program.stdout.readline().split()))


def test_workers_end_with_a_program_that_fails() -> None:
    """An error keeps its loader alive to the end, when Python sends them SIGTERM and waits."""
    program, _ = started("fail")
    _, told = program.communicate(timeout=120)
    assert program.returncode == 1
    assert told.endswith("RuntimeError: what nobody has foreseen\n"), "and nothing of killed workers"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see other processes")
def test_workers_end_with_a_program_that_is_killed() -> None:
    """Also while they wait for somebody to take what they have loaded."""
    program, workers = started("wait")
    assert len(workers) == 2
    time.sleep(0.5)  # until the pipes are full
    program.kill()
    program.communicate()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "workers go on alone"
        time.sleep(0.1)
