"""Data of one's own and Cityscapes through the whole program: stats, training, export, scores, pictures."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from program import TINY, write_config

from segdistill.build.splits import build_splits, data_hash
from segdistill.cli import main
from segdistill.commands import prepare_data
from segdistill.config_io import load_config
from segdistill.console import new_console
from segdistill.export.onnx_file import OnnxFile

CLASSES = {"ground": (0, 0, 0), "tree": (0, 128, 0), "car": (200, 0, 0)}
VOID = (255, 255, 255)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`mydata` with JPEG images of two sizes and RGB masks, and a configuration."""
    folder = tmp_path_factory.mktemp("workplace")
    rng = np.random.default_rng(0)
    colours = np.array([*CLASSES.values(), VOID], np.uint8)
    for index in range(10):
        labels = np.zeros((48 + index % 2 * 16, 64), np.uint8)
        labels[:, 40:] = 1
        labels[20:30, 5:15] = 2 if index < 9 else 0
        labels[:2] = 3
        save(
            folder / f"mydata/images/{index}.jpg",
            colours[labels] // 2 + rng.integers(0, 60, (*labels.shape, 3), np.uint8),
        )
        save(folder / f"mydata/masks/{index}_label.png", colours[labels])
    table = {
        "classes": [{"name": name, "colour": list(colour)} for name, colour in CLASSES.items()],
        "ignore_colours": [list(VOID)],
    }
    (folder / "mydata/classes.yaml").write_text(yaml.safe_dump(table))
    config = TINY | {
        "data": {
            "kind": "folder",
            "root": "mydata",
            "size": [64, 64],
            "crop": [32, 64],
            "sampling": {"kind": "class_balanced_crops"},
            "folder": {"mask_suffix": "_label", "classes": "classes.yaml"},
        },
        "train": TINY["train"] | {"epochs": 1},
        "method": {"kind": "baseline"},
        "name": "mine",
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(autouse=True)
def inside(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize(("out", "told"), [(".", "is a folder"), ("mine.yaml/s.json", "cannot be written")])
def test_a_file_of_statistics_that_cannot_be_written_is_told_before_the_counting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, out: str, told: str
) -> None:
    monkeypatch.setattr(prepare_data, "build_splits", lambda *_, **__: pytest.fail("the data were read"))
    assert main(["prepare-data", "stats", "mine.yaml", "--out", out]) == 2
    assert f"--out {out} {told}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def run(workplace: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        assert main(["train", "mine.yaml"]) == 0
    return workplace / "runs" / "mine"


def test_statistics(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            ["prepare-data", "stats", "mine.yaml", "method.supervised.class_weights=[1,2]", "--out", "s.json"]
        )
        == 0
    )
    found = json.loads((workplace / "s.json").read_text())
    train = found["splits"]["train"]
    assert (train["images"], found["splits"]["val"]["images"]) == (8, 2)
    # 24 of 64 columns are trees in every image, the upper 2 rows ignored, so the share of a tree is exact.
    assert train["classes"]["tree"]["share"] == pytest.approx(24 / 64)
    assert train["classes"]["tree"]["images"] == 8
    # ground, tree and car are pixels of all (tree: 3/8 of what is not void); car is the rarest.
    weights = found["class_weights"]
    assert weights[1] == 1.0
    assert weights[0] < 1 < weights[2]
    out = capsys.readouterr().out
    assert f"'method.supervised.class_weights=[{','.join(f'{weight:g}' for weight in weights)}]'" in out


@pytest.mark.training
def test_statistics_of_scenes_that_are_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare-data", "stats", str(write_config(tmp_path / "tiny.yaml")), "data.cache=false"]) == 0
    assert "train: 14 images" in capsys.readouterr().out


def test_a_run_tells_its_classes_by_itself(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert [one["name"] for one in config["data"]["folder"]["classes"]] == list(CLASSES)
    summary = json.loads((run / "summary.json").read_text())
    assert list(summary["iou"]) == list(CLASSES)


def test_a_run_names_its_images_as_lists_read_them(run: Path) -> None:
    """The split that chance made once is then one that is written down: the data's hash is of the names, too."""
    named = {split: (run / f"images_{split}.txt").read_text().split() for split in ("train", "val")}
    assert sorted(named["train"] + named["val"]) == [str(index) for index in range(10)]
    lists = ",".join(f"{split}: {json.dumps(str(run / f'images_{split}.txt'))}" for split in named)
    folder = f"data.folder={{mask_suffix: _label, classes: classes.yaml, lists: {{{lists}}}, split_seed: 5}}"
    listed = build_splits(
        load_config(Path("mine.yaml"), [folder]), ("train", "val"), console=new_console(quiet=True)
    )
    assert data_hash(listed) == json.loads((run / "summary.json").read_text())["data"]["hash"]


def test_predictions_of_all_images_may_lie_where_a_split_is_scored(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (workplace / "mydata" / "images").iterdir():
        shape = np.array(Image.open(path)).shape[:2]
        save(workplace / "predicted" / f"{path.stem}_mask.png", np.zeros(shape, np.uint8))
    assert main(["evaluate", "mine.yaml", "--masks", "predicted"]) == 0
    assert "8 masks in predicted are of images of other splits, and not scored" in capsys.readouterr().out
    assert json.loads((workplace / "predicted_val.json").read_text())["protocol"]["images"] == 2


@pytest.mark.training
def test_a_file_that_was_scored_on_other_data_says_so(run: Path, workplace: Path) -> None:
    """Until it is scored where its data lie by default, or where somebody says."""
    shutil.copytree(workplace / "mydata", workplace / "others", dirs_exist_ok=True)
    sides = [str(side) for side in yaml.safe_load((run / "config.yaml").read_text())["data"]["size"]]
    asked = ["export", str(run), "--size", "x".join(sides), "--batch", "1", "--out", "file.onnx"]
    for name, told in {"mydata": None, "others": str((workplace / "others").resolve())}.items():
        assert main([*asked, f"data.root={workplace / name}"]) == 0
        protocol = OnnxFile(Path("file.onnx")).description.score.protocol
        assert protocol.data_root == told
    assert main(["evaluate", "file.onnx", f"data.root={workplace / 'mydata'}"]) == 0
    (file,) = Path().glob("file_val_on_mydata_*.json")
    scores = json.loads(file.read_text())
    assert scores["protocol"]["data_root"] == str((workplace / "mydata").resolve())


@pytest.mark.training
def test_the_exported_file_finds_its_data_again(
    run: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run / "primary.onnx")]) == 2
    assert "data.root is not set" in capsys.readouterr().err
    moved = workplace / "moved"
    if not moved.exists():
        moved.symlink_to(workplace / "mydata")
    assert main(["evaluate", str(run / "primary.onnx"), "data.root=moved"]) == 0
    (file,) = run.glob("primary_val_on_mydata_*.json")
    scores = json.loads(file.read_text())
    assert scores["protocol"]["data_root"] == str((workplace / "mydata").resolve())
    summary = json.loads((run / "summary.json").read_text())
    assert scores["protocol"]["images"] == 2
    assert scores["miou"]["primary"] == pytest.approx(summary["miou"]["primary"], abs=0.01)
    warning = "not the images and labels of val that the file's own score is of"
    assert warning not in capsys.readouterr().out
    shutil.copytree(workplace / "mydata", workplace / "changed")
    for path in (workplace / "changed" / "masks").iterdir():
        save(path, np.zeros(np.array(Image.open(path)).shape[:2], np.uint8))
    assert main(["evaluate", str(run / "primary.onnx"), f"data.root={workplace / 'changed'}"]) == 0
    assert warning in capsys.readouterr().out


@pytest.mark.training
def test_predictions_bear_the_classes_colours(run: Path, workplace: Path) -> None:
    assert main(["predict", str(run), "mydata/images", "--out", "predictions"]) == 0
    mask = Image.open(workplace / "predictions" / "0_mask.png")
    assert mask.getpalette()[:9] == [channel for colour in CLASSES.values() for channel in colour]


@pytest.mark.training
def test_a_run_whose_classes_were_changed_is_neither_exported_nor_scored(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(original.replace("name: tree", "name: bush"))
    try:
        assert main(["export", str(run)]) == 2
        assert main(["evaluate", str(run), "--weights", "last"]) == 2
    finally:
        (run / "config.yaml").write_text(original)
    assert capsys.readouterr().err.count("(ground, tree, car) are not those of") == 2


def test_bad_data_is_told_before_anything_is_begun(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["data.folder.ignore_colours=[]", "name=bad"]
    assert main(["train", "mine.yaml", *overrides]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: train: 8 problems in 8 of 8 labelled images\n")
    assert "\nval: 2 problems in 2 of 2 labelled images\n" in err
    assert (
        err.count("_label.png: (255, 255, 255) (128 px); allowed: (0, 0, 0), (0, 128, 0), (200, 0, 0)") == 10
    )
    assert not (workplace / "runs" / "bad").exists()


# ---- Cityscapes


def write_cityscapes(root: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for city in ("aachen", "ulm"):
            stem = f"{city}_000000_000019"
            save(
                root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png",
                rng.integers(0, 256, (32, 64, 3), np.uint8),
            )
            save(
                root / f"gtFine/{split}/{city}/{stem}_gtFine_labelIds.png",
                rng.integers(0, 34, (32, 64), np.uint8),
            )


def test_prepare_cityscapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare-data", "cityscapes", str(tmp_path / "none")]) == 2
    assert "csDownload" in capsys.readouterr().err
    write_cityscapes(tmp_path)
    assert main(["prepare-data", "cityscapes", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "train: 2 images of 2 cities (published: 2975), 2 labelIds, 0 labelTrainIds" in out
    assert "every training and validation image and mask can be read" in out
    cut = tmp_path / "gtFine/val/ulm/ulm_000000_000019_gtFine_labelIds.png"
    cut.write_bytes(cut.read_bytes()[:100])
    assert main(["prepare-data", "cityscapes", str(tmp_path), "--quick"]) == 0
    assert "can be read" not in capsys.readouterr().out
    assert main(["prepare-data", "cityscapes", str(tmp_path)]) == 2
    assert f"{cut}: cannot be decoded" in capsys.readouterr().err
