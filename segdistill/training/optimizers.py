"""Optimisers and learning-rate schedules."""

import math
from typing import Literal

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from segdistill.models.multi_branch import MultiBranchNet


def parameter_groups(
    net: MultiBranchNet, *, lr: float, encoder_lr_scale: float, weight_decay: float
) -> list[dict[str, object]]:
    """Four groups: encoder or not, decayed or not. Biases and normalisation (1-D tensors) do not decay."""
    groups = []
    encoder = set(net.primary.encoder.parameters())
    for in_encoder in (True, False):
        for decays in (True, False):
            parameters = [
                p for p in net.parameters() if (p in encoder) == in_encoder and (p.ndim > 1) == decays
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
    """An optimiser of these groups, which carry lr and weight decay; `momentum` is SGD's alone (Nesterov's, if there is
    any).
    """
    match kind:
        case "adamw":
            return AdamW(groups, fused=True)  # a third of the time of the loop over tensors, also on a CPU
        case "sgd":
            return SGD(groups, momentum=momentum, nesterov=momentum > 0)


def learning_rates(optimizer: Optimizer) -> dict[str, float]:
    """The learning rates of the encoder and of the rest, which is the decoder, the head and the branches.

    Args:
        optimizer: of `parameter_groups`, in their order.
    """
    groups = optimizer.param_groups
    return {"encoder": float(groups[0]["lr"]), "decoder": float(groups[-1]["lr"])}


def build_discriminator_optimizer(discriminator: nn.Module, *, lr: float) -> Optimizer:
    """Adam with the betas usual for discriminators (Hung et al., arXiv:1802.07934, use 0.9 and 0.99)."""
    return AdamW(discriminator.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)


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
        kind: `one_cycle` (a cosine up from 1/25 of the peak and a cosine down to 1/250000 of it, as torch's
            OneCycleLR after Smith, arXiv:1708.07120, but the momentum stays the one that was asked for),
            `cosine` or `poly`, both after a linear rise.
        optimizer: its groups' `lr` are the peaks.
        total_steps: of the whole training.
        warmup: 0..1.
        power: of `poly`: (1 - t)^power.
    """

    def one_cycle(step: int) -> float:
        peak = max(warmup * total_steps - 1, 0.0)
        if step < peak:
            return _cosine(1 / 25, 1.0, step / peak)
        last = total_steps - 1
        return _cosine(1.0, 1 / 25 / 1e4, (step - peak) / (last - peak)) if last > peak else 1.0

    def falling(step: int) -> float:
        rise = round(warmup * total_steps)
        if step < rise:
            return (step + 1) / (rise + 1)
        done = min((step - rise) / max(1, total_steps - rise), 1.0)
        return (1 - done) ** power if kind == "poly" else _cosine(1.0, 0.0, done)

    return LambdaLR(optimizer, one_cycle if kind == "one_cycle" else falling)


def _cosine(start: float, end: float, share: float) -> float:
    """The value at a share between `start` (share 0) and `end` (share 1), along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
