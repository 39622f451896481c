"""What a step says of itself."""

from collections.abc import Callable

import torch

from segdistill.build.network import build_net
from segdistill.config import Config
from segdistill.training.steps import clip_gradients


def test_the_norm_of_no_gradients_lies_on_the_device_of_all_others(
    tiny_config: Callable[..., Config],
) -> None:
    """As it does while branches wait for their ramp; a step's values are looked at together."""
    net = build_net(tiny_config()).to("meta")  # any device but the CPU
    for parameter in net.primary.parameters():
        parameter.grad = torch.empty_like(parameter)
    norms = clip_gradients(net, 5.0)
    assert {name: norm.device.type for name, norm in norms.items()} == {
        "gradient_norm": "meta",
        "branch_gradient_norm": "meta",
    }
