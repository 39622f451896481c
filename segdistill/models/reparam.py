"""Convolutions that are several while they learn, and one when they are deployed."""

import copy
from collections import Counter
from typing import NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

#: Whose output is its kernel's convolution and nothing else: their kernels can be added up.
_PLAIN = (nn.Conv2d, Conv2dSame)


class ParallelConv(nn.Module):
    """A sum of normalised convolutions of the same maps, in place of one that a batch norm follows.

        y = sum_i BN_i(W_i * x) + BN_0(x)

    W_i are the convolution that was there, `copies` more of its size and, beside one without groups, one of 1x1;
    BN_0(x) is there if y has x's shape. Once the batch norms stand still, all of it is one convolution with a bias.
    Structural re-parameterisation: RepVGG (Ding et al., arXiv:2101.03697, sec. 3.3), with copies beside depthwise
    and 1x1 convolutions as in MobileOne (Vasu et al., arXiv:2206.04040, sec. 3.2).

    Attributes:
        follower: dotted path of the batch norm that follows, in the network that both are modules of.
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

        Returns:
            The convolution, and a bias (O,) in float64; zeros if the convolution has one itself.
        """
        one = cast(nn.Conv2d, copy.deepcopy(self.convs[0]))
        kernel = torch.zeros_like(one.weight, dtype=torch.float64)
        bias = kernel.new_zeros(one.out_channels)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            conv, norm = cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm)
            factor, offset = _affine(norm)
            kernel += factor.view(-1, 1, 1, 1) * _centred(conv.weight.double(), one.kernel_size)
            bias += offset if conv.bias is None else offset + factor * conv.bias
        if self.skip is not None:
            factor, offset = _affine(self.skip)
            kernel += factor.view(-1, 1, 1, 1) * _centred(_identity(one).to(kernel), one.kernel_size)
            bias += offset
        one.weight.copy_(kernel)
        if one.bias is None:
            return one, bias
        one.bias.copy_(bias)
        return one, torch.zeros_like(bias)


def expand(network: nn.Module, probe: Tensor, *, copies: int, silent: tuple[str, ...]) -> None:
    """Put a `ParallelConv` in the place of every convolution that a batch norm follows.

    Args:
        network: changed in place.
        probe: (B, 3, H, W), images that show which batch norm follows which convolution.
        copies: see `ParallelConv`.
        silent: names of parts of the network, such as `encoder`, that compute at first what they did before.
    """
    for place in _normalised_convs(network, probe):
        conv, follower = network.get_submodule(place.conv), network.get_submodule(place.follower)
        starts_silent = place.conv.split(".")[0] in silent
        parallel = ParallelConv(
            cast(nn.Conv2d, conv),
            copies=copies,
            keeps_places=place.keeps_places,
            silent=starts_silent,
            follower=place.follower,
        )
        if starts_silent:
            _undo_by_statistics(cast(nn.BatchNorm2d, parallel.norms[0]), cast(nn.BatchNorm2d, follower))
        network.set_submodule(place.conv, parallel)


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
        cast(Tensor, follower.running_mean).sub_(bias)
        plain.set_submodule(path, conv)
    return plain


class _Place(NamedTuple):
    """A convolution and the batch norm that follows it, by their dotted paths."""

    conv: str
    follower: str
    keeps_places: bool


def _normalised_convs(network: nn.Module, probe: Tensor) -> list[_Place]:
    """Convolutions whose output a batch norm takes in, both run once in a forward pass.

    Whether something else takes that output in, too, cannot be seen; no network of smp's that the tests know does so.
    """
    paths = {module: path for path, module in network.named_modules()}
    calls: Counter[nn.Module] = Counter()
    outputs: dict[int, tuple[nn.Conv2d, Tensor, bool]] = {}  # the tensors stay alive, so that ids stay theirs
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d, bool]] = []

    def see_conv(conv: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        calls[conv] += 1
        odd = all(size % 2 for size in conv.kernel_size)
        keeps_places = odd and set(conv.stride) == {1} and output.shape[2:] == inputs[0].shape[2:]
        outputs[id(output)] = conv, output, keeps_places

    def see_norm(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        calls[norm] += 1
        if id(inputs[0]) in outputs and norm.running_mean is not None:
            conv, _, keeps_places = outputs[id(inputs[0])]
            pairs.append((conv, norm, keeps_places))

    handles = []
    for module in paths:
        if type(module) in _PLAIN:
            handles.append(module.register_forward_hook(see_conv))
        elif isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(see_norm))
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(probe)
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return [
        _Place(paths[conv], paths[norm], keeps_places)
        for conv, norm, keeps_places in pairs
        if calls[conv] == calls[norm] == 1
    ]


def _twin(conv: nn.Conv2d) -> nn.Conv2d:
    """A convolution of the same form with new random weights."""
    twin = copy.deepcopy(conv)
    twin.reset_parameters()
    return twin


@torch.no_grad()
def _undo_by_statistics(norm: nn.BatchNorm2d, follower: nn.BatchNorm2d) -> None:
    """`norm` gets the follower's statistics and undoes them: in evaluation mode it changes nothing."""
    mean, variance = cast(Tensor, follower.running_mean), cast(Tensor, follower.running_var)
    cast(Tensor, norm.running_mean).copy_(mean)
    cast(Tensor, norm.running_var).copy_(variance)
    norm.bias.copy_(mean)
    norm.weight.copy_((variance + norm.eps).sqrt())


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Factor and offset (C,), in float64, of a batch norm in evaluation mode."""
    mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    factor = norm.weight.double() / (variance + norm.eps).sqrt()
    return factor, norm.bias.double() - factor * mean


def _centred(kernel: Tensor, size: tuple[int, ...]) -> Tensor:
    """A kernel (O, I, h, w) in the middle of a larger one, all odd."""
    rows, columns = ((wanted - own) // 2 for wanted, own in zip(size, kernel.shape[2:], strict=True))
    return F.pad(kernel, (columns, columns, rows, rows))


def _identity(conv: nn.Conv2d) -> Tensor:
    """The kernel (C, C / groups, 1, 1) that leaves maps of a convolution's C channels as they are."""
    per_group = conv.in_channels // conv.groups
    return torch.eye(per_group).repeat(conv.groups, 1)[..., None, None]
