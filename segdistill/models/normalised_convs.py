"""Which batch norm follows which convolution, and nothing else does."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

#: Whose output is its kernel's convolution and nothing else.
_PLAIN = (nn.Conv2d, Conv2dSame)


class NormalisedConv(NamedTuple):
    """A convolution and the batch norm that follows it.

    Attributes:
        path: dotted, of the convolution in its network.
        conv: the convolution.
        norm_path: dotted, of the batch norm.
        norm: the batch norm; it has running statistics.
        keeps_places: cell (i, j) of the output lies where cell (i, j) of the input does.
    """

    path: str
    conv: nn.Conv2d
    norm_path: str
    norm: nn.BatchNorm2d
    keeps_places: bool


def normalised_convs(network: nn.Module, probe: Tensor, tapped: tuple[str, ...] = ()) -> list[NormalisedConv]:
    """Convolutions whose output a batch norm alone takes in, both run once in a forward pass.

    Args:
        network: left as it is.
        probe: an input of it; what happens to it shows who follows whom.
        tapped: dotted paths of modules whose output is read from outside.
    """
    paths = {module: path for path, module in network.named_modules()}
    calls: Counter[nn.Module] = Counter()
    seen: dict[int, tuple[nn.Conv2d, bool]] = {}  # by its output
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d, bool, int]] = []
    readers = _Readers()

    def see_conv(conv: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        calls[conv] += 1
        odd = all(size % 2 for size in conv.kernel_size)
        keeps_places = odd and set(conv.stride) == {1} and output.shape[2:] == inputs[0].shape[2:]
        readers.outputs[id(output)] = output
        seen[id(output)] = conv, keeps_places

    def see_norm(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        calls[norm] += 1
        if (key := id(inputs[0])) in seen and norm.running_mean is not None:
            pairs.append((seen[key][0], norm, seen[key][1], key))

    def see_handed_on(module: nn.Module, _inputs: Any, output: Any) -> None:
        if paths[module] in tapped or isinstance(output, (list, tuple)):
            readers.read(output)

    with ExitStack() as hooks:
        for module in paths:
            if type(module) in _PLAIN:
                hooks.callback(module.register_forward_hook(see_conv).remove)
            elif isinstance(module, nn.BatchNorm2d):
                hooks.callback(module.register_forward_pre_hook(see_norm).remove)
            hooks.callback(module.register_forward_hook(see_handed_on).remove)
        with torch.no_grad(), _evaluating(network), readers:
            network(probe)
    return [
        NormalisedConv(paths[conv], conv, paths[norm], norm, keeps_places)
        for conv, norm, keeps_places, output in pairs
        if calls[conv] == calls[norm] == readers.count[output] == 1
    ]


class _Readers(TorchFunctionMode):
    """While it is entered, counts who takes in the outputs of convolutions.

    Whatever changes a convolution along with its batch norm changes what is between the two, so nobody else may read
    that: not the rest of the block, and nobody to whom the network hands it on, as GhostNet's encoder does with its
    stem's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[int, Tensor] = {}  # the tensors stay alive, so that ids stay theirs
        self.count: Counter[int] = Counter()

    def read(self, values: Any) -> None:
        self.count.update(key for key in map(id, tree_leaves(values)) if key in self.outputs)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):  # not of a look at its shape
            self.read((args, kwargs))
        return result


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Keep the network in evaluation mode meanwhile."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
