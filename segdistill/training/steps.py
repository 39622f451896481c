"""One training step: the learner's move, then the discriminator's."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import clip_grad_norm_

from segdistill.data.loading import Batch
from segdistill.losses.maps import JudgedMaps, StepMaps
from segdistill.losses.objective import Needs, Objective, Summands
from segdistill.models.multi_branch import MultiBranchNet
from segdistill.resolution import pad_to_multiple
from segdistill.seeds import stream_seed
from segdistill.streams import PRIMARY
from segdistill.training.diagnostics import agreement, encoder_gradients
from segdistill.training.state import Opponent, TrainState

#: Logged values of a step that are no loss terms.
GRADIENT_NORM = "gradient_norm"
BRANCH_GRADIENT_NORM = "branch_gradient_norm"
DISCRIMINATOR_LOSS = "discriminator"
DISCRIMINATOR_ACCURACY = "discriminator_accuracy"


@dataclass(frozen=True)
class StepSettings:
    """What a step needs to know beside the players.

    Attributes:
        multiple: what height and width are padded to.
        ignore_index: of the labels, and of their padding.
        grid_stride: pixels per cell where sub-models are compared.
        clip_norm: largest gradient norm of the primary, and of what is there only while training; or None.
    """

    multiple: int
    ignore_index: int
    grid_stride: int
    clip_norm: float | None


def train_step(
    state: TrainState, batches: Sequence[Batch], settings: StepSettings, *, progress: float, diagnose: bool
) -> dict[str, Tensor]:
    """Both players move once.

    Args:
        state: changed in place.
        batches: the step's batches, whose gradients are averaged; already on the device.
        settings: see `StepSettings`.
        progress: share (0..1) of all steps that are done.
        diagnose: whether to see, on the first batch, what each term asks of the shared encoder; of the terms
            that look at views, on theirs.

    Returns:
        Named scalars, detached and still on the device: nothing here waits for it.
    """
    values = step_gradients(state, batches, settings, progress=progress, diagnose=diagnose)
    for player in (state.learner, state.opponent):
        if player:
            player.optimizer.step()
            player.optimizer.zero_grad(set_to_none=True)
    if state.ema:
        state.ema.update(state.net, updates=state.position.step)
    return values


def step_gradients(
    state: TrainState, batches: Sequence[Batch], settings: StepSettings, *, progress: float, diagnose: bool
) -> dict[str, Tensor]:
    """Leave in both players what `train_step`, whose arguments and values these are, moves them by."""
    move = _LearnerMove(state, settings, progress, share=1 / len(batches))
    logged = [
        move.learn(batch, place, last=place == len(batches), diagnose=diagnose and place == 1).logged
        for place, batch in enumerate(batches, 1)
    ]
    values = {name: torch.stack([one[name] for one in logged]).mean() for name in logged[0]}
    values |= clip_gradients(state.net, settings.clip_norm)
    if state.opponent and move.judged:
        values |= discriminator_gradients(state.fabric, state.opponent, move.judged)
    if move.gradients:
        values |= agreement(move.gradients, reference=PRIMARY)
    return values


@dataclass
class _LearnerMove:
    """The gradients of one step, added up look by look.

    Attributes:
        share: of a batch in the step's mean.
        judged: what the discriminator was asked about, detached.
        gradients: what each term asks of the shared encoder, where one wanted to see it.
    """

    state: TrainState
    settings: StepSettings
    progress: float
    share: float
    judged: list[JudgedMaps] = field(default_factory=list)
    gradients: dict[str, Tensor] = field(default_factory=dict)

    def learn(self, batch: Batch, place: int, *, last: bool, diagnose: bool) -> Summands:
        """Look at a batch, first through views if a term wants to.

        Args:
            batch: to learn from.
            place: in the step, from 1.
            last: whether no further batch follows in this step.
            diagnose: whether to note what each term asks of the encoder.
        """
        state, of_views = self.state, None
        if state.objective.on_views.active(self.progress):
            with kept_statistics(state.net), own_randomness(state.fabric.device, "views", place):
                views = state.views(batch, ignore_index=self.settings.ignore_index)
                of_views = self._look(views, state.objective.on_views, last=False, diagnose=diagnose)
        with own_randomness(state.fabric.device, "plain", place):
            plain = self._look(batch, state.objective.plain, last=last, diagnose=diagnose)
        return plain | of_views if of_views else plain

    def _look(self, batch: Batch, objective: Objective, *, last: bool, diagnose: bool) -> Summands:
        """Add what the objective's terms want; after the last look processes average their gradients."""
        state, needs = self.state, objective.needs(self.progress)
        with state.fabric.no_backward_sync(state.learner.module, enabled=not last), frozen_opponent(state):
            maps = forward(state, batch, self.settings, needs=needs)
            summands = objective(maps, self.progress)
            if diagnose:
                shared = list(state.net.primary.encoder.parameters())
                self.gradients |= encoder_gradients(summands.weighted, shared)
            state.fabric.backward(self.share * summands.total)
        if Needs.DISCRIMINATOR in needs:
            self.judged.append(maps.judged.detached())
        return summands.detached()


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
def own_randomness(device: torch.device, *names: str | int) -> Iterator[None]:
    """What is drawn here follows from the step's seed and these names, and does not shift what is drawn afterwards:
    the primary's dropout is the same with and without views and branches, which draw for their own.
    """
    on_gpu = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(on_gpu):
        torch.manual_seed(stream_seed(torch.initial_seed(), *names))
        yield


@contextmanager
def frozen_opponent(state: TrainState) -> Iterator[None]:
    """The discriminator judges and does not learn, so that other processes need not wait for its gradients: its
    DistributedDataParallel would, and its own move would then be one too many.
    """
    if state.opponent is None:
        yield
        return
    module = state.opponent.module
    module.requires_grad_(False)
    try:
        with state.fabric.no_backward_sync(module, enabled=True):
            yield
    finally:
        module.requires_grad_(True)


def forward(state: TrainState, batch: Batch, settings: StepSettings, *, needs: Needs) -> StepMaps:
    """Run the learner on one batch, as far as the objective needs it."""
    images = pad_to_multiple(batch.images, settings.multiple)
    labels = pad_to_multiple(batch.labels, settings.multiple, value=settings.ignore_index)
    out = state.learner.module(
        images,
        with_branches=Needs.BRANCHES in needs,
        branches_learn=Needs.LEARNING_BRANCHES in needs,
        with_features=Needs.FEATURES in needs,
    )
    return StepMaps(
        images=images,
        labels=labels,
        primary_logits=out.primary,
        branch_logits=out.branches,
        features=out.features,
        ignore_index=settings.ignore_index,
        grid_stride=settings.grid_stride,
    )


def clip_gradients(net: MultiBranchNet, clip_norm: float | None) -> dict[str, Tensor]:
    """Clip the gradient of the primary and, by itself, that of branches and adapters: else a primary with branches
    would take shorter steps than one without.

    Returns:
        L2 norms before clipping; the second one only with branches.
    """
    primary = list(net.primary.parameters())
    known = set(primary)
    parts = {
        GRADIENT_NORM: primary,
        BRANCH_GRADIENT_NORM: [one for one in net.parameters() if one not in known],
    }
    limit = clip_norm if clip_norm is not None else float("inf")
    return {
        # Where nothing has a gradient, torch gives 0 on the CPU; all that is logged of a step lies on its device.
        name: clip_grad_norm_(parameters, limit, error_if_nonfinite=False).detach().to(parameters[0].device)
        for name, parameters in parts.items()
        if parameters
    }


def discriminator_gradients(
    fabric: Fabric, opponent: Opponent, judged: Sequence[JudgedMaps]
) -> dict[str, Tensor]:
    """The discriminator learns from the very maps the learner was just judged by, detached."""
    verdicts = []
    for place, maps in enumerate(judged):
        with fabric.no_backward_sync(opponent.module, enabled=place < len(judged) - 1):
            verdict = opponent.game.opponent(maps)
            fabric.backward(verdict.loss / len(judged))
        verdicts.append(verdict)
    return {
        DISCRIMINATOR_LOSS: torch.stack([verdict.loss.detach() for verdict in verdicts]).mean(),
        DISCRIMINATOR_ACCURACY: torch.stack([verdict.accuracy for verdict in verdicts]).mean(),
    }
