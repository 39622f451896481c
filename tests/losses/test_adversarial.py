"""Both games and their sides against values by hand and torch's own losses on the valid cells."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segdistill.losses.adversarial import (
    label_game_discriminator,
    label_game_generator,
    peer_game_discriminator,
    peer_game_generator,
    real_maps,
)

SUBMODELS, BATCH, SIZE = 3, 2, (4, 5)
IGNORE_INDEXES = pytest.mark.parametrize("ignore_index", [255, 11])


def random_judgement(maps: int, outputs: int) -> Tensor:
    rng = torch.Generator().manual_seed(6)
    return (3 * torch.randn(maps, outputs, *SIZE, generator=rng, dtype=torch.float64)).requires_grad_()


def random_target(ignore_index: int = 255) -> Tensor:
    """(B, h, w), partly ignored."""
    rng = torch.Generator().manual_seed(7)
    target = torch.randint(4, (BATCH, *SIZE), generator=rng)
    target[torch.rand(target.shape, generator=rng) < 0.33] = ignore_index
    return target


def for_submodels(target: Tensor) -> Tensor:
    return torch.cat([target] * SUBMODELS)


def gradient(value: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(value, of)[0]


def cells(*logits: float) -> Tensor:
    """One map of one row of cells with one logit each: (1, 1, 1, N)."""
    return torch.tensor(logits, dtype=torch.float64).reshape(1, 1, 1, -1)


def labels(*places: int) -> Tensor:
    return torch.tensor(places).reshape(1, 1, -1)


# ---- what is called real


def test_real_maps_are_smoothed_one_hot_and_zero_at_ignored_places() -> None:
    # C = 3, e = 3/10: 1 becomes 7/10, each 0 becomes 3/20.
    maps = real_maps(labels(2, 255, 0), num_classes=3, ignore_index=255, smoothing=0.3)
    assert maps.shape == (1, 3, 1, 3)
    expected = torch.tensor([[0.15, 0.15, 0.7], [0.0, 0.0, 0.0], [0.7, 0.15, 0.15]])
    torch.testing.assert_close(maps[0, :, 0].T, expected)
    assert not maps[0, :, 0, 1].any()


@IGNORE_INDEXES
def test_real_maps_sum_to_1_and_peak_at_the_label(ignore_index: int) -> None:
    target = random_target(ignore_index)
    valid = target != ignore_index
    for smoothing in (0.0, 0.2):
        maps = real_maps(target, num_classes=11, ignore_index=ignore_index, smoothing=smoothing)
        torch.testing.assert_close(maps.sum(1), valid.float())
        assert torch.equal(maps.argmax(1)[valid], target[valid])
        torch.testing.assert_close(maps.amax(1), valid * (1 - smoothing))


# ---- the label game


def test_label_game_generator_by_hand() -> None:
    # sigmoid(0) = 1/2, sigmoid(ln 3) = 3/4: (ln 2 + ln 4/3) / 2; gradient -(1 - sigmoid) / 2.
    judgement = cells(0.0, math.log(3), 50.0).requires_grad_()
    loss = label_game_generator(judgement, labels(0, 1, 255), ignore_index=255)
    assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    torch.testing.assert_close(gradient(loss, judgement), cells(-1 / 4, -1 / 8, 0.0))


def test_label_game_generator_does_not_saturate_when_the_discriminator_is_sure() -> None:
    judgement = cells(-200.0).requires_grad_()
    loss = label_game_generator(judgement, labels(0), ignore_index=255)
    assert loss.item() == pytest.approx(200.0)
    assert gradient(loss, judgement).item() == pytest.approx(-1.0)


def test_label_game_discriminator_by_hand() -> None:
    # Real: D = ln 3, ln 4/3. Fake: D = 0, ln 2, and D = -ln 3, ln 4/3. Each side is a mean and counts half.
    real, fake = cells(math.log(3)), torch.cat([cells(0.0), cells(-math.log(3))])
    verdict = label_game_discriminator(
        real, fake, labels(0), torch.cat([labels(0), labels(0)]), ignore_index=255
    )
    expected = (math.log(4 / 3) + (math.log(2) + math.log(4 / 3)) / 2) / 2
    assert verdict.loss.item() == pytest.approx(expected)


def test_label_game_accuracy_by_hand() -> None:
    # Real: 2 of 4 valid judged real (0 is not). Fake: 3 of 4 judged fake. (1/2 + 3/4) / 2 = 5/8.
    real, fake = cells(1.0, 0.0, -1.0, 2.0, -9.0), cells(-1.0, 0.0, 3.0, -2.0, 9.0)
    target = labels(0, 1, 2, 3, 255)
    verdict = label_game_discriminator(
        real.requires_grad_(), fake.requires_grad_(), target, target, ignore_index=255
    )
    assert verdict.accuracy.item() == pytest.approx(5 / 8)
    assert not verdict.accuracy.requires_grad


@IGNORE_INDEXES
def test_label_game_equals_binary_cross_entropy_on_the_valid_cells(ignore_index: int) -> None:
    fake, real = random_judgement(SUBMODELS * BATCH, 1), random_judgement(BATCH, 1)
    target = random_target(ignore_index)
    valid, all_valid = target != ignore_index, for_submodels(target) != ignore_index
    seen_real, seen_fake = real[:, 0][valid], fake[:, 0][all_valid]

    expected = F.binary_cross_entropy_with_logits(seen_fake, torch.ones_like(seen_fake))
    loss = label_game_generator(fake, for_submodels(target), ignore_index=ignore_index)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, fake), gradient(expected, fake))

    seen_fake = fake[:, 0][all_valid]
    expected = (
        F.binary_cross_entropy_with_logits(seen_real, torch.ones_like(seen_real))
        + F.binary_cross_entropy_with_logits(seen_fake, torch.zeros_like(seen_fake))
    ) / 2
    verdict = label_game_discriminator(real, fake, target, for_submodels(target), ignore_index=ignore_index)
    torch.testing.assert_close(verdict.loss, expected)
    for judged in (real, fake):
        torch.testing.assert_close(
            torch.autograd.grad(verdict.loss, judged, retain_graph=True)[0],
            torch.autograd.grad(expected, judged, retain_graph=True)[0],
        )


# ---- the peer game


def test_peer_game_generator_by_hand() -> None:
    # Two sub-models, softmax (3/4, 1/4): (ln 4/3 + ln 4) / 2; gradient softmax - 1/2 = (1/4, -1/4).
    judgement = torch.tensor([math.log(3), 0.0], dtype=torch.float64).reshape(1, 2, 1, 1).requires_grad_()
    loss = peer_game_generator(judgement, labels(0), ignore_index=255)
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    expected = torch.tensor([0.25, -0.25], dtype=torch.float64).reshape(1, 2, 1, 1)
    torch.testing.assert_close(gradient(loss, judgement), expected)


@pytest.mark.parametrize("submodels", [2, 3, 5])
def test_peer_game_generator_is_least_log_of_the_sub_models_where_it_is_unclear(submodels: int) -> None:
    target = torch.zeros(submodels, *SIZE, dtype=torch.int64)
    unclear = torch.full((submodels, submodels, *SIZE), 4.2, dtype=torch.float64, requires_grad=True)
    loss = peer_game_generator(unclear, target, ignore_index=255)
    assert loss.item() == pytest.approx(math.log(submodels))
    assert gradient(loss, unclear).abs().max() < 1e-15
    clearer = random_judgement(submodels, submodels)
    assert peer_game_generator(clearer, target, ignore_index=255).item() > math.log(submodels) + 0.1


def test_peer_game_discriminator_takes_map_n_to_be_made_by_sub_model_n_over_b() -> None:
    # Three sub-models, two images: makers 0 0 1 1 2 2. Sure of that, it is right everywhere.
    target = torch.zeros(6, *SIZE, dtype=torch.int64)
    for makers, right in (([0, 0, 1, 1, 2, 2], 6), ([0, 1, 2, 0, 1, 2], 2)):
        judgement = 20.0 * F.one_hot(torch.tensor(makers), 3)[:, :, None, None].expand(6, 3, *SIZE)
        verdict = peer_game_discriminator(judgement, target, ignore_index=255)
        assert verdict.accuracy.item() == pytest.approx(right / 6)
        assert verdict.loss.item() == pytest.approx(20.0 * (6 - right) / 6, abs=1e-6)


def test_peer_game_discriminator_by_hand() -> None:
    # One image, two sub-models, two cells. Softmax of the right maker: 3/4 and 1/4 for map 0, 3/4 and ignored
    # for map 1: (ln 4/3 + ln 4 + ln 4/3) / 3, right in 2 of 3.
    log3 = math.log(3)
    judgement = torch.tensor([[[[log3, 0.0]], [[0.0, log3]]], [[[0.0, 9.0]], [[log3, 0.0]]]])
    target = torch.cat([labels(0, 0), labels(0, 255)])
    verdict = peer_game_discriminator(judgement.requires_grad_(), target, ignore_index=255)
    assert verdict.loss.item() == pytest.approx((2 * math.log(4 / 3) + math.log(4)) / 3)
    assert verdict.accuracy.item() == pytest.approx(2 / 3)
    assert not verdict.accuracy.requires_grad


@IGNORE_INDEXES
def test_peer_game_equals_cross_entropy_on_the_valid_cells(ignore_index: int) -> None:
    judgement = random_judgement(SUBMODELS * BATCH, SUBMODELS)
    target = for_submodels(random_target(ignore_index))
    valid = target != ignore_index
    seen = judgement.movedim(1, -1)[valid]  # (cells, K+1)

    expected = F.cross_entropy(seen, torch.full_like(seen, 1 / SUBMODELS))
    loss = peer_game_generator(judgement, target, ignore_index=ignore_index)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, judgement), gradient(expected, judgement))

    makers = torch.tensor([n // BATCH for n in range(SUBMODELS * BATCH)])[:, None, None].expand(valid.shape)
    seen = judgement.movedim(1, -1)[valid]
    expected = F.cross_entropy(seen, makers[valid])
    verdict = peer_game_discriminator(judgement, target, ignore_index=ignore_index)
    torch.testing.assert_close(verdict.loss, expected)
    torch.testing.assert_close(gradient(verdict.loss, judgement), gradient(expected, judgement))
    assert verdict.accuracy.item() == pytest.approx(
        (seen.argmax(1) == makers[valid]).double().mean().item(), abs=1e-6
    )


# ---- what holds for both sides of both games

Side = Callable[[Tensor, Tensor], Tensor]  # judgement of the sub-models' maps, their target
SIDES: dict[str, tuple[int, Side]] = {
    "label_generator": (1, lambda d, y: label_game_generator(d, y, ignore_index=255)),
    "label_discriminator_of_fakes": (
        1,
        lambda d, y: (
            label_game_discriminator(torch.zeros_like(d[:BATCH]), d, y[:BATCH], y, ignore_index=255).loss
        ),
    ),
    "label_discriminator_of_reals": (
        1,
        lambda d, y: label_game_discriminator(d, torch.zeros_like(d), y, y, ignore_index=255).loss,
    ),
    "peer_generator": (SUBMODELS, lambda d, y: peer_game_generator(d, y, ignore_index=255)),
    "peer_discriminator": (SUBMODELS, lambda d, y: peer_game_discriminator(d, y, ignore_index=255).loss),
}
EVERY_SIDE = pytest.mark.parametrize(("outputs", "side"), SIDES.values(), ids=SIDES.keys())


@EVERY_SIDE
def test_it_passes_the_gradient_check(outputs: int, side: Side) -> None:
    judgement = random_judgement(SUBMODELS * BATCH, outputs)[..., :2, :2].detach().requires_grad_()
    target = for_submodels(random_target()[..., :2, :2])
    assert torch.autograd.gradcheck(lambda d: side(d, target), judgement)


@EVERY_SIDE
def test_ignored_cells_have_no_say_and_no_gradient(outputs: int, side: Side) -> None:
    judgement, target = random_judgement(SUBMODELS * BATCH, outputs), for_submodels(random_target())
    ignored = (target == 255).unsqueeze(1).expand_as(judgement)
    expected = side(judgement, target)
    for huge in (1e3, -1e30):
        changed = judgement.detach().clone()
        changed[ignored] = huge * torch.randn(int(ignored.sum()), dtype=torch.float64)
        changed.requires_grad_()
        value = side(changed, target)
        assert torch.equal(value, expected)
        grad = gradient(value, changed)
        assert not grad[ignored].any()
        assert grad[~ignored].all()


@EVERY_SIDE
def test_nothing_valid_gives_0_and_a_zero_gradient(outputs: int, side: Side) -> None:
    judgement = random_judgement(SUBMODELS * BATCH, outputs)
    value = side(judgement, torch.full((SUBMODELS * BATCH, *SIZE), 255))
    assert value.item() == 0.0
    value.backward()
    assert judgement.grad is not None
    assert not judgement.grad.any()
