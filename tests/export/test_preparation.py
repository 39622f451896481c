"""What a graph is made into before torch exports it, which has to compute the same."""

import copy
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from networks import with_random_statistics
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn

from segdistill.export.graphs import TensorGraph
from segdistill.export.preparation import fold_batch_norms, prepare, with_static_padding


@pytest.mark.parametrize(
    ("arch", "keywords"),
    [("unet", {"decoder_channels": [32, 24, 16, 16, 16]}), ("deeplabv3plus", {"decoder_channels": 32})],
)
def test_static_padding_computes_the_same(arch: str, keywords: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = smp.create_model(arch, "tu-tf_efficientnet_lite0", encoder_weights=None, classes=5, **keywords)
    primary = with_random_statistics(model).eval()
    static = with_static_padding(copy.deepcopy(primary))
    assert [module for module in primary.modules() if isinstance(module, Conv2dSame)]
    assert not [module for module in static.modules() if isinstance(module, Conv2dSame)]
    with torch.no_grad():
        for size in [(32, 32), (64, 96), (160, 128)]:
            images = torch.randn(2, 3, *size)
            assert torch.equal(static(images), primary(images))


@pytest.mark.parametrize("stride", [1, 2, (2, 1)])
@pytest.mark.parametrize("kernel", [1, 3, 5, (3, 5)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_static_padding_of_one_convolution(kernel: Any, stride: Any, dilation: int) -> None:
    one = nn.Sequential(Conv2dSame(4, 6, kernel, stride, dilation=dilation, groups=2, bias=True))
    static = with_static_padding(copy.deepcopy(one))
    assert not isinstance(static[0], Conv2dSame)
    images = torch.randn(2, 4, 12, 20)
    assert torch.equal(static(images), one(images))


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("encoder", "left"),
    [
        ("resnet18", 0),
        ("tu-mobilenetv3_small_050", 0),  # timm's batch norms with their activation inside
        ("tu-tf_efficientnet_lite0", 0),
        ("tu-ghostnet_050", 1),  # whose stem is handed on as it is before its batch norm
    ],
)
def test_batch_norms_go_into_the_convolutions_before_them(encoder: str, left: int) -> None:
    torch.manual_seed(0)
    channels = [16, 12, 8, 8, 8]
    model = smp.create_model("unet", encoder, encoder_weights=None, classes=5, decoder_channels=channels)
    network = with_random_statistics(model).eval()
    graph = TensorGraph(network, stride=32)
    before = copy.deepcopy(graph.state_dict())

    prepared, folded_away = prepare(graph, torch.zeros(2, 3, 64, 96))

    assert sum(isinstance(module, nn.BatchNorm2d) for module in prepared.modules()) == left
    assert size(prepared) + sum(folded_away.values()) == size(network)
    assert folded_away.keys() <= dict(prepared.named_parameters()).keys()
    images = torch.randn(2, 3, 50, 70)
    with torch.no_grad():
        ours, theirs = prepared(images), graph(images)
    assert float((ours - theirs).abs().max()) < 1e-5 * float(theirs.abs().max())
    after = graph.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items()), "a copy was changed"


def test_numbers_by_hand() -> None:
    """(3 x + 1 - 2) / 2 * 4 + 5 = 6 x + 3, and then the activation inside the batch norm."""
    conv, norm = nn.Conv2d(1, 1, 1), BatchNormAct2d(1, eps=0.0)
    for tensor, value in (
        (conv.weight.data, 3.0),
        (conv.bias.data, 1.0),
        (norm.running_mean, 2.0),
        (norm.running_var, 4.0),
        (norm.weight.data, 4.0),
        (norm.bias.data, 5.0),
    ):
        tensor.fill_(value)
    graph = nn.Sequential(conv, norm).eval()
    assert fold_batch_norms(graph, torch.zeros(1, 1, 2, 2)) == {"0.bias": 2}
    assert (graph[0].weight.item(), graph[0].bias.item()) == (6.0, 3.0)
    assert graph(torch.tensor([[[[1.0, -1.0]]]])).flatten().tolist() == [9.0, 0.0]


def test_batch_norms_of_other_kinds_stay() -> None:
    class Scaled(nn.BatchNorm2d):
        def forward(self, maps: Tensor) -> Tensor:
            return 2 * super().forward(maps)

    graph = nn.Sequential(nn.Conv2d(3, 4, 3), Scaled(4), nn.Conv2d(4, 4, 3)).eval()
    assert fold_batch_norms(graph, torch.zeros(1, 3, 8, 8)) == {}
    assert isinstance(graph[1], Scaled)
