"""bfloat16 on a CPU: which layers compute in it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdistill.build.training import build_fabric, slow_precision
from segdistill.config import Config
from segdistill.training.precision import CpuMixedPrecision, DepthwiseInFloat32, lacks_bfloat16


def gradients(conv: nn.Conv2d, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output, and the gradient of a fixed sum of it with respect to images and weight."""
    images = images.clone().requires_grad_()
    maps = conv(images)
    weights = torch.linspace(-1, 1, maps.numel()).reshape(maps.shape).to(torch.bfloat16)
    to_images, to_weight = torch.autograd.grad((maps.float() * weights.float()).sum(), (images, conv.weight))
    return maps, to_images, to_weight


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_layers_compute_in_float32(stride: int, bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, 5, stride, 2, groups=8, bias=bias)
    images = torch.randn(2, 8, 12, 16)
    expected, expected_to_images, expected_to_weight = gradients(conv, images)
    with torch.autocast("cpu", torch.bfloat16), DepthwiseInFloat32():
        maps, to_images, to_weight = gradients(conv, images)
    assert maps.dtype == torch.bfloat16, "the next layer gets what autocast would give it"
    torch.testing.assert_close(maps, expected.to(torch.bfloat16), rtol=0, atol=0)
    torch.testing.assert_close(to_images, expected_to_images)
    torch.testing.assert_close(to_weight, expected_to_weight)
    with torch.autocast("cpu", torch.bfloat16):
        _, _, in_bfloat16 = gradients(conv, images)
    assert not torch.equal(in_bfloat16, expected_to_weight), "bfloat16 would have shown"


@pytest.mark.parametrize("groups", [1, 4])
def test_other_layers_compute_in_bfloat16(groups: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, 3, 1, 1, groups=groups)
    images = torch.randn(2, 8, 12, 16)
    with torch.autocast("cpu", torch.bfloat16):
        expected = gradients(conv, images)
        with DepthwiseInFloat32():
            found = gradients(conv, images)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_a_depthwise_layer_of_one_channel_is_an_ordinary_one() -> None:
    conv = nn.Conv2d(1, 1, 3, 1, 1)
    images = torch.randn(1, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        expected = conv(images)
        with DepthwiseInFloat32():
            assert torch.equal(conv(images), expected)


@pytest.mark.parametrize("autocast", [True, False])
def test_words_instead_of_places_and_autocast_switched_off(autocast: bool) -> None:
    images, weight = torch.randn(1, 4, 8, 8), torch.randn(4, 1, 3, 3)
    expected = F.conv2d(images, weight, padding=1, groups=4)
    with torch.autocast("cpu", torch.bfloat16), DepthwiseInFloat32(), torch.autocast("cpu", enabled=autocast):
        maps = F.conv2d(input=images, weight=weight, padding=1, groups=4)
    assert torch.equal(maps, expected.to(torch.bfloat16) if autocast else expected)


def test_a_mixed_run_on_a_cpu_has_it(tiny_config: Callable[..., Config]) -> None:
    mixed = build_fabric(tiny_config(train={"precision": "bf16-mixed"}))
    assert isinstance(mixed.strategy.precision, CpuMixedPrecision)
    plain = build_fabric(tiny_config())
    assert plain.strategy.precision.precision == "32-true"


@pytest.mark.parametrize(
    ("capabilities", "lacks"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, True),
        ({"avx2": True, "avx512_bf16": True, "amx_bf16": False}, False),
        ({"neon": True, "bf16": True, "cpu_name": "bf16"}, False),
        ({}, False),  # an older torch
    ],
)
def test_a_cpu_that_imitates_it_is_known(capabilities: dict[str, Any], lacks: bool) -> None:
    assert lacks_bfloat16(capabilities) == lacks


@pytest.mark.parametrize(
    ("precision", "accelerator", "has", "told"),
    [
        ("bf16-mixed", "cpu", False, True),
        ("bf16-mixed", "cpu", True, False),
        ("bf16-mixed", "cuda", False, False),
        ("32-true", "cpu", False, False),
    ],
)
def test_a_precision_that_is_imitated_is_told(
    tiny_config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    accelerator: str,
    has: bool,
    told: bool,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has}, raising=False)
    config = tiny_config(train={"precision": precision, "accelerator": accelerator})
    assert ("bfloat16" in (slow_precision(config.train) or "")) == told


@pytest.mark.parametrize("has", [True, False])
def test_a_gpu_that_imitates_it_is_told(
    tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: has)
    config = tiny_config(train={"precision": "bf16-mixed", "accelerator": "cuda"})
    assert (slow_precision(config.train) is None) == has


def test_a_network_gets_it_from_fabric(tiny_config: Callable[..., Config]) -> None:
    """And it ends with the forward pass."""
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False)
    images = torch.randn(2, 8, 12, 16).to(torch.bfloat16).float()  # Fabric gives the images to layers so
    expected = conv(images)
    module = build_fabric(tiny_config(train={"precision": "bf16-mixed"})).setup(conv)
    assert torch.equal(module(images), expected.to(torch.bfloat16).float())
    assert conv(images).dtype == torch.float32
