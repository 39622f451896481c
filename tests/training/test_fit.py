"""The training loop on tiny data, in this process: resuming, interruption, non-finite losses, fair pairs."""

import io
import json
import os
import signal
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from one_step import train_once

from segdistill.build.training import build_fabric, build_loop_settings, build_state
from segdistill.build.training_data import build_training_data
from segdistill.commands import train as train_command
from segdistill.commands.resuming import go_on, saved_checkpoint
from segdistill.commands.run_folder import RunFolder
from segdistill.commands.train import fit_and_score, train
from segdistill.config import Config
from segdistill.console import new_console
from segdistill.data.loading import Batch
from segdistill.errors import DataError, InterruptedRunError, NonFiniteError, RunFolderError
from segdistill.evaluation.evaluator import evaluate
from segdistill.evaluation.metrics import Scores
from segdistill.losses.maps import StepMaps
from segdistill.losses.objective import Objective, Schedule, Term
from segdistill.models.primary import input_multiple
from segdistill.study.runner import TAKEN_OVER
from segdistill.training import steps
from segdistill.training.checkpoint import Checkpoints, load_checkpoint, save_checkpoint
from segdistill.training.state import TrainState

pytestmark = pytest.mark.training
QUIET = new_console(quiet=True)


class WatchedLoader:
    """Keeps every batch it hands on."""

    def __init__(self, loader: Any, seen: list[Batch], before_batch: Callable[[], None]) -> None:
        self.loader, self.seen, self.before_batch = loader, seen, before_batch

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            self.before_batch()
            self.seen.append(batch)
            yield batch


class Run:
    """A training up to the export, with a hook before every batch."""

    def __init__(self, config: Config, *, before_batch: Callable[[], None] = lambda: None) -> None:
        self.config = config
        self.folder = RunFolder(config.run_folder)
        fabric = build_fabric(config)
        data = build_training_data(config, fabric, console=QUIET)
        self.batches = data.batches
        self.seen: list[Batch] = []
        self.loader: Any = WatchedLoader(data.train_loader, self.seen, before_batch)
        self.data = replace(data, train_loader=self.loader)
        self.state: TrainState = build_state(
            config, fabric, total_steps=config.train.epochs * self.batches.steps
        )
        self.multiple = input_multiple(self.state.net.primary)
        self.names = data.val.samples.taxonomy.names

    def go(self) -> "Run":
        self.folder.check(self.config, overwrite=False)
        saved = saved_checkpoint(self.folder, self.config)
        go_on(self.folder, self.config, self.state, saved, data_hash=self.data.hash)
        self.folder.begin(self.config)
        fit_and_score(self.config, self.folder, self.state, self.data, console=QUIET)
        return self

    def metrics(self) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in (self.folder.path / "metrics.jsonl").read_text().splitlines()]
        for row in rows:
            del row["seconds"]
        return rows


def assert_same_tensors(ours: Any, theirs: Any, path: str = "state") -> None:
    """Bit-equal tensors, equal primitives, whatever the nesting."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), path
        for key in ours:
            if key not in ("seconds", "memory_bytes"):  # of the machine, not of the training
                assert_same_tensors(ours[key], theirs[key], f"{path}.{key}")
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs), path
        for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same_tensors(one, other, f"{path}[{place}]")
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), path
    else:
        assert ours == theirs, path


SETTINGS = {
    "one_cycle": {},
    "ema_poly_accumulate": {
        "train": {
            "ema_decay": 0.9,
            "accumulate": 2,
            "batch_size": 2,
            "schedule": {"kind": "poly"},
            "optimizer": {"kind": "sgd", "lr": 0.01},
        },
        "method": {"adversarial": {"game": "peer"}, "feature": {"kind": "affinity"}},
        "model": {"arch": "deeplabv3plus", "options": {"decoder_channels": 16}},  # has dropout
    },
}


@pytest.mark.parametrize(
    ("setting", "last_step", "number"),
    [("one_cycle", True, signal.SIGTERM), ("ema_poly_accumulate", False, signal.SIGHUP)],
)
def test_a_run_stopped_inside_an_epoch_resumes_to_the_bit_equal_end(
    tiny_config: Callable[..., Config],
    tmp_path: Path,
    handled: Callable[[signal.Signals], Any],
    setting: str,
    last_step: bool,
    number: signal.Signals,
) -> None:
    """Also if it stops after the epoch's last step, before the epoch is scored; SIGHUP is of a closed terminal."""
    handled(number)
    config = tiny_config(**SETTINGS[setting])
    whole = Run(config.model_copy(update={"out": tmp_path / "whole"})).go()

    batches_seen = 0
    into_epoch = whole.batches.batches if last_step else config.train.accumulate + 1

    def stop_in_second_epoch() -> None:
        nonlocal batches_seen
        batches_seen += 1
        if batches_seen == whole.batches.batches + into_epoch:
            os.kill(os.getpid(), number)

    cut = config.model_copy(update={"out": tmp_path / "cut"})
    stopped = Run(cut, before_batch=stop_in_second_epoch)
    with pytest.raises(InterruptedRunError):
        stopped.go()
    assert stopped.state.position.epoch == 1
    assert 0 < stopped.state.position.batch <= stopped.batches.batches
    assert (stopped.state.position.batch == stopped.batches.batches) == last_step

    second = Run(resumed(cut)).go()

    assert_same_tensors(second.state.state_dict(), whole.state.state_dict())
    assert second.metrics() == whole.metrics()
    for one, other in zip(stopped.seen + second.seen, whole.seen, strict=False):
        assert torch.equal(one.images, other.images)


@pytest.mark.parametrize("end", [InterruptedRunError, DataError])
def test_a_run_that_ends_while_it_is_scored_has_lost_no_step(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: type[Exception]
) -> None:
    config = tiny_config(train={"epochs": 2}, method={"kind": "baseline"})
    whole = Run(config.model_copy(update={"out": tmp_path / "whole"})).go()
    cut = config.model_copy(update={"out": tmp_path / "cut"})
    calls = 0

    def ended(*given: Any) -> dict[str, Scores]:
        nonlocal calls
        calls += 1
        if calls == 2 and end is DataError:
            raise DataError("an image is gone")
        if calls == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*given)

    monkeypatch.setattr(train_command, "evaluate", ended)
    with pytest.raises(end):
        Run(cut).go()
    second = Run(resumed(cut))
    second.go()
    assert not second.seen, "all steps were done"
    assert calls == 3, "but the last epoch was to be scored"
    assert_same_tensors(second.state.state_dict(), whole.state.state_dict())
    assert second.metrics() == whole.metrics()


def resumed(config: Config) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"resume": True})})


def test_a_run_is_not_resumed_on_other_data(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny_config(train={"epochs": 1}).model_copy(update={"out": tmp_path / "run"})
    Run(config).go()
    again = Run(resumed(config))
    saved = saved_checkpoint(again.folder, again.config)
    with pytest.raises(RunFolderError, match=r"trained on other data \(hash .*, now other, of .*--overwrite"):
        go_on(again.folder, again.config, again.state, saved, data_hash="other")
    go_on(again.folder, again.config, again.state, saved, data_hash=again.data.hash)
    assert again.state.position.epoch == 1


def test_a_beginning_that_was_trained_on_other_data_is_not_gone_on_from(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images were changed between two pieces of a study."""
    config = tiny_config(train={"epochs": 2}).model_copy(update={"out": tmp_path / "run"})
    first = Run(config).go()
    last = first.folder.checkpoints(config).last
    saved = load_checkpoint(last)
    saved["state"]["position"]["data_hash"] = "other"
    save_checkpoint(last, **{key: saved[key] for key in ("state", "config", "versions")})
    taken = first.folder.path / TAKEN_OVER
    taken.write_text(json.dumps({"source": "deep, seed 0", "epochs": 1}))
    with pytest.raises(RunFolderError, match="of a comparison: remove that run's folder"):
        train(resumed(config), overwrite=False, console=QUIET)  # an epoch is its own
    taken.write_text(json.dumps({"source": "deep, seed 0", "epochs": 2}))
    said = io.StringIO()
    build = train_command.build_training_data
    built: list[Config] = []
    monkeypatch.setattr(
        train_command,
        "build_training_data",
        lambda config, *arguments, **keywords: built.append(config) or build(config, *arguments, **keywords),
    )
    train(resumed(config), overwrite=False, console=new_console(file=said))
    assert len(built) == 1, "all images are checked once"
    assert "from the first step: deep, seed 0, whose first 2 epochs were to be this run's" in said.getvalue()
    assert not taken.exists()
    assert load_checkpoint(last)["state"]["position"]["data_hash"] == first.data.hash
    assert [row["epoch"] for row in first.metrics()] == [1, 2]


def test_what_a_kill_kept_from_being_put_aside_is_when_resumed(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(train={"keep_epochs": [1]}).model_copy(update={"out": tmp_path / "run"})
    assert config.train.epochs > 1

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "keep", killed)
        with pytest.raises(KeyboardInterrupt):
            Run(config).go()
    Run(resumed(config)).go()
    kept = load_checkpoint(tmp_path / "run" / "checkpoints" / "epoch1" / "last.pt")
    assert kept["state"]["position"]["epoch"] == 1


@pytest.mark.parametrize("place", ["loss", "gradient"])
def test_a_non_finite_value_stops_the_run_names_it_and_keeps_the_good_checkpoint(
    tiny_config: Callable[..., Config], place: str
) -> None:
    run = Run(tiny_config())

    def turns_bad(maps: Any) -> torch.Tensor:
        value = maps.primary_logits.mean()
        if run.state.position.step <= run.batches.steps:
            return value * 0
        if place == "loss":
            return value / 0
        return (value - value.detach()).abs().sqrt()  # finite value, infinite slope

    extra = Term("turns_bad", Schedule(1.0), turns_bad)
    run.state.objective = Objective((*run.state.objective.terms, extra))
    named = "turns_bad" if place == "loss" else "gradient_norm"
    with pytest.raises(NonFiniteError, match=rf"{named} became .* in epoch 2, step {run.batches.steps + 2};"):
        run.go()

    checkpoint = load_checkpoint(run.folder.checkpoints(run.config).last)
    assert checkpoint["state"]["position"]["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint["state"]["learner"]["module"].values())


def test_all_kinds_see_the_same_batches_and_start_from_the_same_primary(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    runs = {}
    for kind in ("baseline", "deep_supervision", "self_distill"):
        method = {"kind": kind, "reparam": {"copies": 0}}  # which tests/models/test_multi_branch.py looks at
        config = tiny_config(method=method, train={"epochs": 1}, out=str(tmp_path / kind))
        run = Run(config)
        first = {key: value.clone() for key, value in run.state.net.primary.state_dict().items()}
        runs[kind] = (run.go(), first)
    baseline, first_weights = runs["baseline"]
    for run, weights in runs.values():
        assert_same_tensors(weights, first_weights)
        assert len(run.seen) == len(baseline.seen) > 0
        for one, other in zip(run.seen, baseline.seen, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_branches_that_keep_their_gradient_leave_the_primary_to_itself(
    tiny_config: Callable[..., Config], tmp_path: Path, accumulate: int
) -> None:
    """To the bit, also where gradients are clipped and both drop something: what teaches later is then all that differs
    from the baseline."""

    def trained(**method: Any) -> Run:
        config = tiny_config(
            model={"encoder": "tu-test_resnet", "options": {"drop_path_rate": 0.5}},
            method=method,
            train={"epochs": 2, "clip_norm": 0.5, "accumulate": accumulate},
        )
        return Run(config.model_copy(update={"out": tmp_path / method["kind"]})).go()

    plain = trained(kind="baseline")
    beside = trained(kind="deep_supervision", branches={"encoder_gradient": 0.0, "dropout": 0.5})
    assert plain.metrics()[1]["train"]["gradient_norm"] > 0.5, "clipped"
    assert beside.metrics()[1]["train"]["branch_gradient_norm"] > 0.5, "clipped"
    ours, theirs = beside.state.net.primary.state_dict(), plain.state.net.primary.state_dict()
    assert_same_tensors(dict(ours), dict(theirs))


def test_a_baseline_is_plain_training_with_torch_and_smp_alone(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config(
        method={"kind": "baseline", "supervised": {"dice_weight": 0.0}},
        train={"epochs": 2, "schedule": {"kind": "poly", "warmup": 0.0}, "clip_norm": None},
    )
    run = Run(config)
    import segmentation_models_pytorch as smp

    plain = smp.create_model(
        "unet",
        config.model.encoder,
        encoder_weights=None,
        classes=11,
        decoder_channels=[32, 24, 16, 12, 8],
    ).to(memory_format=torch.channels_last)
    plain.load_state_dict(run.state.net.primary.state_dict())
    run.go()
    decayed = [p for p in plain.parameters() if p.ndim > 1]
    others = [p for p in plain.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 1e-2}, {"params": others, "weight_decay": 0.0}],
        lr=1e-3,
        fused=True,  # Adam's first steps turn rounding into +-lr
    )
    plain.train()
    for step, batch in enumerate(run.seen):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - step / len(run.seen)) ** 0.9
        loss = torch.nn.functional.cross_entropy(plain(batch.images), batch.labels, ignore_index=11)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for (name, ours), theirs in zip(
        run.state.net.primary.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-4, msg=name)


def test_an_all_void_batch_gives_zero_and_training_goes_on(tiny_config: Callable[..., Config]) -> None:
    from segdistill.training.steps import StepSettings, train_step

    run = Run(tiny_config())
    images = torch.randn(4, 3, 64, 96)
    void = Batch(images, torch.full((4, 64, 96), 11))
    settings = StepSettings(multiple=32, ignore_index=11, grid_stride=4, clip_norm=1.0)
    values = train_step(run.state, [void], settings, progress=0.5, diagnose=False)
    for name in ("primary", "branches", "logit", "views", "feature", "adversarial", "total", "discriminator"):
        assert values[name] == 0, name
    labels = torch.randint(0, 11, (4, 64, 96))
    values = train_step(run.state, [Batch(images, labels)], settings, progress=0.5, diagnose=False)
    assert all(torch.isfinite(value) for value in values.values())
    assert values["primary"] > 0


def test_an_epoch_row_holds_every_term_every_stream_and_every_class(
    tiny_config: Callable[..., Config],
) -> None:
    run = Run(tiny_config(train={"epochs": 2, "schedule": {"kind": "poly", "warmup": 0}})).go()
    rows = run.metrics()
    assert [row["epoch"] for row in rows] == [1, 2]
    terms = {"primary", "branches", "logit", "views", "feature", "adversarial", "total"}
    notes = {
        "gradient_norm",
        "branch_gradient_norm",
        "discriminator",
        "discriminator_accuracy",
        "teacher_right",
    }
    assert terms | notes == set(rows[1]["train"])
    assert 0 < rows[1]["train"]["teacher_right"] < 1
    total = 2 * run.batches.steps
    for row, last in zip(rows, (run.batches.steps - 1, total - 1), strict=True):
        rate = run.config.train.optimizer.lr * (1 - last / total) ** 0.9
        assert row["lr"]["decoder"] == pytest.approx(rate), "of the last step, not of the one that follows"
    assert set(rows[1]["lr"]) == {"encoder", "decoder"}
    assert set(rows[1]["val"]["miou"]["branches"]) == {"branch3", "branch4"}
    assert 0 <= rows[1]["val"]["miou"]["primary"] <= 1
    assert 0 <= rows[1]["val"]["miou"]["ensemble"] <= 1
    assert list(rows[1]["val"]["iou"]) == list(run.names)
    events = list((run.folder.path / "tensorboard").glob("events.*"))
    assert events
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run.folder.path / "tensorboard")).Reload()
    tags = set(board.Tags()["scalars"])
    assert {f"train/{name}" for name in rows[1]["train"]} <= tags
    assert {"val_miou/primary", "val_miou/branch3", "val_miou/ensemble", "val_iou/pole", "lr/encoder"} <= tags


def test_looking_at_gradients_changes_nothing_and_is_logged(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    looking, plain = (
        Run(
            tiny_config(
                method={"feature": {"ramp": [[0, 0], [0.1, 1], [0.5, 1], [0.6, 0]]}},
                train={"epochs": 5, "diagnose_every": every},
                out=str(tmp_path / str(every)),
            )
        ).go()
        for every in (2, None)
    )
    assert_same_tensors(looking.state.state_dict()["learner"], plain.state.state_dict()["learner"])
    first, second, third, _, fifth = (row["encoder"] for row in looking.metrics())
    assert set(first["gradient"]) == {"primary", "branches"}, "the other terms' ramps begin at 0"
    assert second is None
    terms = {"primary", "branches", "logit", "views", "feature", "adversarial"}
    assert set(third["gradient"]) == terms
    assert set(third["cosine"]) == terms - {"primary"}
    assert all(norm > 0 for norm in third["gradient"].values())
    assert all(-1 <= cosine <= 1 for cosine in third["cosine"].values())
    assert set(fifth["gradient"]) == terms - {"feature"}, "its ramp has ended"
    assert [row["encoder"] for row in plain.metrics()] == [None] * 5


def test_mixed_precision_trains_every_term(tiny_config: Callable[..., Config]) -> None:
    run = Run(tiny_config(train={"epochs": 2, "precision": "bf16-mixed", "diagnose_every": 1})).go()
    rows = run.metrics()
    assert {"primary", "branches", "logit", "views", "feature", "adversarial"} <= set(rows[1]["train"])
    assert [row["encoder"] for row in rows] == [None, None], "Fabric allows no gradients but its own there"


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with (
        folder.owned(),
        pytest.raises(RunFolderError, match="another process is training in"),
        folder.owned(),
    ):
        pass
    with folder.owned():
        pass


@pytest.mark.parametrize("kind", ["baseline", "self_distill"])
def test_a_batch_is_forgotten_before_the_step_is_done(
    tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Gradients are accumulated because the maps of all batches together do not fit into memory."""
    always = {"ramp": [[0, 1]]}
    losses = dict.fromkeys(("logit", "feature", "adversarial"), always) if kind == "self_distill" else {}
    seen: list[weakref.ref[StepMaps]] = []
    forward = steps.forward

    def watched(*arguments: Any, **keywords: Any) -> StepMaps:
        assert sum(one() is not None for one in seen) <= 1, "the batch just done may still have its name"
        maps = forward(*arguments, **keywords)
        seen.append(weakref.ref(maps))
        return maps

    monkeypatch.setattr(steps, "forward", watched)
    config = tiny_config(
        method={"kind": kind, **losses}, train={"accumulate": 3, "batch_size": 2, "epochs": 1}
    )
    Run(config).go()
    assert len(seen) >= 6


def test_every_batch_of_a_step_has_views_of_its_own(tiny_config: Callable[..., Config]) -> None:
    run = Run(tiny_config(train={"accumulate": 3, "batch_size": 2, "epochs": 1}))
    seen: list[torch.Tensor] = []
    look = run.state.views

    def watched(batch: Batch, **keywords: Any) -> Batch:
        views = look(batch, **keywords)
        seen.append(views.images)
        return views

    run.state.views = watched
    settings = build_loop_settings(run.config, multiple=run.multiple).step
    batch = Batch(torch.randn(2, 3, 64, 96), torch.randint(0, 11, (2, 64, 96)))
    for _ in range(2):
        torch.manual_seed(7)
        steps.train_step(run.state, [batch] * 3, settings, progress=0.5, diagnose=False)
    assert len(seen) == 6
    assert not any(torch.equal(seen[a], seen[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert all(torch.equal(seen[place], seen[place + 3]) for place in range(3)), (
        "they follow from the step's seed"
    )


def test_views_teach_the_primary_alone_and_leave_no_trace_in_batch_norms(
    tiny_config: Callable[..., Config],
) -> None:
    """Against a run without them: one step from the same weights, by plain gradient descent."""
    off = {term: {"weight": 0.0} for term in ("feature", "adversarial")}
    plain_sgd = {"optimizer": {"kind": "sgd", "momentum": 0.0, "weight_decay": 0.0}, "clip_norm": None}

    def after_a_step(
        weight: float, *, label_gate: bool = False
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        logit = {"teacher": "others", "students": "primary", "ramp": [[0, 1]], "weight": 2.0}
        logit["label_gate"] = label_gate
        logit["views"] = {"weight": weight, "ramp": [[0, 1]]}
        branches = {"dropout": 0.5}  # which draws random numbers, too
        run = Run(tiny_config(method=off | {"logit": logit, "branches": branches}, train=plain_sgd))
        torch.manual_seed(0)
        batch = Batch(torch.randn(4, 3, 64, 96), torch.randint(0, 11, (4, 64, 96)))
        values = train_once(run.state, batch)
        return values, {name: tensor.clone() for name, tensor in run.state.net.state_dict().items()}

    without, weights_without = after_a_step(0.0)
    taught, weights_taught = after_a_step(2.5)
    assert "views" not in without
    assert all(taught[name] == without[name] for name in ("primary", "branches", "logit"))
    assert taught["views"] > 0
    assert taught["total"] == pytest.approx(float(without["total"] + 5.0 * taught["views"]), rel=1e-5)
    changed = {name for name, one in weights_without.items() if not torch.equal(one, weights_taught[name])}
    assert any(name.startswith("primary.decoder") for name in changed)
    assert not {name for name in changed if "running" in name or "num_batches" in name}
    assert not {name for name in changed if name.startswith("branches.")}, (
        "they teach there and learn nothing"
    )
    gated, _ = after_a_step(2.5, label_gate=True)
    assert 0 < gated["views"] < taught["views"] / 2, (
        "teachers of random weights are right at one pixel of eleven"
    )
