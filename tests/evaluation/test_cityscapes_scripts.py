"""Scores against the authors' own evaluator, of arrays and of files on disk."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as authors  # noqa: N813
from cityscapesscripts.helpers.labels import labels as authors_labels
from PIL import Image
from program import launch
from scipy import ndimage
from tiny_models import convolution, write_onnx

from segdistill.cli import main
from segdistill.commands.submission import Submission
from segdistill.commands.written_masks import MaskFolder
from segdistill.data import cityscapes as data_cityscapes
from segdistill.data.samples import LabelledImage
from segdistill.data.synthetic import SyntheticStreets
from segdistill.data.taxonomy import CAMVID, Taxonomy
from segdistill.errors import DataError, EvaluationError
from segdistill.evaluation.evaluator import Labelling, evaluate_images
from segdistill.evaluation.label_ids import LABEL_IDS, frame_of, from_label_ids, is_cityscapes, to_label_ids
from segdistill.evaluation.metrics import Scores

CITYSCAPES = Taxonomy(tuple(LABEL_IDS), ((0, 0, 0),) * 19, 255)
UNLABELED = 0
Pairs = list[tuple[np.ndarray, np.ndarray]]


def save(path: Path, mask: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


def authors_scores(pairs: Pairs, folder: Path) -> dict[str, Any]:
    """Of class indexes (0..18, 255 in labels for void), through files of label ids, as the server does it."""
    arguments = authors.args
    arguments.quiet, arguments.JSONOutput, arguments.evalInstLevelScore = True, False, False
    confusion = authors.generateMatrix(arguments)
    for index, (prediction, label) in enumerate(pairs):
        ids = np.where(label == 255, UNLABELED, to_label_ids(np.where(label == 255, 0, label)))
        files = (
            save(folder / f"{index}_prediction.png", to_label_ids(prediction)),
            save(folder / f"{index}_label.png", ids.astype(np.uint8)),
        )
        authors.evaluatePair(*map(str, files), confusion, {}, {}, arguments)
    by_class = {
        authors.id2label[one].name: authors.getIouScoreForLabel(one, confusion, arguments)
        for one in arguments.evalLabels
    }
    return {"iou": by_class, "miou": authors.getScoreAverage(by_class, arguments)}


def our_scores(pairs: Pairs) -> Scores:
    images = (
        (index, _sample(label), {"primary": Labelling(torch.from_numpy(prediction), None)})
        for index, (prediction, label) in enumerate(pairs)
    )
    return evaluate_images(images, CITYSCAPES)["primary"]


def _sample(label: np.ndarray) -> LabelledImage:
    return LabelledImage(np.zeros((*label.shape, 3), np.uint8), label)


def random_pairs() -> Pairs:
    """Some classes are missing from the labels, some from the predictions, 17 from both."""
    rng = np.random.default_rng(0)
    pairs = []
    for shape in [(40, 60), (33, 51), (40, 60)]:
        label = rng.choice([*range(12), 14, 15, 255], shape).astype(np.uint8)
        pairs.append((rng.choice([*range(5), *range(7, 17), 18], shape).astype(np.uint8), label))
    return pairs


def realistic(label: np.ndarray, *, ignore_index: int) -> np.ndarray:
    """As networks err: outlines are off by some pixels, small things vanish, patches are taken for another class."""
    known = np.where(label == ignore_index, 2, label)
    moved = np.roll(ndimage.median_filter(known, 5), (1, -2), (0, 1))
    moved[10:22, 30:50] = 3
    return moved.astype(np.uint8)


def streets(images: int) -> Pairs:
    """Drawn streets with void in them; 11 of the 19 numbers occur."""
    scenes = SyntheticStreets(split="val", length=images, height=72, width=96, seed=0)
    labels = [scenes.load(index).mask.copy() for index in range(images)]
    for label in labels:
        label[:6] = 11
    return [
        (realistic(label, ignore_index=11), np.where(label == 11, 255, label).astype(np.uint8))
        for label in labels
    ]


@pytest.mark.parametrize("pairs", [random_pairs(), streets(4)], ids=["random", "realistic"])
def test_scores_are_those_of_the_authors(pairs: Pairs, tmp_path: Path) -> None:
    ours, theirs = our_scores(pairs), authors_scores(pairs, tmp_path)
    for name, iou in zip(CITYSCAPES.names, ours.iou, strict=True):
        assert iou == pytest.approx(theirs["iou"][name], abs=1e-9, nan_ok=True), name
    assert ours.miou == pytest.approx(theirs["miou"], abs=1e-9)
    assert sum(not math.isnan(iou) for iou in ours.iou) >= 10
    assert 0.01 < ours.miou < 0.9


@pytest.fixture
def camvid(tmp_path: Path) -> tuple[Path, Pairs]:
    """`data/val` and `data/valannot`: streets in CamVid's layout; and what was predicted."""
    pairs = streets(4)
    for index, (_, label) in enumerate(pairs):
        save(tmp_path / "data" / "val" / f"street_{index}.png", np.zeros((*label.shape, 3), np.uint8))
        stored = np.where(label == 255, CAMVID.ignore_index, label).astype(np.uint8)
        save(tmp_path / "data" / "valannot" / f"street_{index}.png", stored)
    (tmp_path / "data.yaml").write_text(f"name: streets\ndata: {{kind: camvid, root: {tmp_path / 'data'}}}\n")
    return tmp_path, pairs


def test_masks_on_disk_are_scored_as_the_authors_score_them(camvid: tuple[Path, Pairs]) -> None:
    folder, pairs = camvid
    for index, (prediction, _) in enumerate(pairs):
        name = f"street_{index}_mask.png" if index % 2 else f"deeper/street_{index}.png"
        save(folder / "predicted" / name, prediction)
    arguments = ["evaluate", folder / "data.yaml", "--masks", folder / "predicted", "--worst", "2"]
    assert main([*map(str, arguments)]) == 0
    found = json.loads((folder / "predicted_val.json").read_text())
    theirs = authors_scores(pairs, folder / "authors")
    numbers = dict(zip(CAMVID.names, LABEL_IDS, strict=False))  # class i of one is class i of the other
    for name, iou in found["streams"]["masks"]["iou"].items():
        expected = theirs["iou"][numbers[name]]
        assert (math.nan if iou is None else iou) == pytest.approx(expected, abs=1e-9, nan_ok=True), name
    assert found["streams"]["masks"]["miou"] == pytest.approx(theirs["miou"], abs=1e-9)
    assert found["protocol"]["images"] == 4
    assert "expected_calibration_error" not in found["streams"]["masks"], "masks tell no confidence"
    assert (folder / "predicted_val_errors.html").is_file()


def test_all_that_is_wrong_with_masks_is_told_at_once(
    camvid: tuple[Path, Pairs], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, pairs = camvid
    masks = folder / "predicted"
    save(masks / "street_0.png", pairs[0][0])
    save(masks / "street_0_mask.png", pairs[0][0])
    save(masks / "street_9.png", pairs[0][0])
    command = ["evaluate", str(folder / "data.yaml"), "--masks", str(masks)]
    assert main(command) == 2
    told = capsys.readouterr().err
    for word in ("street_1: no mask", "street_2: no mask", "street_9.png: the data have no such image"):
        assert word in told
    assert "street_0.png and" in told
    assert "masks of the same image" in told
    for path in masks.glob("*.png"):
        path.unlink()
    for index, (prediction, _) in enumerate(pairs):
        save(masks / f"street_{index}.png", prediction)
    save(masks / "street_1.png", pairs[1][0][:-1])
    save(masks / "street_2.png", CAMVID.colourise(pairs[2][0]))
    save(masks / "street_3.png", np.where(pairs[3][0] == 3, 77, pairs[3][0]).astype(np.uint8))
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "3 of 4 images cannot be scored" in told
    assert "street_2.png: this is a colour image" in told
    assert "data.kind" not in told, "which says nothing of masks that were predicted"
    assert "street_1.png: 71x96 pixels, but its label has 72x96" in told
    assert "street_3.png: holds 77, but only class indexes 0 to 10" in told
    assert not (folder / "predicted_val.json").exists()


def test_the_numbers_are_the_authors() -> None:
    theirs = {one.trainId: (one.name, one.id) for one in authors_labels if 0 <= one.trainId < 255}
    assert dict(enumerate(LABEL_IDS.items())) == theirs
    every = np.arange(19, dtype=np.uint8)[None]
    assert from_label_ids(to_label_ids(every)).tolist() == every.tolist()
    assert from_label_ids(np.array([[0, 4, 34]], np.uint8)).tolist() == [[255] * 3]
    assert from_label_ids(np.array([[7, 26001]], np.uint16)).tolist() == [[0, 255]], (
        "instance ids are no label ids"
    )
    assert is_cityscapes(CITYSCAPES)
    assert not is_cityscapes(CAMVID)


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("frankfurt_000001_000294_leftImg8bit", "frankfurt_000001_000294"),
        ("val/frankfurt/frankfurt_000001_000294_leftImg8bit.png", "frankfurt_000001_000294"),
        ("frankfurt_000001_000294_pred.png", "frankfurt_000001_000294"),
        ("street_0", None),
    ],
)
def test_frames_are_found_in_names(name: str, frame: str | None) -> None:
    assert frame_of(name) == frame


class Frames:
    """Four frames of Cityscapes with streets in them."""

    taxonomy = CITYSCAPES

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        return f"ulm_{index:06}_000019_leftImg8bit"

    def load(self, index: int) -> LabelledImage:
        return _sample(self.pairs[index][1])


def test_a_submission_is_what_the_server_scores(tmp_path: Path) -> None:
    frames = Frames(streets(3))
    submission = Submission(tmp_path / "submitted", frames)
    for index, (prediction, _) in enumerate(frames.pairs):
        said = {"primary": Labelling(torch.from_numpy(prediction), None)}
        submission.watch(index, frames.load(index), said)
    files = sorted(path.name for path in (tmp_path / "submitted").iterdir())
    assert files == [f"ulm_{index:06}_000019_pred.png" for index in range(3)]
    for index, (prediction, _) in enumerate(frames.pairs):
        arguments = authors.args
        arguments.predictionPath, arguments.predictionWalk = str(tmp_path / "submitted"), None
        found = authors.getPrediction(arguments, f"ulm_{index:06}_000019_gtFine_labelIds.png")
        picture = Image.open(found)
        assert (picture.mode, picture.size) == ("L", (96, 72))
        assert np.array(picture).tolist() == to_label_ids(prediction).tolist()
    assert "they have 72x96 pixels" in submission.warning()
    assert "takes 1024x2048" in submission.warning()
    again = MaskFolder.matching(tmp_path / "submitted", frames, split="val", label_ids=True)
    read = again.label(2, frames.load(2))["masks"].classes
    assert read.tolist() == frames.pairs[2][0].tolist()


class Suffixed(Frames):
    """Images `photo<index>_rgb`, whose suffix is not part of the samples' names."""

    taxonomy = CAMVID

    def name(self, index: int) -> str:
        return f"photo{index}"


def test_masks_named_like_images_with_a_suffix(tmp_path: Path) -> None:
    images = Suffixed(streets(2))
    for name in ("photo0_rgb_mask", "photo1"):
        save(tmp_path / f"{name}.png", images.pairs[0][1])
    (tmp_path / "._photo1.png").touch()  # by macOS
    found = MaskFolder.matching(tmp_path, images, split="val", label_ids=False, image_suffix="_rgb")
    assert [path.name for path in found.files] == ["photo0_rgb_mask.png", "photo1.png"]


def test_masks_of_other_splits_are_left_out(tmp_path: Path) -> None:
    images = Suffixed(streets(2))
    for name in ("photo0_mask", "photo1", "photo7", "photo8_rgb_mask"):
        save(tmp_path / f"{name}.png", images.pairs[0][1])
    found = MaskFolder.matching(
        tmp_path,
        images,
        split="val",
        label_ids=False,
        image_suffix="_rgb",
        elsewhere={"train": ["photo7", "photo8", "photo9"]},
    )
    assert [path.name for path in found.files] == ["photo0_mask.png", "photo1.png"]
    assert found.unscored == 2


class Named:
    """Images of these names."""

    taxonomy = CAMVID

    def __init__(self, *names: str) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def load(self, index: int) -> LabelledImage:
        raise AssertionError("nothing is opened")


@pytest.mark.parametrize(
    ("val", "train", "files", "expected"),
    [
        # Every split is numbered from 0001.
        (["0001"], ["0001"], ["0001_mask"], ["0001_mask"]),
        (["0001"], ["0001"], ["train/0001_mask", "val/0001_mask"], ["val/0001_mask"]),
        (["0001"], ["0001"], ["train/0001_mask"], "0001: no mask 0001.png or 0001_mask.png"),
        (["0001"], ["0001"], ["runs/val/0001", "runs/train/0001"], ["runs/val/0001"]),
        # So is every folder of them.
        (["c/q"], ["a/q", "b/q"], ["a/q_mask", "b/q_mask", "c/q_mask"], ["c/q_mask"]),
        (["c/q"], ["a/q", "b/q"], ["a/q_mask"], "c/q: no mask c/q.png"),
        (["a/q", "b/q"], [], ["val/a/q_mask", "val/b/q_mask"], ["val/a/q_mask", "val/b/q_mask"]),
        (["a/q", "b/q"], [], ["q_mask"], "q_mask.png: may be the mask of a/q or b/q"),
        # Images whose own names end like masks'.
        (["x_mask"], [], ["x_mask"], ["x_mask"]),
        (["x_mask", "x"], [], ["x_mask_mask", "x_mask"], ["x_mask_mask", "x_mask"]),
        # Photos that were converted keep their former ending in their names.
        (["x.jpg", "x"], [], ["x.jpg_mask", "x_mask"], ["x.jpg_mask", "x_mask"]),
    ],
)
def test_a_mask_is_of_the_image_whose_folders_it_shares(
    val: list[str], train: list[str], files: list[str], expected: list[str] | str, tmp_path: Path
) -> None:
    for file in files:
        save(tmp_path / f"{file}.png", np.zeros((2, 2), np.uint8))

    def match() -> MaskFolder:
        return MaskFolder.matching(
            tmp_path, Named(*val), split="val", label_ids=False, elsewhere={"train": train}
        )

    if isinstance(expected, str):
        with pytest.raises(DataError, match=re.escape(expected)):
            match()
        return
    found = match()
    assert [str(path.relative_to(tmp_path)) for path in found.files] == [f"{file}.png" for file in expected]
    assert found.unscored == len(files) - len(expected)


def test_only_cityscapes_can_be_submitted(tmp_path: Path) -> None:
    streets_of_ours = SyntheticStreets(split="val", length=1, height=32, width=48, seed=0)
    with pytest.raises(EvaluationError, match=r"19 classes; these data have others \(sky, building"):
        Submission(tmp_path, streets_of_ours)
    frames = Frames(streets(1))
    frames.name = lambda index: "street_0"  # type: ignore[method-assign]
    with pytest.raises(EvaluationError, match="city, sequence and frame"):
        Submission(tmp_path, frames)


def test_a_run_on_cityscapes_is_scored_and_submitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On val the authors' evaluator finds our score in our files; on test, without labels, there are files alone."""
    rng = np.random.default_rng(0)
    for split, highest in {"val": 34, "test": 1}.items():
        for frame in range(2):
            name = f"{split}/ulm/ulm_{frame:06}_000019"
            image, ids = rng.integers(0, 256, (4, 6, 3), np.uint8), rng.integers(0, highest, (4, 6), np.uint8)
            save(tmp_path / f"leftImg8bit/{name}_leftImg8bit.png", image.repeat(16, 0).repeat(16, 1))
            save(tmp_path / f"gtFine/{name}_gtFine_labelIds.png", ids.repeat(16, 0).repeat(16, 1))
    data = {"kind": "cityscapes", "root": str(tmp_path), "size": [64, 96]}
    file = write_onnx(
        tmp_path / "c.onnx", convolution(19), size=(64, 96), taxonomy=data_cityscapes.CITYSCAPES, data=data
    )
    submitted = tmp_path / "submitted"
    assert main(["evaluate", str(file), f"data.root={tmp_path}", "--submit", str(submitted)]) == 0
    arguments = authors.args
    arguments.quiet, arguments.JSONOutput, arguments.evalInstLevelScore = True, False, False
    truths = sorted(map(str, (tmp_path / "gtFine" / "val").rglob("*.png")))
    arguments.predictionPath, arguments.predictionWalk = str(submitted), None
    files = [authors.getPrediction(arguments, truth) for truth in truths]
    theirs = authors.evaluateImgLists(files, truths, arguments)
    ours = json.loads((tmp_path / "c_val.json").read_text())["streams"]["primary"]
    assert ours["miou"] == pytest.approx(theirs["averageScoreClasses"], abs=1e-9)
    for name, iou in ours["iou"].items():
        expected = theirs["classScores"][name]
        assert (math.nan if iou is None else iou) == pytest.approx(expected, abs=1e-9, nan_ok=True), name
    command = ["evaluate", str(file), f"data.root={tmp_path}", "--split", "test"]
    assert main(command) == 2
    assert "not public" in capsys.readouterr().err
    assert main([*command, "--submit", str(tmp_path / "test")]) == 0
    assert "no score" in capsys.readouterr().out
    assert len(list((tmp_path / "test").iterdir())) == 2
    assert not (tmp_path / "c_test.json").exists()
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"name": "c", "data": data}))
    masks = ["--masks", str(tmp_path / "test"), "--label-ids", "--split", "test"]
    assert main(["evaluate", str(tmp_path / "c.yaml"), *masks, "--submit", str(tmp_path / "again")]) == 0
    assert "no score" in capsys.readouterr().out
    for path in (tmp_path / "test").iterdir():
        assert np.array_equal(Image.open(tmp_path / "again" / path.name), Image.open(path))


@pytest.mark.training
def test_every_processs_files_are_measured(tmp_path: Path) -> None:
    """The first process has the image that the server takes, the second one the one that it does not."""
    for frame, (height, width) in enumerate([(1024, 2048), (64, 96)]):
        name, empty = f"val/ulm/ulm_{frame:06}_000019", np.zeros((height, width, 3), np.uint8)
        save(tmp_path / f"leftImg8bit/{name}_leftImg8bit.png", empty)
        save(tmp_path / f"gtFine/{name}_gtFine_labelIds.png", empty[..., 0] + LABEL_IDS["road"])
    file = write_onnx(
        tmp_path / "c.onnx",
        convolution(19),
        size=(64, 96),
        taxonomy=data_cityscapes.CITYSCAPES,
        data={"kind": "cityscapes", "size": [64, 96]},
    )
    ways = (f"data.root={tmp_path}", "--submit", "submitted", "--devices", "2")
    out, _ = launch("evaluate", file, *ways, cwd=tmp_path)
    assert "some have 64x96 pixels like the images, but the server takes 1024x2048" in " ".join(out.split())
    assert len(list((tmp_path / "submitted").iterdir())) == 2
