"""What tests of networks and exported files share: architectures, a description, batch-norm statistics that matter."""

from typing import Any, get_args

import torch
from torch import nn

from segdistill.config import Architecture
from segdistill.data.taxonomy import CAMVID
from segdistill.export.description import Description
from segdistill.normalisation import Normalisation
from segdistill.protocol import Protocol, Score

ARCHITECTURES: tuple[str, ...] = get_args(Architecture)
NORMALISATION = Normalisation((0.5, 0.4, 0.3), (0.25, 0.5, 0.75))


PROTOCOL = Protocol(
    data="camvid",
    split="val",
    images=101,
    input_size=(64, 96),
    view="whole image",
    test_time_augmentation=None,
    scored_at="label size",
    ignored="void pixels",
    weights="last epoch",
)


def described(**changes: Any) -> Description:
    """A `tensor` graph of the tests' network, with some fields changed."""
    values: dict[str, Any] = {
        "input": "tensor",
        "layout": "nchw",
        "fit": "pad",
        "confidence": False,
        "stream": "primary",
        "precision": "fp32",
        "taxonomy": CAMVID,
        "normalisation": NORMALISATION,
        "size": (64, 96),
        "stride": 32,
        "network": {"arch": "unet", "encoder": "resnet18"},
        "score": Score(miou=0.5, of="this file", protocol=PROTOCOL),
        "data": {"kind": "camvid", "size": [64, 96]},
        "config_hash": "ab" * 32,
        "versions": {"torch": "2"},
        "licence": "none",
    }
    return Description(**(values | changes))


@torch.no_grad()
def with_random_statistics(model: nn.Module) -> nn.Module:
    """Fresh batch norms do next to nothing, which hides how they are folded into convolutions."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.2)
    return model
