"""A running average of the weights, which is often better than any of them."""

import copy
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from segdistill.models.multi_branch import MultiBranchNet


@dataclass(frozen=True)
class Ema:
    """Exponential moving average of a network's parameters and buffers.

        w_avg <- d w_avg + (1 - d) w,   d = min(decay, (1 + n) / (10 + n)) after n updates

    The rising d is that of TensorFlow's ExponentialMovingAverage: the random first weights are soon forgotten.

    Attributes:
        average: the averaged network; only `update` changes it.
        decay: 0..1, per optimiser step.
    """

    average: MultiBranchNet
    decay: float

    @classmethod
    def of(cls, net: MultiBranchNet, *, decay: float) -> "Ema":
        return cls(copy.deepcopy(net).requires_grad_(False).eval(), decay)

    @torch.no_grad()
    def update(self, net: MultiBranchNet, *, updates: int) -> None:
        """Move toward `net`; counters (batch norm's) are copied.

        Args:
            net: the network in training.
            updates: n, updates done before this one.
        """
        rate = min(self.decay, (1 + updates) / (10 + updates))
        averaged: list[Tensor] = []
        current: list[Tensor] = []
        ours = itertools.chain(self.average.parameters(), self.average.buffers())
        theirs = itertools.chain(net.parameters(), net.buffers())
        for average, value in zip(ours, theirs, strict=True):
            if average.is_floating_point():
                averaged.append(average)
                current.append(value)
            else:
                average.copy_(value)
        torch._foreach_lerp_(averaged, current, 1 - rate)
