"""The multi-branch network: what it adds to a plain smp model, and what it leaves alone."""

import copy
import re
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdistill.build.network import build_net
from segdistill.config_io import validate_config
from segdistill.models.multi_branch import (
    BranchSpec,
    MultiBranchNet,
    MultiBranchOutput,
    Tap,
    branch_name,
    lateral_depths,
    scale_gradient,
    tap_info,
)
from segdistill.models.taps import MapInfo, TapMap, capture, read_captured, survey

CLASSES = 5


def plain_unet() -> nn.Module:
    torch.manual_seed(1)
    return smp.create_model(
        "unet",
        "resnet18",
        encoder_weights=None,
        classes=CLASSES,
        decoder_channels=[32, 16, 16, 8, 8],
    )


FEATURE_PATH = "decoder.blocks.2"  # 16 channels at stride 4
UNET = plain_unet()
MAPS = survey(UNET, ("decoder.blocks.1", FEATURE_PATH), height=64, width=64)


def make_net(
    *,
    taps: tuple[Tap, ...] = (3, 5),
    stride: int = 4,
    dropout: float = 0.0,
    encoder_gradient: float = 1.0,
    feature_stride: int | None = 8,
) -> MultiBranchNet:
    torch.manual_seed(2)
    return MultiBranchNet(
        copy.deepcopy(UNET),
        tap_map=MAPS,
        num_classes=CLASSES,
        branches=BranchSpec(taps, 8, stride, dropout, encoder_gradient),
        feature_stride=feature_stride,
        feature_path=FEATURE_PATH,
    )


def batch(size: tuple[int, int] = (64, 96)) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


# ---- forward


@pytest.mark.parametrize("stride", [2, 4])
def test_shapes(stride: int) -> None:
    net = make_net(taps=(3, "decoder.blocks.1"), stride=stride)
    out = net(batch(), with_features=True)
    assert net.submodels == ("primary", "branch3", "branch_decoder_blocks_1")
    assert out.primary.shape == (2, CLASSES, 64, 96)
    assert list(out.branches) == ["branch3", "branch_decoder_blocks_1"]
    assert {tuple(logits.shape) for logits in out.branches.values()} == {
        (2, CLASSES, 64 // stride, 96 // stride)
    }
    assert set(out.features) == set(net.submodels)
    assert out.features["primary"].shape == (2, 16, 8, 12), "8 channels for each of two branches"
    assert {tuple(out.features[name].shape) for name in out.branches} == {(2, 8, 8, 12)}


@pytest.mark.parametrize("training", [True, False])
def test_without_branches_it_is_the_plain_model(training: bool) -> None:
    net = make_net().train(training)
    out = net(batch(), with_branches=False)
    assert torch.equal(out.primary, copy.deepcopy(UNET).train(training)(batch()))
    assert (out.branches, out.features) == ({}, {})


def test_a_net_made_without_branches_is_the_plain_model() -> None:
    net = MultiBranchNet(
        copy.deepcopy(UNET),
        tap_map=MAPS,
        num_classes=CLASSES,
        branches=None,
        feature_stride=None,
    )
    assert net.submodels == ("primary",)
    assert all(name.startswith("primary.") for name in net.state_dict())
    out = net(batch(), with_branches=True, with_features=True)
    assert torch.equal(out.primary, copy.deepcopy(UNET)(batch()))
    assert (out.branches, out.features) == ({}, {})


def test_features_are_made_only_when_asked_for() -> None:
    assert make_net()(batch()).features == {}
    assert make_net(feature_stride=None)(batch(), with_features=True).features == {}


@pytest.mark.parametrize("training", [True, False])
def test_the_primary_does_not_notice_its_branches(training: bool) -> None:
    with_branches, without = make_net(dropout=0.5).train(training), make_net(dropout=0.5).train(training)
    torch.manual_seed(4)
    first = with_branches(batch(), with_features=True).primary
    torch.manual_seed(4)
    second = without(batch(), with_branches=False).primary
    assert torch.equal(first, second)
    ours, theirs = with_branches.primary.state_dict(), without.primary.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_branches_that_only_teach_say_the_same_and_keep_nothing_for_a_gradient() -> None:
    def run(**asked: bool) -> tuple[MultiBranchOutput, list[Tensor], int]:
        net, kept = make_net(dropout=0.5).train(), list[int]()
        torch.manual_seed(4)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda one: kept.append(one.nbytes) or one, lambda one: one
        ):
            out = net(batch(), **asked)
        out.primary.square().mean().backward()
        return out, [one.grad for one in net.primary.parameters() if one.grad is not None], sum(kept)

    learning, _, most = run(branches_learn=True)
    teaching, gradients, kept = run(branches_learn=False)
    _, alone, least = run(with_branches=False)
    assert all(torch.equal(teaching.branches[name], learning.branches[name]) for name in learning.branches)
    assert not any(logits.requires_grad for logits in teaching.branches.values())
    assert kept == least < most
    assert len(gradients) == len(alone) > 0
    assert all(torch.equal(one, other) for one, other in zip(gradients, alone, strict=True))


def test_the_primary_predicts_features_of_branches_that_only_teach() -> None:
    net = make_net()
    features = net(batch(), branches_learn=False, with_features=True).features
    features.pop("primary").square().mean().backward()
    assert not any(one.requires_grad for one in features.values())
    assert net.adapters["primary"].weight.grad.abs().sum() > 0  # type: ignore[union-attr, operator]
    assert all(parameter.grad is None for parameter in net.branches.parameters())


def test_branches_see_their_tap_and_nothing_deeper() -> None:
    net = make_net(taps=(3, 5)).eval()
    reference = net(batch())
    with torch.no_grad():
        net.primary.encoder.layer4[0].conv1.weight.mul_(-3)
    changed = net(batch())
    assert torch.equal(changed.branches["branch3"], reference.branches["branch3"])
    assert not torch.equal(changed.branches["branch5"], reference.branches["branch5"])
    assert not torch.equal(changed.primary, reference.primary)


def test_deploy_is_the_module_it_was_given() -> None:
    primary = copy.deepcopy(UNET)
    net = MultiBranchNet(
        primary,
        tap_map=MAPS,
        num_classes=CLASSES,
        branches=BranchSpec((3,), 8, 4, 0.0, 1.0),
        feature_stride=8,
        feature_path=FEATURE_PATH,
    )
    net(batch(), with_features=True).primary.sum().backward()
    assert net.deploy() is primary
    assert list(primary.state_dict()) == list(UNET.state_dict())


# ---- the gradient into the shared layers


def branch_gradients(encoder_gradient: float, taps: tuple[Tap, ...]) -> dict[str, Tensor | None]:
    net = make_net(taps=taps, encoder_gradient=encoder_gradient)
    out = net(batch())
    torch.stack([logits.square().mean() for logits in out.branches.values()]).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.branches.parameters())
    return {name: p.grad for name, p in net.primary.named_parameters()}


@pytest.mark.parametrize("taps", [(3, 5), ("decoder.blocks.1", 2)])
def test_gradient_of_the_branches_is_scaled(taps: tuple[Tap, ...]) -> None:
    plain, half, none = (branch_gradients(factor, taps) for factor in (1.0, 0.5, 0.0))
    reached = [name for name, gradient in plain.items() if gradient is not None]
    assert "encoder.conv1.weight" in reached
    assert ("decoder.blocks.1.conv1.0.weight" in reached) == ("decoder.blocks.1" in taps)
    for name in reached:
        full, halved = plain[name], half[name]
        assert full is not None
        assert halved is not None
        assert full.abs().sum() > 0
        assert torch.equal(halved, 0.5 * full), name  # a power of two rounds nowhere
    assert [name for name, gradient in none.items() if gradient is not None] == []


def test_factor_1_is_plain_training() -> None:
    maps = torch.randn(2, 3, requires_grad=True)
    assert scale_gradient(maps, 1.0) is maps


@pytest.mark.parametrize("factor", [0.0, 0.25, 0.3, 1.0])
def test_scaled_gradient_of_the_same_values(factor: float) -> None:
    maps = torch.randn(50, requires_grad=True)
    scaled = scale_gradient(maps, factor)
    assert torch.equal(scaled, maps)
    in_16_bits = maps.detach().bfloat16().requires_grad_()
    assert torch.equal(scale_gradient(in_16_bits, factor), in_16_bits)
    if factor:
        scaled.sum().backward()
        torch.testing.assert_close(maps.grad, torch.full((50,), factor))
    else:
        assert not scaled.requires_grad


def test_the_primarys_own_gradient_is_not_scaled() -> None:
    def gradient(encoder_gradient: float) -> Tensor:
        net = make_net(encoder_gradient=encoder_gradient)
        net(batch()).primary.square().mean().backward()
        return net.primary.encoder.conv1.weight.grad

    assert torch.equal(gradient(0.0), gradient(1.0))


# ---- features


def assert_standardised(maps: Tensor) -> None:
    mean, variance = maps.mean((0, 2, 3)), maps.var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-4)
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=0, atol=0.02)


def test_no_channel_of_a_branch_outweighs_another() -> None:
    net = make_net(taps=(3, 5, "decoder.blocks.1"))
    with torch.no_grad():
        for decoder in net.branches.values():
            for parameter in decoder.parameters():
                parameter.mul_(7)
    features = net(batch(), with_features=True).features
    assert len(features) == 4
    for name in net.branches:
        live = features[name].var((0, 2, 3)) > 0.01  # a dead ReLU stays 0
        assert live.sum() >= 4
        assert_standardised(features[name][:, live])


def test_the_primary_predicts_from_its_decoders_map() -> None:
    net = make_net().eval()
    with capture(net.primary, (FEATURE_PATH,)) as seen:
        predicted = net(batch(), with_features=True).features["primary"]
    pooled = F.avg_pool2d(read_captured(seen).modules[FEATURE_PATH], 2)
    layer = net.adapters["primary"]
    by_hand = torch.einsum("bchw,oc->bohw", pooled, layer.weight[:, :, 0, 0]) + layer.bias[:, None, None]
    torch.testing.assert_close(predicted, by_hand, rtol=1e-4, atol=1e-5)


# ---- taps


def test_branch_names() -> None:
    assert branch_name(3) == "branch3"
    assert branch_name("decoder.blocks.1") == "branch_decoder_blocks_1"


def test_tap_info() -> None:
    empty_first = TapMap((MapInfo(0, 2), MapInfo(8, 4)), {"a.b": MapInfo(7, 16)}, (64, 64))
    assert tap_info(empty_first, 2) == MapInfo(8, 4)
    assert tap_info(empty_first, "a.b") == MapInfo(7, 16)
    for tap in (-1, 0, 1, 3):
        with pytest.raises(ValueError, match=rf"no feature at depth {tap}; it has depths \[2\]"):
            tap_info(empty_first, tap)


@pytest.mark.parametrize(
    ("strides", "below", "out", "depths"),
    [
        ((2, 4, 8, 16, 32), 32, 4, (2, 3, 4)),
        ((2, 4, 8, 16, 32), 8, 2, (1, 2)),
        ((2, 4, 8, 8, 8), 32, 4, (2, 5)),  # dilated: the deepest of one stride
        ((2, 4, 8, 8, 8), 8, 4, (2,)),
        ((16, 16, 16, 16), 16, 4, ()),
        ((2, 4), 2, 4, ()),
    ],
)
def test_lateral_depths(strides: tuple[int, ...], below: int, out: int, depths: tuple[int, ...]) -> None:
    tap_map = TapMap(tuple(MapInfo(8, stride) for stride in strides), {}, (64, 64))
    assert lateral_depths(tap_map, below_stride=below, out_stride=out) == depths


def test_an_empty_stage_is_no_lateral() -> None:
    tap_map = TapMap((MapInfo(0, 2), MapInfo(8, 4), MapInfo(8, 8)), {}, (64, 64))
    assert lateral_depths(tap_map, below_stride=8, out_stride=2) == (2,)


# ---- first weights


def built(kind: str, seed: int, **method: Any) -> MultiBranchNet:
    values = {
        "name": "weights",
        "seed": seed,
        "data": {"kind": "synthetic", "size": [64, 64]},
        "model": {"arch": "unet", "encoder": "tu-test_efficientnet", "encoder_weights": "none"},
        "method": {"kind": kind, "reparam": {"copies": 1}, **method},
    }
    return build_net(validate_config(values, source="test"))


def own_weights(module: nn.Module) -> dict[str, Tensor]:
    """Without what stands beside a convolution and is merged into it."""
    beside = re.compile(r"\.(convs\.[1-9]|norms|skip)\b")
    state = module.state_dict()
    return {name.replace(".convs.0", ""): state[name] for name in state if not beside.search(name)}


def differing(first: nn.Module, second: nn.Module) -> list[str]:
    ours, theirs = own_weights(first), own_weights(second)
    assert list(ours) == list(theirs)
    return [name for name in ours if not torch.equal(ours[name], theirs[name])]


@pytest.mark.parametrize("size", [(64, 96), (96, 128)])
def test_branches_end_on_the_grid_also_where_the_encoder_rounds_its_maps_up(size: tuple[int, int]) -> None:
    net = smp.create_model("unet", "tu-mobilevitv2_050", encoder_weights=None, classes=CLASSES)
    height, width = size
    branched = MultiBranchNet(
        net,
        tap_map=survey(net, (FEATURE_PATH,), height=height, width=width),
        num_classes=CLASSES,
        branches=BranchSpec((3, 4, 5), 8, 4, 0.0, 1.0),
        feature_stride=8,
        feature_path=FEATURE_PATH,
    )
    output = branched(batch(size), with_features=True)
    for name in ("branch3", "branch4", "branch5"):
        assert output.branches[name].shape[-2:] == (height // 4, width // 4)
        assert output.features[name].shape[-2:] == (height // 8, width // 8)


def test_every_method_starts_from_the_seeds_primary() -> None:
    kinds = ("baseline", "reparam", "deep_supervision", "self_distill")
    baseline, reparam, deep, distil = (built(kind, 7) for kind in kinds)
    assert baseline.submodels == reparam.submodels == ("primary",)
    assert differing(baseline.primary, reparam.primary) == []
    assert differing(baseline.primary, deep.primary) == []
    assert differing(baseline.primary, distil.primary) == []
    assert differing(reparam.primary, distil.primary) == []
    assert len(reparam.primary.state_dict()) > len(deep.primary.state_dict())
    plain = list(baseline.primary.state_dict())
    assert plain == list(deep.primary.state_dict()) == list(distil.deploy().state_dict())
    assert differing(deep.branches, distil.branches) == []
    assert not deep.adapters
    assert set(distil.adapters) == set(distil.submodels)
    assert distil.feature_path == "decoder.blocks.3"
    assert not built("self_distill", 7, feature={"weight": 0}).adapters
    weights = [name for name, parameter in baseline.primary.named_parameters() if parameter.ndim > 1]
    assert set(weights) <= set(differing(baseline.primary, built("baseline", 8).primary))


def test_random_state_before_building_does_not_matter() -> None:
    torch.manual_seed(0)
    first = built("self_distill", 7)
    torch.manual_seed(1)
    assert differing(first, built("self_distill", 7)) == []


def test_output_survives_the_wrappers_rebuild() -> None:
    out = make_net()(batch())
    rebuilt = MultiBranchOutput._make(out)
    assert rebuilt.primary is out.primary
