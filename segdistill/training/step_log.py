"""Values of recent steps, left on the device until somebody looks: the training never waits for a number."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from lightning_fabric import Fabric
from torch import Tensor

from segdistill.errors import NonFiniteError


@dataclass(frozen=True)
class StepValues:
    epoch: int  # from 0
    step: int  # optimiser steps before this one, over the whole run
    values: Mapping[str, float]


@dataclass
class StepLog:
    """Collects each step's named scalars; `flush` fetches them in one transfer and checks them.

    Args:
        fabric: of the process.
        clip_norm: largest gradient norm of the training, for its remedies; None: gradients are not clipped.
    """

    fabric: Fabric
    clip_norm: float | None
    _pending: list[tuple[int, int, dict[str, Tensor]]] = field(default_factory=list, init=False)

    def add(self, *, epoch: int, step: int, values: dict[str, Tensor]) -> None:
        self._pending.append((epoch, step, values))

    def flush(self) -> list[StepValues]:
        """The steps since the last flush, averaged over processes.

        Raises:
            NonFiniteError: naming the first value that is not finite, its epoch and its step, and what helps.
        """
        if not self._pending:
            return []
        stacked = torch.cat([torch.stack(list(values.values())).float() for _, _, values in self._pending])
        mean = self.fabric.all_reduce(stacked, reduce_op="mean")
        assert isinstance(mean, Tensor)
        numbers = iter(mean.tolist())
        steps = [
            StepValues(epoch, step, {name: next(numbers) for name in values})
            for epoch, step, values in self._pending
        ]
        self._pending.clear()
        for one in steps:
            for name, value in one.values.items():
                if not math.isfinite(value):
                    raise NonFiniteError(
                        f"{name} became {value} in epoch {one.epoch + 1}, step {one.step + 1}; training stopped. "
                        + self._remedies()
                    )
        return steps

    def _remedies(self) -> str:
        clipping = (
            "a train.clip_norm" if self.clip_norm is None else f"a train.clip_norm below {self.clip_norm:g}"
        )
        return (
            f"Remedies: a smaller train.optimizer.lr, {clipping}, a longer train.schedule.warmup, or a smaller weight "
            "of that term. Each makes another training of it, to be started anew by --overwrite or out=DIR (a "
            "comparison: by another --out). Checkpoints from before that step, if there are any, are kept"
        )
