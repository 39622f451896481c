"""Logit distillation against values by hand and scipy."""

import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import Tensor

from segdistill.losses.logit import (
    channel_distillation,
    ensemble_logits,
    logit_distillation,
    overlap_distillation,
    teacher_is_right,
)

CLASSES = 4
SPATIAL = pytest.mark.parametrize("spatial", [(), (5,), (4, 6)], ids=["classifier", "line", "image"])


def random_case(
    spatial: tuple[int, ...], *, ignore_index: int = 255, batch: int = 6
) -> tuple[Tensor, Tensor, Tensor]:
    """Student, teacher (B, C, *spatial), both asking for a gradient, and labels partly ignored."""
    rng = torch.Generator().manual_seed(2)
    student, teacher = (
        (3 * torch.randn(batch, CLASSES, *spatial, generator=rng, dtype=torch.float64)).requires_grad_()
        for _ in range(2)
    )
    target = torch.randint(CLASSES, (batch, *spatial), generator=rng)
    target[torch.rand(target.shape, generator=rng) < 0.33] = ignore_index
    target[0], target[-1] = ignore_index, 1
    return student, teacher, target


def gradient(value: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(value, of)[0]


def one_place(*logits: float) -> Tensor:
    return torch.tensor(logits, dtype=torch.float64).reshape(1, -1, 1, 1)


def test_one_pixel_by_hand() -> None:
    # T = 2, p = (3/4, 1/4), q = (1/2, 1/2):
    # 4 * (3/4 ln 3/2 + 1/4 ln 1/2) = 3 ln 3/2 - ln 2 = 0.5232. Its gradient is T (q - p) = (-1/2, 1/2).
    teacher = one_place(2 * math.log(3), 0.0)
    student = one_place(7.0, 7.0).requires_grad_()
    target = torch.zeros(1, 1, 1, dtype=torch.int64)
    loss = logit_distillation(student, teacher, target, temperature=2.0, ignore_index=255)
    assert loss.item() == pytest.approx(0.5232, abs=5e-5)
    assert loss.item() == pytest.approx(3 * math.log(1.5) - math.log(2))
    torch.testing.assert_close(gradient(loss, student), one_place(-0.5, 0.5))
    everything_ignored = torch.full_like(target, 255)
    loss = logit_distillation(student, teacher, everything_ignored, temperature=2.0, ignore_index=255)
    assert loss.item() == 0.0
    assert not gradient(loss, student).any()


def test_the_divergence_is_from_the_teacher_and_not_to_it() -> None:
    # T = 1, p = (1/2, 1/2), q = (3/4, 1/4): 1/2 ln 2/3 + 1/2 ln 2 = 1/2 ln 4/3, not 3/4 ln 3/2 + 1/4 ln 1/2.
    student, teacher = one_place(math.log(3), 0.0), one_place(0.0, 0.0)
    target = torch.zeros(1, 1, 1, dtype=torch.int64)
    loss = logit_distillation(student, teacher, target, temperature=1.0, ignore_index=255)
    assert loss.item() == pytest.approx(0.5 * math.log(4 / 3))


@SPATIAL
@pytest.mark.parametrize("ignore_index", [255, 4])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
def test_value_and_gradient_equal_scipy(
    spatial: tuple[int, ...], ignore_index: int, temperature: float
) -> None:
    student, teacher, target = random_case(spatial, ignore_index=ignore_index)
    p = softmax(teacher.detach().numpy() / temperature, axis=1)
    q = softmax(student.detach().numpy() / temperature, axis=1)
    valid = (target != ignore_index).numpy()
    value = temperature**2 * rel_entr(p, q).sum(1)[valid].mean()
    slope = temperature * (q - p) * np.expand_dims(valid, 1) / valid.sum()

    loss = logit_distillation(student, teacher, target, temperature=temperature, ignore_index=ignore_index)
    assert loss.item() == pytest.approx(value)
    torch.testing.assert_close(gradient(loss, student), torch.from_numpy(slope))


def test_it_passes_the_gradient_check() -> None:
    student, teacher, target = random_case((2, 2), batch=3)
    gate = teacher_is_right(teacher, target)
    assert torch.autograd.gradcheck(
        lambda z: logit_distillation(z, teacher, target, temperature=3.0, ignore_index=255, gate=gate),
        student,
    )


def test_a_student_that_equals_the_teacher_has_nothing_to_learn() -> None:
    student, _, target = random_case((4, 6))
    loss = logit_distillation(student, student.detach() + 5.0, target, temperature=2.0, ignore_index=255)
    assert loss.item() == pytest.approx(0.0, abs=1e-14)
    assert gradient(loss, student).abs().max() < 1e-14


@SPATIAL
def test_no_gradient_reaches_the_teacher(spatial: tuple[int, ...]) -> None:
    student, teacher, target = random_case(spatial)
    loss = logit_distillation(student, teacher, target, temperature=2.0, ignore_index=255)
    to_student, to_teacher = torch.autograd.grad(loss, (student, teacher), allow_unused=True)
    assert to_student.abs().max() > 1e-3
    assert to_teacher is None


@SPATIAL
def test_ignored_places_have_no_say_and_no_gradient(spatial: tuple[int, ...]) -> None:
    student, teacher, target = random_case(spatial)
    ignored = (target == 255).unsqueeze(1).expand_as(student)
    expected = logit_distillation(student, teacher, target, temperature=2.0, ignore_index=255)
    for huge in (1e3, -1e30):
        noise = huge * torch.randn(2, int(ignored.sum()), dtype=torch.float64)
        changed, other_teacher = student.detach().clone(), teacher.detach().clone()
        changed[ignored], other_teacher[ignored] = noise
        changed.requires_grad_()
        loss = logit_distillation(changed, other_teacher, target, temperature=2.0, ignore_index=255)
        assert torch.equal(loss, expected)
        grad = gradient(loss, changed)
        assert not grad[ignored].any()
        assert grad[~ignored].abs().max() > 1e-3


@SPATIAL
def test_nothing_valid_gives_0_and_a_zero_gradient(spatial: tuple[int, ...]) -> None:
    student, teacher, target = random_case(spatial)
    nothing = torch.full_like(target, 255)
    loss = logit_distillation(student, teacher, nothing, temperature=2.0, ignore_index=255)
    assert loss.item() == 0.0
    loss.backward()
    assert student.grad is not None
    assert not student.grad.any()


def test_a_closed_gate_counts_as_0_in_the_mean_over_all_valid_places() -> None:
    # Three places with divergence 1/2 ln 4/3 each (see above), gate open, open, closed, and a fourth, ignored:
    # the mean is 2/3 of it.
    student = one_place(math.log(3), 0.0).expand(1, 2, 1, 4).clone().requires_grad_()
    target = torch.tensor([[[0, 1, 0, 255]]])
    gate = torch.tensor([[[True, True, False, True]]])
    loss = logit_distillation(
        student, torch.zeros_like(student), target, temperature=1.0, ignore_index=255, gate=gate
    )
    assert loss.item() == pytest.approx(2 / 3 * 0.5 * math.log(4 / 3))
    grad = gradient(loss, student)
    assert not grad[..., 2:].any()
    assert grad[..., :2].all()


def test_the_teacher_is_right_where_its_likeliest_class_is_the_label() -> None:
    teacher = torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0], [0.0, 0.0, 9.0]])
    assert teacher_is_right(teacher, torch.tensor([1, 1, 255])).tolist() == [True, False, False]
    teacher = teacher.T.reshape(1, 3, 3, 1)  # the same places as one image
    assert teacher_is_right(teacher, torch.tensor([[[1], [1], [2]]])).flatten().tolist() == [
        True,
        False,
        True,
    ]


@SPATIAL
def test_the_ensemble_is_the_mean_of_the_logits_without_gradient(spatial: tuple[int, ...]) -> None:
    first, second, _ = random_case(spatial)
    third = first * 2 + second
    mean = ensemble_logits([first, second, third])
    expected = (first.detach().numpy() + second.detach().numpy() + third.detach().numpy()) / 3
    torch.testing.assert_close(mean, torch.from_numpy(expected))
    assert not mean.requires_grad


# ---- channel-wise


def test_one_class_by_hand() -> None:
    # Two places, T = 2: teacher (3/4, 1/4) of them, student (1/2, 1/2); the second class agrees. Mean of both.
    teacher = torch.tensor([[[2 * math.log(3), 0.0], [1.0, 1.0]]], dtype=torch.float64)
    student = torch.tensor([[[5.0, 5.0], [-3.0, -3.0]]], dtype=torch.float64)
    target = torch.zeros(1, 2, dtype=torch.int64)
    loss = channel_distillation(student, teacher, target, temperature=2.0, ignore_index=255)
    assert loss.item() == pytest.approx((3 * math.log(3 / 2) - math.log(2)) / 2)


def test_channels_against_scipy_with_ignored_and_gated_places() -> None:
    student, teacher, target = random_case((3, 5), batch=4)  # nothing of the first image is valid
    gate = torch.rand(target.shape, generator=torch.Generator().manual_seed(3)) > 0.3
    seen = ((target != 255) & gate).numpy()
    expected = [0.0] * CLASSES
    for image in range(1, 4):
        for ours, theirs in zip(
            student[image].detach().numpy(), teacher[image].detach().numpy(), strict=True
        ):
            p, q = softmax(theirs[seen[image]] / 3), softmax(ours[seen[image]] / 3)
            expected.append(9 * rel_entr(p, q).sum())
    loss = channel_distillation(student, teacher, target, temperature=3.0, ignore_index=255, gate=gate)
    assert loss.item() == pytest.approx(np.mean(expected))
    to_student, to_teacher = torch.autograd.grad(loss, (student, teacher), allow_unused=True)
    assert to_teacher is None
    assert not to_student.movedim(1, -1)[~torch.from_numpy(seen)].any()
    assert torch.autograd.gradcheck(
        lambda z: channel_distillation(z, teacher, target, temperature=3.0, ignore_index=255, gate=gate),
        student,
    )


def test_channels_at_a_very_low_temperature_are_those_of_valid_places() -> None:
    teacher = torch.tensor([[[-30.0, -29.99, 5.0], [1.0, 1.0, 1.0]]])
    student = torch.tensor([[[-30.0, -30.0, 7.0], [2.0, 2.0, 9.0]]])
    target = torch.tensor([[0, 1, 255]])
    loss = channel_distillation(student, teacher, target, temperature=0.001, ignore_index=255)
    p = softmax([0.0, 10.0])
    assert loss.item() == pytest.approx(1e-6 * rel_entr(p, [0.5, 0.5]).sum() / 2, rel=1e-3)


def test_channels_of_an_image_without_a_valid_place_say_nothing() -> None:
    student, teacher, target = random_case((2, 2), batch=2)
    nothing = torch.full_like(target, 255)
    loss = channel_distillation(student, teacher, nothing, temperature=4.0, ignore_index=255)
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad is not None
    assert not student.grad.any()


# ---- by overlap


def test_overlap_by_hand() -> None:
    # T = 2. Teacher (3/4, 1/4) and (1/4, 3/4), student (1/2, 1/2) twice: each class is 1/4 apart at both places, of a
    # union of (1 + 1 + 1/2) / 2.
    teacher = torch.tensor([[[2 * math.log(3), 0.0], [0.0, 2 * math.log(3)]]], dtype=torch.float64)
    student = torch.zeros(1, 2, 2, dtype=torch.float64)
    target = torch.zeros(1, 2, dtype=torch.int64)
    loss = overlap_distillation(student, teacher, target, temperature=2.0, ignore_index=255)
    assert loss.item() == pytest.approx(0.5 / 1.25)


def test_overlap_counts_what_the_teacher_sees() -> None:
    # The teacher says 0 with 3/4 and sees class 1 nowhere; the place it is sure of class 1 at is ignored.
    teacher = torch.tensor([[[math.log(3), 0.0], [0.0, 9.0]]], dtype=torch.float64)
    student = torch.zeros(1, 2, 2, dtype=torch.float64)
    target = torch.tensor([[0, 255]])
    loss = overlap_distillation(student, teacher, target, temperature=1.0, ignore_index=255)
    assert loss.item() == pytest.approx(0.25 / 0.75)


def test_overlap_against_scipy_with_ignored_and_gated_places() -> None:
    student, teacher, target = random_case((3, 5), batch=4)
    gate = torch.rand(target.shape, generator=torch.Generator().manual_seed(3)) > 0.3
    seen = ((target != 255) & gate).numpy()
    p, q = (
        softmax(one.detach().movedim(1, -1).numpy()[seen] / 3, axis=1) for one in (teacher, student)
    )  # (places, C)
    # Smaller over larger: of two soft sets, intersection over union.
    expected = [1 - np.minimum(p, q)[:, c].sum() / np.maximum(p, q)[:, c].sum() for c in set(p.argmax(1))]

    def loss(student: Tensor) -> Tensor:
        return overlap_distillation(student, teacher, target, temperature=3.0, ignore_index=255, gate=gate)

    assert loss(student).item() == pytest.approx(np.mean(expected))
    to_student, to_teacher = torch.autograd.grad(loss(student), (student, teacher), allow_unused=True)
    assert to_teacher is None
    assert not to_student.movedim(1, -1)[~torch.from_numpy(seen)].any()
    assert torch.autograd.gradcheck(loss, student)
    assert loss(teacher).item() == 0.0


def test_a_class_that_the_gate_hides_everywhere_does_not_count() -> None:
    """By hand: the teacher's second class is behind the gate, so that the mean is over the first one alone."""
    teacher = torch.tensor([[[4.0, 0.0], [0.0, 4.0]]])  # (1, C, places): class 0, class 1
    student = torch.zeros_like(teacher)
    target = torch.zeros(1, 2, dtype=torch.int64)
    gate = torch.tensor([[True, False]])
    loss = overlap_distillation(student, teacher, target, temperature=1.0, ignore_index=255, gate=gate)
    sure = 1 / (1 + math.exp(-4))
    assert loss.item() == pytest.approx(1 - 0.5 / sure)


def test_overlap_without_a_valid_place_says_nothing() -> None:
    student, teacher, target = random_case((2, 2), batch=2)
    nothing = torch.full_like(target, 255)
    loss = overlap_distillation(student, teacher, nothing, temperature=1.0, ignore_index=255)
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad is not None
    assert not student.grad.any()
