"""One training step: the ensemble's move, then the discriminator's."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segdistill.data.loading import Batch
from segdistill.losses.maps import JudgedMaps, StepMaps
from segdistill.losses.objective import Needs, Objective, Summands
from segdistill.models.ensemble import PRIMARY
from segdistill.resolution import pad_to_multiple
from segdistill.training.diagnostics import agreement, encoder_gradients
from segdistill.training.state import TrainState

#: Logged values of a step that are no loss terms.
GRADIENT_NORM = "gradient_norm"
DISCRIMINATOR_LOSS = "discriminator"
DISCRIMINATOR_ACCURACY = "discriminator_accuracy"


def train_step(
    state: TrainState,
    batches: Sequence[Batch],
    *,
    progress: float,
    multiple: int,
    ignore_index: int,
    grid_stride: int,
    clip_norm: float | None,
    diagnose: bool,
) -> dict[str, Tensor]:
    """Both players move once.

    Args:
        state: changed in place.
        batches: the step's batches, whose gradients are averaged; already on the device.
        progress: share (0..1) of all steps that are done.
        multiple: what height and width are padded to.
        ignore_index: of the labels, and of their padding.
        grid_stride: pixels per cell where sub-models are compared.
        clip_norm: largest norm of the ensemble's gradient, or None.
        diagnose: whether to see, on the first batch, what each term asks of the shared encoder; of the terms
            that look at views, on theirs.

    Returns:
        Named scalars, detached and still on the device: nothing here waits for it.
    """
    needs = state.objective.needs(progress)
    judged: list[JudgedMaps] = []
    logged: list[dict[str, Tensor]] = []
    gradients: dict[str, Tensor] = {}

    def learn(batch: Batch, objective: Objective, *, waits: bool, diagnose: bool) -> Summands:
        """Add this look's gradients; `waits`: another look follows before processes average theirs."""
        with state.fabric.no_backward_sync(state.ensemble.module, enabled=waits), frozen_opponent(state):
            maps = forward(
                state,
                batch,
                needs=objective.needs(progress),
                multiple=multiple,
                ignore_index=ignore_index,
                grid_stride=grid_stride,
            )
            summands = objective(maps, progress)
            if diagnose:
                shared = list(state.net.primary.encoder.parameters())
                gradients.update(encoder_gradients(summands.weighted, shared))
            state.fabric.backward(summands.total / len(batches))
        if Needs.DISCRIMINATOR in objective.needs(progress):
            judged.append(maps.judged.detached())
        return summands.detached()

    for place, batch in enumerate(batches):
        first, last = place == 0, place == len(batches) - 1
        of_views = None
        if Needs.VIEWS in needs:
            with kept_statistics(state.net), kept_randomness(state.fabric.device):
                views = state.views(batch, ignore_index=ignore_index)
                of_views = learn(views, state.objective.on_views, waits=True, diagnose=diagnose and first)
        labelled = learn(batch, state.objective.plain, waits=not last, diagnose=diagnose and first)
        logged.append((labelled | of_views if of_views else labelled).logged)
    norm = gradient_norm(state, clip_norm)
    state.ensemble.optimizer.step()
    state.ensemble.optimizer.zero_grad(set_to_none=True)
    values = {name: torch.stack([one[name] for one in logged]).mean() for name in logged[0]}
    values |= {GRADIENT_NORM: norm}
    if Needs.DISCRIMINATOR in needs:
        values |= discriminator_step(state, judged)
    if state.ema:
        state.ema.update(state.net, updates=state.position.step)
    if gradients:
        values |= agreement(gradients, reference=PRIMARY)
    return values


@contextmanager
def kept_statistics(net: nn.Module) -> Iterator[None]:
    """Batch norms normalise by what they see, as in any training step, and remember nothing of it: the images that the
    network will meet are not distorted.
    """
    norms = [one for one in net.modules() if isinstance(one, _BatchNorm) and one.track_running_stats]
    for one in norms:
        one.track_running_stats = False
    try:
        yield
    finally:
        for one in norms:
            one.track_running_stats = True


@contextmanager
def kept_randomness(device: torch.device) -> Iterator[None]:
    """What is drawn here does not shift what is drawn afterwards: dropout is the same with and without views."""
    on_gpu = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(on_gpu):
        yield


@contextmanager
def frozen_opponent(state: TrainState) -> Iterator[None]:
    """The discriminator judges and does not learn, so that other processes need not wait for its gradients: its
    DistributedDataParallel would, and its own move would then be one too many.
    """
    if state.discriminator is None:
        yield
        return
    module = state.discriminator.module
    module.requires_grad_(False)
    with state.fabric.no_backward_sync(module, enabled=True):
        yield
    module.requires_grad_(True)


def forward(
    state: TrainState, batch: Batch, *, needs: Needs, multiple: int, ignore_index: int, grid_stride: int
) -> StepMaps:
    """Run the ensemble on one batch, as far as the objective needs it."""
    images = pad_to_multiple(batch.images, multiple)
    labels = pad_to_multiple(batch.labels, multiple, value=ignore_index)
    out = state.ensemble.module(
        images, with_branches=Needs.BRANCHES in needs, with_features=Needs.FEATURES in needs
    )
    return StepMaps(
        images=images,
        labels=labels,
        primary_logits=out.primary,
        branch_logits=out.branches,
        features=out.features,
        primary_name=PRIMARY,
        ignore_index=ignore_index,
        grid_stride=grid_stride,
    )


def gradient_norm(state: TrainState, clip_norm: float | None) -> Tensor:
    """L2 norm of the ensemble's gradient before clipping; clips it if asked to."""
    limit = clip_norm if clip_norm is not None else float("inf")
    return torch.nn.utils.clip_grad_norm_(
        state.ensemble.module.parameters(), limit, error_if_nonfinite=False
    ).detach()


def discriminator_step(state: TrainState, judged: Sequence[JudgedMaps]) -> dict[str, Tensor]:
    """The discriminator learns from the very maps the ensemble was just judged by, detached."""
    player, game = state.discriminator, state.adversarial
    assert player, "the objective asked for a discriminator"
    assert game
    verdicts = []
    for place, maps in enumerate(judged):
        with state.fabric.no_backward_sync(player.module, enabled=place < len(judged) - 1):
            verdict = game.opponent(maps)
            state.fabric.backward(verdict.loss / len(judged))
        verdicts.append(verdict)
    player.optimizer.step()
    player.optimizer.zero_grad(set_to_none=True)
    return {
        DISCRIMINATOR_LOSS: torch.stack([verdict.loss.detach() for verdict in verdicts]).mean(),
        DISCRIMINATOR_ACCURACY: torch.stack([verdict.accuracy for verdict in verdicts]).mean(),
    }
