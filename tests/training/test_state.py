"""How a run's position moves, and the learning rate with it."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from segdistill.training.state import Player, Position


def test_steps_and_epochs_by_hand() -> None:
    position = Position()
    position.step_done(batches=2)
    position.step_done(batches=2)
    assert (position.epoch, position.batch, position.step) == (0, 4, 2)
    position.epoch_done(memory_bytes=7)
    assert (position.epoch, position.batch, position.step) == (1, 0, 2)


def test_the_peak_of_memory_is_that_of_all_processes_that_trained_in_turn() -> None:
    position = Position()
    for of_process, peak in ((None, None), (7, 7), (5, 7), (None, 7), (9, 9)):
        position.epoch_done(memory_bytes=of_process)
        assert position.memory_bytes == peak


def test_the_best_epoch_is_the_first_one_of_the_highest_score() -> None:
    position = Position()
    scores = (math.nan, 0.0, 0.5, 0.5, math.nan, 0.4)
    better = []
    for miou in scores:
        position.epoch_done(memory_bytes=None)
        better.append(position.note_best(miou))
    assert better == [False, True, True, False, False, False]
    assert (position.best_miou, position.best_epoch) == (0.5, 3)


def test_the_rate_of_a_step_is_there_before_it_and_stays_if_the_step_is_done_again() -> None:
    """The last step before a checkpoint is the first one that a resumed run may ask for once more."""
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    module: Any = None
    player = Player(module, optimizer, LambdaLR(optimizer, lambda step: 0.5**step))
    optimizer.step()
    rates = []
    for step in (0, 0, 1, 1, 2):
        player.follow_schedule(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25]
