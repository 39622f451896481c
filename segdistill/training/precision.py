"""bfloat16 on a CPU, without its one slow spot."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor
from torch.overrides import TorchFunctionMode


class CpuMixedPrecision(MixedPrecision):
    """Fabric's `bf16-mixed` for CPUs, with depthwise convolutions in float32 (see `DepthwiseInFloat32`)."""

    def __init__(self) -> None:
        super().__init__("bf16-mixed", "cpu")

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        """The context of every forward pass of a module that Fabric has set up."""
        with super().forward_context(), DepthwiseInFloat32():
            yield


class DepthwiseInFloat32(TorchFunctionMode):
    """Under autocast, depthwise 2-D convolutions compute in float32; what they give is of autocast's type again.

    torch's CPU library has no fast gradient for them in bfloat16: with EfficientNet-Lite0 they took 60 % of a
    step, all the time that the other layers had saved.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not (func is F.conv2d and torch.is_autocast_enabled("cpu") and _is_depthwise(*args, **kwargs)):
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            maps = _in_float32(*args, **kwargs)
        return maps.to(torch.get_autocast_dtype("cpu"))


def lacks_bfloat16(capabilities: Mapping[str, Any]) -> bool:
    """Whether a CPU has no instructions for bfloat16.

    Args:
        capabilities: what `torch.cpu.get_capabilities` says of it; of an older torch nothing, and then nobody knows.
    """
    return bool(capabilities) and not any(has and "bf16" in name for name, has in capabilities.items())


def cpu_capabilities() -> Mapping[str, Any]:
    """What instructions the CPU has; empty if this torch cannot tell."""
    ask: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    return ask()


def _is_depthwise(input: Tensor, weight: Tensor, *_: object, **__: object) -> bool:
    return input.shape[1] > 1 == weight.shape[1]


def _in_float32(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return F.conv2d(input.float(), *args, **kwargs)
