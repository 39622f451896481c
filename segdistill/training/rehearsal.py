"""A look ahead at steps that a training takes only later, so that what fails there fails before the first one."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from segdistill.data.loading import Batch
from segdistill.errors import ConfigError, first_line
from segdistill.training.state import Player, TrainState
from segdistill.training.steps import StepSettings, step_gradients


def rehearse(
    state: TrainState,
    settings: StepSettings,
    *,
    batches: int,
    images: int,
    size: tuple[int, int],
    classes: int,
    progress: float,
    diagnose: bool,
) -> None:
    """Take a step for every set of losses that have a weight together later on, and leave all as it was.

    Losses that join late need memory and operations of the device that no earlier step needs. What optimisers will know
    of every parameter by then takes its room meanwhile.

    Args:
        state: at the beginning of a step.
        settings: see `StepSettings`.
        batches: whose gradients a step averages.
        images: in this process's part of a batch.
        size: (height, width) in pixels.
        classes: that labels are of.
        progress: share (0..1) of all steps that are done.
        diagnose: whether some steps look at the gradients of each term.

    Raises:
        ConfigError: if the device lacks an operation.
    """
    now = state.objective.active(progress)
    stages = [places for places in state.objective.stages().values() if places[-1] > progress]
    later = [places for places in stages if state.objective.active(places[-1]) != now]
    height, width = size
    labels = torch.arange(images * height * width).view(images, height, width) % classes
    batch = Batch(*state.fabric.to_device((torch.zeros(images, 3, height, width), labels)))
    state.net.train()
    players = [state.learner, *([state.opponent] if state.opponent else [])]
    moments = [
        _two_of_each(player) for player in players if later and not player.optimizer.state_dict()["state"]
    ]
    for places in later:
        try:
            with kept_buffers(*(player.module for player in players)):
                step_gradients(state, [batch] * batches, settings, progress=places[-1], diagnose=diagnose)
        except NotImplementedError as error:
            if state.fabric.device.type == "cpu":
                raise  # no device has more operations: this is an error of the code
            raise ConfigError(
                f"{state.fabric.device} lacks an operation that this training needs after {places[0]:.0%} of its steps "
                f"({first_line(error)}); train.accelerator=cpu has it"
            ) from None
        for player in players:
            player.optimizer.zero_grad(set_to_none=True)
    del moments


def _two_of_each(player: Player) -> list[Tensor]:
    """As much memory as Adam's mean and variance of every parameter will take."""
    return [torch.empty_like(one) for one in player.module.parameters() for _ in range(2)]


@contextmanager
def kept_buffers(*modules: nn.Module) -> Iterator[None]:
    """Statistics of batch norms and vectors of spectral norms are as they were, whatever is done within."""
    kept = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
