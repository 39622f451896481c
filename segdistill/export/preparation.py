"""A graph as torch's exporter is quick with it: the same computation, with what stands still computed beforehand."""

import copy
from typing import NamedTuple

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.fusion import fuse_conv_bn_eval

from segdistill.models.normalised_convs import normalised_convs


class Prepared(NamedTuple):
    """A graph to be exported.

    Attributes:
        graph: on the CPU, in evaluation mode and contiguous.
        folded_away: numbers that a network has more than this graph, by the dotted path of the parameter that they
            went into.
    """

    graph: nn.Module
    folded_away: dict[str, int]


def prepare(graph: nn.Module, example: Tensor) -> Prepared:
    """A copy whose convolutions pad by constants and are one with the batch norms that follow them.

    Args:
        graph: a `TensorGraph` or `ImageGraph`.
        example: an input of it; only its shape and type count.
    """
    copied = copy.deepcopy(graph).cpu().to(memory_format=torch.contiguous_format).eval()
    copied = with_static_padding(copied)
    return Prepared(copied, fold_batch_norms(copied, example))


def fold_batch_norms(graph: nn.Module, example: Tensor) -> dict[str, int]:
    """Put, in place, into each convolution what the batch norm behind it does; it is gone then.

    The file is the same either way, as torch's exporter ends with this itself; that it begins with it halves its time.

    Returns:
        By the dotted path of each convolution's bias, how many numbers fewer there are now.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):  # shapes alone show who follows whom
        found = normalised_convs(graph, torch.empty(example.shape, dtype=example.dtype))
    fewer = {}
    for one in found:
        if type(one.norm) is nn.BatchNorm2d:
            rest: nn.Module = nn.Identity()
        elif type(one.norm) is BatchNormAct2d:
            rest = nn.Sequential(one.norm.drop, one.norm.act)
        else:
            continue
        conv = fuse_conv_bn_eval(one.conv, one.norm)
        graph.set_submodule(one.path, conv)
        graph.set_submodule(one.norm_path, rest)
        fewer[f"{one.path}.bias"] = _size(one.conv) + _size(one.norm) - _size(conv)
    return fewer


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def with_static_padding(module: nn.Module) -> nn.Module:
    """Replace, in place, timm's TensorFlow-style convolutions, which compute their padding from the input's size.

    The graph pads images to the stride, so every such convolution sees a multiple of its own stride and its
    padding is a constant. The file gets simpler, and its export takes seconds: the symbolic arithmetic of
    that padding took torch 2.14 eight minutes for a U-Net.
    """
    for name, child in module.named_children():
        if isinstance(child, Conv2dSame):
            setattr(module, name, _static_same(child))
        else:
            with_static_padding(child)
    return module


def _static_same(conv: Conv2dSame) -> nn.Sequential:
    (kernel_y, kernel_x), (stride_y, stride_x), (dilation_y, dilation_x) = (
        conv.kernel_size,
        conv.stride,
        conv.dilation,
    )
    total_y = max((kernel_y - 1) * dilation_y + 1 - stride_y, 0)
    total_x = max((kernel_x - 1) * dilation_x + 1 - stride_x, 0)
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        (kernel_y, kernel_x),
        (stride_y, stride_x),
        0,
        (dilation_y, dilation_x),
        conv.groups,
        conv.bias is not None,
    )
    plain.weight, plain.bias = conv.weight, conv.bias
    pad = nn.ZeroPad2d((total_x // 2, total_x - total_x // 2, total_y // 2, total_y - total_y // 2))
    return nn.Sequential(pad, plain)
