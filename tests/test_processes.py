"""What becomes of the process group at the end of a job."""

from collections.abc import Iterator

import pytest
from lightning_fabric import Fabric
from torch import distributed

from segdistill.errors import EvaluationError, InterruptedRunError
from segdistill.processes import launched


@pytest.fixture
def group() -> Iterator[None]:
    """A real one, with this process as its only member."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_the_group_is_gone_when_the_work_is_done() -> None:
    with launched(Fabric(accelerator="cpu", devices=1)) as fabric:
        assert distributed.is_initialized()
        assert fabric.is_global_zero
    assert not distributed.is_initialized()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("end", [EvaluationError, InterruptedRunError])
def test_gloos_group_is_gone_after_an_end_that_was_foreseen(end: type[Exception]) -> None:
    with pytest.raises(end), launched(Fabric(accelerator="cpu", devices=1)):
        raise end
    assert not distributed.is_initialized()


@pytest.mark.usefixtures("group")
def test_nccls_group_is_left_after_an_error_that_may_be_one_processs_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distributed, "get_backend", lambda: "nccl")
    with pytest.raises(EvaluationError), launched(Fabric(accelerator="cpu", devices=1)):
        raise EvaluationError
    assert distributed.is_initialized()
    with pytest.raises(InterruptedRunError), launched(Fabric(accelerator="cpu", devices=1)):
        raise InterruptedRunError
    assert not distributed.is_initialized()


@pytest.mark.usefixtures("group")
def test_the_group_is_left_when_others_may_be_waiting() -> None:
    with pytest.raises(ZeroDivisionError), launched(Fabric(accelerator="cpu", devices=1)):
        raise ZeroDivisionError
    assert distributed.is_initialized()


def test_one_process_needs_no_group() -> None:
    with launched(Fabric(accelerator="cpu", devices=1)):
        assert not distributed.is_initialized()
