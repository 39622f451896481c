"""Values of recent steps: fetched at once, averaged over processes, checked."""

from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from segdistill.errors import NonFiniteError, UserError
from segdistill.training.step_log import StepLog, StepValues


class TwoProcesses:
    """A Fabric of two processes, the other one's values being this one's plus 2."""

    def __init__(self) -> None:
        self.transfers = 0

    def all_reduce(self, values: Tensor, *, reduce_op: str) -> Tensor:
        assert reduce_op == "mean"
        self.transfers += 1
        return (values + (values + 2)) / 2


def log(*, clip_norm: float | None = None) -> StepLog:
    return StepLog(Fabric(accelerator="cpu", devices=1), clip_norm=clip_norm)


def add(steps: StepLog, epoch: int, step: int, **values: float) -> None:
    steps.add(epoch=epoch, step=step, values={name: torch.tensor(value) for name, value in values.items()})


def test_values_come_back_by_step_and_name() -> None:
    steps = log()
    add(steps, 0, 8, primary=1.5, logit=0.25)
    add(steps, 1, 9, primary=2.5)  # terms may come and go
    add(steps, 1, 10, logit=3.5, primary=4.5)
    found = steps.flush()
    assert found == [
        StepValues(0, 8, {"primary": 1.5, "logit": 0.25}),
        StepValues(1, 9, {"primary": 2.5}),
        StepValues(1, 10, {"logit": 3.5, "primary": 4.5}),
    ]
    assert [list(one.values) for one in found] == [["primary", "logit"], ["primary"], ["logit", "primary"]]
    assert all(isinstance(value, float) for one in found for value in one.values.values())


def test_one_flush_empties() -> None:
    steps = log()
    assert steps.flush() == []
    add(steps, 0, 0, primary=1.0)
    assert len(steps.flush()) == 1
    assert steps.flush() == []
    add(steps, 0, 1, primary=2.0)
    assert [one.step for one in steps.flush()] == [1]


def test_means_over_processes_in_one_transfer() -> None:
    fabric: Any = TwoProcesses()
    steps = StepLog(fabric, clip_norm=None)
    add(steps, 0, 0, primary=1.0, logit=2.0)
    add(steps, 0, 1, primary=5.0)
    assert [dict(one.values) for one in steps.flush()] == [{"primary": 2.0, "logit": 3.0}, {"primary": 6.0}]
    assert fabric.transfers == 1
    steps.flush()
    assert fabric.transfers == 1


def test_values_may_be_of_any_precision() -> None:
    steps = log()
    values = {"a": torch.tensor(0.5, dtype=torch.bfloat16), "b": torch.tensor(0.25, dtype=torch.bfloat16)}
    steps.add(epoch=0, step=0, values=values)
    add(steps, 0, 1, a=0.1)
    first, second = steps.flush()
    assert first.values == {"a": 0.5, "b": 0.25}
    assert second.values["a"] == pytest.approx(0.1, rel=1e-6)


@pytest.mark.parametrize(
    ("bad", "word"), [(float("nan"), "nan"), (float("inf"), "inf"), (-float("inf"), "-inf")]
)
def test_the_first_value_that_is_not_finite_is_named(bad: float, word: str) -> None:
    steps = log()
    add(steps, 2, 30, primary=1.0, logit=2.0)
    add(steps, 2, 31, primary=1.0, logit=bad, feature=float("nan"))
    add(steps, 3, 32, primary=float("nan"))
    with pytest.raises(NonFiniteError) as caught:
        steps.flush()
    message = str(caught.value)
    assert message.startswith(f"logit became {word} in epoch 3, step 32; ")  # people count from 1
    for remedy in ("train.optimizer.lr", "a train.clip_norm,", "train.schedule.warmup"):
        assert remedy in message
    assert isinstance(caught.value, UserError)


def test_remedies_say_how_far_and_that_they_need_a_new_start() -> None:
    steps = log(clip_norm=0.5)
    add(steps, 0, 0, primary=float("nan"))
    with pytest.raises(NonFiniteError) as caught:
        steps.flush()
    message = str(caught.value)
    for words in ("a train.clip_norm below 0.5", "started anew by --overwrite or out=DIR", "--out)"):
        assert words in message
    assert message.endswith("Checkpoints from before that step, if there are any, are kept"), (
        "no epoch is done"
    )


def test_nothing_is_raised_before_the_flush() -> None:
    steps = log()
    add(steps, 0, 0, primary=float("nan"))
    add(steps, 0, 1, primary=1.0)
    with pytest.raises(NonFiniteError, match="step 1;"):
        steps.flush()
    assert steps.flush() == []


def test_large_values_are_finite() -> None:
    steps = log()
    add(steps, 0, 0, primary=3e38, logit=-3e38)
    assert len(steps.flush()) == 1
