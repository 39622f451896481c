"""The order of events: step, log, evaluate, save. No mathematics here."""

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric import Fabric

from segdistill.data.loading import Batch, EpochBatches
from segdistill.errors import InterruptedRunError
from segdistill.evaluation.metrics import Scores
from segdistill.files import write_atomically
from segdistill.processes import by_first
from segdistill.seeds import stream_seed
from segdistill.streams import PRIMARY
from segdistill.training.checkpoint import save_checkpoint
from segdistill.training.host_memory import peak_memory_bytes
from segdistill.training.run_log import EpochResult, RunLog
from segdistill.training.state import Position, TermSums, TrainState
from segdistill.training.step_log import StepLog
from segdistill.training.steps import StepSettings, train_step


@dataclass(frozen=True)
class LoopSettings:
    """What `fit` needs to know beside the objects it drives."""

    seed: int
    epochs: int
    accumulate: int  # batches per optimiser step
    step: StepSettings
    eval_every: int  # epochs
    log_every: int  # steps
    diagnose_every: int | None  # epochs between looks at each term's gradient, in their first step
    checkpoint_seconds: float  # between `last` checkpoints inside an epoch
    keep_epochs: tuple[int, ...]  # epochs done when the checkpoints as they are then are kept


@dataclass(frozen=True)
class Checkpoints:
    """Where a run's checkpoints lie and what is written into them beside the state."""

    folder: Path
    config: str
    versions: dict[str, str]

    @property
    def last(self) -> Path:
        return self.folder / "last.pt"

    @property
    def best(self) -> Path:
        return self.folder / "best.pt"

    def kept(self, epoch: int) -> "Checkpoints":
        """Those that `keep` put aside; they are whole if `last` is there."""
        return replace(self, folder=self.folder / f"epoch{epoch}")

    def keep(self, epoch: int) -> None:
        """Put copies aside that later epochs do not replace."""
        for path in (self.best, self.last):
            if path.is_file():
                _copy(path, self.kept(epoch).folder / path.name)

    def save(self, path: Path, state: TrainState) -> None:
        """For the first process alone; its batch-norm statistics are the ones that count."""
        save_checkpoint(path, state=state.state_dict(), config=self.config, versions=self.versions)


def _copy(path: Path, target: Path) -> None:
    def write(temporary: Path) -> None:
        shutil.copyfile(path, temporary)

    write_atomically(target, write)


def fit(
    state: TrainState,
    settings: LoopSettings,
    *,
    loader: Iterable[Batch],
    batches: EpochBatches,
    evaluate: Callable[[], Mapping[str, Scores]],
    checkpoints: Checkpoints,
    log: RunLog | None,
) -> Mapping[str, Scores] | None:
    """Train from where `state` stands to the last epoch.

    Args:
        state: changed in place.
        settings: see `LoopSettings`.
        loader: of the batches.
        batches: the order in which it gives them.
        evaluate: scores of every stream, with the weights as they are; all processes call it.
        checkpoints: where to save; only the first process does.
        log: of the first process; None in the others.

    Returns:
        The scores of the last epoch; None if there was nothing left to train.

    Raises:
        NonFiniteError: when a loss or gradient is not finite; checkpoints from before it are kept.
        InterruptedRunError: after SIGINT or SIGTERM, with `last` saved at the step where the run stopped.
    """
    position = state.position
    scores: Mapping[str, Scores] | None = None
    # A run may have been killed just before.
    by_first(state.fabric, partial(_keep_if_wanted, position, settings, checkpoints))
    with stop_requested() as stop:
        while position.epoch < settings.epochs:
            started = time.monotonic()
            rates = train_epoch(
                state, settings, loader=loader, batches=batches, checkpoints=checkpoints, log=log, stop=stop
            )
            position.epoch, position.batch = position.epoch + 1, 0
            if (peak := peak_memory_bytes(state.fabric.device)) is not None:
                position.memory_bytes = max(position.memory_bytes or 0, peak)
            scores = None
            if position.epoch % settings.eval_every == 0 or position.epoch == settings.epochs:
                scores = evaluate()
            better = scores is not None and note_best(state, scores[PRIMARY].miou)
            result = EpochResult(state.epoch_terms.means(), rates, scores, time.monotonic() - started)
            state.epoch_terms = TermSums()
            by_first(state.fabric, partial(_write_epoch, state, settings, result, better, checkpoints, log))
    return scores


def _write_epoch(
    state: TrainState,
    settings: LoopSettings,
    result: EpochResult,
    better: bool,
    checkpoints: Checkpoints,
    log: RunLog | None,
) -> None:
    """What is kept of a finished epoch; for the first process alone."""
    assert log, "the first process writes"
    log.epoch(state.position, result)
    if better:
        checkpoints.save(checkpoints.best, state)
    checkpoints.save(checkpoints.last, state)
    _keep_if_wanted(state.position, settings, checkpoints)


def _keep_if_wanted(position: Position, settings: LoopSettings, checkpoints: Checkpoints) -> None:
    """Of an epoch that is done, if `last` is of its end and its copies are not there by now."""
    wanted = position.epoch in settings.keep_epochs and not position.batch
    if wanted and not checkpoints.kept(position.epoch).last.is_file():
        checkpoints.keep(position.epoch)


def train_epoch(
    state: TrainState,
    settings: LoopSettings,
    *,
    loader: Iterable[Batch],
    batches: EpochBatches,
    checkpoints: Checkpoints,
    log: RunLog | None,
    stop: threading.Event,
) -> dict[str, float]:
    """Go on from the position to the end of its epoch.

    Returns:
        The learning rates of its last step.
    """
    position = state.position
    steps = StepLog(state.fabric, clip_norm=settings.step.clip_norm)
    total_steps = settings.epochs * batches.steps
    saved = turn = time.monotonic()
    every = settings.diagnose_every
    rates = learning_rates(state)
    diagnosed = len(state.objective.terms) > 1 and every is not None and position.epoch % every == 0

    def look() -> None:
        for one in (seen := steps.flush()):
            state.epoch_terms.add(dict(one.values))
        if log:
            log.steps(seen, learning_rates=rates)

    state.net.train()
    batches.start_at(epoch=position.epoch, batch=position.batch)
    for group in groups_of(iter(loader), settings.accumulate):
        # Dropout and views are functions of the position, too: nothing random has to be saved.
        torch.manual_seed(stream_seed(settings.seed, "step", position.step, state.fabric.global_rank))
        # Here and not after the step, so that a checkpoint holds the rate of the last one.
        if (scheduler := state.learner.scheduler) and scheduler.last_epoch < position.step:
            scheduler.step()
        rates = learning_rates(state)
        values = train_step(
            state,
            [Batch(*state.fabric.to_device(tuple(batch))) for batch in group],
            settings.step,
            progress=position.step / total_steps,
            diagnose=diagnosed and position.batch == 0,
        )
        steps.add(epoch=position.epoch, step=position.step, values=values)
        position.step += 1
        position.batch += len(group)
        regular = position.step % settings.log_every == 0
        if regular:
            look()
        now = time.monotonic()
        position.seconds, turn = position.seconds + now - turn, now
        if state.fabric.world_size > 1 and not regular:
            continue  # processes agree only where all of them look
        due, stopped = agreed(state.fabric, now - saved > settings.checkpoint_seconds, stop.is_set())
        if due or stopped:
            look()  # a checkpoint is only written of steps that were seen to be finite
            by_first(state.fabric, lambda: checkpoints.save(checkpoints.last, state))
            saved = turn = time.monotonic()
        if stopped:
            raise InterruptedRunError("interrupted; everything up to here is saved, --resume goes on")
    look()
    return rates


def agreed(fabric: Fabric, *wishes: bool) -> list[bool]:
    """What any process wishes, all do: clocks and signals differ between them, collective calls must not."""
    if fabric.world_size == 1:
        return list(wishes)
    votes = fabric.all_reduce(
        torch.tensor(wishes, dtype=torch.float32, device=fabric.device), reduce_op="sum"
    )
    assert isinstance(votes, torch.Tensor)
    return (votes > 0).tolist()


def groups_of(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of `size` batches; the loader yields a multiple of it."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    assert not group, "an epoch is a whole number of optimiser steps"


def note_best(state: TrainState, miou: float) -> bool:
    """Remember the epoch just done if no earlier one scored higher; NaN never does."""
    position = state.position
    if miou > (position.best_miou if position.best_miou is not None else -1.0):
        position.best_miou, position.best_epoch = miou, position.epoch
        return True
    return False


def learning_rates(state: TrainState) -> dict[str, float]:
    """Of the encoder and of the rest, which is the decoder, the head and the branches."""
    groups = state.learner.optimizer.param_groups
    return {"encoder": float(groups[0]["lr"]), "decoder": float(groups[-1]["lr"])}


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that a run ends between two steps; a second one kills it."""
    stop = threading.Event()
    previous: dict[signal.Signals, Any] = {}

    def request(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, previous[signal.Signals(number)])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
