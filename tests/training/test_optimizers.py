"""Parameter groups and learning-rate schedules."""

import math
import warnings

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from segdistill.models.multi_branch import BranchSpec, MultiBranchNet
from segdistill.models.taps import survey
from segdistill.training.optimizers import (
    build_discriminator_optimizer,
    build_optimizer,
    build_scheduler,
    learning_rates,
    parameter_groups,
)


@pytest.fixture(scope="module")
def net() -> MultiBranchNet:
    primary = smp.Unet(
        "tu-test_efficientnet", encoder_weights=None, classes=3, decoder_channels=(8, 8, 8, 8, 8)
    )
    return MultiBranchNet(
        primary,
        tap_map=survey(primary, ("decoder.blocks.2",), height=64, width=64),
        num_classes=3,
        branches=BranchSpec(taps=(3, 4), width=8, stride=4, dropout=0.0, encoder_gradient=1.0),
        feature_stride=8,
        feature_path="decoder.blocks.2",
    )


def groups_of(net: nn.Module, **changes: float) -> list[dict[str, object]]:
    return parameter_groups(net, **{"lr": 0.1, "encoder_lr_scale": 0.5, "weight_decay": 0.01, **changes})


def rates(kind: str, *, total: int, warmup: float, power: float = 0.9, lr: float = 1.0) -> list[float]:
    """The learning rate of every step."""
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
    scheduler = build_scheduler(kind, optimizer, total_steps=total, warmup=warmup, power=power)
    found = []
    for step in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step + 1 < total:  # as a training does
            scheduler.step()
    return found


# ---- groups


def test_every_parameter_is_in_one_group(net: MultiBranchNet) -> None:
    grouped = [id(p) for group in groups_of(net) for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in net.parameters()}
    names = {name.split(".")[0] for name, _ in net.named_parameters()}
    assert names == {"primary", "branches", "adapters"}


def test_learning_rate_and_decay_of_every_parameter(net: MultiBranchNet) -> None:
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups_of(net) for p in group["params"]}
    kinds = set()
    for name, parameter in net.named_parameters():
        in_encoder = name.startswith("primary.encoder.")
        decays = parameter.ndim > 1
        kinds.add((in_encoder, decays))
        assert found[id(parameter)] == (0.05 if in_encoder else 0.1, 0.01 if decays else 0.0), name
    assert len(kinds) == 4
    undecayed = {name.rsplit(".", 1)[-1] for name, p in net.named_parameters() if found[id(p)][1] == 0.0}
    assert undecayed == {"weight", "bias"}  # of batch norms, and biases


def test_the_rates_of_the_encoder_and_of_the_rest_are_read_by_the_groups_order(net: MultiBranchNet) -> None:
    optimizer = build_optimizer("adamw", groups_of(net), momentum=0.9)
    assert learning_rates(optimizer) == {"encoder": 0.05, "decoder": 0.1}


# ---- optimisers


def test_optimizers_keep_the_groups(net: MultiBranchNet) -> None:
    adamw = build_optimizer("adamw", groups_of(net), momentum=0.9)
    assert isinstance(adamw, AdamW)
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.01, 0.0, 0.01, 0.0]
    assert [group["lr"] for group in adamw.param_groups] == [0.05, 0.05, 0.1, 0.1]
    sgd = build_optimizer("sgd", groups_of(net), momentum=0.8)
    assert isinstance(sgd, SGD)
    assert [group["momentum"] for group in sgd.param_groups] == [0.8] * 4
    assert [group["weight_decay"] for group in sgd.param_groups] == [0.01, 0.0, 0.01, 0.0]
    assert all(group["nesterov"] for group in sgd.param_groups)
    plain = build_optimizer("sgd", groups_of(net), momentum=0.0)
    assert not any(group["nesterov"] for group in plain.param_groups)


def test_discriminator_optimizer() -> None:
    optimizer = build_discriminator_optimizer(nn.Conv2d(3, 1, 1), lr=2e-4)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (2e-4, (0.9, 0.99), 0.0)
    assert len(group["params"]) == 2


# ---- schedules


def test_cosine() -> None:
    found = rates("cosine", total=10, warmup=0.2, lr=2.0)
    # Two steps of rise to 1/3 and 2/3, then (1 + cos(pi t)) / 2 at t = 0, 1/8, 2/8, ...
    expected = [1 / 3, 2 / 3] + [(1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)]
    assert found == pytest.approx([2.0 * value for value in expected])
    assert found[2] == 2.0
    assert found[6] == pytest.approx(1.0)


def test_poly() -> None:
    found = rates("poly", total=8, warmup=0.5, power=2.0)
    assert found == pytest.approx([1 / 5, 2 / 5, 3 / 5, 4 / 5, 1.0, 0.75**2, 0.5**2, 0.25**2])
    assert rates("poly", total=4, warmup=0.0, power=0.5) == pytest.approx([1.0, 0.75**0.5, 0.5**0.5, 0.5])


@pytest.mark.parametrize("kind", ["cosine", "poly"])
@pytest.mark.parametrize(("total", "warmup"), [(1, 0.0), (1, 0.9), (2, 0.5), (3, 0.99), (10, 0.1), (7, 0.3)])
def test_rates_are_positive_and_never_above_the_peak(kind: str, total: int, warmup: float) -> None:
    found = rates(kind, total=total, warmup=warmup)
    assert len(found) == total
    assert all(0 < rate <= 1 for rate in found)


def test_one_cycle_start_peak_and_end() -> None:
    found = rates("one_cycle", total=20, warmup=0.25, lr=0.5)
    assert found[0] == pytest.approx(0.5 / 25)  # torch's div_factor
    assert found[4] == pytest.approx(0.5)  # step 0.25 * 20 - 1
    assert max(found) == found[4]
    assert found[2] == pytest.approx((0.5 / 25 + 0.5) / 2)  # half-way up a cosine
    assert found[-1] == pytest.approx(0.5 / 25 / 1e4)  # torch's final_div_factor
    assert found[:5] == sorted(found[:5])
    assert found[4:] == sorted(found[4:], reverse=True)


@pytest.mark.parametrize("kind", ["one_cycle", "cosine", "poly"])
def test_every_group_keeps_its_share_of_the_peak(kind: str) -> None:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = AdamW([{"params": [parameters[0]], "lr": 0.2}, {"params": [parameters[1]], "lr": 0.6}])
    scheduler = build_scheduler(kind, optimizer, total_steps=12, warmup=0.25, power=0.9)
    peaks = [0.0, 0.0]
    for _ in range(11):
        low, high = (group["lr"] for group in optimizer.param_groups)
        assert high == pytest.approx(3 * low)
        peaks = [max(peaks[0], low), max(peaks[1], high)]
        optimizer.step()
        scheduler.step()
    assert peaks == pytest.approx([0.2, 0.6])


def one_cycle(optimizer: Optimizer, *, total: int, warmup: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler = build_scheduler("one_cycle", optimizer, total_steps=total, warmup=warmup, power=1.0)
        found = [optimizer.param_groups[0]["lr"]]
        for _ in range(total - 1):
            optimizer.step()
            scheduler.step()
            found.append(optimizer.param_groups[0]["lr"])
    assert max(found) <= 1
    assert found[-1] == pytest.approx(1.0 if total == 1 else 1 / 25 / 1e4), "it ends at its lowest"


@pytest.mark.parametrize(("total", "warmup"), [(1, 0.1), (2, 0.1), (9, 0.1), (11, 0.1), (5, 0.0), (3, 0.9)])
def test_one_cycle_of_a_short_run(total: int, warmup: float) -> None:
    one_cycle(SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9), total=total, warmup=warmup)


@pytest.mark.parametrize(("total", "warmup"), [(10, 0.1), (20, 0.05), (2, 0.5)])
def test_one_cycle_whose_rise_is_one_step(total: int, warmup: float) -> None:
    one_cycle(SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9), total=total, warmup=warmup)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_one_cycle_honours_the_momentum_of_sgd(momentum: float) -> None:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=momentum)
    build_scheduler("one_cycle", optimizer, total_steps=9, warmup=0.3, power=1.0)
    assert optimizer.param_groups[0]["momentum"] == momentum
