"""What becomes of the process group at the end of a job."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import distributed

from segdistill import processes
from segdistill.errors import (
    EvaluationError,
    InterruptedRunError,
    LostProcessError,
    NonFiniteError,
    OutOfMemoryError,
    ToldByAnotherError,
)
from segdistill.memory import is_out_of_memory
from segdistill.processes import by_first, end_together, in_turn, launched


def launched_alone() -> AbstractContextManager[Fabric]:
    return launched(Fabric(accelerator="cpu", devices=1), to_save_memory="Take smaller batches")


@pytest.fixture
def group() -> Iterator[None]:
    """A real one, with this process as its only member."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_the_group_is_gone_when_the_work_is_done() -> None:
    with launched_alone() as fabric:
        assert distributed.is_initialized()
        assert fabric.is_global_zero
    assert not distributed.is_initialized()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("end", [EvaluationError, InterruptedRunError])
def test_gloos_group_is_gone_after_an_end_that_was_foreseen(end: type[Exception]) -> None:
    with pytest.raises(end), launched_alone():
        raise end
    assert not distributed.is_initialized()


@pytest.mark.usefixtures("group")
def test_nccls_group_is_left_after_an_error_that_may_be_one_processs_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distributed, "get_backend", lambda: "nccl")
    with pytest.raises(EvaluationError), launched_alone():
        raise EvaluationError
    assert distributed.is_initialized()
    with pytest.raises(InterruptedRunError), launched_alone():
        raise InterruptedRunError
    assert not distributed.is_initialized()


@pytest.mark.usefixtures("group")
def test_the_group_is_left_when_others_may_be_waiting() -> None:
    with pytest.raises(ZeroDivisionError), launched_alone():
        raise ZeroDivisionError
    assert distributed.is_initialized()


def test_one_process_needs_no_group() -> None:
    with launched_alone():
        assert not distributed.is_initialized()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of ..."
            ),
            "CUDA out of memory",
        ),
        (MemoryError(), "MemoryError"),
        (MemoryError("Unable to allocate 10. TiB for an array"), "Unable to allocate 10. TiB for an array"),
        *(
            (RuntimeError(said), said)
            for said in (
                "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
                "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            )
        ),
    ],
)
def test_lack_of_memory_is_told_with_the_way_out(error: Exception, reason: str) -> None:
    with pytest.raises(OutOfMemoryError) as told, launched_alone():
        raise error
    assert str(told.value) == f"the memory of cpu does not suffice ({reason}). Take smaller batches"


@pytest.mark.parametrize(
    "said",
    [
        "GET was unable to find an engine to execute this computation",
        "FIND was unable to find an engine to execute this computation",
        "Unable to find a valid cuDNN algorithm to run convolution",
    ],
)
def test_what_may_be_lack_of_memory_is_told_as_that(said: str) -> None:
    """torch says the same of a card that it was not built for."""
    assert not is_out_of_memory(RuntimeError(said))
    with pytest.raises(OutOfMemoryError) as told, launched_alone():
        raise RuntimeError(f"{said}\nException raised from somewhere")
    assert f"no way to compute a convolution on cpu ({said}). Either the memory" in str(told.value)
    assert "or this build of torch does not fit the card" in str(told.value)
    assert str(told.value).endswith("If it is the memory: Take smaller batches")


@pytest.mark.parametrize("said", ["cuDNN error: CUDNN_STATUS_NOT_SUPPORTED", "CUDA error: invalid argument"])
def test_other_errors_of_a_device_stay_what_they_are(said: str) -> None:
    with pytest.raises(RuntimeError, match=said), launched_alone():
        raise RuntimeError(said)


HUGE = 2**50  # bytes, more than can be addressed


def of_torch() -> object:
    return torch.empty(HUGE, dtype=torch.uint8)


def of_numpy() -> object:
    return np.empty(HUGE, np.uint8)


def of_opencv() -> object:
    return cv2.resize(np.zeros((1, 1), np.float64), (2**23, 2**23))


@pytest.mark.parametrize("ask", [of_torch, of_numpy, of_opencv])
def test_every_librarys_lack_of_memory_is_known(ask: Callable[[], object]) -> None:
    with pytest.raises(OutOfMemoryError, match="the memory of cpu does not suffice"), launched_alone():
        ask()


@pytest.mark.parametrize(
    "error",
    [
        "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)",
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
        "shared memory. Please try to raise your shared memory limit.",
    ],
)
def test_lack_of_shared_memory_has_another_way_out(error: str) -> None:
    way_out = r"/dev/shm.*--shm-size=8g, or take fewer data\.workers"
    with pytest.raises(OutOfMemoryError, match=way_out), launched_alone():
        raise RuntimeError(error)


def test_a_worker_that_is_gone_is_told() -> None:
    told = r"loads images is gone \(DataLoader worker \(pid 7\) is killed by signal: Killed\.\)\..*--resume"
    with pytest.raises(LostProcessError, match=told), launched_alone():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")


def test_a_process_that_is_gone_has_told_why() -> None:
    """What another one met alone, this one notices by gloo's connection."""
    with pytest.raises(LostProcessError, match="that process says why"), launched_alone():
        raise RuntimeError(
            "[/pytorch/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1"
        )
    with pytest.raises(RuntimeError, match="something else"), launched_alone():
        raise RuntimeError("something else")


def test_what_all_processes_meet_the_first_one_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    for first, told in {True: NonFiniteError, False: ToldByAnotherError}.items():
        monkeypatch.setattr(Fabric, "is_global_zero", first)
        monkeypatch.setattr(processes, "end_with_parent", lambda: None)
        with pytest.raises(told), launched_alone():
            raise NonFiniteError("primary became nan")


def test_what_the_first_process_meets_the_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    done: list[str] = []
    by_first(fabric, lambda: done.append("written"))
    assert done == ["written"]

    def full_disk() -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        by_first(fabric, full_disk)
    monkeypatch.setattr(Fabric, "is_global_zero", False)
    by_first(fabric, full_disk)  # another process does not do it,
    monkeypatch.setattr(Fabric, "broadcast", lambda *_: True)
    with pytest.raises(ToldByAnotherError):  # and ends if the first one says so
        by_first(fabric, full_disk)


def test_what_has_failed_in_the_first_process_is_not_tried_in_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A download, say: each of them would start it anew, all at once."""
    fabric = Fabric(accelerator="cpu", devices=1)
    tried: list[str] = []
    for first, tries in {True: 1, False: 0}.items():
        monkeypatch.setattr(Fabric, "is_global_zero", first)
        monkeypatch.setattr(Fabric, "broadcast", lambda *_: True)

        def download() -> None:
            tried.append("here")
            raise EvaluationError("no network")

        with pytest.raises(EvaluationError if first else ToldByAnotherError):
            in_turn(fabric, download)
        assert len(tried) == tries
        tried.clear()
    monkeypatch.setattr(Fabric, "broadcast", lambda *_: False)
    assert in_turn(fabric, lambda: tried.append("here") or len(tried)) == 1, "each makes its own, once"


@pytest.mark.parametrize(("first", "told"), [(True, EvaluationError), (False, ToldByAnotherError)])
def test_all_end_by_what_another_one_has_met(
    monkeypatch: pytest.MonkeyPatch, first: bool, told: type[Exception]
) -> None:
    def gather(problems: list[Exception | None], own: Exception | None) -> None:
        problems[:] = [own, EvaluationError("an image is gone")]

    fabric = Fabric(accelerator="cpu", devices=1)
    monkeypatch.setattr(Fabric, "world_size", 2)
    monkeypatch.setattr(Fabric, "is_global_zero", first)
    monkeypatch.setattr(distributed, "all_gather_object", gather)
    with pytest.raises(told):
        end_together(fabric, None)


PARENT = """
import os, subprocess, sys
environment = os.environ | {"SEGDISTILL_STUDY": str(os.getpid())}
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, env=environment)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""
CHILD = """
import time
from segdistill.orphans import end_with_parent
end_with_parent()
print(1, flush=True)
time.sleep(600)
"""
TRAINING = """
import os, signal, time
from pathlib import Path
from segdistill.orphans import stop_with_study
from segdistill.training.interruption import stop_requested
stop_with_study()
with stop_requested() as stop:
    print(1, flush=True)
    stop.wait(600)
    Path("saved").touch()
"""
#: Its study had asked it to stop before it was killed; what it saves takes a while.
STOPPING = TRAINING.replace("    print", "    os.kill(os.getpid(), signal.SIGTERM)\n    print").replace(
    "    Path", "    time.sleep(3)\n    Path"
)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see other processes")
@pytest.mark.parametrize(("code", "saves"), [(CHILD, False), (TRAINING, True), (STOPPING, True)])
def test_a_process_ends_when_the_one_that_started_it_is_gone(code: str, saves: bool, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, code]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert parent.stdout
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 60
    while _alive(child):
        assert time.monotonic() < deadline, "the child goes on alone"
        time.sleep(0.1)
    assert (tmp_path / "saved").exists() == saves


def _alive(pid: int) -> bool:
    """Not gone, nor dead and only waiting for somebody to ask."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
