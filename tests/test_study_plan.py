"""Which runs a comparison consists of, and what it says before it trains any."""

import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from summaries import SUMMARY

from segdistill.build.splits import build_splits, data_hash
from segdistill.commands.compare import (
    check_data,
    compare,
    known_cost,
    read_study,
    timed_settings,
)
from segdistill.commands.settings import settings_hash
from segdistill.commands.study_plan import MeasuredCost, Study, plan_study
from segdistill.commands.study_progress import StudyProgress
from segdistill.config_io import load_config
from segdistill.console import new_console
from segdistill.errors import ConfigError, DataError, InterruptedRunError, RunFolderError
from segdistill.files import write_json, write_text
from segdistill.locks import alone_in, somebody_in
from segdistill.study.rungs import Rung
from segdistill.study.runner import Failure, PlannedRun

SYNTHETIC = Path(__file__).parents[1] / "configs" / "synthetic_unet.yaml"
EPOCH = {"epoch": 1, "step": 10, "seconds": 2.0, "val": {"miou": {"primary": 0.5}}}


def plan(
    out: Path,
    *overrides: str,
    kinds: Sequence[str] | None = ("baseline", "deep_supervision"),
    rungs: Sequence[Rung] = (),
    seeds: Sequence[int] = (0,),
) -> Study:
    return plan_study(SYNTHETIC, overrides, kinds=kinds, rungs=rungs, seeds=seeds, out=out)


def finish(run: PlannedRun) -> None:
    """As a training that came to its end leaves it."""
    write_text(run.folder / "config.yaml", run.settings)
    write_text(run.folder / "metrics.jsonl", json.dumps(EPOCH) + "\n")
    write_text(run.folder / "summary.json", json.dumps(SUMMARY))
    write_text(run.folder / "primary.safetensors", "")


def names(study: Study) -> list[str]:
    return [rung.name for rung in study.ladder]


def test_a_home_folder_is_one_for_the_trainings_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for run in plan(Path("~/study")).planned:
        assert run.folder.is_relative_to(tmp_path / "study")


@pytest.mark.parametrize("name", ["ünï", "😀", 'a "quoted" #: one'])
def test_a_folder_of_any_name_reaches_the_trainings(tmp_path: Path, name: str) -> None:
    (run, _) = plan(tmp_path / name).planned
    write_text(run.settings_file, run.settings)
    assert load_config(run.settings_file).run_folder == run.folder


def test_earlier_runs_of_other_settings_are_left_out(tmp_path: Path) -> None:
    """They may be valid no more with this call's overrides; those of the same settings count."""
    before = plan(
        tmp_path, "method.reparam.copies=1", kinds=("baseline", "reparam", "self_distill"), seeds=(0, 1)
    )
    for run in before.planned:
        finish(run)
    write_text(before.folder.rungs, json.dumps({rung.name: list(rung.overrides) for rung in before.rungs}))
    now = plan(tmp_path, "method.feature.weight=0.3", seeds=(0,))
    others = "reparam seed 0, reparam seed 1, self_distill seed 0, self_distill seed 1"
    assert now.left_out == (f"trained with other settings than these: {others}",)
    assert [run.name for run in now.finished] == ["baseline, seed 0", "baseline, seed 1"]


def test_a_planned_run_of_other_settings_is_refused_with_the_way_out(tmp_path: Path) -> None:
    for run in plan(tmp_path).planned:
        finish(run)
    with pytest.raises(ConfigError, match=r"train\.epochs") as caught:
        plan(tmp_path, "train.epochs=3")
    assert "choose another folder by --out, or remove this folder" in str(caught.value)
    assert "out=DIR" not in str(caught.value)
    wide = Rung("wide", ("method.branches.width=48",))
    for run in plan(tmp_path, rungs=[wide]).planned:
        finish(run)
    other = Rung("wide", ("method.branches.width=64",))
    with pytest.raises(ConfigError, match="another folder by --out or another name for the rung, or remove"):
        plan(tmp_path, rungs=[other])


def test_a_runs_folder_is_no_place_for_a_comparison(tmp_path: Path) -> None:
    (run, _) = plan(tmp_path).planned
    finish(run)
    with pytest.raises(RunFolderError, match=rf"--out {run.folder} is the folder of a run; choose another"):
        plan(run.folder)


def test_what_could_not_be_compared_with_the_finished_runs_is_not_trained(tmp_path: Path) -> None:
    few = ("data.size=[32,32]", "data.synthetic.train_images=2", "data.synthetic.val_images=1")
    study = plan(tmp_path, *few)
    console = new_console(file=io.StringIO())
    first = study.planned[0]
    finish(first)
    now = data_hash(build_splits(study.base, ("train", "val"), console=console))
    for known, same in ((now, True), ("0123456789", False)):
        write_json(first.folder / "summary.json", SUMMARY | {"data": SUMMARY["data"] | {"hash": known}})
        if same:
            check_data(study, console=console)
    with pytest.raises(
        DataError, match=rf"1 finished run, e\.g\. baseline, seed 0 \(hash 0123456789, now {now}"
    ):
        start(tmp_path, *few, kinds=["baseline", "deep_supervision"], said=io.StringIO())
    assert not study.planned[1].folder.exists()


def test_what_is_wrong_with_the_data_is_told_once_and_before_any_training(tmp_path: Path) -> None:
    classes = "data.folder.classes=[{name: ground}, {name: sky}]"
    data = ("data.kind=folder", f"data.root={tmp_path / 'nowhere'}", classes)
    with pytest.raises(DataError, match=r"nowhere/images: no such folder"):
        start(tmp_path / "study", *data, kinds=["baseline", "deep_supervision"], said=io.StringIO())
    assert not list((tmp_path / "study").glob("*/seed*"))


@pytest.mark.parametrize("held", ["", "{", "[]", '{"wide": null}', '{"wide": [3]}', "\0"])
def test_a_damaged_list_of_rungs_is_named(tmp_path: Path, held: str) -> None:
    (tmp_path / "rungs.json").write_text(held)
    with pytest.raises(RunFolderError, match=rf"{tmp_path}/rungs.json is damaged; remove it"):
        plan(tmp_path)


@pytest.mark.parametrize("held", ["", "[]", '{"seconds_per_step": {"baseline": "x"}, "settings": {}}'])
def test_damaged_costs_are_named(tmp_path: Path, held: str) -> None:
    study = plan(tmp_path)
    study.folder.cost.write_text(held)
    with pytest.raises(RunFolderError, match=r"seconds_per_step\.json is damaged; remove it"):
        study.folder.measured_cost()


def test_folders_that_are_no_seeds_are_none(tmp_path: Path) -> None:
    for name in ("seed²", "seed", "seed-1", "seed1.old"):
        (tmp_path / "baseline" / name).mkdir(parents=True)
    assert plan(tmp_path).finished == []


def test_a_copy_of_a_run_is_no_second_run(tmp_path: Path) -> None:
    for run in plan(tmp_path, seeds=(0, 10)).planned:
        finish(run)
        shutil.copytree(run.folder, run.folder.with_name(f"seed0{run.seed}"))
    assert [run.seed for run in plan(tmp_path, seeds=(2,)).finished] == [0, 10, 0, 10]


def test_step_times_of_other_settings_are_not_shown(tmp_path: Path) -> None:
    """Both rungs were timed; then one was trained anew with another width."""
    study = plan(tmp_path)
    for run in study.planned:
        finish(run)
    settings = {name: settings_hash(config) for name, config in timed_settings(study).items()}
    cost = MeasuredCost({"baseline": 1.0, "deep_supervision": 3.0}, settings)
    write_json(study.folder.cost, asdict(cost))
    assert known_cost(study) == cost.seconds_per_step
    wider = plan(tmp_path / "other", "method.branches.width=8").planned[1]
    write_text(study.planned[1].folder / "config.yaml", wider.settings)
    assert known_cost(study) == {"baseline": 1.0}


# Rungs that train the same


def test_a_term_alone_on_the_ladder_is_all_there_is(tmp_path: Path) -> None:
    off = ("method.feature.weight=0", "method.adversarial.weight=0")
    study = plan(tmp_path, *off, kinds=None)
    assert names(study) == ["baseline", "deep_supervision", "self_distill"]
    assert "+logit (equal to self_distill)" in study.left_out[0]
    assert {run.rung.name for run in study.planned} == set(names(study))


def test_without_any_term_self_distillation_is_deep_supervision(tmp_path: Path) -> None:
    off = [f"method.{term}.weight=0" for term in ("logit", "feature", "adversarial")]
    study = plan(tmp_path, *off, kinds=None)
    assert names(study) == ["baseline", "deep_supervision"]
    assert "self_distill (equal to deep_supervision)" in study.left_out[0]


def test_the_whole_ladder_of_different_rungs_stays(tmp_path: Path) -> None:
    assert names(plan(tmp_path, "method.reparam.copies=1", kinds=None)) == [
        "baseline",
        "reparam",
        "deep_supervision",
        "+logit",
        "+feature",
        "+adversarial",
        "self_distill",
    ]


@pytest.mark.parametrize(
    ("kinds", "rung", "told"),
    [
        (None, Rung("mine", ("method.kind=baseline", "method.branches.width=8")), "rung mine.*baseline"),
        (("+logit", "self_distill"), None, r"rung \+logit.*self_distill"),
    ],
)
def test_an_equal_rung_that_was_asked_for_is_refused(
    tmp_path: Path, kinds: Sequence[str] | None, rung: Rung | None, told: str
) -> None:
    off = ("method.feature.weight=0", "method.adversarial.weight=0")
    with pytest.raises(ConfigError, match=told):
        plan(tmp_path, *off, kinds=kinds, rungs=[rung] if rung else [])


# One study at a time, and the time it has left


def start(
    out: Path, *overrides: str, kinds: Sequence[str], seeds: Sequence[int] = (0,), said: io.StringIO
) -> None:
    compare(
        SYNTHETIC,
        overrides,
        kinds=kinds,
        rungs=(),
        seeds=seeds,
        jobs=1,
        out=out,
        only_report=False,
        console=new_console(file=said),
    )


def test_two_comparisons_in_one_folder_are_refused(tmp_path: Path) -> None:
    """The second one leaves the first one's report as it is."""
    with (
        alone_in(tmp_path, otherwise=ValueError()),
        pytest.raises(RunFolderError, match=f"another comparison is training in {tmp_path}.*--out"),
    ):
        start(tmp_path, kinds=["baseline"], said=io.StringIO())
    assert list(tmp_path.iterdir()) == []
    finish(plan(tmp_path).planned[0])
    with alone_in(tmp_path, otherwise=ValueError()), pytest.raises(RunFolderError):
        start(tmp_path, kinds=["baseline"], seeds=(0, 4), said=io.StringIO())
    assert [path.name for path in tmp_path.iterdir()] == ["baseline"]


def test_a_precision_that_is_imitated_is_told_before_the_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False}, raising=False)
    said = io.StringIO()
    with alone_in(tmp_path, otherwise=ValueError()), pytest.raises(RunFolderError):  # so nothing is trained
        start(tmp_path, "train.precision=bf16-mixed", "train.accelerator=cpu", kinds=["baseline"], said=said)
    assert "no bfloat16 instructions" in " ".join(said.getvalue().split())


def test_a_training_that_outlived_its_comparison_is_told_and_not_disturbed(tmp_path: Path) -> None:
    study = plan(tmp_path)
    left_over = study.planned[1].folder
    with (
        alone_in(left_over, otherwise=ValueError()),
        pytest.raises(
            RunFolderError, match=f"another process is training in {left_over}: wait for it or stop it"
        ),
    ):
        start(tmp_path, kinds=["baseline", "deep_supervision"], said=io.StringIO())
    assert not study.planned[0].folder.exists()
    assert not study.folder.rungs.exists()
    assert not somebody_in(left_over)


def test_a_failure_without_a_word_is_in_the_report(tmp_path: Path) -> None:
    first, second = plan(tmp_path).planned
    finish(first)
    second.log.start()
    second.log.note_failure(-9)
    comparison = read_study(plan(tmp_path))
    assert comparison
    assert comparison.failures == ("deep_supervision, seed 0: killed by signal 9 (out of memory?)",)


def test_an_interruption_while_steps_are_timed_costs_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("segdistill.commands.compare.seconds_per_step", interrupted)
    for run in plan(tmp_path).planned:
        finish(run)
    said = io.StringIO()
    with pytest.raises(InterruptedRunError, match="while steps were timed; the same command times them"):
        start(tmp_path, kinds=["baseline", "deep_supervision"], said=said)
    assert "deep_supervision against baseline: +0.00 mIoU points" in said.getvalue()
    assert (tmp_path / "comparison.html").is_file()


def test_steps_are_not_timed_where_nothing_is_measured_against_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "segdistill.commands.compare.seconds_per_step", lambda *_, **__: pytest.fail("for nobody")
    )
    finish(plan(tmp_path).planned[0])
    start(tmp_path, kinds=["baseline"], said=io.StringIO())


def test_the_command_that_makes_a_missing_file_can_be_pasted(tmp_path: Path) -> None:
    run, _ = plan(tmp_path / "a study").planned
    finish(run)
    write_text(run.folder / "summary.json", json.dumps(SUMMARY | {"onnx": None}))
    run.log.start()
    write_text(run.log.path, run.log.path.read_text() + "error: no room\n")
    said = io.StringIO()
    start(tmp_path / "a study", kinds=["baseline"], said=said)
    assert f"segdistill train '{run.settings_file}' --resume" in " ".join(said.getvalue().split())


def test_nobody_waits_for_what_failed(tmp_path: Path) -> None:
    runs = plan(tmp_path, "train.epochs=12").planned
    for run in runs:
        rows = [json.dumps({"epoch": epoch, "seconds": 2.0}) for epoch in (1, 2)]
        write_text(run.folder / "metrics.jsonl", "".join(f"{row}\n" for row in rows))
    progress = StudyProgress(runs, jobs=1, console=new_console(file=io.StringIO()))
    assert progress._left() == "40 s", "two runs of 12 epochs"
    progress.failed(Failure(runs[1], 2))
    assert progress._left() == "20 s"


def test_a_damaged_learning_curve_keeps_nobody_from_going_on(tmp_path: Path) -> None:
    (run, _) = plan(tmp_path).planned
    for held in ("\0\0\n", '{"epoch": 1}\n', "[]\n"):
        write_text(run.folder / "metrics.jsonl", held)
        assert run.epoch_seconds() == []
