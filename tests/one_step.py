"""One step of training, for tests; beside the tests so that a process started by one of them can import it."""

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from segdistill.build.training import build_fabric, build_state
from segdistill.config import Config
from segdistill.data.loading import Batch
from segdistill.processes import launched
from segdistill.training import steps
from segdistill.training.state import TrainState

Parameters = dict[str, Tensor]


def some_batch() -> Batch:
    """Two images of noise; eleven classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 64, 96, generator=generator)
    return Batch(images, torch.randint(0, 11, (2, 64, 96), generator=generator))


def train_once(state: TrainState, *batches: Batch, progress: float = 0.5) -> dict[str, Tensor]:
    """By default half-way through a run; without clipping; eleven classes are scored, the twelfth value is ignored."""
    state.net.train()
    settings = steps.StepSettings(multiple=32, ignore_index=11, grid_stride=2, clip_norm=None)
    return steps.train_step(state, batches, settings, progress=progress, diagnose=False)


def before_and_after(config: Config, *, share: int) -> tuple[Parameters, Parameters]:
    """Both players' parameters around one step of gradient descent on `train.accumulate` batches, with the dropout and
    the views, that are `share`'s own.

    On one thread, because rounding depends on their number and a decision at a kink may tip with it.
    """
    torch.set_num_threads(1)
    with launched(build_fabric(config), to_save_memory="") as fabric:
        state = build_state(config, fabric, total_steps=1)
        assert state.opponent
        state.opponent.optimizer = torch.optim.SGD(state.opponent.module.parameters(), lr=1.0)
        own = torch.Generator().manual_seed(share)
        batches = [
            Batch(torch.randn(2, 3, 64, 96, generator=own), torch.randint(0, 11, (2, 64, 96), generator=own))
            for _ in range(config.train.accumulate)
        ]
        torch.manual_seed(share)
        before = parameters(state)
        train_once(state, *batches)
        return before, parameters(state)


def parameters(state: TrainState) -> Parameters:
    """Of the sub-models and of the discriminator."""
    assert state.opponent
    players: dict[str, nn.Module] = {"": state.net, "discriminator.": state.opponent.module.module}
    return {
        who + name: one.detach().clone()
        for who, player in players.items()
        for name, one in player.named_parameters()
    }


def one_of_two(rank: int, config: Config, port: int, folder: Path) -> None:
    """The body of process `rank`; leaves the parameters after its step in `folder`."""
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.save(before_and_after(config, share=rank)[1], folder / f"{rank}.pt")
