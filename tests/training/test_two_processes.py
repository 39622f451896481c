"""Two real processes: the gradient that both follow is the mean of their own, whatever each of them has looked at."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, multiprocessing

from segdistill.build.training import build_fabric, build_state
from segdistill.config import Config
from segdistill.data.loading import Batch
from segdistill.processes import launched
from segdistill.training import steps

pytestmark = pytest.mark.training
Parameters = dict[str, Tensor]


def before_and_after(config: Config, *, share: int) -> tuple[Parameters, Parameters]:
    """The network's parameters around one step on the batch, with the dropout and the views, that are `share`'s own."""
    with launched(build_fabric(config)) as fabric:
        state = build_state(config, fabric, total_steps=1)
        own = torch.Generator().manual_seed(share)
        images = torch.randn(2, 3, 64, 96, generator=own)
        batch = Batch(images, torch.randint(0, 11, (2, 64, 96), generator=own))
        torch.manual_seed(share)
        state.net.train()
        before = parameters(state.net)
        steps.train_step(
            state,
            [batch],
            progress=0.5,
            multiple=32,
            ignore_index=11,
            grid_stride=2,
            clip_norm=None,
            diagnose=False,
        )
        return before, parameters(state.net)


def parameters(net: torch.nn.Module) -> Parameters:
    return {name: one.detach().clone() for name, one in net.named_parameters()}


def one_of_two(rank: int, config: Config, port: int, folder: Path) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.save(before_and_after(config, share=rank)[1], folder / f"{rank}.pt")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_step_of_two_processes_is_the_mean_of_their_own(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    """All losses and views are on; plain gradient descent, so that steps add up as gradients do."""
    method: dict[str, Any] = {"logit": {"views": {"weight": 2.0}}, "branches": {"dropout": 0.5}}
    train: dict[str, Any] = {"optimizer": {"kind": "sgd", "momentum": 0.0, "weight_decay": 0.0, "lr": 1.0}}
    config = tiny_config(method=method, train=train | {"clip_norm": None})
    two = config.model_copy(update={"train": config.train.model_copy(update={"devices": 2})})
    multiprocessing.start_processes(one_of_two, (two, free_port(), tmp_path), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    (before, ours), (_, theirs) = (before_and_after(config, share=rank) for rank in (0, 1))
    for name, start in before.items():
        assert torch.equal(first[name], second[name]), name
        mean = (ours[name] - start + theirs[name] - start) / 2
        torch.testing.assert_close(first[name] - start, mean, rtol=1e-3, atol=1e-6, msg=name)
    apart = max(float((ours[name] - theirs[name]).abs().max()) for name in before)
    assert apart > 1e-3, "each has seen other images than the other"
