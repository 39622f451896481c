"""`tools/compare.py` as users start it: a study interrupted, taken up again and reported."""

import json
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from program import run, start, write_config
from safetensors.torch import load_file

from segdistill.commands import compare
from segdistill.commands.compare import refuse_too_few_gpus
from segdistill.commands.study_plan import plan_study
from segdistill.config import Config
from segdistill.console import new_console
from segdistill.errors import ConfigError

pytestmark = pytest.mark.training
ARGUMENTS = (
    "compare",
    "tiny.yaml",
    "train.epochs=6",
    "--kinds",
    "baseline",
    "deep_supervision",
    "--seeds",
    "3",
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    write_config(folder / "tiny.yaml")
    return folder


@pytest.fixture(scope="module")
def study(workplace: Path) -> tuple[Path, str]:
    """Stopped in the middle of its first run, then finished: its folder, and what the second try said."""
    folder = workplace / "runs" / "tiny_compare"
    first = start(*ARGUMENTS, "--jobs", "2", cwd=workplace)
    while not (folder / "baseline" / "seed3" / "checkpoints" / "last.pt").exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=120)
    assert first.returncode == 130, err
    assert "the same command goes on" in err
    out, _ = run(*ARGUMENTS, "--jobs", "2", cwd=workplace)
    return folder, out


def test_an_interrupted_study_goes_on(study: tuple[Path, str]) -> None:
    folder, out = study
    assert "resuming baseline, seed 3" in out
    assert re.search(r"finished deep_supervision, seed 3: mIoU \d+\.\d\d; (none|1 run and .+) left", out)
    for rung in ("baseline", "deep_supervision"):
        assert len((folder / rung / "seed3" / "metrics.jsonl").read_text().splitlines()) == 6


def test_the_results_are_the_runs_own(study: tuple[Path, str]) -> None:
    folder, out = study
    comparison = json.loads((folder / "comparison.json").read_text())
    summaries = {
        rung: json.loads((folder / rung / "seed3" / "summary.json").read_text())
        for rung in ("baseline", "deep_supervision")
    }
    difference = summaries["deep_supervision"]["miou"]["primary"] - summaries["baseline"]["miou"]["primary"]
    baseline, deep = comparison["results"]
    assert baseline["runs"][0]["miou"] == summaries["baseline"]["miou"]["primary"]
    assert deep["against"]["baseline"]["miou"]["by_seed"] == {"3": difference}
    assert f"{100 * difference:+.2f}" in out
    assert "says nothing about noise" in out
    assert deep["against"]["baseline"]["seconds"] > 0
    assert deep["against"]["baseline"]["memory"] > 0
    assert comparison["missing"] == []
    page = (folder / "comparison.html").read_text()
    assert "deep_supervision against baseline" in page
    assert page.count("<svg") >= 3


def test_both_rungs_saw_the_same_pixels_from_the_same_start(study: tuple[Path, str]) -> None:
    folder, _ = study
    configs = [
        (folder / rung / "seed3" / "config.yaml").read_text() for rung in ("baseline", "deep_supervision")
    ]
    differing = [(a, b) for a, b in zip(*(text.splitlines() for text in configs), strict=True) if a != b]
    assert [tuple(line.split(":")[0].strip() for line in pair) for pair in differing] == [
        ("out", "out"),
        ("kind", "kind"),
    ]


def test_a_finished_study_only_reports(study: tuple[Path, str], workplace: Path) -> None:
    folder, _ = study
    before = (folder / "comparison.html").read_bytes()
    started = time.monotonic()
    out, _ = run(*ARGUMENTS, cwd=workplace)
    assert "2 of 2 runs are finished" in out
    assert "starting" not in out
    assert time.monotonic() - started < 60
    assert (folder / "comparison.html").read_bytes() == before


def test_a_report_of_an_unfinished_study_names_what_is_missing(
    study: tuple[Path, str], workplace: Path
) -> None:
    out, _ = run(*ARGUMENTS, "4", "--report", cwd=workplace)
    assert "baseline" in out
    assert "seed 4" in out
    assert not (study[0] / "baseline" / "seed4").exists(), "a report trains nothing"


def test_a_report_remembers_the_rungs_of_earlier_calls(study: tuple[Path, str], workplace: Path) -> None:
    run(*ARGUMENTS[:3], "--kinds", "baseline", "--seeds", "3", "--report", cwd=workplace)
    comparison = json.loads((study[0] / "comparison.json").read_text())
    assert [result["rung"]["name"] for result in comparison["results"]] == ["baseline", "deep_supervision"]


def test_of_the_whole_ladder_terms_without_weight_are_left_out(
    study: tuple[Path, str], workplace: Path
) -> None:
    out, _ = run(*ARGUMENTS[:3], "method.feature.weight=0", "--seeds", "3", "--report", cwd=workplace)
    off = "reparam (method.reparam.copies=0), +feature (method.feature.weight=0)"
    assert f"left out, for it would add nothing: {off}" in out


def test_a_rung_whose_network_cannot_be_built_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    write_config(tmp_path / "tiny.yaml")
    wrong = "--rung", "odd:method.kind=deep_supervision,method.branches.taps=[3,no.such.module]"
    _, err = run("compare", "tiny.yaml", "--kinds", "baseline", *wrong, "--seeds", "0", cwd=tmp_path, code=2)
    assert "error: rung odd: method.branches.taps" in err
    assert "no.such.module" in err
    assert not [path for path in (tmp_path / "runs" / "tiny_compare").iterdir() if path.name[0] != "."], (
        "nothing"
    )


def test_trainings_read_the_settings_that_the_study_began_with(study: tuple[Path, str]) -> None:
    folder, _ = study
    given = (folder / "baseline" / "seed3.yaml").read_text()
    assert (
        given.replace("resume: true", "resume: false") == (folder / "baseline/seed3/config.yaml").read_text()
    )


def test_what_is_timed_is_what_was_trained(
    study: tuple[Path, str], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the configuration was edited meanwhile, into one that cannot be read."""
    timed: dict[str, Config] = {}

    def seconds(configs: dict[str, Config], **_: object) -> dict[str, float]:
        timed.update(configs)
        return dict.fromkeys(configs, 1.0)

    monkeypatch.setattr(compare, "seconds_per_step", seconds)
    monkeypatch.chdir(workplace)
    planned = plan_study(
        Path("tiny.yaml"), ["train.epochs=6"], kinds=ARGUMENTS[4:6], rungs=(), seeds=[3], out=None
    )
    cost, source = planned.folder.cost.read_bytes(), (workplace / "tiny.yaml").read_text()
    planned.folder.cost.unlink()
    (workplace / "tiny.yaml").write_text("no: configuration\n")
    try:
        compare.measure_cost(planned, console=new_console(quiet=True))
    finally:
        (workplace / "tiny.yaml").write_text(source)
        planned.folder.cost.write_bytes(cost)
    assert {name: config.method.kind for name, config in timed.items()} == {
        "baseline": "baseline",
        "deep_supervision": "deep_supervision",
    }
    assert all(config.data.size == (64, 96) for config in timed.values())


def test_a_run_whose_export_failed_counts_and_one_whose_export_was_stopped_goes_on(
    study: tuple[Path, str], workplace: Path
) -> None:
    folder = study[0] / "deep_supervision" / "seed3"
    summary, log = folder / "summary.json", folder.with_suffix(".log")
    (folder / "primary.onnx").unlink()
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"onnx": None}))
    said = log.read_text()
    log.write_text(f"{said}\nerror: no room\n")
    out, _ = run(*ARGUMENTS, "--report", cwd=workplace)
    assert "2 of 2 runs are finished" in out
    assert "Missing" not in out
    assert "without an ONNX file, as the export did not come to its end: deep_supervision, seed 3" in out
    assert "seed3.yaml --resume" in out
    log.write_text(said)
    out, _ = run(*ARGUMENTS, cwd=workplace)
    assert "1 of 2 runs are finished" in out
    assert "without an ONNX file" not in out
    assert (folder / "primary.onnx").is_file()


MISTAKES = {
    "other settings": (
        ("train.epochs=3",),
        ("train.epochs: 6 when it was started, 3 now", "another folder by --out", "or remove this folder"),
    ),
    "misspelt override": (("--rung", "wide:method.branches.widht=4"), ("rung wide", "did you mean 'width'")),
    "malformed rung": (("--rung", "wide"), ("name:key=value",)),
    "a rung on other data": (
        ("--rung", "big:data.size=[96,96]"),
        ("rung big", "data.size", "same for all rungs"),
    ),
    "a section with other data in it": (
        ("--rung", "big:method.kind=baseline,data={size: [96, 96]}"),
        ("rung big", "same for all rungs"),
    ),
    "a seed as override": (("seed=4",), ("seed=4", "--seeds")),
    "weights that a comparison chooses": (
        ("export.weights=best",),
        ("a comparison decides export.weights itself; the last epoch's weights are scored",),
    ),
    "a rung that resumes": (("--rung", "mine:train.resume=true"), ("rung mine", "the same command goes on")),
    "a term without weight": (
        ("method.feature.weight=0", "--kinds", "baseline", "+feature"),
        ("rung +feature: method.feature.weight is 0", "--kinds"),
    ),
    "a kind without what it adds": (
        ("--kinds", "baseline", "reparam"),
        (
            "rung reparam: 1 problem in the configuration tiny.yaml:\n  method.kind=reparam would be plain "
            "training while method.reparam.copies is 0",
        ),
    ),
    "a folder below a file": (("--out", "tiny.yaml/study"), ("--out tiny.yaml/study cannot be written",)),
    "seed twice": (("--seeds", "3", "3"), ("--seeds: 3 is given twice",)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_before_anything_is_trained(
    study: tuple[Path, str], workplace: Path, mistake: str
) -> None:
    arguments, words = MISTAKES[mistake]
    _, err = run(*ARGUMENTS, *arguments, cwd=workplace, code=2)
    for word in words:
        assert word in err
    assert "Traceback" not in err


def test_late_losses_go_on_from_what_deep_supervision_has_trained(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And end, to the bit, where the same training ends that is done from its start."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    late = [f"method.{loss}.ramp=[[0.5,0],[0.75,1]]" for loss in ("logit", "feature", "adversarial")]
    settings = ("tiny.yaml", "train.epochs=4", "train.ema_decay=0.9", *late)
    kinds = ("--kinds", "deep_supervision", "self_distill", "--seeds", "3", "--out", "shared")
    out, _ = run("compare", *settings, *kinds, cwd=workplace)
    assert "starting after epoch 2 of deep_supervision, seed 3, equal until there: self_distill" in out
    own = ("seed=3", "method.kind=self_distill", "out=alone", "export.weights=last")
    run("train", *settings, *own, cwd=workplace)
    shared, alone = workplace / "shared" / "self_distill" / "seed3", workplace / "alone"
    assert "did, equal until there: self_distill 2 (by deep_supervision)." in out
    rows = [
        [
            {key: value for key, value in json.loads(line).items() if key != "seconds"}
            for line in (folder / "metrics.jsonl").read_text().splitlines()
        ]
        for folder in (shared, alone)
    ]
    assert rows[0] == rows[1]
    assert {"logit", "feature", "adversarial"} <= set(rows[0][3]["train"])
    ours, theirs = (load_file(folder / "primary.safetensors") for folder in (shared, alone))
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    best = [json.loads((folder / "summary.json").read_text())["best"] for folder in (shared, alone)]
    assert best[0] == best[1]
    said = run("evaluate", shared, "--weights", "best", cwd=workplace)[0]
    assert f"{100 * best[1]['miou']:.2f}" in said, "the best checkpoint came along"


def test_more_devices_at_a_time_than_there_are_is_told_before_the_training() -> None:
    def study(devices: int | str, accelerator: str = "auto") -> Config:
        train = {"devices": devices, "accelerator": accelerator}
        return Config.model_validate({"name": "study", "train": train})

    for config, jobs, gpus in (
        (study(2), 2, 4),
        (study(2), 1, 2),
        (study(1), 4, 2),
        (study("auto"), 2, 2),
        (study(2, "cpu"), 2, 2),
        (study(2), 2, 0),
    ):
        refuse_too_few_gpus(config, jobs=jobs, gpus=gpus)
    with pytest.raises(ConfigError, match=r"--jobs 3 .* wants 6 GPUs, and there are 4; use --jobs 2"):
        refuse_too_few_gpus(study(2), jobs=3, gpus=4)
