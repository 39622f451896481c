"""The order of events: step, log, evaluate, save. No mathematics here."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from segdistill.data.loading import Batch, EpochBatches
from segdistill.errors import InterruptedRunError, UserError
from segdistill.evaluation.metrics import Scores
from segdistill.processes import agreed, by_first
from segdistill.seeds import stream_seed
from segdistill.streams import PRIMARY
from segdistill.training.checkpoint import Checkpoints
from segdistill.training.host_memory import peak_memory_bytes
from segdistill.training.interruption import INTERRUPTED, stop_requested
from segdistill.training.optimizers import learning_rates
from segdistill.training.run_log import EpochResult, RunLog
from segdistill.training.state import Position, TermSums, TrainState
from segdistill.training.step_log import StepLog
from segdistill.training.steps import StepSettings, train_step
from segdistill.training.stopwatch import Stopwatch


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


def fit(
    state: TrainState,
    settings: LoopSettings,
    *,
    loader: Iterable[Batch],
    batches: EpochBatches,
    evaluate: Callable[[threading.Event], Mapping[str, Scores]],
    checkpoints: Checkpoints,
    log: RunLog | None,
) -> Mapping[str, Scores] | None:
    """Train from where `state` stands to the last epoch.

    Args:
        state: changed in place.
        settings: see `LoopSettings`.
        loader: of the batches.
        batches: the order in which it gives them.
        evaluate: scores of every stream, with the weights as they are; all processes call it. It may raise
            InterruptedRunError once the event is set that it is given.
        checkpoints: where to save; only the first process does.
        log: of the first process; None in the others.

    Returns:
        The scores of the last epoch; None if there was nothing left to train.

    Raises:
        NonFiniteError: when a loss or gradient is not finite; checkpoints from before it are kept.
        InterruptedRunError: after SIGINT, SIGTERM or SIGHUP, with `last` saved at the step where the run stopped.
    """
    position = state.position
    scores: Mapping[str, Scores] | None = None
    # A run may have been killed just before.
    by_first(state.fabric, partial(_keep_if_wanted, position, settings, checkpoints))
    with stop_requested() as stop:
        while position.epoch < settings.epochs:
            started = time.monotonic()
            train_epoch(
                state, settings, loader=loader, batches=batches, checkpoints=checkpoints, log=log, stop=stop
            )
            memory_bytes = peak_memory_bytes(state.fabric.device)
            scores, done = None, position.epoch + 1
            if done % settings.eval_every == 0 or done == settings.epochs:
                with _steps_kept(state, checkpoints):
                    scores = evaluate(stop)
            position.epoch_done(memory_bytes=memory_bytes)
            better = scores is not None and position.note_best(scores[PRIMARY].miou)
            result = EpochResult(
                terms=state.epoch_terms.means(),
                learning_rates=learning_rates(state.learner.optimizer),
                scores=scores,
                seconds=time.monotonic() - started,
            )
            state.epoch_terms = TermSums()
            by_first(state.fabric, partial(_write_epoch, state, settings, result, better, checkpoints, log))
    return scores


@contextmanager
def _steps_kept(state: TrainState, checkpoints: Checkpoints) -> Iterator[None]:
    """Save an epoch's steps if its scoring ends early; to go on is then to score it anew. Several processes save
    nothing: one may end alone, and to save takes all.
    """
    try:
        yield
    except (InterruptedRunError, UserError, OSError):
        if state.fabric.world_size == 1:
            checkpoints.save(checkpoints.last, state)
        raise


def _write_epoch(
    state: TrainState,
    settings: LoopSettings,
    result: EpochResult,
    better: bool,
    checkpoints: Checkpoints,
    log: RunLog | None,
) -> None:
    """Write what is kept of a finished epoch; to be called in the first process alone."""
    assert log, "the first process writes"
    log.epoch(state.position, result)
    if better:
        checkpoints.save(checkpoints.best, state)
    checkpoints.save(checkpoints.last, state)
    _keep_if_wanted(state.position, settings, checkpoints)


def _keep_if_wanted(position: Position, settings: LoopSettings, checkpoints: Checkpoints) -> None:
    """Put the checkpoints of a finished epoch aside, if `last` is of its end and its copies are not there by now."""
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
) -> None:
    """Go on from the position to the end of its epoch."""
    position, total_steps = state.position, settings.epochs * batches.steps
    steps = StepLog(state.fabric, clip_norm=settings.step.clip_norm)
    watch = Stopwatch()
    state.net.train()
    batches.start_at(epoch=position.epoch, batch=position.batch)
    for group in groups_of(iter(loader), settings.accumulate):
        values = _step(state, settings, group, progress=position.step / total_steps)
        steps.add(epoch=position.epoch, step=position.step, values=values)
        position.step_done(batches=len(group))
        looked = position.step % settings.log_every == 0
        if looked:
            _log_steps(state, steps, log)
        position.seconds += watch.lap()
        if state.fabric.world_size > 1 and not looked:
            continue  # processes agree only where all of them look
        due, stopped = agreed(state.fabric, watch.seconds > settings.checkpoint_seconds, stop.is_set())
        if due or stopped:
            _log_steps(state, steps, log)  # a checkpoint holds sums of steps that were all seen to be finite
            by_first(state.fabric, partial(checkpoints.save, checkpoints.last, state))
            watch.restart()
        if stopped:
            raise InterruptedRunError(INTERRUPTED)
    _log_steps(state, steps, log)
    position.seconds += watch.lap()  # what the device had still to do


def _step(
    state: TrainState, settings: LoopSettings, group: Sequence[Batch], *, progress: float
) -> dict[str, Tensor]:
    """The optimiser step at the position; its random numbers and its learning rate follow from that."""
    position, fabric = state.position, state.fabric
    # Dropout and views are functions of the position, too: nothing random has to be saved.
    torch.manual_seed(stream_seed(settings.seed, "step", position.step, fabric.global_rank))
    state.learner.follow_schedule(position.step)
    return train_step(
        state,
        [Batch(*fabric.to_device(tuple(batch))) for batch in group],
        settings.step,
        progress=progress,
        diagnose=_wants_diagnosis(state, settings.diagnose_every),
    )


def _wants_diagnosis(state: TrainState, every: int | None) -> bool:
    """Whether to look at gradients in this step: in the first one of every so many epochs, if there are terms to
    compare.
    """
    position = state.position
    first = every is not None and position.epoch % every == 0 and position.batch == 0
    return first and len(state.objective.terms) > 1


def _log_steps(state: TrainState, steps: StepLog, log: RunLog | None) -> None:
    """Add the steps since the last look to the epoch's sums, and log them.

    Raises:
        NonFiniteError: if one of them had a loss or gradient that is not finite.
    """
    seen = steps.flush()
    for one in seen:
        state.epoch_terms.add(dict(one.values))
    if log:
        log.steps(seen, learning_rates=learning_rates(state.learner.optimizer))


def groups_of(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of `size` batches; the loader yields a multiple of it."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    assert not group, "an epoch is a whole number of optimiser steps"
