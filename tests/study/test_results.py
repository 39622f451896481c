"""Runs read from their folders and paired by seed."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from networks import PROTOCOL
from summaries import SUMMARY

from segdistill.errors import RunFolderError
from segdistill.report.html import comparison_page
from segdistill.report.rows import verdict
from segdistill.study.results import Comparison, compare_rungs
from segdistill.study.run_results import RunResult, read_protocol, read_run
from segdistill.study.rungs import LADDER, Rung

BASELINE, _, DEEP, *_, DISTILLED = LADDER


def result(
    seed: int, miou: float, *, iou: dict[str, float | None] | None = None, memory: int = 100
) -> RunResult:
    return RunResult(
        seed=seed,
        miou=miou,
        best_miou=miou + 0.01,
        best_epoch=2,
        iou=iou or {"sky": miou, "pole": 0.1},
        submodels={},
        curve=((1, 0.1), (2, miou)),
        whole_curve=True,
        memory_bytes=memory,
    )


ROWS = (
    '{"epoch": 1, "step": 10, "val": null}',
    '{"epoch": 2, "step": 20, "val": {"miou": {"primary": 0.3}}}',
)


def write_run(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    summary = SUMMARY | {
        "miou": {"primary": 0.5, "branches": {"branch3": 0.4}, "ensemble": 0.45},
        "best": {"epoch": 3, "miou": 0.52},
        "iou": {"sky": 0.9, "pole": None},
        "memory_bytes": 1000,
        "data": {"training_images": 12, "hash": "abc", "splits": {}},
        "devices": "2 x cpu",
        "versions": {"segdistill": "0.1.0", "torch": "2.14"},
        "steps": 20,
    }
    (folder / "summary.json").write_text(json.dumps(summary | changes))
    (folder / "metrics.jsonl").write_text("".join(f"{row}\n" for row in ROWS))
    return folder


def test_a_run_is_read_from_its_own_files(tmp_path: Path) -> None:
    assert read_run(write_run(tmp_path / "run"), seed=4) == RunResult(
        seed=4,
        miou=0.5,
        best_miou=0.52,
        best_epoch=3,
        iou={"sky": 0.9, "pole": None},
        submodels={"branch3": 0.4, "ensemble": 0.45},
        curve=((2, 0.3),),
        whole_curve=True,
        memory_bytes=1000,
        device="2 x cpu",
        software=("segdistill 0.1.0", "torch 2.14"),
        data_hash="abc",
    )


def test_a_plain_network_has_no_other_submodels(tmp_path: Path) -> None:
    plain = write_run(tmp_path / "run", miou={"primary": 0.5, "branches": {}, "ensemble": None})
    assert read_run(plain, seed=0).submodels == {}


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "summary.json").write_text("{")
    with pytest.raises(RunFolderError, match=rf"{folder}.*remove that folder"):
        read_run(folder, seed=0)


@pytest.mark.parametrize(
    ("metrics", "curve"),
    [
        (None, ()),
        ("", ()),
        (f"{ROWS[0]}\n", ()),
        (f"\0\0\n{ROWS[1]}\n", ((2, 0.3),)),
        (f"{ROWS[0]}\n{ROWS[1][:-1]}\n", ()),
    ],
)
def test_a_run_whose_learning_curve_is_damaged_keeps_its_score_and_says_so(
    tmp_path: Path, metrics: str | None, curve: tuple[tuple[int, float], ...]
) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "metrics.jsonl").unlink()
    if metrics is not None:
        (folder / "metrics.jsonl").write_text(metrics)
    run = read_run(folder, seed=4)
    assert (run.miou, run.curve, run.whole_curve) == (0.5, curve, False)
    study = Comparison("x", (), compare_rungs([(BASELINE, [run])], seconds_per_step={}), missing=())
    (caveat,) = study.caveats
    assert "baseline, seed 4 lacks epochs" in caveat
    assert ("<h2>Learning curves" in comparison_page(study)) == bool(curve)


def test_a_run_whose_best_score_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", best={"epoch": 1, "miou": None})
    with pytest.raises(RunFolderError, match=rf"{folder}.*remove that folder"):
        read_run(folder, seed=0)


def test_whose_epochs_a_run_shares_is_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "beginning.json").write_text(json.dumps({"source": "wide, seed 4", "epochs": 3}))
    run = read_run(folder, seed=4)
    assert (run.shared_epochs, run.shared_with) == (3, "wide")


def test_a_run_without_a_score_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", miou={"primary": None, "branches": {}, "ensemble": None})
    with pytest.raises(RunFolderError, match="no labelled pixel was scored"):
        read_run(folder, seed=0)


def test_differences_are_taken_seed_by_seed() -> None:
    runs = [
        (BASELINE, [result(0, 0.50), result(1, 0.40, memory=200), result(2, 0.45)]),
        (DEEP, [result(0, 0.51), result(7, 0.51, memory=900)]),
        (DISTILLED, [result(1, 0.43, memory=300), result(0, 0.54)]),
    ]
    baseline, deep, distilled = compare_rungs(runs, seconds_per_step={"baseline": 2.0, "self_distill": 3.0})
    assert baseline.against == {}
    assert distilled.against["baseline"].miou.by_seed == pytest.approx({0: 0.04, 1: 0.03})
    assert distilled.against["baseline"].classes["sky"].by_seed == pytest.approx({0: 0.04, 1: 0.03})
    assert distilled.against["baseline"].classes["pole"].spread.mean == 0
    assert distilled.against["baseline"].seconds == 1.5
    assert distilled.against["baseline"].memory == 1.5
    assert deep.against["baseline"].memory == 1, "seed 7 is nobody's pair"
    assert distilled.against["deep_supervision"].miou.by_seed == pytest.approx({0: 0.03})
    assert distilled.against["deep_supervision"].seconds is None
    assert list(deep.against) == ["baseline"]
    assert [run.seed for run in distilled.runs] == [0, 1]
    assert distilled.miou.mean == pytest.approx(0.485)
    assert distilled.best_miou.mean == pytest.approx(0.495)


def test_a_class_without_a_score_is_left_out_of_that_pair() -> None:
    everywhere: dict[str, float | None] = {"sky": 0.5, "pole": 0.1, "car": None}
    runs = [
        (BASELINE, [result(0, 0.5, iou=everywhere | {"pole": None}), result(1, 0.5, iou=everywhere)]),
        (DISTILLED, [result(0, 0.5, iou=everywhere | {"sky": 0.6}), result(1, 0.5, iou=everywhere)]),
    ]
    distilled = compare_rungs(runs, seconds_per_step={})[1]
    classes = distilled.against["baseline"].classes
    assert {name: one.by_seed for name, one in classes.items()} == {
        "sky": pytest.approx({0: 0.1, 1: 0.0}),
        "pole": {1: 0.0},
    }


def test_means_over_different_classes_are_told() -> None:
    """A class that no label has counts as 0 for whoever predicts it."""
    runs = [
        (BASELINE, [result(0, 0.5, iou={"sky": 0.5, "rare": None})]),
        (DISTILLED, [result(0, 0.26, iou={"sky": 0.52, "rare": 0.0})]),
    ]
    study = Comparison("x", (), compare_rungs(runs, seconds_per_step={}), missing=())
    assert study.results[1].against["baseline"].unpaired == ("rare",)
    (caveat,) = study.caveats
    assert "mIoU of self_distill and of baseline are means over different classes (rare: not in" in caveat
    assert study.as_dict()["caveats"] == [caveat]
    same = [(BASELINE, [result(0, 0.5)]), (DISTILLED, [result(0, 0.6)])]
    assert Comparison("x", (), compare_rungs(same, seconds_per_step={}), missing=()).caveats == []


def test_pairs_that_were_trained_by_other_programs_or_elsewhere_are_told() -> None:
    """Pairs, not seeds: both runs of seed 1 were made by the newer one."""

    def made(run: RunResult, torch: str = "2.9", device: str = "1 x cpu") -> RunResult:
        return replace(run, device=device, software=("segdistill 0.1.0", f"torch {torch}"))

    plain = [made(result(0, 0.5)), made(result(1, 0.5), "2.10"), made(result(2, 0.5))]
    alike = [made(result(0, 0.6)), made(result(1, 0.6), "2.10")]
    other = [*alike, made(result(2, 0.6), "2.10", "1 x cuda")]

    def caveats(distilled: list[RunResult]) -> list[str]:
        results = compare_rungs([(BASELINE, plain), (DISTILLED, distilled)], seconds_per_step={})
        return Comparison("x", (), results, missing=()).caveats

    assert caveats(alike) == []
    assert caveats(other) == [
        "In 1 of 3 pairs the two runs were trained by different software, on different devices or from files of "
        "different weights (self_distill and baseline, seed 2: 1 x cuda, torch 2.10 / 1 x cpu, torch 2.9), which may "
        "be a part of their difference."
    ]
    replaced = [
        replace(run, first_weights=name * 16) for run, name in zip(alike, ("aaaa", "bbbb"), strict=True)
    ]
    plain = [replace(run, first_weights="aaaa" * 16) for run in plain]
    (caveat,) = caveats(replaced)
    assert caveat.startswith("In 1 of 2 pairs the two runs were trained by")
    assert "(self_distill and baseline, seed 1: weights bbbbbbbb / weights aaaaaaaa)" in caveat
    chosen = Rung("fine", ("model.weights=b.safetensors",))
    results = compare_rungs([(BASELINE, plain), (chosen, replaced)], seconds_per_step={})
    assert Comparison("x", (), results, missing=()).caveats == [], "a rung that chooses its weights"


def test_runs_on_other_data_are_told(tmp_path: Path) -> None:
    protocols = [
        read_protocol(
            write_run(tmp_path / digest, data={"training_images": 12, "hash": digest, "splits": {}})
        )
        for digest in ("abc", "def")
    ]
    (caveat,) = Comparison("x", tuple(protocols), (), missing=()).caveats
    assert (
        caveat
        == "Not all of these runs had the same data (data hash differs: abc / def), so some are no pairs."
    )
    assert Comparison("x", (protocols[0], protocols[0]), (), missing=()).caveats == []
    longer = Comparison("x", ({"epochs": 80}, {"epochs": 160}), (), missing=())
    assert longer.caveats == []


def test_runs_of_a_seed_on_other_data_are_no_pair() -> None:
    """Labels were changed between them."""

    def on(hashes: Sequence[str], miou: float) -> list[RunResult]:
        return [replace(result(seed, miou), data_hash=name) for seed, name in enumerate(hashes)]

    def study(hashes: Sequence[str]) -> Comparison:
        runs = [(BASELINE, on(["abc", "abc", "abc"], 0.5)), (DISTILLED, on(hashes, 0.6))]
        protocols = tuple({"data_hash": name} for name in ("abc", *hashes))
        return Comparison("x", protocols, compare_rungs(runs, seconds_per_step={}), missing=())

    some = study(["abc", "def", "abc"])
    assert list(some.results[1].against["baseline"].miou.by_seed) == [0, 2]
    assert some.results[1].miou.n == 3, "its own mean has them all"
    (caveat,) = some.caveats
    assert caveat == (
        "Not all of these runs had the same data (data hash differs: abc / def), so some are no pairs: self_distill "
        "and baseline, seed 1 are left out of the differences."
    )
    none = study(["def", "def", "def"])
    assert none.results[1].against == {}
    lead = "There is no difference to report, as no two runs of the same seed had the same data."
    assert verdict(none) == (lead, [])


def test_a_rung_without_runs_or_without_a_shared_seed_is_compared_with_nothing() -> None:
    runs: list[tuple[Rung, list[RunResult]]] = [
        (BASELINE, [result(0, 0.5)]),
        (DEEP, []),
        (DISTILLED, [result(1, 0.6)]),
    ]
    baseline, distilled = compare_rungs(runs, seconds_per_step={})
    assert (baseline.rung, distilled.rung) == (BASELINE, DISTILLED)
    assert distilled.against == {}


def test_where_and_by_what_a_run_was_made_is_part_of_its_protocol(tmp_path: Path) -> None:
    first = read_protocol(write_run(tmp_path / "first"))
    assert first == PROTOCOL.as_dict() | {
        "training_images": 12,
        "data_hash": "abc",
        "device": "2 x cpu",
        "software": "segdistill 0.1.0, torch 2.14",
    }
    other = read_protocol(write_run(tmp_path / "other", versions={"segdistill": "0.2.0"}))
    both = Comparison("x", (first, other), (), missing=())
    assert both.protocol["software"] == "differs: segdistill 0.1.0, torch 2.14 / segdistill 0.2.0"


def test_a_protocol_that_differs_says_so() -> None:
    protocols = (
        {"split": "val", "epochs": 80},
        {"split": "val", "epochs": 160, "sampling": "rare"},
        {"split": "val", "epochs": 80},
    )
    study = Comparison("x", protocols, (), missing=())
    assert study.protocol == {
        "split": "val",
        "epochs": "differs: 80 / 160",
        "sampling": "differs: None / rare",
    }
    assert list(study.as_dict())[:2] == ["name", "protocol"]
    assert study.as_dict()["protocol"] == study.protocol
    assert "protocols" not in study.as_dict()


def test_a_value_that_reads_like_a_difference_is_none() -> None:
    assert Comparison("x", ({"data": "differs: a / b"},) * 2, (), missing=()).caveats == []


def test_the_verdict_on_the_last_rung_comes_first() -> None:
    rungs = enumerate((BASELINE, DEEP, DISTILLED))
    runs = [(rung, [result(0, 0.5), result(1, 0.6 + place / 50)]) for place, rung in rungs]
    comparison = Comparison("x", (), compare_rungs(runs, seconds_per_step={}), missing=())
    starts = [sentence.split(" cannot")[0] for sentence in comparison.words]
    assert starts == [
        "self_distill against baseline",
        "self_distill against deep_supervision",
        "deep_supervision against baseline",
    ]
    assert json.loads(json.dumps(comparison.as_dict()))["words"] == comparison.words


def test_many_intervals_are_told_to_surprise() -> None:
    """Sidak: 1 - 0.95^3 of studies of three methods that change nothing."""
    scores = {"baseline": (0.5, 0.5), "deep_supervision": (0.5, 0.6), "self_distill": (0.5, 0.7)}
    rungs = (BASELINE, DEEP, DISTILLED)
    runs = [(rung, [result(seed, miou) for seed, miou in enumerate(scores[rung.name])]) for rung in rungs]

    def study(runs: Any) -> Comparison:
        results = compare_rungs(runs, seconds_per_step={})
        return Comparison(name="study", protocols=(), results=results, missing=())

    assert study(runs).by_chance.startswith("These are 3 intervals of primaries. ")
    assert "in up to 14% of such studies" in study(runs).by_chance
    assert study(runs).as_dict()["by_chance"] == study(runs).by_chance
    deep = [replace(one, submodels={"branch3": 0.4, "ensemble": 0.6}) for one in runs[1][1]]
    words = study([runs[0], (DEEP, deep), runs[2]]).by_chance
    assert words == study(runs).by_chance, "branches are other networks, which may well differ"
    assert study(runs[:2]).by_chance == "", "one interval says how far it can be trusted"
    assert study([(rung, one[:1]) for rung, one in runs]).by_chance == "", "one seed gives no interval"


def test_a_branch_is_measured_against_the_references_primary() -> None:
    """Also where the reference has a branch of that name."""
    deep = replace(result(0, 0.5), submodels={"branch3": 0.3})
    distilled = replace(result(0, 0.6), submodels={"branch3": 0.45})
    results = compare_rungs([(DEEP, [deep]), (DISTILLED, [distilled])], seconds_per_step={})
    found = results[1].against["deep_supervision"].submodels["branch3"].by_seed
    assert found == {0: pytest.approx(0.45 - 0.5)}
