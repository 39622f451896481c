"""A look ahead: it meets what comes later, and leaves nothing behind."""

import copy
from collections.abc import Callable

import pytest
import torch
from lightning_fabric import Fabric
from one_step import some_batch, train_once

from segdistill.build.training import build_loop_settings, build_state
from segdistill.config import Config
from segdistill.errors import ConfigError
from segdistill.losses.terms import Adversarial, FeatureSimilarity
from segdistill.models.primary import input_multiple
from segdistill.training.rehearsal import rehearse
from segdistill.training.state import TrainState


def state_of(config: Config) -> TrainState:
    return build_state(config, Fabric(accelerator="cpu", devices=1), total_steps=10)


def look_ahead(config: Config, state: TrainState, *, progress: float = 0.0) -> None:
    settings = build_loop_settings(config, multiple=input_multiple(state.net.primary)).step
    kinds = {"batches": 2, "images": 2, "size": (64, 96), "classes": 11, "diagnose": True}
    rehearse(state, settings, **kinds, progress=progress)  # type: ignore[arg-type]


def everything(tiny_config: Callable[..., Config]) -> Config:
    """All losses, views included; all but the first one late."""
    views = {"weight": 1.0, "ramp": [[0.8, 0], [0.9, 1]]}
    late = {"ramp": [[0.7, 0], [0.75, 1]]}
    return tiny_config(
        method={
            "logit": late | {"views": views},
            "feature": late | {"weight": 1.0},
            "adversarial": late | {"weight": 0.5},
        }
    )


def test_it_leaves_everything_as_it_was(tiny_config: Callable[..., Config]) -> None:
    config = everything(tiny_config)
    ahead, plain = state_of(config), state_of(config)
    before = copy.deepcopy(ahead.state_dict())
    look_ahead(config, ahead)
    after = ahead.state_dict()
    for player in ("learner", "discriminator"):
        assert before[player]["moments"] == after[player]["moments"] == {}
        for name, value in before[player]["module"].items():
            assert torch.equal(value, after[player]["module"][name]), name
    assert ahead.opponent
    modules = (ahead.learner.module, ahead.opponent.module)
    assert all(one.grad is None for module in modules for one in module.parameters())
    for state in (ahead, plain):
        torch.manual_seed(3)
        train_once(state, some_batch(), progress=0.95)
    for one, other in zip(ahead.net.state_dict().values(), plain.net.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("progress", "met"), [(0.0, True), (0.5, True), (0.95, False)])
def test_it_meets_what_comes_later(
    tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, progress: float, met: bool
) -> None:
    """Of the losses that have joined already, the next step tells."""
    config = everything(tiny_config)
    looks: list[str] = []
    for loss, name in ((FeatureSimilarity, "feature"), (Adversarial, "adversarial")):
        original = loss.__call__

        def watched(self: object, maps: object, name: str = name, original: object = original) -> object:
            looks.append(name)
            return original(self, maps)  # type: ignore[operator]

        monkeypatch.setattr(loss, "__call__", watched)
    look_ahead(config, state_of(config), progress=progress)
    assert (set(looks) == {"feature", "adversarial"}) == met
    assert met or not looks


def test_an_operation_that_the_device_lacks_is_told(
    tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU lacks none: there the error is one of the code."""
    device = [torch.device("cpu")]

    def lacking(*_: object) -> None:
        monkeypatch.setattr(Fabric, "device", device[0])
        raise NotImplementedError("The operator 'aten::vdot' is not implemented for the MPS device.\nMore")

    monkeypatch.setattr(FeatureSimilarity, "__call__", lacking)
    config = everything(tiny_config)
    with pytest.raises(NotImplementedError):
        look_ahead(config, state_of(config))
    device[0] = torch.device("mps")
    told = r"mps lacks an operation .* after 70% .*'aten::vdot'.*accelerator=cpu"
    with pytest.raises(ConfigError, match=told):
        look_ahead(config, state_of(config))


def test_a_training_whose_losses_come_and_stay_has_nothing_to_look_at(
    tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "segdistill.training.rehearsal.step_gradients", lambda *_, **__: pytest.fail("a step")
    )
    config = tiny_config(method={"kind": "deep_supervision"})
    look_ahead(config, state_of(config))
