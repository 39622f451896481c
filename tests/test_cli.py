"""Where overrides may stand on the command line, and what does not wait for torch."""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import ROOT

from segdistill.cli import _TEXT_OPTIONS, INTERRUPTED, parse, parser
from segdistill.commands.versions import versions


@pytest.mark.parametrize(
    ("words", "overrides"),
    [
        ("train c.yaml a.b=1 c=2", ["a.b=1", "c=2"]),
        ("train c.yaml a=1 --resume a=2 a=3", ["a=1", "a=2", "a=3"]),
        ("train a=1 c.yaml", ["a=1"]),
        (
            "compare c.yaml --kinds baseline x.y=[1,2] --seeds 3 4 z=3 --jobs 2 q=1",
            ["x.y=[1,2]", "z=3", "q=1"],
        ),
    ],
)
def test_overrides_may_stand_anywhere_in_their_order(words: str, overrides: list[str]) -> None:
    arguments = parse(words.split())
    assert arguments.overrides == overrides
    assert str(arguments.config) == "c.yaml"


def test_values_of_options_stay_with_them() -> None:
    arguments = parse(["compare", "c.yaml", "--out", "a=b", "--rung", "wide:x.y=1,z=2", "--seeds", "3", "4"])
    assert (str(arguments.out), arguments.rung, arguments.seeds) == ("a=b", ["wide:x.y=1,z=2"], [3, 4])
    assert arguments.overrides == []


def test_paths_that_look_like_overrides_are_paths() -> None:
    arguments = parse(["predict", "k=v/run", "k=v/a.png", "--out", "a=b"])
    assert (str(arguments.model), str(arguments.source), str(arguments.out)) == (
        "k=v/run",
        "k=v/a.png",
        "a=b",
    )
    assert str(parse(["prepare-data", "cityscapes", "k=v"]).root) == "k=v"
    arguments = parse(["export", "run", "--web", "a=b", "--web-runtime", "c=d", "data.root=x"])
    assert (str(arguments.web), str(arguments.web_runtime), arguments.overrides) == (
        "a=b",
        "c=d",
        ["data.root=x"],
    )


def test_what_is_there_is_the_run_though_it_looks_like_an_override(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1e-3").mkdir()
    for command, name in (("evaluate", "model"), ("export", "run_folder"), ("train", "config")):
        arguments = parse([command, "lr=1e-3", "seed=1"])
        assert (str(getattr(arguments, name)), arguments.overrides) == ("lr=1e-3", ["seed=1"])
    arguments = parse(["evaluate", "run", "lr=1e-3"])
    assert (str(arguments.model), arguments.overrides) == ("run", ["lr=1e-3"])


def test_every_option_that_names_a_path_may_look_like_an_override() -> None:
    def options(one: argparse.ArgumentParser) -> Iterator[str]:
        for action in one._actions:
            if isinstance(action, argparse._SubParsersAction):
                for below in action.choices.values():
                    yield from options(below)
            elif action.type is Path:
                yield from action.option_strings

    assert set(options(parser())) <= set(_TEXT_OPTIONS)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("predict run photos --out x a=1", "unrecognized arguments: a=1"),
        ("train c.yaml --seed 3", "unrecognized arguments: --seed"),
        ("train c.yaml --resume --overwrite", "argument --overwrite: not allowed with argument --resume"),
        ("compare c.yaml --seeds x", "argument --seeds: 'x' should be a whole number of at least 0"),
        ("compare c.yaml --jobs 0", "argument --jobs: '0' should be a whole number of at least 1"),
        ("compare c.yaml --kinds basline", "invalid choice: 'basline'"),
        ("prepare-data camvid a=1", "unrecognized arguments: a=1"),
        ("prepare-data cityscapes", "the following arguments are required: ROOT"),
        ("prepare-data cityscape .", "invalid choice: 'cityscape'"),
    ],
)
def test_what_no_command_knows_is_refused(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(words.split())
    assert end.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("train", "config"),
        ("compare", "config"),
        ("evaluate", "RUN|FILE.onnx|CONFIG.yaml"),
        ("export", "RUN"),
        ("prepare-data stats", "config"),
    ],
)
def test_a_command_tells_by_its_own_usage_what_it_lacks_and_does_not_know(
    command: str, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, told in (
        (command, f"the following arguments are required: {missing}"),  # overrides are not
        (f"{command} x --batch-size 4", "unrecognized arguments: --batch-size 4"),
    ):
        with pytest.raises(SystemExit):
            parse(words.split())
        usage, _, error = capsys.readouterr().err.partition("error: ")
        assert usage.startswith(f"usage: segdistill {command} [-h]")
        assert error == told + "\n"


def test_export_says_that_confidence_is_one_map(capsys: pytest.CaptureFixture[str]) -> None:
    """Not one for each class: tests/export/test_onnx.py sees what the graph gives."""
    with pytest.raises(SystemExit):
        parse(["export", "--help"])
    _, _, told = " ".join(capsys.readouterr().out.split()).partition("--confidence image: ")
    assert told.startswith("also give the softmax of the class that was chosen, one map, 0 to 1")


def test_the_versions_are_those_that_a_summary_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(["--version"])
    assert not end.value.code
    assert dict(line.split() for line in capsys.readouterr().out.splitlines()) == versions()


def test_the_kinds_of_prepare_data() -> None:
    arguments = parse(["prepare-data", "camvid", "--root", "a=b", "--archive", "c.zip"])
    assert (str(arguments.root), str(arguments.archive)) == ("a=b", "c.zip")
    arguments = parse(["prepare-data", "cityscapes", "here", "--quick"])
    assert (str(arguments.root), arguments.quick) == ("here", True)
    arguments = parse(["prepare-data", "stats", "data.root=x", "c.yaml", "--out", "o.json"])
    assert (str(arguments.config), arguments.overrides) == ("c.yaml", ["data.root=x"])
    assert str(arguments.out) == "o.json"


@pytest.mark.parametrize("tool", sorted((ROOT / "tools").glob("*.py")), ids=lambda tool: tool.stem)
def test_every_tool_is_its_command(tool: Path) -> None:
    done = subprocess.run([sys.executable, tool, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: segdistill {tool.stem.replace('_', '-')} [-h]")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train c.yaml train.epoch=3", "train.epoch: unknown key; did you mean 'epochs'?"),
        ("compare c.yaml train.epoch=3", "train.epoch: unknown key; did you mean 'epochs'?"),
        ("train c.yaml model.encoder_weights=bundled", "exists for tu-tf_efficientnet_lite0 only"),
        ("evaluate runs/mine", "runs/mine is not the folder of a run: it has no config.yaml"),
        ("evaluate mine.onnx", "mine.onnx: no such file; make it by tools/export.py RUN"),
        ("evaluate c.yaml", "c.yaml is a configuration, which names data but no network"),
        ("export runs/mine", "runs/mine is not the folder of a run"),
        ("predict runs/mine c.yaml --out there", "runs/mine is not the folder of a run"),
        ("predict c.yaml c.yaml --out there", "c.yaml is neither the folder of a run nor an ONNX file"),
        ("predict run mine.png --out there", "mine.png: no such image, folder or video"),
    ],
)
def test_mistakes_are_told_before_torch_is_imported(words: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: mine\nmodel: {encoder: resnet18, encoder_weights: none}\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    script = "import sys; from segdistill.cli import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    command = [sys.executable, "-c", script, *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert told in done.stderr
    assert done.stdout == "2 False\n"


def test_a_training_whose_study_is_gone_does_not_go_on(tmp_path: Path) -> None:
    command = [
        sys.executable,
        ROOT / "tools" / "train.py",
        ROOT / "configs" / "synthetic_unet.yaml",
        "out=run",
    ]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone = os.environ | {"SEGDISTILL_STUDY": str(ended.pid)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=gone, timeout=120)
    assert done.returncode == INTERRUPTED, done.stderr
    assert not (tmp_path / "run" / "summary.json").exists()
