"""`segdistill evaluate` to the last file: runs, checkpoints and ONNX files, looked at in every way."""

import csv
import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from networks import NORMALISATION, described
from PIL import Image
from program import TINY, launch, write_config
from summaries import SUMMARY
from tiny_models import TAXONOMY, convolution, write_deployed, write_onnx

from segdistill.build.datasets import build_eval_dataset
from segdistill.build.network import build_net
from segdistill.build.splits import build_samples, build_splits, data_hash
from segdistill.cli import main
from segdistill.commands import evaluate as evaluate_command
from segdistill.commands.export import split_at_hand
from segdistill.commands.run_folder import RunFolder
from segdistill.config import Config
from segdistill.config_io import dump_config
from segdistill.console import new_console
from segdistill.data.samples import names_of
from segdistill.data.taxonomy import CAMVID
from segdistill.errors import DataError
from segdistill.evaluation.evaluator import evaluate
from segdistill.evaluation.predictors import MultiBranchPredictor, PlainPredictor
from segdistill.export.description import CLASS_INDEX, RGB_IMAGE, Fit
from segdistill.export.weights import load_deployed
from segdistill.training.checkpoint import save_checkpoint

SIZE = (64, 96)
NAMES = CAMVID.names
CONFIG = Config.model_validate(TINY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run`: a run folder as a training leaves it, with random weights. Its data are five drawn streets."""
    place = tmp_path_factory.mktemp("evaluate")
    (place / "run").mkdir()
    write_deployed(place / "run" / "primary.safetensors", size=SIZE)
    (place / "run" / "config.yaml").write_text(dump_config(CONFIG))
    module = build_net(CONFIG).state_dict()
    position = {"epoch": 2, "normalisation": tuple(NORMALISATION)}
    state = {"ema": None, "learner": {"module": module}, "position": position}
    save_checkpoint(place / "run" / "checkpoints" / "last.pt", state=state, config="", versions={})
    return place


def on(place: Path) -> str:
    """What the names of result files say of the data of another folder."""
    return f"_on_{place.name}_{hashlib.sha256(str(place).encode()).hexdigest()[:8]}"


def scored(*arguments: Any, target: Path) -> dict[str, Any]:
    assert main(["evaluate", *map(str, arguments), "--out", str(target)]) == 0
    return json.loads(target.read_text())


def in_torch(predictor: Any) -> dict[str, list[list[int]]]:
    """The confusions that training's own evaluation finds, by stream."""
    samples = build_samples(CONFIG, "val", console=new_console(quiet=True))
    dataset = build_eval_dataset(CONFIG, samples, normalisation=NORMALISATION)
    items = [dataset[index] for index in range(len(dataset))]
    return {name: one.iou for name, one in evaluate(predictor, items, CAMVID).items()}


def test_the_deployed_network_with_all_scores_and_how_they_came_about(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(folder / "run")]) == 0
    printed = capsys.readouterr().out
    found = json.loads((folder / "run" / "evaluation_val_deployed.json").read_text())
    scores, how = found["streams"]["primary"], found["protocol"]
    network = write_deployed(folder / "same.safetensors", size=SIZE)
    expected = in_torch(PlainPredictor(network, multiple=32, device=torch.device("cpu")))["primary"]
    assert [scores["iou"][name] for name in NAMES] == [None if iou != iou else iou for iou in expected]
    for key in ("frequency_weighted_iou", "mean_accuracy", "boundary_miou", "expected_calibration_error"):
        assert 0 < scores[key] < 1
    assert how == {
        "data": "synthetic",
        "split": "val",
        "images": 5,
        "input_size": [64, 96],
        "view": "whole image",
        "test_time_augmentation": None,
        "scored_at": "label size, logits resized bilinearly",
        "ignored": "void pixels",
        "weights": "last epoch (deployed)",
        "epochs": 3,
        "training_crop": [64, 96],
        "sampling": "uniform",
        "boundary": "within 0.02 of the diagonal (2 px) of an outline",
        "calibration": "15 bins of the largest softmax",
        "split_hash": data_hash(build_splits(CONFIG, ("val",), console=new_console(quiet=True))),
    }
    words = (
        "5 images",
        "whole image at 64x96",
        "augmentation: none",
        "last epoch (deployed)",
        "(2 px)",
        "15 bins",
    )
    for word in (*words, "boundary IoU", "calibration error", "bicyclist"):
        assert word in printed
    rows = list(csv.reader((folder / "run" / "evaluation_val_deployed_confusion_primary.csv").open()))
    assert rows[0][1:] == [row[0] for row in rows[1:]] == list(NAMES)
    for name, *shares in rows[1:]:
        assert (sum(map(float, shares)) == pytest.approx(1)) if shares[0] else not any(shares), name
    picture = Image.open(folder / "run" / "evaluation_val_deployed_confusion_primary.png")
    assert min(picture.size) > 600


def test_a_window_that_covers_the_image_changes_nothing_and_a_smaller_one_does(
    folder: Path, tmp_path: Path
) -> None:
    whole = scored(folder / "run", target=tmp_path / "whole.json")
    over = scored(folder / "run", "--window", "64x96", "--stride", "64x96", target=tmp_path / "over.json")
    small = scored(folder / "run", "--window", "32x64", target=tmp_path / "small.json")
    assert over["streams"] == whole["streams"]
    assert small["streams"] != whole["streams"]
    assert small["protocol"]["view"].startswith("sliding window 32x64, stride 16x32")


@pytest.fixture
def two_sets(tmp_path: Path) -> Path:
    """A folder with two CamVids of one random image, `mine` and `yours`."""
    for name in ("mine", "yours"):
        for part, shape in {"val": (64, 96, 3), "valannot": (64, 96)}.items():
            (tmp_path / name / part).mkdir(parents=True)
            picture = np.random.default_rng(len(name)).integers(0, 11, shape, np.uint8)
            Image.fromarray(picture).save(tmp_path / name / part / "a.png")
    return tmp_path


def assert_of_other_data(other: Any, own: Any, place: Path) -> None:
    """All that their protocols differ by."""
    assert other["protocol"] == own["protocol"] | {
        "data_root": str(place),
        "split_hash": other["protocol"]["split_hash"],
    }
    assert other["protocol"]["split_hash"] != own["protocol"]["split_hash"]


def test_labels_that_are_not_those_of_the_training_any_more_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for name in range(count):
            for part, shape in (("images", (64, 96, 3)), ("masks", (64, 96))):
                (tmp_path / part / split).mkdir(parents=True, exist_ok=True)
                picture = rng.integers(0, 2, shape, np.uint8)
                Image.fromarray(picture).save(tmp_path / part / split / f"{name}.png")
    data = {
        "kind": "folder",
        "root": str(tmp_path),
        "size": [64, 96],
        "folder": {"images": "images", "masks": "masks", "classes": [{"name": "a"}, {"name": "b"}]},
    }
    run = tmp_path / "run"
    train = TINY["train"] | {"epochs": 1}  # type: ignore[operator]
    config = write_config(tmp_path / "own.yaml", data=data, method={"kind": "baseline"}, train=train)
    assert main(["train", str(config), f"out={run}"]) == 0
    told = "the val split is not what it was when the run ended"
    assert main(["evaluate", str(run)]) == 0
    assert told not in " ".join(capsys.readouterr().out.split())
    before = json.loads((run / "evaluation_val_deployed.json").read_text())["protocol"]["split_hash"]
    label = tmp_path / "masks" / "val" / "1.png"
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(label)
    assert main(["evaluate", str(run)]) == 0
    assert told in " ".join(capsys.readouterr().out.split())
    assert json.loads((run / "evaluation_val_deployed.json").read_text())["protocol"]["split_hash"] != before


def test_other_data_leave_the_runs_own_score_alone(two_sets: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_deployed(run / "primary.safetensors", size=SIZE)
    values = TINY | {"data": {"kind": "camvid", "root": str(tmp_path / "mine"), "size": [64, 96]}}
    (run / "config.yaml").write_text(dump_config(Config.model_validate(values)))
    for root in (None, tmp_path / "mine", tmp_path / "yours" / ".." / "yours"):
        assert main(["evaluate", str(run), *([] if root is None else [f"data.root={root}"])]) == 0
    found = {path.name: json.loads(path.read_text()) for path in run.glob("evaluation_*.json")}
    place = tmp_path / "yours"
    assert set(found) == {"evaluation_val_deployed.json", f"evaluation_val_deployed{on(place)}.json"}
    own, other = found["evaluation_val_deployed.json"], found[f"evaluation_val_deployed{on(place)}.json"]
    assert "data_root" not in own["protocol"]
    assert_of_other_data(other, own, place)
    assert other["miou"] != own["miou"]


def test_images_that_were_learnt_are_not_scored_as_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which they may become, dealt out by shares, when further ones come."""
    run, data = tmp_path / "run", tmp_path / "data"
    picture = np.random.default_rng(0).integers(0, 3, (64, 96, 3), np.uint8)
    for place, shown in (("images", picture), ("masks", picture[..., 0])):
        (data / place).mkdir(parents=True)
        for name in "abcdefgh":
            Image.fromarray(shown).save(data / place / f"{name}.png")
    run.mkdir()
    write_deployed(run / "primary.safetensors", size=SIZE, taxonomy=TAXONOMY)
    classes = [
        {"name": one, "colour": list(colour)}
        for one, colour in zip(TAXONOMY.names, TAXONOMY.colours, strict=True)
    ]
    section = {"classes": classes, "val_share": 0.5}
    values = TINY | {"data": {"kind": "folder", "root": str(data), "size": [64, 96], "folder": section}}
    config = Config.model_validate(values)
    (run / "config.yaml").write_text(dump_config(config))
    held_back = names_of(build_samples(config, "val", console=new_console(quiet=True)))
    learnt = set("abcdefgh") - set(held_back)
    assert main(["evaluate", str(run)]) == 0, "who knows what it has learnt"
    (run / "images_train.txt").write_text("".join(f"{name}\n" for name in sorted(learnt)))
    assert main(["evaluate", str(run)]) == 0
    assert main(["evaluate", str(run), "--split", "train"]) == 0

    moved = held_back[0]
    (run / "images_train.txt").write_text("".join(f"{name}\n" for name in sorted({*learnt, moved})))
    assert main(["evaluate", str(run)]) == 2
    said = capsys.readouterr().err
    assert (
        f"1 of the 4 images of val are among those that {run} was trained on ({moved}; images_train.txt)"
        in said
    )
    assert "data.folder.lists" in said

    # Of a folder that was named, nobody knows whether it is a copy or another one with names like these.
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    assert main(["evaluate", str(run), f"data.root={copy}"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        f"1 of the 4 images of val in {copy} have the names of images that {run} was trained on ({moved};"
        in said
    )
    assert "no score of images that are new to the network" in said

    told = io.StringIO()
    network = load_deployed(run / "primary.safetensors")[1]
    split = split_at_hand(
        RunFolder(run), config, network, named=False, for_int8=False, console=new_console(file=told)
    )
    assert not split.scored, "an export is checked on them all the same"
    assert len(split.samples) == 4
    assert "the check gives no mIoU: 1 of the 4 images" in " ".join(told.getvalue().split())

    (run / "summary.json").write_text(json.dumps(SUMMARY))
    capsys.readouterr()
    assert main(["export", str(run), "--precision", "int8"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "int8 is judged by its mIoU on val, and there is none to be had: 1 of the 4 images of val" in said
    assert "In a folder that data.root=DIR names, int8 looks for training images, too" in said
    assert "say where they are" not in said, "they are there"
    (run / "summary.json").unlink()

    # Val of its own in the run's data, and nothing to train on any more: the run's notes tell.
    (run / "images_train.txt").write_text("".join(f"{name}\n" for name in sorted(learnt)))
    (run / "images_val.txt").write_text("".join(f"{name}\n" for name in held_back))
    for place in ("images", "masks"):
        (data / place / "val").mkdir()
        for name in held_back:
            (data / place / f"{name}.png").rename(data / place / "val" / f"{name}.png")
    assert main(["evaluate", str(run)]) == 0
    for place in ("images", "masks"):
        (data / place / f"{min(learnt)}.png").rename(data / place / "val" / f"{min(learnt)}.png")
    assert main(["evaluate", str(run)]) == 2
    assert f"1 of the 5 images of val are among those that {run} was trained on" in capsys.readouterr().err


def test_other_data_leave_the_score_of_a_file_alone(
    two_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file does not know where its data lay: its own are those that are found by default. Of others, folders of one
    name are told apart."""
    monkeypatch.setenv("SEGDISTILL_CAMVID", str(two_sets / "mine"))
    data = {"kind": "camvid", "size": [64, 96]}
    file = write_onnx(tmp_path / "conv.onnx", convolution(11), size=SIZE, taxonomy=CAMVID, data=data)
    yours, namesake = two_sets / "yours", two_sets / "again" / "yours"
    shutil.copytree(yours, namesake)
    for root in (None, two_sets / "mine", yours, namesake):
        assert main(["evaluate", str(file), *([] if root is None else [f"data.root={root}"])]) == 0
    found = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert set(found) == {"conv_val.json", f"conv_val{on(yours)}.json", f"conv_val{on(namesake)}.json"}
    own = found["conv_val.json"]
    assert "data_root" not in own["protocol"]
    for place in (yours, namesake):
        other = found[f"conv_val{on(place)}.json"]
        assert_of_other_data(other, own, place)
        assert other["miou"] != own["miou"]


def test_masks_that_are_held_against_other_data_say_so(two_sets: Path, tmp_path: Path) -> None:
    """Other than the configuration's or, if it names none, than those that are found by default."""
    config = write_config(tmp_path / "mine.yaml", data={"kind": "camvid", "root": str(two_sets / "mine")})
    masks = tmp_path / "predicted"
    shutil.copytree(two_sets / "mine" / "valannot", masks)
    for root in (None, two_sets / "mine", two_sets / "yours"):
        words = [] if root is None else [f"data.root={root}"]
        assert main(["evaluate", str(config), *words, "--masks", str(masks)]) == 0
    found = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    place = two_sets / "yours"
    assert set(found) == {"predicted_val.json", f"predicted_val{on(place)}.json"}
    own, other = found["predicted_val.json"], found[f"predicted_val{on(place)}.json"]
    assert own["miou"]["masks"] == 1
    assert "data_root" not in own["protocol"]
    assert_of_other_data(other, own, place)


def test_every_stream_of_a_checkpoint_at_several_scales_and_mirrored(folder: Path) -> None:
    net = build_net(CONFIG)
    plain = in_torch(MultiBranchPredictor(net, multiple=32, device=torch.device("cpu")))
    assert main(["evaluate", str(folder / "run"), "--weights", "last", "--flip", "--scales", "0.5", "1"]) == 0
    stem = "evaluation_val_last_scales0.5-1_flip"
    found = json.loads((folder / "run" / f"{stem}.json").read_text())
    assert set(found["streams"]) == {"primary", "branch3", "branch4", "ensemble"} == set(plain)
    assert all((folder / "run" / f"{stem}_confusion_{name}.csv").is_file() for name in plain)
    how = found["protocol"]
    assert how["weights"] == "last epoch so far (2 of 3)", "the run has no scores of its end"
    assert how["test_time_augmentation"] == (
        "scales 0.5 1, each also mirrored; softmax averaged at label size"
    )


def test_a_checkpoint_is_scored_without_the_file_of_its_pretrained_weights(
    folder: Path, tmp_path: Path
) -> None:
    """What is left of it is how images are normalised, and the deployed network knows that too."""
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    config = CONFIG.model_copy(
        update={
            "model": CONFIG.model.model_copy(update={"encoder_weights": str(tmp_path / "gone.safetensors")})
        }
    )
    (run / "config.yaml").write_text(dump_config(config))
    found, expected = (
        scored(one, "--weights", "last", target=tmp_path / f"{number}.json")["streams"]
        for number, one in enumerate((run, folder / "run"))
    )
    assert found == expected
    assert found["primary"]["pixel_accuracy"] > 0


def test_a_run_that_was_moved_is_not_begun_anew_where_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    moved = tmp_path / "moved"
    shutil.copytree(folder / "run", moved)
    (moved / "primary.safetensors").unlink()
    (tmp_path / "photo.png").touch()
    assert main(["predict", str(moved), "photo.png", "--out", "seen"]) == 2
    advice = f"tools/train.py {moved / 'config.yaml'} --resume out={moved}"
    assert advice in capsys.readouterr().err
    assert main(["train", str(moved / "config.yaml"), "--resume"]) == 2
    assert f"Go on with the run here by --resume out={moved}" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"moved", "photo.png"}, "nothing was begun"


def test_settings_of_ones_own_may_lie_beside_checkpoints_of_other_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text(dump_config(CONFIG))
    data = ["data.kind=camvid", f"data.root={tmp_path / 'none'}"]
    assert main(["train", "config.yaml", *data, "--resume"]) == 2
    told = capsys.readouterr().err
    assert "lies in the folder of a run" not in told
    assert str(tmp_path / "none") in told


def test_results_of_two_names_with_dots_stay_two(folder: Path, tmp_path: Path) -> None:
    for name in ("lr0.001", "lr0.002"):
        scored(folder / "run", target=tmp_path / name)
    tables = [f"lr0.00{n}_confusion_primary.{ending}" for n in (1, 2) for ending in ("csv", "png")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["lr0.001", "lr0.002", *tables])


@pytest.mark.parametrize("unread", [0, 1])
def test_processes_end_together_by_what_one_of_them_cannot_score(
    monkeypatch: pytest.MonkeyPatch, unread: int
) -> None:
    """What the network cannot be asked about, and what the loader could not read, which ends with it."""

    class Odd:
        samples = range(3)

        def label(self, index: int, _: object) -> dict[str, Any]:
            raise DataError(f"image {index} is odd")

    def loaded() -> Iterator[tuple[int, Any]]:
        yield from ((index, None) for index in range(2 - 2 * unread))
        raise DataError("c.png: no such file")

    met: list[Any] = []
    monkeypatch.setattr(evaluate_command, "end_together", lambda _fabric, problem: met.append(str(problem)))
    fabric: Any = None
    subject: Any = Odd()
    assert list(evaluate_command._labelled(subject, loaded(), fabric)) == []
    odd = "" if unread else "  image 0 is odd\n  image 1 is odd\n"
    assert met == [f"{1 if unread else 3} of 3 images cannot be scored:\n{odd}  c.png: no such file"]


@pytest.mark.training
def test_two_processes_find_what_one_does(folder: Path, tmp_path: Path) -> None:
    """Five images: three for one, two for the other; every number, and the page with the pictures."""
    ways = ("--worst", "2", "--confusions", "2", "--flip")
    one = scored(folder / "run", *ways, target=tmp_path / "one.json")
    launch("evaluate", folder / "run", *ways, "--devices", "2", "--out", tmp_path / "two.json", cwd=tmp_path)
    two = json.loads((tmp_path / "two.json").read_text())
    assert two["protocol"] == one["protocol"]
    for (key, ours), theirs in zip(
        one["streams"]["primary"].items(), two["streams"]["primary"].values(), strict=True
    ):
        # Confidences are float32, and another process may round their last bit otherwise.
        assert theirs == (pytest.approx(ours, abs=1e-8) if key == "expected_calibration_error" else ours)
    pages = [(tmp_path / f"{name}_errors.html").read_text() for name in ("one", "two")]
    assert pages[0] == pages[1]


def test_the_page_of_errors_shows_what_was_asked_for(folder: Path, tmp_path: Path) -> None:
    scored(folder / "run", "--worst", "2", "--confusions", "3", target=tmp_path / "both.json")
    page = (tmp_path / "both_errors.html").read_text()
    assert "http" not in re.sub(r'src="data:[^"]*"', "", page), "nothing from elsewhere"
    assert len(re.findall(r"<h3>\d\. val_0000\d: [\d.]+ points of mIoU", page)) == 2
    assert len(re.findall(r"<h3>\d\. [a-z ]+ taken for [a-z ]+: [\d.]+ % of its pixels", page)) == 3
    scored(folder / "run", "--confusions", "1", target=tmp_path / "pairs.json")
    assert "cost the most" not in (tmp_path / "pairs_errors.html").read_text()


# ---- ONNX files


DATA = {"kind": "synthetic", "size": [64, 96], "synthetic": {"train_images": 14, "val_images": 5}}


def test_a_tensor_file_scores_like_torch_also_through_a_window(folder: Path, tmp_path: Path) -> None:
    network = convolution(classes=11)
    file = write_onnx(tmp_path / "conv.onnx", network, size=SIZE, taxonomy=CAMVID, data=DATA)
    expected = in_torch(PlainPredictor(network, multiple=32, device=torch.device("cpu")))["primary"]
    found = scored(file, target=tmp_path / "whole.json")
    ours = [found["streams"]["primary"]["iou"][name] for name in NAMES]
    np.testing.assert_allclose(np.array(ours, float), expected, atol=1e-4)
    assert found["streams"]["primary"]["expected_calibration_error"] > 0
    slid = scored(file, "--window", "32x32", "--flip", target=tmp_path / "slid.json")
    assert slid["protocol"]["view"].startswith("sliding window 32x32")
    assert slid["protocol"]["weights"] == "fp32 tensor file under ONNX Runtime"


def image_file(path: Path, fit: Fit = "resize") -> Path:
    """The strongest of red, green and blue is the class: an `image` file, without confidence."""
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Cast", [RGB_IMAGE], ["floats"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("ArgMax", ["floats"], ["places"], axis=3, keepdims=0),
            onnx.helper.make_node("Cast", ["places"], [CLASS_INDEX], to=onnx.TensorProto.UINT8),
        ],
        "strongest",
        [onnx.helper.make_tensor_value_info(RGB_IMAGE, onnx.TensorProto.UINT8, ["b", "h", "w", 3])],
        [onnx.helper.make_tensor_value_info(CLASS_INDEX, onnx.TensorProto.UINT8, ["b", "h", "w"])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    about = described(input="image", layout="nhwc", fit=fit, data=DATA)
    onnx.helper.set_model_props(model, about.to_metadata())
    onnx.save(model, str(path))
    return path


def test_an_image_file_gives_classes_and_so_no_calibration(tmp_path: Path) -> None:
    found = scored(image_file(tmp_path / "image.onnx"), target=tmp_path / "image.json")
    assert "expected_calibration_error" not in found["streams"]["primary"]
    assert found["streams"]["primary"]["boundary_miou"] is not None
    assert found["protocol"]["scored_at"] == "label size, classes as the file gives them"
    assert found["protocol"]["input_size"] == [64, 96], "what the graph resizes images to"


def test_an_image_file_that_pads_sees_images_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scored(image_file(tmp_path / "image.onnx", "pad"), target=tmp_path / "image.json")
    assert found["protocol"]["input_size"] == "its own size"
    assert "whole image at its own size" in " ".join(capsys.readouterr().out.split())


# ---- mistakes


MISTAKES = {
    "stride without window": (["RUN", "--stride", "8x8"], ["--stride 8x8", "--window"]),
    "gaps": (
        ["RUN", "--window", "32x32", "--stride", "33x32"],
        ["--stride 33x32", "--window 32x32", "16x16"],
    ),
    "logits of an image file": (
        ["IMAGE", "--flip"],
        ["class indexes, not logits", "--stride", "--input tensor"],
    ),
    "a network without one": (["CONFIG"], ["names data but no network", "--masks DIR"]),
    "mirrored masks": (
        ["CONFIG", "--masks", "masks", "--flip"],
        ["--masks reads files", "--stride", "--flip"],
    ),
    "no masks there": (["CONFIG", "--masks", "nowhere"], ["--masks nowhere: no such folder"]),
    "ids of what": (["RUN", "--label-ids"], ["--masks DIR"]),
    "not Cityscapes": (["RUN", "--submit", "there"], ["19 classes", "sky, building"]),
    "a folder for the scores": (["RUN", "--out", "."], ["--out . is a folder", "scores.json"]),
    "a file for a folder": (
        ["RUN", "--out", "image.onnx/a.json"],
        ["--out image.onnx/a.json cannot be written: ", "exists", "may write to"],
    ),
    "two runs": (["RUN", "CONFIG"], ["config.yaml' is no override", "one run or file at a time"]),
    "misspelt": (
        ["RUN", "data.rot=x"],
        ["data.rot: unknown key; did you mean 'root'? (keys here: kind, root"],
    ),
    "what the run was made with": (["RUN", "train.epochs=9"], ["train.epochs is a setting that", "stays"]),
    "weights of a file": (["IMAGE", "--weights", "best"], ["--weights", "name the run's folder"]),
    "ids of other data": (["CONFIG", "--masks", ".", "--label-ids"], ["Cityscapes"]),
}


def test_scores_that_cannot_have_their_place_are_told_before_the_scoring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_command, "evaluate_images", lambda *_, **__: pytest.fail("they were scored"))
    (tmp_path / "image_val.json").mkdir()
    assert main(["evaluate", str(image_file(tmp_path / "image.onnx"))]) == 2
    assert "image_val.json is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_message_with_exit_code_2(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    mistake: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    words, told = MISTAKES[mistake]
    places = {
        "RUN": folder / "run",
        "CONFIG": folder / "run" / "config.yaml",
        "IMAGE": image_file(tmp_path / "image.onnx"),
    }
    assert main(["evaluate", *(str(places.get(word, word)) for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    for word in told:
        assert word in error
    assert [path.name for path in tmp_path.iterdir()] == ["image.onnx"], "nothing was written"


def test_a_file_for_one_size_is_not_fed_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_onnx(tmp_path / "conv.onnx", convolution(11), size=SIZE, taxonomy=CAMVID, data=DATA)
    model = onnx.load(str(file))
    for axis, extent in ((2, 64), (3, 96)):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = extent
    onnx.save(model, str(file))
    assert main(["evaluate", str(file), "--scales", "1", "2"]) == 2
    assert "takes images of 64x96 alone, not of 64x96, 128x192" in capsys.readouterr().err
    slid = scored(file, "--size", "128x192", "--window", "64x96", target=tmp_path / "slid.json")
    assert slid["protocol"]["input_size"] == [128, 192]
