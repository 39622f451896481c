"""Seconds per training step of several methods, in one process and in turn, so that a noisy machine is fair."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from rich.console import Console
from torch.utils.data import default_collate

from segdistill.build.datasets import build_train_dataset
from segdistill.build.splits import CheckedSplit, build_splits
from segdistill.build.training import build_fabric, build_loop_settings, build_state
from segdistill.config import Config
from segdistill.data.loading import Batch, Place
from segdistill.models.primary import input_multiple
from segdistill.training.host_memory import keep_freed_memory
from segdistill.training.state import TrainState
from segdistill.training.steps import train_step

_WARM_UP = 2
_LEAST, _MOST, _SECONDS = 5, 25, 60.0  # rounds, as many as fit in that time


@dataclass(frozen=True)
class _Contender:
    config: Config
    state: TrainState
    batch: Batch

    def mean_step(self) -> float:
        """Seconds of a step, a mean over the training: losses come and go in it."""
        stages = self.state.objective.stages().values()
        looks = sum(map(len, stages))
        return sum(len(places) / looks * self._step(places[-1]) for places in stages)

    def _step(self, progress: float) -> float:
        """Seconds of one step, the device's work included."""
        settings = build_loop_settings(self.config, multiple=input_multiple(self.state.net.primary))
        _wait_for(self.state.fabric.device)
        started = time.perf_counter()
        train_step(
            self.state,
            [self.batch] * settings.accumulate,
            settings.step,
            progress=progress,
            diagnose=False,
        )
        _wait_for(self.state.fabric.device)
        return time.perf_counter() - started


def seconds_per_step(configs: Mapping[str, Config], *, console: Console) -> dict[str, float]:
    """Seconds of a training step of each method: of the first one the median over rounds; of the others that times the
    median of their ratio to it round by round, which the machine's other work disturbs less.

    In a round every method takes a step with each set of losses that it has in the course of a training, weighed by
    how long it has it.

    Loading and evaluation are left out.
    """
    keep_freed_memory()  # as a training does
    contenders: dict[str, _Contender] = {}
    split, read_from = None, None
    for name, config in configs.items():
        if split is None or config.data != read_from:
            split, read_from = build_splits(config, ("train",), console=console)["train"], config.data
        contenders[name] = _contender(config, split)
    for _ in range(_WARM_UP):
        for one in contenders.values():
            one.mean_step()
    rounds: list[dict[str, float]] = []
    started = time.perf_counter()
    while len(rounds) < _LEAST or (len(rounds) < _MOST and time.perf_counter() - started < _SECONDS):
        rounds.append({name: one.mean_step() for name, one in contenders.items()})
    first = next(iter(contenders))
    unit = statistics.median(one[first] for one in rounds)
    return {name: unit * statistics.median(one[name] / one[first] for one in rounds) for name in contenders}


def _contender(config: Config, split: CheckedSplit) -> _Contender:
    fabric = build_fabric(config)
    dataset = build_train_dataset(config, split)
    places = [Place(epoch=0, index=index) for index in range(min(config.train.batch_size, len(dataset)))]
    batch = default_collate([dataset[place] for place in places])
    state = build_state(config, fabric, total_steps=2)
    state.net.train()
    return _Contender(config, state, Batch(*fabric.to_device(tuple(batch))))


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
