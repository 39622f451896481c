"""Optimisers and learning-rate schedules."""

import math
from typing import Literal

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from segdistill.models.ensemble import MultiBranchNet


def parameter_groups(
    net: MultiBranchNet, *, lr: float, encoder_lr_scale: float, weight_decay: float
) -> list[dict[str, object]]:
    """Four groups: encoder or not, decayed or not. Biases and normalisation (1-D tensors) do not decay."""
    groups = []
    encoder = set(net.primary.encoder.parameters())
    for in_encoder in (True, False):
        for decays in (True, False):
            parameters = [
                p
                for p in net.parameters()
                if p.requires_grad and (p in encoder) == in_encoder and (p.ndim > 1) == decays
            ]
            groups.append(
                {
                    "params": parameters,
                    "lr": lr * (encoder_lr_scale if in_encoder else 1.0),
                    "weight_decay": weight_decay if decays else 0.0,
                }
            )
    return [group for group in groups if group["params"]]


def build_optimizer(
    kind: Literal["adamw", "sgd"], groups: list[dict[str, object]], *, momentum: float
) -> Optimizer:
    match kind:
        case "adamw":
            return AdamW(groups)
        case "sgd":
            return SGD(groups, momentum=momentum, nesterov=momentum > 0)


def build_discriminator_optimizer(discriminator: nn.Module, *, lr: float) -> Optimizer:
    """Adam with the betas usual for discriminators (Hung et al., arXiv:1802.07934, use 0.9 and 0.99)."""
    return AdamW(discriminator.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.0)


def build_scheduler(
    kind: Literal["one_cycle", "cosine", "poly"],
    optimizer: Optimizer,
    *,
    total_steps: int,
    warmup: float,
    power: float,
) -> LRScheduler:
    """One learning-rate change after every optimiser step; all kinds rise for a share `warmup` of the steps.

    Args:
        kind: `one_cycle` (Smith, arXiv:1708.07120: cosine up, cosine down, momentum the other way round),
            `cosine` or `poly`, both after a linear rise.
        optimizer: its groups' `lr` are the peaks.
        total_steps: of the whole training.
        warmup: 0..1.
        power: of `poly`: (1 - t)^power.
    """
    if kind == "one_cycle":
        peaks = [float(group["lr"]) for group in optimizer.param_groups]
        return OneCycleLR(optimizer, max_lr=peaks, total_steps=total_steps, pct_start=warmup)
    warmup_steps = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        left = 1 - (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return max(left, 0.0) ** power if kind == "poly" else (1 - math.cos(math.pi * left)) / 2

    return LambdaLR(optimizer, factor)
