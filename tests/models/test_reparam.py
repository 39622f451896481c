"""Parallel convolutions: what they compute, and that nothing of it is lost when they become one."""

import copy

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, StdConv2d
from torch import Tensor, nn

from segdistill.models.reparam import ParallelConv, expand, merge


def worn(network: nn.Module) -> nn.Module:
    """As after a training: every batch norm has statistics, factors and offsets of its own."""
    random = torch.Generator().manual_seed(1)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.running_mean, -1.0, 1.0),
                (norm.running_var, 0.5, 2.0),
                (norm.weight.data, 0.5, 1.5),
                (norm.bias.data, -1.0, 1.0),
            ):
                assert tensor is not None
                tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=random))
    return network


def parallel(
    conv: nn.Conv2d, *, copies: int = 1, keeps_places: bool = True, silent: bool = False
) -> ParallelConv:
    return ParallelConv(conv, copies=copies, keeps_places=keeps_places, silent=silent, follower="")


def test_a_sum_by_hand() -> None:
    """One channel, a 3x3 kernel, no copies: three parts, each with a batch norm that stands still."""
    one = parallel(nn.Conv2d(1, 1, 3, padding=1, bias=False), copies=0).eval()
    point = one.convs[1]
    assert isinstance(point, nn.Conv2d)
    assert one.skip
    one.convs[0].weight.data.fill_(1.0)  # type: ignore[union-attr]
    point.weight.data.fill_(3.0)
    # (mean, variance, factor, offset); eps only shifts the fifth digit
    statistics = [(1.0, 4.0, 2.0, 0.5), (0.0, 1.0, 1.0, 0.0), (2.0, 0.25, 1.0, -1.0)]
    for norm, (mean, variance, factor, offset) in zip((*one.norms, one.skip), statistics, strict=True):
        assert isinstance(norm, nn.BatchNorm2d)
        norm.eps = 0.0
        for tensor, value in zip(
            (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data),
            (mean, variance, factor, offset),
            strict=True,
        ):
            assert tensor is not None
            tensor.fill_(value)
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    # Box sums are 10 everywhere: (10 - 1) / 2 * 2 + 0.5; then 3 x; then (x - 2) / 0.5 - 1.
    expected = 9.5 + 3 * maps + 2 * (maps - 2) - 1
    torch.testing.assert_close(one(maps), expected)
    conv, bias = one.merged()
    # 1 of the box everywhere, 3 and 2 more in the middle; -1 + 0.5 - 4 - 1.
    assert conv.weight.flatten().tolist() == [1, 1, 1, 1, 6, 1, 1, 1, 1]
    assert bias.tolist() == [-5.5]


@pytest.mark.parametrize(
    ("conv", "keeps_places", "convs", "skip"),
    [
        (nn.Conv2d(4, 6, 3, padding=1, bias=False), True, 3, False),
        (nn.Conv2d(6, 6, 3, padding=1), True, 3, True),
        (nn.Conv2d(6, 6, (3, 5), padding=(2, 4), dilation=2, groups=2), True, 2, True),
        (nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False), True, 2, True),
        (nn.Conv2d(6, 12, 5, padding=2, groups=6, bias=False), True, 2, False),
        (nn.Conv2d(6, 6, 1, bias=False), True, 2, True),
        (nn.Conv2d(6, 6, 3, stride=2, padding=1, bias=False), False, 2, False),
        (Conv2dSame(6, 6, 3, stride=2, bias=False), False, 2, False),
    ],
    ids=["wider", "dense", "dilated", "depthwise", "multiplied", "1x1", "strided", "same"],
)
def test_the_merged_convolution_is_the_sum(
    conv: nn.Conv2d, keeps_places: bool, convs: int, skip: bool
) -> None:
    many = parallel(copy.deepcopy(conv), keeps_places=keeps_places)
    worn(many).eval()
    assert (len(many.convs), many.skip is not None) == (convs, skip)
    maps = torch.randn(2, conv.in_channels, 12, 10)
    one, bias = many.merged()
    assert type(one) is type(conv)
    assert {name: tensor.shape for name, tensor in one.state_dict().items()} == {
        name: tensor.shape for name, tensor in conv.state_dict().items()
    }
    torch.testing.assert_close(one(maps) + bias.float().view(-1, 1, 1), many(maps), rtol=1e-4, atol=1e-5)


def test_the_sum_learns_through_every_part() -> None:
    many = parallel(nn.Conv2d(4, 4, 3, padding=1, bias=False), copies=2)
    many(torch.randn(2, 4, 8, 8)).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in many.parameters())
    assert len({conv.weight.flatten()[0].item() for conv in many.convs}) == 4, "each has weights of its own"


def unet(encoder: str) -> nn.Module:
    torch.manual_seed(0)
    return smp.create_model(
        "unet", encoder, encoder_weights=None, classes=3, decoder_channels=[16, 12, 8, 8, 8]
    )


PROBE = torch.zeros(1, 3, 64, 96)


@pytest.mark.parametrize(
    "encoder",
    [
        "resnet18",
        "tu-mobilenetv3_small_050",
        "tu-tf_efficientnet_lite0",
        "tu-regnetx_002",
        "tu-ghostnet_050",
        "mit_b0",
    ],
)
def test_a_network_is_plain_again_and_computes_the_same(encoder: str) -> None:
    plain = unet(encoder)
    network = copy.deepcopy(plain)
    expand(network, PROBE, copies=1, silent=())
    count = sum(isinstance(module, ParallelConv) for module in network.modules())
    assert count >= 10
    worn(network).eval()
    images = torch.randn(2, 3, 64, 96)
    merged = merge(network)
    assert {name: tensor.shape for name, tensor in merged.state_dict().items()} == {
        name: tensor.shape for name, tensor in plain.state_dict().items()
    }
    with torch.no_grad():
        ours, theirs = merged(images), network(images)
    assert float((ours - theirs).abs().max()) < 1e-3 * float(theirs.abs().max())
    assert not any(isinstance(module, ParallelConv) for module in merged.modules())
    assert sum(isinstance(module, ParallelConv) for module in network.modules()) == count, "a copy was merged"


def test_what_has_learnt_goes_on_as_it_was() -> None:
    network = worn(unet("tu-mobilenetv3_small_050")).eval()
    images = torch.randn(2, 3, 64, 96)
    before = network(images)
    in_training = copy.deepcopy(network).train()(images)
    expand(network, PROBE, copies=1, silent=("encoder", "decoder"))
    torch.testing.assert_close(network(images), before, rtol=1e-3, atol=1e-4)
    assert not network.training
    torch.testing.assert_close(network.train()(images), in_training, rtol=1e-2, atol=1e-3)


def test_what_has_learnt_stays_itself_while_statistics_move() -> None:
    """The batch norm inside begins with the statistics of what it normalises, not with 0 and 1."""
    plain = worn(unet("tu-mobilenetv3_small_050"))
    network = copy.deepcopy(plain)
    expand(network, PROBE, copies=1, silent=("encoder", "decoder"))
    for _ in range(5):
        images = torch.randn(4, 3, 64, 96)
        with torch.no_grad():
            plain.train()(images)
            network.train()(images)
    with torch.no_grad():
        expected, found = plain.eval()(images), network.eval()(images)
    assert float((found - expected).abs().max()) < 5e-3 * float(expected.abs().max())


class Odd(nn.Module):
    """Convolutions that must stay as they are, and one that need not."""

    def __init__(self) -> None:
        super().__init__()
        self.standardised, self.norm1 = StdConv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.twice, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.between, self.norm3 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.batchwise, self.norm4 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)
        self.even, self.norm5 = nn.Conv2d(4, 4, 2), nn.BatchNorm2d(4)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.norm1(self.standardised(maps))
        maps = self.twice(self.norm2(self.twice(maps)))
        maps = self.norm3(F.relu(self.between(maps)))
        maps = self.norm4(self.batchwise(maps))
        return self.norm5(self.even(maps))


def test_only_what_can_be_merged_becomes_parallel() -> None:
    network = Odd()
    expand(network, torch.zeros(1, 3, 8, 8), copies=1, silent=())
    found = {path: module for path, module in network.named_modules() if isinstance(module, ParallelConv)}
    assert set(found) == {"even"}
    assert len(found["even"].convs) == 2, "an even kernel has no middle for a 1x1 kernel"


class Read(nn.Module):
    """Of five convolutions that a batch norm follows, the output of only one is nobody else's to read."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(5))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(5))

    def forward(self, maps: Tensor) -> list[Tensor]:
        own, added, scaled, handed_on, tapped = (conv(maps) for conv in self.convs)
        outputs = own, added, scaled, handed_on, tapped
        assert all(output.shape == maps.shape for output in outputs), "a look at the shape is no reading"
        normalised = [norm(output) for norm, output in zip(self.norms, outputs, strict=True)]
        return [
            normalised[0],
            normalised[1] + added,
            normalised[2] * scaled.mean(),
            handed_on,
            *normalised[3:],
        ]


def test_nobody_but_the_batch_norm_reads_what_becomes_parallel() -> None:
    network = Read()
    expand(network, torch.zeros(1, 3, 8, 8), copies=1, silent=(), tapped=("convs.4",))
    found = {path for path, module in network.named_modules() if isinstance(module, ParallelConv)}
    assert found == {"convs.0"}


def test_without_parallel_convolutions_a_network_is_merged_already() -> None:
    network = unet("resnet18")
    assert merge(network) is network
