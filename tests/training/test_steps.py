"""What a step says of itself."""

from collections.abc import Callable

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from segdistill.build.network import build_net
from segdistill.build.training import build_state
from segdistill.config import Config
from segdistill.training import steps
from segdistill.training.steps import clip_gradients
from tests.one_step import some_batch, train_once


def test_the_norm_of_no_gradients_lies_on_the_device_of_all_others(
    tiny_config: Callable[..., Config],
) -> None:
    """As it does while branches wait for their ramp; a step's values are looked at together."""
    net = build_net(tiny_config()).to("meta")  # any device but the CPU
    for parameter in net.primary.parameters():
        parameter.grad = torch.empty_like(parameter)
    norms = clip_gradients(net, 5.0)
    assert {name: norm.device.type for name, norm in norms.items()} == {
        "gradient_norm": "meta",
        "branch_gradient_norm": "meta",
    }


@pytest.mark.parametrize("limit", [3.0, 1e4, None])
def test_primary_and_branches_are_clipped_each_to_the_limit(
    tiny_config: Callable[..., Config], limit: float | None
) -> None:
    net = build_net(tiny_config())
    torch.manual_seed(0)
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)

    def norms() -> list[float]:
        own = set(net.primary.parameters())
        sides = [
            [
                one.grad.flatten()
                for one in net.parameters()
                if one.grad is not None and (one in own) == inside
            ]
            for inside in (True, False)
        ]
        return [float(torch.cat(side).norm()) for side in sides]

    before = norms()
    assert 30 < min(before) < max(before) < 1e4
    returned = clip_gradients(net, limit)
    assert [float(norm) for norm in returned.values()] == pytest.approx(before, rel=1e-4), "before clipping"
    expected = before if limit is None else [min(one, limit) for one in before]
    assert norms() == pytest.approx(expected, rel=1e-4)


def test_the_discriminator_learns_from_its_own_game_alone(
    tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learner's loss runs through it, too, and must not move it."""
    config = tiny_config(method={"adversarial": {"weight": 0.5}})
    state = build_state(config, Fabric(accelerator="cpu", devices=1), total_steps=10)
    assert state.opponent
    own = list(state.opponent.module.parameters())
    met: list[list[Tensor | None]] = []
    original = steps.discriminator_gradients

    def watched(*arguments: object) -> dict[str, Tensor]:
        met.append([parameter.grad for parameter in own])
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(steps, "discriminator_gradients", watched)
    before = [parameter.detach().clone() for parameter in own]
    train_once(state, some_batch())
    assert met == [[None] * len(own)], "nothing is there when its turn comes"
    assert any(not torch.equal(one, old) for one, old in zip(own, before, strict=True)), "and it learns"
    assert all(parameter.requires_grad for parameter in own)


def test_a_step_moves_the_running_average_at_the_rate_of_its_number(
    tiny_config: Callable[..., Config],
) -> None:
    """w <- d w + (1 - d) w_now, d = (1 + n) / (10 + n) as long as that is below the decay."""
    config = tiny_config(method={"kind": "baseline"}, train={"ema_decay": 0.9})
    state = build_state(config, Fabric(accelerator="cpu", devices=1), total_steps=10)
    assert state.ema
    name, weight = next(iter(state.net.named_parameters()))
    expected = weight.detach().clone()
    for rate in (1 / 10, 2 / 11, 3 / 12):
        before = weight.detach().clone()
        train_once(state, some_batch())
        state.position.step_done(batches=1)
        assert not torch.equal(weight, before)
        expected = rate * expected + (1 - rate) * weight.detach()
        average = dict(state.ema.average.named_parameters())[name]
        torch.testing.assert_close(average, expected, rtol=1e-5, atol=1e-7)
