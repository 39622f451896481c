"""`tools/export.py` and what reads its files, as users start them."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from networks import NORMALISATION, described
from program import TINY, run, write_config
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segdistill.build.splits import build_samples
from segdistill.cli import main
from segdistill.commands import checked_export, export, export_int8
from segdistill.commands.checked_export import Exported, Split, export_checked
from segdistill.commands.deploy import export_of_some_size
from segdistill.commands.export_int8 import quantisation_in_words
from segdistill.commands.trained import Trained
from segdistill.commands.wanted_file import Wanted
from segdistill.config import Config
from segdistill.config_io import dump_config
from segdistill.console import new_console
from segdistill.data.samples import Samples
from segdistill.data.synthetic import SyntheticStreets
from segdistill.data.taxonomy import CAMVID
from segdistill.export import quantize
from segdistill.export.check import Check
from segdistill.export.description import Description, Quantisation
from segdistill.export.onnx import Cost
from segdistill.export.onnx_file import OnnxFile
from segdistill.export.parity import Parity
from segdistill.export.quantize import needs_reduce_range
from segdistill.export.snippet import python_snippet
from segdistill.export.weights import Deployed

pytestmark = pytest.mark.training
FIXED = ("--batch", "1", "--size", "64x96")  # exported several times as fast as free shapes


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_config(folder / "tiny.yaml")
    run("train", "tiny.yaml", "train.epochs=1", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def finished(workplace: Path) -> Path:
    return workplace / "runs" / "tiny"


@pytest.fixture(scope="module")
def family(finished: Path, workplace: Path) -> tuple[Path, str]:
    """Every stream as an image graph: the folder of the files, and what was printed."""
    out, _ = run(
        *(
            "export",
            finished,
            "--stream",
            "all",
            "--input",
            "image",
            "--confidence",
            "--out",
            "family",
            *FIXED,
        ),
        cwd=workplace,
    )
    return workplace / "family", out


def miou_of(summary: Path) -> dict[str, float]:
    miou = json.loads(summary.read_text())["miou"]
    return {"primary": miou["primary"], **miou["branches"]}


def test_one_training_gives_a_family(family: tuple[Path, str], finished: Path) -> None:
    folder, out = family
    names = [
        "primary_image_confidence_64x96.onnx",
        "branch3_image_confidence_64x96.onnx",
        "branch4_image_confidence_64x96.onnx",
    ]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names), "nothing beside the files"
    assert "MACs and latency: of an image that the network sees at 64x96" in " ".join(out.split())
    rows = {name: next(line for line in out.splitlines() if f"│ {name}" in line) for name in names}
    for name, (stream, miou) in zip(names, miou_of(finished / "summary.json").items(), strict=True):
        assert name.startswith(stream)
        description = OnnxFile(folder / name).description
        assert description.stream == stream
        # An image graph resizes by itself; the scenes have the network's size, so nothing is resized.
        assert description.score.miou == pytest.approx(miou, abs=1e-3)
        assert f"{100 * description.score.miou:.2f}" in rows[name]
        assert f"{(folder / name).stat().st_size / 1e6:.1f} MB" in rows[name]
    parameters = [float(rows[name].split("│")[3].split()[0]) for name in names]
    summary = json.loads((finished / "summary.json").read_text())
    assert parameters[0] == pytest.approx(summary["parameters"] / 1e6, abs=0.006)


def test_evaluate_scores_a_file_by_onnx_runtime(family: tuple[Path, str], workplace: Path) -> None:
    folder, _ = family
    out, _ = run(
        "evaluate", folder / "branch4_image_confidence_64x96.onnx", "--out", "scores.json", cwd=workplace
    )
    scores = json.loads((workplace / "scores.json").read_text())
    expected = OnnxFile(folder / "branch4_image_confidence_64x96.onnx").description.score.miou
    assert scores["streams"]["branch4"]["miou"] == expected
    assert scores["protocol"]["weights"] == "fp32 image file under ONNX Runtime"
    assert "bicyclist" in out


def test_lines_that_run_the_first_file_are_printed_as_they_are(family: tuple[Path, str]) -> None:
    """That they run, tests/export/test_snippet.py sees."""
    folder, out = family
    assert f"\n{python_snippet(OnnxFile(folder / 'primary_image_confidence_64x96.onnx'))}\n" in out


def with_head_bias(finished: Path, folder: Path, bias: Tensor) -> Path:
    """A copy of the run whose network prefers classes by `bias`."""
    shutil.copytree(finished, folder)
    path = folder / "primary.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(path) | {"segmentation_head.0.bias": bias}, path, metadata=metadata)
    return folder


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_numbers_keep_the_score(precision: str, finished: Path, workplace: Path) -> None:
    # After one epoch the classes are too close to each other for 99.9 % of pixels to survive rounding.
    folder = with_head_bias(finished, workplace / f"sure_{precision}", 3.0 * torch.arange(11.0))
    target = workplace / f"{precision}.onnx"
    calibration = ("--calibration-images", "6") if precision == "int8" else ()
    options = ("--precision", precision, *calibration, "--out", target, *FIXED)
    out, _ = run("export", folder, *options, cwd=workplace)
    assert "x as fast as fp32 on this CPU" in out
    description = OnnxFile(target).description
    assert description.precision == precision
    how = Quantisation(7 if needs_reduce_range() else 8, "minmax", 6)
    assert description.quantisation == (how if precision == "int8" else None)
    assert (quantisation_in_words(how) in " ".join(out.split())) == (precision == "int8")
    assert f"{100 * description.score.miou:.2f}" in out
    model = onnx.load(str(target))
    weights = [one for one in model.graph.initializer if len(one.dims) == 4]
    kind = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.INT8
    smaller = sum(one.data_type == kind for one in weights)
    assert smaller == len(weights) if precision == "fp16" else smaller > len(weights) / 2
    assert target.stat().st_size < 0.6 * (finished / "primary.onnx").stat().st_size
    assert not list(workplace.glob(".unchecked*"))


def test_who_gets_a_file_for_new_cpus_is_told_how_to_get_one_for_older_ones() -> None:
    said = quantisation_in_words(Quantisation(8, "minmax", 1))
    assert "On x86 CPUs without VNNI sums of such weights saturate" in said
    assert "export it with --reduce-range" in said
    assert quantisation_in_words(Quantisation(7, "minmax", 1)) == Quantisation(7, "minmax", 1).words


@pytest.mark.parametrize("asked", [False, True])
def test_int8_says_that_its_weights_are_for_older_cpus(
    asked: bool, finished: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether that was asked for, or chosen because this CPU is one."""
    monkeypatch.setattr(quantize, "needs_reduce_range", lambda: not asked)
    target = workplace / f"older_{asked}.onnx"
    ways = ("--calibration-images", "3", "--calibration", "percentile", *(["--reduce-range"] * asked))
    out, _ = run("export", finished, "--precision", "int8", *ways, "--out", target, *FIXED, cwd=workplace)
    how = Quantisation(7, "percentile", 3)
    assert OnnxFile(target).description.quantisation == how
    assert how.words in " ".join(out.split())
    assert "for these export it" not in out
    weights = map(onnx.numpy_helper.to_array, onnx.load(str(target)).graph.initializer)
    assert max(np.abs(one).max() for one in weights if one.dtype == np.int8 and one.ndim == 4) == 64


def test_int8_of_all_streams_looks_at_the_training_images_once(
    finished: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits: list[str] = []
    calibrations: list[list[np.ndarray]] = []
    done = Exported(finished / "primary.onnx", Cost(1, 1), Check("int8", Parity(1, 1.0, None, 1.0)))

    def counted(config: Config, split: str, **keywords: Any) -> Samples:
        splits.append(split)
        return build_samples(config, split, **keywords)

    def exported(*_: Any, calibration: list[np.ndarray], **__: Any) -> Exported:
        calibrations.append(calibration)
        return done

    monkeypatch.setattr(export_int8, "build_samples", counted)
    monkeypatch.setattr(export, "export_checked", exported)
    run(
        *("export", finished, "--stream", "all", "--precision", "int8", "--calibration-images", "6"),
        cwd=workplace,
    )
    assert splits == ["train"]
    assert len(calibrations) == 3
    assert len(calibrations[0]) == 6
    assert all(one is calibrations[0] for one in calibrations)


@pytest.mark.parametrize("kind", ["tensor", "image"])
def test_a_file_that_fails_its_check_does_not_stay(kind: str, finished: Path, workplace: Path) -> None:
    # torch and ONNX Runtime both give NaN, and nothing is equal to it.
    broken = with_head_bias(finished, workplace / f"broken_{kind}", torch.full((11,), math.nan))
    before = sorted(one.name for one in broken.iterdir())
    arguments = ("--out", "broken.onnx", "--input", kind, *FIXED)
    out, err = run("export", broken, *arguments, cwd=workplace, code=2)
    assert "equal argmax" in out
    assert "FAILED" in out
    assert "broken.onnx was not written" in err
    assert sorted(one.name for one in broken.iterdir()) == before
    assert not list(workplace.glob("*broken.onnx*"))


def test_what_is_wrong_with_a_file_is_told_of_the_place_it_was_for(finished: Path, workplace: Path) -> None:
    broken = with_head_bias(finished, workplace / "beyond", torch.full((11,), 1e6))
    _, err = run(
        "export", broken, "--precision", "fp16", "--out", "beyond.onnx", *FIXED, cwd=workplace, code=2
    )
    assert "beyond.onnx: " in err
    assert "has a value of 1e+06, beyond fp16's 65504" in err
    assert "unchecked" not in err
    assert not (workplace / "beyond.onnx").exists()


@pytest.mark.parametrize(("fit", "size"), [("resize", "90x110"), ("pad", "40x52")])
def test_a_file_of_images_of_another_size_is_held_against_torch_that_sees_the_same(
    fit: str, size: str, finished: Path, workplace: Path
) -> None:
    """Larger or smaller than the 64x96 of training and of the labels."""
    target = workplace / f"{fit}_{size}.onnx"
    options = ("--input", "image", "--fit", fit, "--batch", "1", "--size", size, "--out", target)
    out, _ = run("export", finished, *options, cwd=workplace)
    seen = size if fit == "pad" else "64x96"
    assert f"MACs and latency: of an image that the network sees at {seen}" in " ".join(out.split())
    score = OnnxFile(target).description.score
    assert score.protocol.scored_at == "label size, classes as the file gives them"
    run("evaluate", target, "--out", "scores.json", cwd=workplace)
    assert json.loads((workplace / "scores.json").read_text())["streams"]["primary"]["miou"] == score.miou


def test_a_file_for_another_size_is_held_against_torch_at_that_size(finished: Path, workplace: Path) -> None:
    run("export", finished, "--out", ".", "--batch", "1", "--size", "90x70", cwd=workplace)
    score = OnnxFile(workplace / "primary_90x70.onnx").description.score
    assert score.of == "this file"
    assert score.protocol.input_size == (90, 70)
    out, _ = run("evaluate", "primary_90x70.onnx", "--out", "scores.json", cwd=workplace)
    assert json.loads((workplace / "scores.json").read_text())["streams"]["primary"]["miou"] == score.miou
    assert "whole image at 90x70" in out


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (Wanted(), "primary.onnx"),
        (Wanted(precision="fp16", batch=1, size=(96, 128)), "primary_fp16_96x128.onnx"),
        (Wanted(input="image", layout="nhwc", fit="resize"), "primary_image.onnx"),
        (Wanted(input="image", layout="nhwc", fit="pad"), "primary_image_pad.onnx"),
        (
            Wanted(input="image", layout="nchw", fit="resize", confidence=True, precision="int8"),
            "primary_image_nchw_confidence_int8.onnx",
        ),
    ],
)
def test_files_that_take_or_give_something_else_have_other_names(wanted: Wanted, name: str) -> None:
    assert wanted.file_name("primary") == name


MISTAKES = {
    "out": (("--out", "model.pth"), ("--out model.pth: name a file that ends in .onnx, or a folder",)),
    "stream": (("--stream", "branch9"), ("no stream 'branch9'", "primary, branch3, branch4, or all")),
    "opset": (("--opset", "17"), ("opset 17 cannot be written", "18 to")),
    "size": (("--size", "big"), ("'big' should be height x width",)),
    "confidence": (("--confidence",), ("--confidence needs --input image",)),
    "web": (("--web", "page"), ("--web needs --input image",)),
    "web runtime": (("--web-runtime", "archive.tgz"), ("--web-runtime needs --web DIR",)),
    "fit": (("--fit", "resize"), ("--fit needs --input image",)),
    "layout": (("--layout", "nhwc"), ("--layout nhwc needs --input image",)),
    "calibration": (("--calibration", "entropy"), ("need --precision int8",)),
    "setting": (("data.size=[32,32]",), ("data.size=[32,32]", "stays", "data.root=DIR")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told(
    mistake: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, words = MISTAKES[mistake]
    err = told(capsys, "export", str(finished), "--out", str(tmp_path / "new" / "mistake.onnx"), *arguments)
    for word in words:
        assert word in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--out", "--web"])
def test_a_place_that_cannot_be_written_is_told_before_a_network_is_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(dump_config(Config.model_validate(TINY)))
    (tmp_path / "file").touch()
    place = str(tmp_path / "file" / "a.onnx")
    err = told(capsys, "export", str(tmp_path / "run"), "--input", "image", option, place)
    assert f"{option} {place} cannot be written: " in err
    assert "name a folder that you may write to" in err


def test_a_page_that_cannot_be_is_told_before_the_work(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    file, here = tmp_path / "image.onnx", str(tmp_path)
    wanted = ("export", str(finished), "--input", "image", "--out", str(file), "--web")
    assert "thesis.tex" in told(capsys, *wanted, here)
    absent = (str(tmp_path / "page"), "--web-runtime", str(tmp_path / "absent.tgz"))
    assert "absent.tgz: no such file" in told(capsys, *wanted, *absent)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the program prints when it ends with code 2, in this process."""
    try:
        code = main(arguments)
    except SystemExit as end:  # argparse
        code = end.code
    assert code == 2
    return capsys.readouterr().err


def test_files_of_others_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "words.onnx").write_text("not a model")
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(tmp_path / "theirs.onnx"))
    for name, words in (
        ("words.onnx", "ONNX Runtime cannot load it"),
        ("theirs.onnx", "was not exported by segdistill"),
        ("none.onnx", "no such file"),
    ):
        err = told(capsys, "evaluate", str(tmp_path / name))
        assert name in err
        assert words in err


@pytest.fixture(scope="module")
def moved(finished: Path, workplace: Path) -> Path:
    """A copy of the run whose images are not on this machine."""
    folder = workplace / "moved"
    shutil.copytree(finished, folder)
    config = (folder / "config.yaml").read_text()
    absent = config.replace("kind: synthetic", "kind: camvid").replace("root: null", "root: nowhere")
    (folder / "config.yaml").write_text(absent)
    return folder


def test_int8_without_the_data_is_refused_before_anything_is_exported(
    moved: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        pytest.fail("it was exported")

    monkeypatch.setattr(checked_export, "export_onnx", never)
    options = ("--precision", "int8", "--out", "moved_int8.onnx", *FIXED)
    _, err = run("export", moved, *options, cwd=workplace, code=2)
    assert "int8 needs the run's training and validation images" in err
    assert not list(workplace.glob("*moved_int8*"))


def test_without_the_data_the_file_keeps_the_trainings_score(
    moved: Path, finished: Path, workplace: Path
) -> None:
    out, _ = run("export", moved, "--out", "moved.onnx", *FIXED, cwd=workplace)
    assert "not at hand" in out
    assert "data.root=DIR" in out
    description: Description = OnnxFile(workplace / "moved.onnx").description
    assert description.score.miou == miou_of(finished / "summary.json")["primary"]
    _, err = run("export", moved, "--out", "named.onnx", "data.root=there", *FIXED, cwd=workplace, code=2)
    assert "there holds no val, valannot of CamVid" in err, "who names a folder means it"
    for name, content in (("val/a.png", b"no image"), ("valannot/a.png", b"no mask")):
        (workplace / "nowhere" / name).parent.mkdir(parents=True)
        (workplace / "nowhere" / name).write_bytes(content)
    _, err = run("export", moved, "--out", "damaged.onnx", *FIXED, cwd=workplace, code=2)
    assert "not an image" in err, "what is there is not called absent"
    assert not (workplace / "named.onnx").exists()
    assert not (workplace / "damaged.onnx").exists()


def test_macs_are_those_of_the_image_that_is_timed(tmp_path: Path) -> None:
    """A photo of another size than the training's, which the file takes as it is."""
    network = nn.Conv2d(3, 11, 1).eval()
    deployed = Deployed("unet", {}, CAMVID, NORMALISATION, (64, 96), 32)
    trained = Trained("primary", network, deployed, Config.model_validate(TINY), described().score)
    photos = SyntheticStreets(split="val", length=2, height=90, width=110, seed=0)
    wanted = Wanted(input="image", layout="nhwc", fit="pad")
    split, console = Split(photos, scored=False), new_console(quiet=True)
    exported = export_checked(tmp_path / "a.onnx", trained, wanted, split, console=console)
    assert exported.cost.macs == 96 * 128 * 3 * 11


class OfOneSize(nn.Module):
    """Gives every pixel its colour for 11 logits, and takes images of 64x96 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 11, 1)

    def forward(self, image: Tensor) -> Tensor:
        heights = {64: 1.0}  # [bold]64[/bold] alone: of any height there is none to look up
        return heights[image.shape[-2]] * self.head(image)


def test_a_network_for_one_size_is_exported_for_that_size_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config.model_validate(TINY)
    deployed = Deployed("unet", {}, CAMVID, NORMALISATION, (64, 96), 32)
    trained = Trained("primary", OfOneSize().eval(), deployed, config, described().score)
    split = Split(build_samples(config, "val", console=new_console(quiet=True)), scored=False)
    file = tmp_path / "primary.onnx"
    exported = export_of_some_size(file, trained, split, console=new_console())
    assert OnnxFile(file).fixed_size == (64, 96)
    assert exported.check.holds
    printed = " ".join(capsys.readouterr().out.split())
    assert "so primary.onnx is exported for images of 64x96 alone" in printed
    assert "unchecked" not in printed
