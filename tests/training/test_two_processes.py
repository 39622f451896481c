"""Two real processes: the gradient that both follow is the mean of their own, whatever each of them has looked at."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from one_step import before_and_after, one_of_two
from torch import multiprocessing

from segdistill.config import Config

pytestmark = pytest.mark.training


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def threads() -> Iterator[None]:
    """As many as before, afterwards."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("game", "accumulate"), [("label", 1), ("peer", 3)])
def test_the_step_of_two_processes_is_the_mean_of_their_own(
    game: str, accumulate: int, tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    """All losses and views are on; plain gradient descent, so that steps add up as gradients do."""
    method: dict[str, Any] = {
        "logit": {"views": {"weight": 2.0}},
        "adversarial": {"game": game},
        "branches": {"dropout": 0.5},
    }
    train: dict[str, Any] = {
        "optimizer": {"kind": "sgd", "momentum": 0.0, "weight_decay": 0.0, "lr": 1.0},
        "clip_norm": None,
        "accumulate": accumulate,
    }
    config = tiny_config(method=method, train=train)
    two = config.model_copy(update={"train": config.train.model_copy(update={"devices": 2})})
    multiprocessing.start_processes(one_of_two, (two, free_port(), tmp_path), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    (before, ours), (_, theirs) = (before_and_after(config, share=rank) for rank in (0, 1))
    for name, start in before.items():
        assert torch.equal(first[name], second[name]), name
        mean = (ours[name] - start + theirs[name] - start) / 2
        torch.testing.assert_close(first[name] - start, mean, rtol=1e-3, atol=1e-6, msg=name)
    for player in ("primary", "branches", "discriminator"):
        names = [name for name in before if name.startswith(player)]
        apart = max(float((ours[name] - theirs[name]).abs().max()) for name in names)
        assert apart > 1e-4, f"{player}: each has seen other images than the other"
