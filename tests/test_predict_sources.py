"""Which images of a folder are segmented, what their results are called, and what is left out."""

from pathlib import Path

import pytest

from segdistill.commands.predict_sources import find_images
from segdistill.console import new_console


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
