"""Schedules by hand; an objective computes only what weighs something, and sums it."""

from typing import NoReturn

import pytest
import torch
from torch import Tensor

from segdistill.losses.maps import StepMaps
from segdistill.losses.objective import Needs, Objective, Schedule, Term

RAMP = ((0.0, 0.0), (0.1, 1.0))
FADE = ((0.0, 1.0), (0.8, 1.0), (1.0, 0.0))
LATE = ((0.2, 0.0), (0.4, 1.0), (0.6, 0.5))


def make_maps() -> StepMaps:
    return StepMaps(
        images=torch.zeros(1, 3, 4, 4),
        labels=torch.zeros(1, 4, 4, dtype=torch.int64),
        primary_logits=torch.full((1, 2, 4, 4), 3.0, requires_grad=True),
        branch_logits={},
        features={},
        ignore_index=255,
        grid_stride=4,
    )


def mean_logit(maps: StepMaps) -> Tensor:
    return maps.primary_logits.mean()


def mean_square(maps: StepMaps) -> Tensor:
    return maps.primary_logits.square().mean()


def never(maps: StepMaps) -> NoReturn:
    raise AssertionError("a term without weight was computed")


@pytest.mark.parametrize(
    ("points", "progress", "factor"),
    [
        (((0.0, 1.0),), 0.0, 1.0),
        (((0.0, 1.0),), 0.7, 1.0),
        (((0.0, 1.0),), 1.0, 1.0),
        (((0.5, 0.25),), 0.1, 0.25),  # one point is a constant, on both sides of it
        (((0.5, 0.25),), 0.9, 0.25),
        (RAMP, 0.0, 0.0),
        (RAMP, 0.025, 0.25),
        (RAMP, 0.05, 0.5),
        (RAMP, 0.1, 1.0),
        (RAMP, 0.5, 1.0),
        (FADE, 0.3, 1.0),
        (FADE, 0.8, 1.0),
        (FADE, 0.85, 0.75),
        (FADE, 0.95, 0.25),
        (FADE, 1.0, 0.0),
        (LATE, 0.0, 0.0),  # before the first point: as there
        (LATE, 0.2, 0.0),
        (LATE, 0.25, 0.25),
        (LATE, 0.35, 0.75),
        (LATE, 0.4, 1.0),
        (LATE, 0.45, 0.875),
        (LATE, 0.55, 0.625),
        (LATE, 0.6, 0.5),
        (LATE, 1.0, 0.5),  # after the last: as there
    ],
)
def test_a_schedule_is_piecewise_linear_and_constant_outside(
    points: tuple[tuple[float, float], ...], progress: float, factor: float
) -> None:
    assert Schedule(1.0, points).at(progress) == pytest.approx(factor, abs=1e-12)
    assert Schedule(0.3, points).at(progress) == pytest.approx(0.3 * factor, abs=1e-12)


def test_a_schedule_is_constant_unless_told() -> None:
    assert [Schedule(0.3).at(progress) for progress in (0.0, 0.5, 1.0)] == [0.3, 0.3, 0.3]


def test_a_term_without_weight_is_never_computed_nor_named() -> None:
    objective = Objective((Term("a", Schedule(2.0), mean_logit), Term("b", Schedule(0.0), never)))
    summands = objective(make_maps(), 0.5)
    assert summands.total.item() == 6.0
    assert list(summands.values) == ["a"]
    assert list(summands.logged) == ["a", "total"]


def test_a_term_is_not_computed_before_its_ramp_nor_after_its_fade() -> None:
    ramped = Objective((Term("late", Schedule(1.0, LATE), never), Term("a", Schedule(1.0), mean_logit)))
    assert list(ramped(make_maps(), 0.2).values) == ["a"]
    with pytest.raises(AssertionError, match="without weight"):
        ramped(make_maps(), 0.21)
    faded = Objective((Term("early", Schedule(1.0, FADE), never), Term("a", Schedule(1.0), mean_logit)))
    assert list(faded(make_maps(), 1.0).values) == ["a"]
    with pytest.raises(AssertionError, match="without weight"):
        faded(make_maps(), 0.99)


def test_the_total_is_the_weighted_sum_and_values_are_unweighted() -> None:
    # Half up its ramp, weight 4: 2 * 3. Weight 1/2: 1/2 * 9.
    objective = Objective(
        (Term("mean", Schedule(4.0, RAMP), mean_logit), Term("square", Schedule(0.5), mean_square))
    )
    summands = objective(make_maps(), 0.05)
    assert summands.total.item() == pytest.approx(2 * 3 + 0.5 * 9)
    assert summands.weights == pytest.approx({"mean": 2.0, "square": 0.5})
    assert {name: value.item() for name, value in summands.weighted.items()} == {"mean": 6.0, "square": 4.5}
    assert {name: value.item() for name, value in summands.logged.items()} == {
        "mean": 3.0,
        "square": 9.0,
        "total": 10.5,
    }


def test_the_total_carries_the_gradient_and_logged_values_do_not() -> None:
    # d/dz of 2 mean z + 1/2 mean z^2 at z = 3, 32 logits: (2 + 3) / 32.
    maps = make_maps()
    objective = Objective(
        (Term("mean", Schedule(2.0), mean_logit), Term("square", Schedule(0.5), mean_square))
    )
    summands = objective(maps, 0.0)
    assert not any(value.requires_grad for value in summands.logged.values())
    summands.total.backward()
    assert maps.primary_logits.grad is not None
    torch.testing.assert_close(maps.primary_logits.grad, torch.full((1, 2, 4, 4), 5 / 32))


def test_it_needs_what_its_active_terms_need() -> None:
    objective = Objective(
        (
            Term("plain", Schedule(1.0), mean_logit),
            Term("branches", Schedule(1.0, RAMP), mean_logit, Needs.BRANCHES),
            Term("features", Schedule(1.0, LATE), mean_logit, Needs.BRANCHES | Needs.FEATURES),
            Term("game", Schedule(1.0, FADE), mean_logit, Needs.BRANCHES | Needs.DISCRIMINATOR),
            Term("off", Schedule(0.0), never, Needs.FEATURES | Needs.DISCRIMINATOR),
        )
    )
    assert objective.needs(0.0) == Needs.BRANCHES | Needs.DISCRIMINATOR
    assert objective.needs(0.5) == Needs.BRANCHES | Needs.FEATURES | Needs.DISCRIMINATOR
    assert objective.needs(1.0) == Needs.BRANCHES | Needs.FEATURES


def test_terms_are_active_by_their_weight_at_that_progress() -> None:
    plain, ramped = Term("plain", Schedule(1.0), mean_logit), Term("ramped", Schedule(1.0, RAMP), mean_logit)
    objective = Objective((ramped, plain))
    assert objective.active(0.0) == (plain,)
    assert objective.active(0.01) == (ramped, plain)


def test_an_objective_of_plain_terms_needs_nothing() -> None:
    objective = Objective(
        (Term("a", Schedule(1.0), mean_logit), Term("b", Schedule(0.0), never, ~Needs.NOTHING))
    )
    assert objective.needs(0.5) == Needs.NOTHING
    assert not objective.needs(0.5)


def test_notes_are_logged_and_weigh_nothing() -> None:
    noted = Term("a", Schedule(2.0), mean_logit, notes=lambda maps: {"largest": maps.primary_logits.max()})
    silent = Term("b", Schedule(0.0), never, notes=never)
    summands = Objective((noted, silent))(make_maps(), 0.5)
    assert summands.total.item() == 6.0
    assert {name: value.item() for name, value in summands.logged.items()} == {
        "a": 3.0,
        "total": 6.0,
        "largest": 3.0,
    }
    assert not summands.logged["largest"].requires_grad


def test_terms_that_look_at_views_are_kept_apart() -> None:
    seen = Term("labels", Schedule(2.0), mean_logit, Needs.BRANCHES)
    viewed = Term("views", Schedule(3.0, LATE), mean_logit, sees="views")
    both = Objective((seen, viewed))
    assert not both.on_views.active(0.0), "its weight is still 0"
    assert both.on_views.active(1.0) == (viewed,)
    assert both.plain == Objective((seen,))
    assert both.on_views == Objective((viewed,))
    assert both.plain(make_maps(), 1.0).values.keys() == {"labels"}
    assert both.on_views(make_maps(), 1.0).values.keys() == {"views"}
    with pytest.raises(AssertionError, match="a look of their own"):
        both(make_maps(), 1.0)
