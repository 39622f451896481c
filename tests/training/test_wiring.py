"""Every setting reaches what it is for: each has a value of its own, unlike the default."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from torch.optim.lr_scheduler import LambdaLR

from segdistill.build.training import build_fabric, build_loop_settings, build_state
from segdistill.commands.run_folder import RunFolder
from segdistill.commands.train import prepare
from segdistill.config import Config
from segdistill.console import new_console
from segdistill.losses.objective import Schedule, Term
from segdistill.losses.terms import LogitDistillation, Supervised
from segdistill.training.state import TrainState

METHOD: dict[str, Any] = {
    "supervised": {
        "class_weights": [0.5 + place for place in range(11)],
        "label_smoothing": 0.11,
        "balance": 0.12,
        "dice_weight": 0.13,
        "jaccard_weight": 0.14,
        "branch_weight": 0.15,
        "branch_ramp": [[0, 0.16], [0.5, 1]],
    },
    "logit": {
        "weight": 2.1,
        "ramp": [[0, 0.2], [0.5, 1]],
        "kind": "channel",
        "teacher": "primary",
        "students": "branches",
        "temperature": 2.2,
        "label_gate": True,
        "views": {"weight": 2.3, "ramp": [[0, 0.21], [0.5, 1]], "flip": 0.22, "rotate": 23.0}
        | {"scale": [0.24, 2.4], "gamma": 2.5, "gain": 0.26, "paste": 0.27},
    },
    "feature": {"weight": 3.1, "ramp": [[0, 0.31], [0.5, 1]], "kind": "affinity", "pool": 1},
    "adversarial": {"weight": 4.1, "ramp": [[0, 0.41], [0.5, 1]], "lr": 0.042, "real_smoothing": 0.43},
    "grid_stride": 4,
}
TRAIN: dict[str, Any] = {
    "optimizer": {
        "kind": "sgd",
        "lr": 0.51,
        "encoder_lr_scale": 0.52,
        "weight_decay": 0.53,
        "momentum": 0.54,
    },
    "schedule": {"kind": "one_cycle", "warmup": 0.3},
    "clip_norm": 0.55,
    "ema_decay": 0.56,
    "epochs": 4,
    "eval_every": 2,
    "log_every": 3,
    "diagnose_every": 7,
    "checkpoint_minutes": 8.0,
    "keep_epochs": [1, 3],
}


def same(made: Any, section: Any) -> None:
    """Whatever both of them have is equal."""
    names = {one.name for one in fields(made)} & set(type(section).model_fields)
    assert names, "something to compare"
    for name in names:
        assert getattr(made, name) == getattr(section, name), name


def terms_of(state: TrainState) -> dict[str, Term]:
    return {term.name: term for term in state.objective.terms}


def test_the_losses(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config(method=METHOD)
    method = config.method
    state = build_state(config, build_fabric(config), total_steps=10)
    terms = terms_of(state)
    assert {name: term.schedule for name, term in terms.items()} == {
        "primary": Schedule(1.0),
        "branches": Schedule(0.15, method.supervised.branch_ramp),
        "logit": Schedule(2.1, method.logit.ramp),
        "views": Schedule(2.1 * 2.3, method.logit.views.ramp),
        "feature": Schedule(3.1, method.feature.ramp),
        "adversarial": Schedule(4.1, method.adversarial.ramp),
    }
    for name in ("primary", "branches"):
        labels = getattr(terms[name].loss, "__self__", None)
        assert isinstance(labels, Supervised)
        same(labels, method.supervised)
    for name in ("logit", "views"):
        assert isinstance(terms[name].loss, LogitDistillation)
        same(terms[name].loss, method.logit)
    same(terms["feature"].loss, method.feature)
    same(state.views, method.logit.views)
    assert state.opponent
    assert terms["adversarial"].loss is state.opponent.game
    same(state.opponent.game, method.adversarial)
    assert [group["lr"] for group in state.opponent.optimizer.param_groups] == [0.042]


def test_the_optimiser_and_the_loop(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config(method={"grid_stride": 4}, train=TRAIN)
    state = build_state(config, build_fabric(config), total_steps=10)
    groups = state.learner.optimizer.param_groups
    rates = [(group["initial_lr"], group["weight_decay"], group["momentum"]) for group in groups]
    encoder = 0.51 * 0.52
    assert rates == [(encoder, 0.53, 0.54), (encoder, 0.0, 0.54), (0.51, 0.53, 0.54), (0.51, 0.0, 0.54)]
    assert state.ema
    assert state.ema.decay == 0.56
    settings = build_loop_settings(config, multiple=32)
    same(settings, config.train)
    assert settings.checkpoint_seconds == 480.0
    assert (settings.step.clip_norm, settings.step.grid_stride, settings.step.ignore_index) == (0.55, 4, 11)


@pytest.mark.training
def test_the_schedule_ends_with_the_last_step_of_the_training(tiny_config: Callable[..., Config]) -> None:
    """14 images in batches of 4 are 3 steps of an epoch."""
    config = tiny_config(method={"kind": "baseline"}, train=TRAIN)
    folder = RunFolder(config.run_folder)
    _, state = prepare(config, folder, build_fabric(config), console=new_console(quiet=True))
    assert isinstance(state.learner.scheduler, LambdaLR)
    factors = [state.learner.scheduler.lr_lambdas[0](step) for step in range(12)]
    assert factors[0] < max(factors) == pytest.approx(1, abs=0.05)
    assert factors[-1] == pytest.approx(1 / 25e4)
    assert min(factors[:-1]) > 100 * factors[-1]
