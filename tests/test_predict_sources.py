"""Which images of a folder are segmented, what their results are called, and what is left out."""

from pathlib import Path

import pytest

from segdistill.commands.predict_sources import find_images, refuse_foreign_frames
from segdistill.console import new_console
from segdistill.errors import DataError


def test_no_two_images_share_their_results(tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "a.jpg.png", "B.PNG", "b.bmp", "c.png", "deep/a.png", "deep/c.d.webp"]
    for name in [*names, ".hidden.png", ".trash/a.png", "out/a.png", "a.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    targets = find_images(tmp_path, tmp_path / "out", console=new_console(quiet=True))
    assert sorted(targets) == list(targets)
    found = {
        path.relative_to(tmp_path).as_posix(): target.relative_to(tmp_path / "out").as_posix()
        for path, target in targets.items()
    }
    assert found == {
        "a.jpg": "a.jpg",
        "a.png": "a.png",
        "a.jpg.png": "a.jpg.png",
        "B.PNG": "B.PNG",
        "b.bmp": "b.bmp",
        "c.png": "c",
        "deep/a.png": "deep/a",
        "deep/c.d.webp": "deep/c.d",
    }


def test_pictures_and_videos_that_are_left_out_of_a_folder_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "photos"
    results = ["c_overlay.mp4", "out/d_overlay.mp4", "out/d.gif"]
    others = ["notes.txt", "photo.json", "list.csv", ".hidden.gif", "without"]
    for name in ["a.png", "b.gif", "deep/b.HEIC", "deep/c.gif", *results, *others]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    assert len(find_images(source, source / "out", console=new_console())) == 1
    told = f"left out: 3 files in {source}, by suffix no image (.gif, .heic)"
    assert capsys.readouterr().out == f"{told}\n"
    (source / "c.mp4").touch()
    find_images(source, source / "out", console=new_console())
    assert "(.gif, .heic, .mp4); give its videos one at a time" in capsys.readouterr().out
    for name in ("b.gif", "deep/b.HEIC", "deep/c.gif", "c.mp4"):
        (source / name).unlink()
    find_images(source, source / "out", console=new_console())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("single", [True, False])
def test_labels_that_are_called_like_results_are_not_replaced(single: bool, tmp_path: Path) -> None:
    source, out = tmp_path / "images", tmp_path / "masks"
    for path in (
        source / "a.png",
        source / "b.png",
        out / "a_mask.png",
        out / "a_overlay.png",
        out / "b_mask.png",
    ):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    quiet = new_console(quiet=True)
    with pytest.raises(
        DataError, match=r"1 file, e\.g\. .*b_mask\.png, would be replaced .* choose another --out"
    ):
        find_images(source / "b.png" if single else source, out, console=quiet)
    (out / "b_overlay.jpg").touch()  # both are results of an earlier prediction
    assert len(find_images(source / "b.png" if single else source, out, console=quiet)) == 2 - single


def test_labels_of_frames_are_not_replaced(tmp_path: Path) -> None:
    refuse_foreign_frames(tmp_path / "drive")
    (tmp_path / "drive_masks").mkdir()
    (tmp_path / "drive_masks" / "000000.png").touch()
    with pytest.raises(
        DataError, match=r"drive_masks holds images that are no results .* choose another --out"
    ):
        refuse_foreign_frames(tmp_path / "drive")
    (tmp_path / "drive_overlay.mp4").touch()
    refuse_foreign_frames(tmp_path / "drive")
