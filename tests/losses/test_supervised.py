"""Cross-entropy, Dice and Jaccard against values by hand, torch's own loss, and plain loops."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, softmax
from segmentation_models_pytorch.losses import JaccardLoss
from torch import Tensor

from segdistill.losses.grid import label_votes
from segdistill.losses.reduction import mean_valid
from segdistill.losses.supervised import cross_entropy, dice_loss, jaccard_loss, votes_cross_entropy

CLASSES = 4
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
SPATIAL = pytest.mark.parametrize("spatial", [(), (5,), (4, 6)], ids=["classifier", "line", "image"])
IGNORE_INDEXES = pytest.mark.parametrize("ignore_index", [255, 4])


def random_case(
    spatial: tuple[int, ...], ignore_index: int = 255, *, batch: int = 6
) -> tuple[Tensor, Tensor]:
    """Logits (B, C, *spatial) that ask for a gradient, and labels of which about a third are ignored."""
    rng = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(batch, CLASSES, *spatial, generator=rng, dtype=torch.float64)
    target = torch.randint(CLASSES, (batch, *spatial), generator=rng)
    target[torch.rand(target.shape, generator=rng) < 0.33] = ignore_index
    target[0] = ignore_index
    target[-1] = 2
    return logits.requires_grad_(), target


def gradient(value: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(value, of)[0]


def log_odds(*odds: float) -> Tensor:
    """One place whose probabilities are proportional to `odds`: (1, C)."""
    return torch.tensor([odds], dtype=torch.float64).log()


def one_hot(target: Tensor, ignore_index: int = 255) -> Tensor:
    """(B, *spatial) -> (B, C, *spatial), zeros at ignored places."""
    return torch.stack([(target == label) & (target != ignore_index) for label in range(CLASSES)], 1).double()


# ---- the mean over valid places


def test_the_mean_leaves_out_ignored_places() -> None:
    values = torch.tensor([1.0, 2.0, 100.0, 6.0])
    assert mean_valid(values, torch.tensor([0, 3, 255, 1]), ignore_index=255).item() == 3.0


def test_the_mean_is_not_poisoned_by_inf_or_nan_at_ignored_places() -> None:
    values = torch.tensor([1.0, math.inf, math.nan, 5.0], requires_grad=True)
    mean = mean_valid(values, torch.tensor([0, 255, 255, 1]), ignore_index=255)
    assert mean.item() == 3.0
    assert gradient(mean, values).tolist() == [0.5, 0.0, 0.0, 0.5]


def test_the_mean_of_nothing_is_0_with_zero_gradient() -> None:
    values = torch.tensor([math.inf, 2.0], requires_grad=True)
    mean = mean_valid(values, torch.tensor([7, 7]), ignore_index=7)
    assert mean.item() == 0.0
    assert gradient(mean, values).tolist() == [0.0, 0.0]


# ---- cross-entropy


def test_cross_entropy_and_its_gradient_by_hand() -> None:
    # p = (3/4, 1/4) at both places, labels 0 and 1: (ln 4/3 + ln 4) / 2; gradient (p - one_hot) / 2.
    logits = torch.cat([log_odds(3, 1), log_odds(3, 1)]).requires_grad_()
    loss = cross_entropy(logits, torch.tensor([0, 1]), ignore_index=255)
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    expected = torch.tensor([[-1 / 8, 1 / 8], [3 / 8, -3 / 8]], dtype=torch.float64)
    torch.testing.assert_close(gradient(loss, logits), expected)


def test_class_weights_make_a_weighted_mean() -> None:
    # Weights 3 and 1: (3 ln 4/3 + 1 ln 4) / (3 + 1).
    logits = torch.cat([log_odds(3, 1), log_odds(3, 1)])
    loss = cross_entropy(
        logits, torch.tensor([0, 1]), ignore_index=255, class_weights=torch.tensor([3.0, 1.0])
    )
    assert loss.item() == pytest.approx((3 * math.log(4 / 3) + math.log(4)) / 4)


def test_label_smoothing_by_hand() -> None:
    # e = 1/5: 4/5 ln 4/3 + 1/5 * (ln 4/3 + ln 4) / 2.
    loss = cross_entropy(log_odds(3, 1), torch.tensor([0]), ignore_index=255, label_smoothing=0.2)
    assert loss.item() == pytest.approx(0.8 * math.log(4 / 3) + 0.1 * (math.log(4 / 3) + math.log(4)))


@SPATIAL
@IGNORE_INDEXES
@pytest.mark.parametrize(
    ("weights", "smoothing"),
    [(None, 0.0), (WEIGHTS, 0.0), (None, 0.1)],
    ids=["plain", "weights", "smoothing"],
)
def test_cross_entropy_equals_torch_on_the_valid_places(
    spatial: tuple[int, ...], ignore_index: int, weights: Tensor | None, smoothing: float
) -> None:
    logits, target = random_case(spatial, ignore_index)
    valid = target != ignore_index
    expected = F.cross_entropy(
        logits.movedim(1, -1)[valid], target[valid], weight=weights, label_smoothing=smoothing
    )
    loss = cross_entropy(
        logits, target, ignore_index=ignore_index, class_weights=weights, label_smoothing=smoothing
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, logits), gradient(expected, logits))


def plain_cross_entropy(logits: Tensor, target: Tensor, smoothing: float, ignore_index: int) -> float:
    """The docstring's formula in a loop, with `WEIGHTS`."""
    log_p = log_softmax(logits.detach().numpy(), axis=1)
    total = weight = 0.0
    for place in np.ndindex(*target.shape):
        label = int(target[place])
        if label != ignore_index:
            own = log_p[(place[0], slice(None), *place[1:])]
            w = WEIGHTS[label].item()
            total += w * ((1 - smoothing) * -own[label] + smoothing / CLASSES * -sum(own))
            weight += w
    return total / weight


@SPATIAL
def test_class_weights_and_smoothing_together_follow_the_formula(spatial: tuple[int, ...]) -> None:
    logits, target = random_case(spatial)
    loss = cross_entropy(logits, target, ignore_index=255, class_weights=WEIGHTS, label_smoothing=0.1)
    assert loss.item() == pytest.approx(plain_cross_entropy(logits, target, 0.1, 255))


def test_cross_entropy_passes_the_gradient_check() -> None:
    logits, target = random_case((2, 2), batch=3)
    assert torch.autograd.gradcheck(
        lambda z: cross_entropy(z, target, ignore_index=255, class_weights=WEIGHTS, label_smoothing=0.1),
        logits,
    )


def test_a_batch_whose_classes_all_weigh_nothing_gives_0() -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    loss = cross_entropy(
        logits, torch.tensor([0, 0, 255]), ignore_index=255, class_weights=torch.tensor([0.0, 1.0])
    )
    assert loss.item() == 0.0
    assert not gradient(loss, logits).any()


# ---- cross-entropy of cells with all the labels in them


def test_votes_cross_entropy_by_hand() -> None:
    # One cell with three votes for class 0 and one for class 1, p = (3/4, 1/4):
    # (3 ln 4/3 + ln 4) / 4; gradient p - votes / 4 = 0, the cell says exactly what its labels do.
    logits = log_odds(3, 1).reshape(1, 2, 1, 1).requires_grad_()
    votes = torch.tensor([3.0, 1.0]).reshape(1, 2, 1, 1)
    loss = votes_cross_entropy(logits, votes)
    assert loss.item() == pytest.approx((3 * math.log(4 / 3) + math.log(4)) / 4)
    torch.testing.assert_close(gradient(loss, logits), torch.zeros_like(logits))


@IGNORE_INDEXES
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weights"])
def test_votes_cross_entropy_equals_cross_entropy_of_nearest_upsampled_logits(
    weights: Tensor | None, smoothing: float, ignore_index: int
) -> None:
    coarse, _ = random_case((2, 3), batch=2)
    _, labels = random_case((8, 12), ignore_index, batch=2)
    labels[1] = random_case((8, 12), ignore_index, batch=3)[1][1]
    labels[1, :4, :4] = ignore_index
    fine = coarse.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    expected = cross_entropy(
        fine, labels, ignore_index=ignore_index, class_weights=weights, label_smoothing=smoothing
    )
    votes = label_votes(labels, stride=4, num_classes=CLASSES, ignore_index=ignore_index)
    loss = votes_cross_entropy(coarse, votes, class_weights=weights, label_smoothing=smoothing)
    assert 0 < votes.sum() < 8 * 12 * 2
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, coarse), gradient(expected, coarse))


# ---- Dice


def test_dice_by_hand() -> None:
    # Two places, p_0 = 3/4 and 1/4, labels 0 and 1.
    # Each class: 2 * 3/4 / (3/4 + 1/4 + 1) = 3/4, so the loss is 1/4.
    logits = torch.cat([log_odds(3, 1), log_odds(1, 3)])
    assert dice_loss(logits, torch.eye(2)).item() == pytest.approx(1 / 4)


def test_dice_of_unequal_classes_by_hand() -> None:
    # Three places with p = (3/4, 1/4), (1/2, 1/2), (1/4, 3/4), labels 0, 0, 1.
    # Class 0: 2 * (3/4 + 1/2) / (3/2 + 2) = 5/7; class 1: 2 * 3/4 / (3/2 + 1) = 3/5; loss 1 - 23/35.
    logits = torch.cat([log_odds(3, 1), log_odds(1, 1), log_odds(1, 3)])
    votes = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert dice_loss(logits, votes).item() == pytest.approx(12 / 35)


def test_dice_counts_every_vote_of_a_cell() -> None:
    # One cell, votes 3 and 1, p = (1/2, 1/2). Class 0: 2 * 3/2 / (2 + 3) = 3/5; class 1: 2 * 1/2 / (2 + 1) = 1/3.
    votes = torch.tensor([[3.0, 1.0]])
    assert dice_loss(log_odds(1, 1), votes).item() == pytest.approx(1 - (3 / 5 + 1 / 3) / 2)


def test_dice_leaves_out_classes_without_a_label() -> None:
    # Label 0 alone, p_0 = 3/4: 2 * 3/4 / (3/4 + 1) = 6/7. Class 1 would add a loss of 1.
    assert dice_loss(log_odds(3, 1), torch.tensor([[1.0, 0.0]])).item() == pytest.approx(1 / 7)


def plain_dice(logits: Tensor, votes: Tensor) -> float:
    probs = softmax(logits.detach().numpy(), axis=1)
    losses = []
    for label in range(CLASSES):
        overlap = predicted = true = 0.0
        for place in np.ndindex(logits.shape[0], *logits.shape[2:]):
            here = (place[0], slice(None), *place[1:])
            overlap += probs[here][label] * votes[here][label].item()
            predicted += probs[here][label] * votes[here].sum().item()
            true += votes[here][label].item()
        if true:
            losses.append(1 - 2 * overlap / (predicted + true))
    return sum(losses) / len(losses)


@SPATIAL
def test_dice_equals_a_plain_loop(spatial: tuple[int, ...]) -> None:
    logits, target = random_case(spatial)
    votes = one_hot(target)
    assert dice_loss(logits, votes).item() == pytest.approx(plain_dice(logits, votes))
    several = 3 * votes + votes.roll(1, dims=0)
    assert dice_loss(logits, several).item() == pytest.approx(plain_dice(logits, several))


def test_dice_passes_the_gradient_check() -> None:
    logits, target = random_case((2, 2), batch=3)
    target[target == 1] = 0  # one class is absent
    assert torch.autograd.gradcheck(lambda z: dice_loss(z, one_hot(target)), logits)


# ---- Jaccard


def test_jaccard_of_unequal_classes_by_hand() -> None:
    # As above. Class 0: intersection 5/4, union 3/2 + 2 - 5/4 = 9/4; class 1: 3/4 of 3/2 + 1 - 3/4 = 7/4.
    logits = torch.cat([log_odds(3, 1), log_odds(1, 1), log_odds(1, 3)])
    votes = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert jaccard_loss(logits, votes).item() == pytest.approx(1 - (5 / 9 + 3 / 7) / 2)


def test_jaccard_of_a_cell_of_several_labels_is_least_at_their_shares() -> None:
    # Votes 3 and 1: at p = (3/4, 1/4) nothing is apart; at (1/2, 1/2) class 0 is 1 of 3 apart, class 1 is 1 of 2.
    votes = torch.tensor([[3.0, 1.0]])
    assert jaccard_loss(log_odds(3, 1), votes).item() == pytest.approx(0.0, abs=1e-12)
    assert jaccard_loss(log_odds(1, 1), votes).item() == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert jaccard_loss(log_odds(9, 1), votes) > 0.1


def test_jaccard_of_hard_labels_is_that_of_smp() -> None:
    logits, target = random_case((4, 6))
    target[target == 1] = 0  # smp leaves out classes without a label, as a loss of 0 in a mean of all
    valid = target != 255
    everywhere = logits.movedim(1, -1)[valid].T[None, :, :, None]  # smp's has no ignored places
    reference = JaccardLoss("multiclass", from_logits=True, smooth=0.0)
    expected = reference(everywhere, target[valid][None, :, None]) * CLASSES / (CLASSES - 1)
    torch.testing.assert_close(jaccard_loss(logits, one_hot(target)), expected)
    torch.testing.assert_close(
        gradient(jaccard_loss(logits, one_hot(target)), logits), gradient(expected, logits)
    )


# ---- what holds for all of them

Loss = Callable[[Tensor, Tensor], Tensor]  # logits, target
LOSSES: dict[str, Loss] = {
    "cross_entropy": lambda z, y: cross_entropy(z, y, ignore_index=255),
    "weighted_smoothed": lambda z, y: cross_entropy(
        z, y, ignore_index=255, class_weights=WEIGHTS, label_smoothing=0.1
    ),
    "votes": lambda z, y: votes_cross_entropy(z, one_hot(y)),
    "votes_weighted_smoothed": lambda z, y: votes_cross_entropy(
        z, one_hot(y), class_weights=WEIGHTS, label_smoothing=0.1
    ),
    "dice": lambda z, y: dice_loss(z, one_hot(y)),
    "jaccard": lambda z, y: jaccard_loss(z, one_hot(y)),
}
EVERY_LOSS = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


@EVERY_LOSS
@SPATIAL
def test_ignored_places_have_no_say_and_no_gradient(loss: Loss, spatial: tuple[int, ...]) -> None:
    logits, target = random_case(spatial)
    ignored = (target == 255).unsqueeze(1).expand_as(logits)
    expected = loss(logits, target)
    for huge in (1e3, -1e30):
        changed = logits.detach().clone()
        changed[ignored] = huge * torch.randn(int(ignored.sum()), dtype=torch.float64)
        changed.requires_grad_()
        value = loss(changed, target)
        assert torch.equal(value, expected)
        grad = gradient(value, changed)
        assert not grad[ignored].any()
        torch.testing.assert_close(grad[~ignored], gradient(loss(logits, target), logits)[~ignored])
        assert grad[~ignored].abs().max() > 1e-4


@EVERY_LOSS
@SPATIAL
def test_nothing_valid_gives_0_and_a_zero_gradient(loss: Loss, spatial: tuple[int, ...]) -> None:
    logits, target = random_case(spatial)
    value = loss(logits, torch.full_like(target, 255))
    assert value.item() == 0.0
    value.backward()
    assert logits.grad is not None
    assert not logits.grad.any()
