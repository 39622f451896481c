"""Gradients of several batches, of which both players follow the mean."""

from collections.abc import Callable, Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from segdistill.build.training import build_state
from segdistill.config import Config
from segdistill.data.loading import Batch
from segdistill.training import steps


def flat(network: nn.Module) -> Tensor:
    return torch.cat([one.detach().flatten() for one in network.parameters()])


def moved(config: Config, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """By how much each player's parameters move in one step of plain gradient descent at rate 1."""
    state = build_state(config, Fabric(accelerator="cpu", devices=1), total_steps=10)
    assert state.opponent
    state.net.train()
    state.opponent.optimizer = torch.optim.SGD(state.opponent.module.parameters(), lr=1.0)
    players: dict[str, nn.Module] = {"learner": state.net, "discriminator": state.opponent.module}
    before = {name: flat(one) for name, one in players.items()}
    settings = steps.StepSettings(multiple=32, ignore_index=11, grid_stride=2, clip_norm=None)
    steps.train_step(state, batches, settings, progress=0.5, diagnose=False)
    return {name: flat(one) - before[name] for name, one in players.items()}


def test_a_step_of_two_batches_is_the_mean_of_their_own(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config(
        method={
            "reparam": {"copies": 0},
            "logit": {"views": {"weight": 0.0}},
            "adversarial": {"weight": 0.5},
        },
        train={
            "optimizer": {
                "kind": "sgd",
                "momentum": 0.0,
                "weight_decay": 0.0,
                "lr": 1.0,
                "encoder_lr_scale": 1.0,
            }
        },
    )
    own = torch.Generator().manual_seed(0)
    first, second = (
        Batch(torch.randn(2, 3, 64, 96, generator=own), torch.randint(0, 11, (2, 64, 96), generator=own))
        for _ in range(2)
    )
    both = moved(config, [first, second])
    alone = [moved(config, [batch]) for batch in (first, second)]
    for player, tolerance in {
        "learner": 1e-3,
        "discriminator": 0.05,
    }.items():  # whose spectral norms are estimates
        mean = (alone[0][player] + alone[1][player]) / 2
        assert (both[player] - mean).norm() < tolerance * mean.norm(), player
