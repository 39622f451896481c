"""Convolutions that are several while they learn, and one when they are deployed."""

import copy
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdistill.models.normalised_convs import normalised_convs

Network = TypeVar("Network", bound=nn.Module)


class ParallelConv(nn.Module):
    """A sum of normalised convolutions of the same maps, in place of one that a batch norm follows.

        y = sum_i BN_i(W_i * x) + BN_0(x)

    W_i are the convolution that was there, `copies` more of its size and, beside one without groups, one of 1x1;
    BN_0(x) is there if y has x's shape. Once the batch norms stand still, all of it is one convolution with a bias.
    Structural re-parameterisation: RepVGG (Ding et al., arXiv:2101.03697, sec. 3.3), with copies beside depthwise
    and 1x1 convolutions as in MobileOne (Vasu et al., arXiv:2206.04040, sec. 3.2).

    Attributes:
        follower: dotted path of the batch norm that follows, in the network that both are modules of; when they are
            merged it makes up for the bias that the convolution has not.
    """

    def __init__(
        self, conv: nn.Conv2d, *, copies: int, keeps_places: bool, silent: bool, follower: str
    ) -> None:
        """
        Args:
            conv: the first of the sum, taken as it is.
            copies: further convolutions of its size, from new random weights.
            keeps_places: cell (i, j) of y lies where cell (i, j) of x does, so that a 1x1 convolution and x itself
                fit into the kernel's middle.
            silent: whether all but `conv` begin with a factor of 0.
            follower: see above.
        """
        super().__init__()
        self.follower = follower
        self.convs = nn.ModuleList([conv, *(_twin(conv) for _ in range(copies))])
        if keeps_places and conv.kernel_size != (1, 1) and conv.groups == 1:
            self.convs.append(nn.Conv2d(conv.in_channels, conv.out_channels, 1, bias=False))
        same_shape = keeps_places and conv.in_channels == conv.out_channels
        self.norms = nn.ModuleList(nn.BatchNorm2d(conv.out_channels) for _ in self.convs)
        self.skip = nn.BatchNorm2d(conv.in_channels) if same_shape else None
        if silent:
            for norm in (*self.norms[1:], *([self.skip] if self.skip else [])):
                nn.init.zeros_(cast(nn.BatchNorm2d, norm).weight)
        self.train(conv.training)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, h, w)"""
        first, *others = (norm(conv(maps)) for conv, norm in zip(self.convs, self.norms, strict=True))
        if self.skip is not None:
            others.append(self.skip(maps))
        return sum(others, first)

    @torch.no_grad()
    def merged(self) -> tuple[nn.Conv2d, Tensor]:
        """What this is in evaluation mode: a convolution like the first one, and what its output still lacks.

        Summed up on the CPU, for some devices (Apple's) have no float64.

        Returns:
            The convolution, and a bias (O,) in float64 on the CPU; zeros if the convolution has one itself.
        """
        one = cast(nn.Conv2d, copy.deepcopy(self.convs[0]))
        kernel = torch.zeros(one.weight.shape, dtype=torch.float64)
        bias = kernel.new_zeros(one.out_channels)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            conv, norm = cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm)
            factor, offset = _affine(norm)
            kernel += factor.view(-1, 1, 1, 1) * _centred(conv.weight.cpu().double(), one.kernel_size)
            bias += offset if conv.bias is None else offset + factor * conv.bias.cpu()
        if self.skip is not None:
            factor, offset = _affine(self.skip)
            kernel += factor.view(-1, 1, 1, 1) * _centred(_identity(one).to(kernel), one.kernel_size)
            bias += offset
        one.weight.copy_(kernel)
        if one.bias is None:
            return one, bias
        one.bias.copy_(bias)
        return one, torch.zeros_like(bias)


def expand(
    network: nn.Module, probe: Tensor, *, copies: int, silent: tuple[str, ...], tapped: tuple[str, ...] = ()
) -> None:
    """Put a `ParallelConv` in the place of every convolution that a batch norm, and nothing else, follows.

    Args:
        network: changed in place.
        probe: (B, 3, H, W), images that show which batch norm follows which convolution.
        copies: see `ParallelConv`.
        silent: names of parts of the network, such as `encoder`, that compute at first what they did before.
        tapped: dotted paths of modules whose output is read from outside.
    """
    for found in normalised_convs(network, probe, tapped):
        starts_silent = found.path.split(".")[0] in silent
        parallel = ParallelConv(
            found.conv,
            copies=copies,
            keeps_places=found.keeps_places,
            silent=starts_silent,
            follower=found.norm_path,
        )
        if starts_silent:
            _undo_by_statistics(cast(nn.BatchNorm2d, parallel.norms[0]), found.norm)
        network.set_submodule(found.path, parallel)


def merge(network: Network) -> Network:
    """The network as it was before `expand`, with the weights that make it compute what it computes in evaluation
    mode now, up to rounding. A copy; without any `ParallelConv` the network itself.
    """
    paths = [path for path, module in network.named_modules() if isinstance(module, ParallelConv)]
    if not paths:
        return network
    plain = copy.deepcopy(network)
    for path in paths:
        parallel = cast(ParallelConv, plain.get_submodule(path))
        conv, bias = parallel.merged()
        follower = cast(nn.BatchNorm2d, plain.get_submodule(parallel.follower))
        mean = cast(Tensor, follower.running_mean)
        mean.copy_(mean.cpu().double() - bias)
        plain.set_submodule(path, conv)
    return plain


def _twin(conv: nn.Conv2d) -> nn.Conv2d:
    """A convolution of the same form with new random weights."""
    twin = copy.deepcopy(conv)
    twin.reset_parameters()
    return twin


@torch.no_grad()
def _undo_by_statistics(norm: nn.BatchNorm2d, follower: nn.BatchNorm2d) -> None:
    """Give `norm` the follower's statistics and the weights that undo them: in evaluation mode it changes nothing."""
    mean, variance = cast(Tensor, follower.running_mean), cast(Tensor, follower.running_var)
    cast(Tensor, norm.running_mean).copy_(mean)
    cast(Tensor, norm.running_var).copy_(variance)
    norm.bias.copy_(mean)
    norm.weight.copy_((variance + norm.eps).sqrt())


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Factor and offset (C,), in float64 on the CPU, of a batch norm in evaluation mode."""
    mean, variance, weight, bias = (
        cast(Tensor, values).cpu().double()
        for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    factor = weight / (variance + norm.eps).sqrt()
    return factor, bias - factor * mean


def _centred(kernel: Tensor, size: tuple[int, ...]) -> Tensor:
    """A kernel (O, I, h, w) in the middle of a larger one, all odd."""
    rows, columns = ((wanted - own) // 2 for wanted, own in zip(size, kernel.shape[2:], strict=True))
    return F.pad(kernel, (columns, columns, rows, rows))


def _identity(conv: nn.Conv2d) -> Tensor:
    """The kernel (C, C / groups, 1, 1) that leaves maps of a convolution's C channels as they are."""
    per_group = conv.in_channels // conv.groups
    return torch.eye(per_group).repeat(conv.groups, 1)[..., None, None]
