"""Feature similarity against values by hand and plain loops."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from segdistill.losses.feature import affinity, affinity_distance, cosine_distance

CHANNELS = 5
SPATIAL = pytest.mark.parametrize("spatial", [(), (5,), (4, 6)], ids=["classifier", "line", "image"])


def random_features(*shape: int, seed: int = 3) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64).requires_grad_()


def random_target(*shape: int, ignore_index: int = 255) -> Tensor:
    rng = torch.Generator().manual_seed(4)
    target = torch.randint(3, shape, generator=rng)
    target[torch.rand(shape, generator=rng) < 0.33] = ignore_index
    target[0], target[-1] = ignore_index, 1
    return target


def gradient(value: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(value, of)[0]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.dot(a, b) / math.sqrt(np.dot(a, a) * np.dot(b, b)))


# ---- cosine


def test_cosine_distance_and_its_gradient_by_hand() -> None:
    # h = (3, 4), t = (2, 0): cos = 3/5, loss 2/5.
    # d(1 - cos)/dh = -(t/|t| - cos h/|h|) / |h| = -((1, 0) - 3/5 (3/5, 4/5)) / 5 = (-16/125, 12/125).
    features = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    loss = cosine_distance(features, teacher, torch.tensor([0]), ignore_index=255)
    assert loss.item() == pytest.approx(2 / 5)
    expected = torch.tensor([[-16 / 125, 12 / 125]], dtype=torch.float64)
    torch.testing.assert_close(gradient(loss, features), expected)


def test_cosine_distance_runs_from_0_to_2_and_does_not_see_length() -> None:
    features, target = random_features(2, CHANNELS, 3, 3), torch.zeros(2, 3, 3, dtype=torch.int64)
    for factor, distance in ((7.0, 0.0), (-0.1, 2.0)):
        loss = cosine_distance(features, factor * features, target, ignore_index=255)
        assert loss.item() == pytest.approx(distance, abs=1e-12)


@SPATIAL
@pytest.mark.parametrize("ignore_index", [255, 11])
def test_cosine_distance_equals_a_plain_loop(spatial: tuple[int, ...], ignore_index: int) -> None:
    features = random_features(6, CHANNELS, *spatial)
    teacher = random_features(6, CHANNELS, *spatial, seed=5)
    target = random_target(6, *spatial, ignore_index=ignore_index)
    h, t = features.detach().movedim(1, -1).numpy(), teacher.detach().movedim(1, -1).numpy()
    distances = [
        1 - cosine(h[place], t[place]) for place in np.ndindex(*target.shape) if target[place] != ignore_index
    ]
    loss = cosine_distance(features, teacher, target, ignore_index=ignore_index)
    assert loss.item() == pytest.approx(sum(distances) / len(distances))


def test_cosine_distance_passes_the_gradient_check() -> None:
    teacher, target = random_features(3, CHANNELS, 2, 2, seed=5), random_target(3, 2, 2)
    assert torch.autograd.gradcheck(
        lambda h: cosine_distance(h, teacher, target, ignore_index=255), random_features(3, CHANNELS, 2, 2)
    )


# ---- affinity


def columns(*places: tuple[float, float]) -> Tensor:
    """One image, one row of places with two channels each: (1, 2, 1, N)."""
    return torch.tensor(places, dtype=torch.float64).T.reshape(1, 2, 1, -1)


def test_affinity_is_the_cosine_of_every_pair_and_0_at_invalid_cells() -> None:
    features = columns((3.0, 4.0), (2.0, 0.0), (0.0, 7.0))
    a = affinity(features, torch.tensor([[[True, True, True]]]))
    torch.testing.assert_close(
        a[0], torch.tensor([[1.0, 0.6, 0.8], [0.6, 1.0, 0.0], [0.8, 0.0, 1.0]], dtype=torch.float64)
    )
    a = affinity(features, torch.tensor([[[True, False, True]]]))
    torch.testing.assert_close(
        a[0], torch.tensor([[1.0, 0.0, 0.8], [0.0, 0.0, 0.0], [0.8, 0.0, 1.0]], dtype=torch.float64)
    )


def test_affinity_distance_by_hand() -> None:
    # Student: places at right angles, a_12 = 0. Two others: a_12 = 3/5 and 1, mean 4/5.
    # Of four pairs two differ, by 4/5: 2 * 16/25 / 4 = 8/25.
    features = columns((1.0, 0.0), (0.0, 1.0))
    others = [columns((3.0, 4.0), (1.0, 0.0)), columns((1.0, 1.0), (2.0, 2.0))]
    target = torch.zeros(1, 1, 2, dtype=torch.int64)
    loss = affinity_distance(features, others, target, ignore_index=255, pool=1)
    assert loss.item() == pytest.approx(8 / 25)


def test_affinity_distance_is_a_mean_over_the_pairs_of_valid_cells() -> None:
    # Image 1 as above with one other of a_12 = 1: 2 of 4 pairs differ by 1.
    # Image 2 has one valid cell: 1 pair, no difference. Together 2 / 5.
    features = torch.cat([columns((1.0, 0.0), (0.0, 1.0))] * 2)
    other = torch.cat([columns((1.0, 0.0), (1.0, 0.0))] * 2)
    target = torch.tensor([[[0, 0]], [[0, 255]]])
    loss = affinity_distance(features, [other], target, ignore_index=255, pool=1)
    assert loss.item() == pytest.approx(2 / 5)


def test_affinity_pools_only_valid_places() -> None:
    # Cells of 2 x 2 places. Student cell 1: (1, 0) three times and an ignored (-90, 90); cell 2: (0, 1). a_12 = 0.
    # Pooled with the ignored place it would be -1 * sqrt(1/2) or so. Other: a_12 = 1. So 2 of 4 pairs: 1/2.
    features = torch.zeros(1, 2, 2, 4, dtype=torch.float64)
    features[0, 0, :, :2], features[0, 1, :, 2:] = 1.0, 1.0
    features[0, :, 1, 1] = torch.tensor([-90.0, 90.0])
    target = torch.zeros(1, 2, 4, dtype=torch.int64)
    target[0, 1, 1] = 255
    loss = affinity_distance(features, [torch.ones_like(features)], target, ignore_index=255, pool=2)
    assert loss.item() == pytest.approx(1 / 2)


def plain_affinity_distance(
    features: Tensor, others: list[Tensor], target: Tensor, pool: int, ignore_index: int
) -> float:
    def pooled(maps: Tensor) -> list[list[np.ndarray]]:
        """For every image, the mean feature of each cell that has a valid place."""
        values, images = maps.detach().numpy(), []
        for image in range(len(values)):
            cells = []
            for top in range(0, target.shape[1], pool):
                for left in range(0, target.shape[2], pool):
                    kept = [
                        values[image, :, y, x]
                        for y in range(top, top + pool)
                        for x in range(left, left + pool)
                        if target[image, y, x] != ignore_index
                    ]
                    if kept:
                        cells.append(sum(kept) / len(kept))
            images.append(cells)
        return images

    students, teachers = pooled(features), [pooled(maps) for maps in others]
    total, pairs = 0.0, 0
    for image, cells in enumerate(students):
        for i in range(len(cells)):
            for j in range(len(cells)):
                mean = sum(cosine(t[image][i], t[image][j]) for t in teachers) / len(teachers)
                total += (cosine(cells[i], cells[j]) - mean) ** 2
                pairs += 1
    return total / pairs


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("ignore_index", [255, 11])
def test_affinity_distance_equals_a_plain_loop(pool: int, ignore_index: int) -> None:
    features = random_features(3, CHANNELS, 4, 6)
    others = [features, random_features(3, 2, 4, 6, seed=5)]  # channels may differ
    target = random_target(3, 4, 6, ignore_index=ignore_index)
    target[1, :2, :2] = ignore_index
    loss = affinity_distance(features, others, target, ignore_index=ignore_index, pool=pool)
    expected = plain_affinity_distance(features, others, target, pool, ignore_index)
    assert expected > 0.05
    assert loss.item() == pytest.approx(expected)


def test_affinity_distance_passes_the_gradient_check() -> None:
    others = [random_features(2, CHANNELS, 2, 4, seed=5), random_features(2, CHANNELS, 2, 4, seed=6)]
    target = random_target(2, 2, 4)
    target[1, 0, 0] = 255
    assert torch.autograd.gradcheck(
        lambda h: affinity_distance(h, others, target, ignore_index=255, pool=2),
        random_features(2, CHANNELS, 2, 4),
    )


def test_a_dead_feature_does_not_blow_up_the_gradient() -> None:
    """A feature that is exactly zero has no direction; without a bound its gradient is 1e12."""
    features = random_features(2, CHANNELS, 2, 2).detach()
    features[0, :, 0, 0] = 0
    features.requires_grad_()
    target, other = torch.zeros(2, 2, 2, dtype=torch.int64), random_features(2, CHANNELS, 2, 2, seed=5)
    for loss in (
        cosine_distance(features, other, target, ignore_index=255),
        affinity_distance(features, [other], target, ignore_index=255, pool=1),
    ):
        assert 0 < gradient(loss, features)[0, :, 0, 0].norm() < 1e4


def test_a_sub_model_alone_has_no_affinity_to_learn() -> None:
    features = random_features(2, CHANNELS, 4, 4)
    target = torch.zeros(2, 4, 4, dtype=torch.int64)
    assert affinity_distance(features, [3 * features], target, ignore_index=255, pool=2).item() < 1e-28


# ---- what holds for both

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # features, the teacher's, target
LOSSES: dict[str, Loss] = {
    "cosine": lambda h, t, y: cosine_distance(h, t, y, ignore_index=255),
    "affinity": lambda h, t, y: affinity_distance(h, [t, t.flip(1)], y, ignore_index=255, pool=1),
    "affinity_pooled": lambda h, t, y: affinity_distance(h, [t, t.flip(1)], y, ignore_index=255, pool=2),
}
EVERY_LOSS = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


@EVERY_LOSS
def test_no_gradient_reaches_the_teacher(loss: Loss) -> None:
    features, teacher = random_features(3, CHANNELS, 4, 6), random_features(3, CHANNELS, 4, 6, seed=5)
    value = loss(features, teacher, random_target(3, 4, 6))
    to_features, to_teacher = torch.autograd.grad(value, (features, teacher), allow_unused=True)
    assert to_features.abs().max() > 1e-4
    assert to_teacher is None


@EVERY_LOSS
def test_ignored_places_have_no_say_and_no_gradient(loss: Loss) -> None:
    features, teacher = random_features(3, CHANNELS, 4, 6), random_features(3, CHANNELS, 4, 6, seed=5)
    target = random_target(3, 4, 6)
    ignored = (target == 255).unsqueeze(1).expand_as(features)
    expected = loss(features, teacher, target)
    for huge in (1e3, 1e30):
        noise = huge * torch.randn(2, int(ignored.sum()), dtype=torch.float64)
        changed, other_teacher = features.detach().clone(), teacher.detach().clone()
        changed[ignored], other_teacher[ignored] = noise
        changed.requires_grad_()
        value = loss(changed, other_teacher, target)
        assert torch.equal(value, expected)
        grad = gradient(value, changed)
        assert not grad[ignored].any()
        assert grad[~ignored].abs().max() > 1e-4


@EVERY_LOSS
def test_nothing_valid_gives_0_and_a_zero_gradient(loss: Loss) -> None:
    features, teacher = random_features(3, CHANNELS, 4, 6), random_features(3, CHANNELS, 4, 6, seed=5)
    value = loss(features, teacher, torch.full((3, 4, 6), 255))
    assert value.item() == 0.0
    value.backward()
    assert features.grad is not None
    assert not features.grad.any()


def test_a_classifier_without_a_valid_label_has_no_cosine_distance() -> None:
    features = random_features(3, CHANNELS)
    value = cosine_distance(
        features, random_features(3, CHANNELS, seed=5), torch.full((3,), 255), ignore_index=255
    )
    assert value.item() == 0.0
    assert not gradient(value, features).any()
