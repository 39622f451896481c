"""The running average of the weights, by hand."""

import pytest
import torch
from torch import nn

from segdistill.training.ema import Ema


def network(weight: float, *, mean: float, batches: int) -> nn.Module:
    """One weight, one batch norm."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    assign(net, weight, mean=mean, batches=batches)
    return net


def assign(net: nn.Module, weight: float, *, mean: float, batches: int) -> None:
    with torch.no_grad():
        net[0].weight.fill_(weight)
        net[1].running_mean.fill_(mean)
        net[1].num_batches_tracked.fill_(batches)


def test_two_updates_by_hand() -> None:
    net = network(1.0, mean=10.0, batches=0)
    ema = Ema.of(net, decay=0.15)
    average = ema.average

    assign(net, 2.0, mean=20.0, batches=5)
    ema.update(net, updates=0)  # d = min(0.15, 1/10) = 0.1
    assert average[0].weight.item() == pytest.approx(0.1 * 1.0 + 0.9 * 2.0)
    assert average[1].running_mean.item() == pytest.approx(0.1 * 10.0 + 0.9 * 20.0)
    assert average[1].num_batches_tracked.item() == 5

    assign(net, 4.0, mean=0.0, batches=6)
    ema.update(net, updates=1)  # d = min(0.15, 2/11) = 0.15
    assert average[0].weight.item() == pytest.approx(0.15 * 1.9 + 0.85 * 4.0)
    assert average[1].running_mean.item() == pytest.approx(0.15 * 19.0)
    assert average[1].num_batches_tracked.item() == 6


@pytest.mark.parametrize(
    ("updates", "rate"), [(0, 1 / 10), (1, 2 / 11), (8, 0.5), (80, 0.9), (890, 0.99), (10**6, 0.99)]
)
def test_the_rate_rises_to_the_decay(updates: int, rate: float) -> None:
    net = network(0.0, mean=0.0, batches=0)
    ema = Ema.of(net, decay=0.99)
    assign(net, 1.0, mean=1.0, batches=1)
    ema.update(net, updates=updates)
    assert ema.average[0].weight.item() == pytest.approx(1 - rate, rel=1e-5)


def test_only_the_average_changes() -> None:
    net = network(3.0, mean=4.0, batches=2)
    ema = Ema.of(net, decay=0.9)
    assign(net, 5.0, mean=6.0, batches=3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    ema.update(net, updates=0)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.training
    assert all(p.requires_grad for p in net.parameters())


def test_the_average_is_a_copy_for_evaluation_without_gradients() -> None:
    net = network(3.0, mean=4.0, batches=2)
    ema = Ema.of(net, decay=0.9)
    assert not any(module.training for module in ema.average.modules())
    assert not any(p.requires_grad for p in ema.average.parameters())
    assign(net, 5.0, mean=6.0, batches=3)
    assert ema.average[0].weight.item() == 3.0
    ema.update(net, updates=3)
    assert not any(p.requires_grad or p.grad_fn for p in ema.average.parameters())
    assert not ema.average(torch.ones(2, 1)).requires_grad


def test_constant_weights_stay_what_they_are() -> None:
    net = network(3.0, mean=4.0, batches=2)
    ema = Ema.of(net, decay=0.999)
    for updates in range(50):
        ema.update(net, updates=updates)
    assert ema.average[0].weight.item() == 3.0
    assert ema.average[1].running_mean.item() == 4.0


def test_another_network_is_refused() -> None:
    ema = Ema.of(network(1.0, mean=0.0, batches=0), decay=0.9)
    with pytest.raises(ValueError, match="zip"):
        ema.update(nn.Sequential(nn.Linear(1, 1, bias=False)), updates=0)
