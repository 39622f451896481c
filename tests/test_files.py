"""Atomic writing: the old file or the new one, never a part, never a leftover."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import full_disk
import pytest
import torch

import segdistill
from segdistill.errors import PathError
from segdistill.files import (
    expanded,
    json_rows,
    make_room,
    refuse_unwritable,
    room_for,
    write_atomically,
    write_json,
    write_json_rows,
    write_text,
)
from segdistill.training.checkpoint import save_checkpoint


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_home_folder_is_found_or_its_absence_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded(Path("~/data")) == Path("/home/me/data")
    assert expanded(Path("a/~x")) == Path("a/~x")
    with pytest.raises(PathError, match=r"~nosuchuser/data: this machine knows no .* write the whole path"):
        expanded(Path("~nosuchuser/data"))


def test_no_path_is_expanded_otherwise() -> None:
    """pathlib's own expansion ends in a RuntimeError where there is no such user."""
    package = Path(segdistill.__file__).parent
    users = [path.name for path in package.rglob("*.py") if "expanduser(" in path.read_text(encoding="utf-8")]
    assert users == ["files.py"]


def test_writes_and_makes_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.bin"
    write_atomically(path, lambda temporary: temporary.write_bytes(b"new") and None)
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["c.bin"]


def test_the_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    path.write_bytes(b"old")

    def write(temporary: Path) -> None:
        assert temporary.parent == path.parent  # the same file system, so that replacing is atomic
        assert temporary.suffix == ".pt"
        temporary.write_bytes(b"half")
        assert path.read_bytes() == b"old"
        temporary.write_bytes(b"whole")

    write_atomically(path, write)
    assert path.read_bytes() == b"whole"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "c.pt"
    path.write_bytes(b"old")

    def write(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise error

    with pytest.raises(error):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["c.pt"]


def test_a_failure_before_there_was_a_file(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        temporary.unlink()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "c.pt", write)
    assert os.listdir(tmp_path) == []


def test_the_mode_follows_the_umask(tmp_path: Path, umask: int) -> None:
    write_text(tmp_path / "a.txt", "a")
    (tmp_path / "plain.txt").write_text("a")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"a.txt": 0o666 & ~umask, "plain.txt": 0o666 & ~umask}
    assert os.umask(umask) == umask  # and the process's own is what it was


def test_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "é")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9"
    write_text(tmp_path / "a.txt", "")
    assert (tmp_path / "a.txt").read_bytes() == b""


def test_json(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": "é"}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    assert text.endswith("}\n")
    assert json.loads(text) == value
    assert list(json.loads(text)) == ["b", "a"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_has_no_nan(tmp_path: Path, number: float) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": [number]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def test_a_checkpoint_for_which_there_is_no_room_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(b"old")
    weights = {"weight": torch.zeros(10_000)}
    with full_disk.files_of_at_most(1000), pytest.raises(OSError, match=r"last\.pt cannot be written"):
        save_checkpoint(path, state=weights, config="", versions={})
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["last.pt"]


def test_a_folder_is_made_only_for_a_file_that_comes_to_be(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "a.onnx"

    def fail() -> None:
        with room_for(path):
            assert path.parent.is_dir()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not (tmp_path / "new").exists()
    with room_for(path):
        path.touch()
    with pytest.raises(KeyError):
        fail()
    assert path.is_file(), "what was there before stays"


@pytest.mark.parametrize("there", [True, False])
def test_of_asking_whether_a_folder_can_be_written_nothing_is_left(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "new" / "deep"
    if there:
        folder.mkdir(parents=True)
    refuse_unwritable(folder, said="out=DIR")
    assert [path.name for path in tmp_path.rglob("*")] == (["new", "deep"] if there else [])


@pytest.mark.parametrize("place", ["file", "file/deep", "new/" + 300 * "x"])
def test_a_folder_that_cannot_be_is_refused_by_the_name_its_user_gave_it(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PathError, match=r"^--out a\.onnx cannot be written: .*; name a folder that you may"):
        refuse_unwritable(tmp_path / place, said="--out a.onnx")
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


@pytest.mark.parametrize("place", ["file/a.json", 251 * "x" + ".json"])
def test_a_file_that_cannot_be_is_refused_by_the_option_that_names_it(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        PathError, match=r"^--out .*\.json cannot be written: .*; name a file in a folder that you"
    ):
        make_room(tmp_path / place, option="--out")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder beside which root cannot write")
def test_a_folder_in_place_of_a_file_is_told_with_a_name_that_would_do() -> None:
    with pytest.raises(
        PathError, match=r"is a folder; name a JSON file in it, e\.g\. /proc/self/scores\.json"
    ):
        make_room(Path("/proc/self"), option="--out")


@pytest.mark.parametrize("name", ["a.json", 250 * "x" + ".json"])
def test_the_folder_of_a_file_is_made_and_stays(tmp_path: Path, name: str) -> None:
    make_room(tmp_path / "new" / name, option="--out")
    assert [path.name for path in tmp_path.rglob("*")] == ["new"]
    write_json(tmp_path / "new" / name, {})


def test_a_line_that_is_still_being_written_or_damaged_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\n\0\0\n[]\n{"ep\xff\n{"epoch": 2, "loss": 0.1}\n{"epo')
    rows = json_rows(path)
    assert rows == [{"epoch": 1}, {"epoch": 2, "loss": 0.1}]
    write_json_rows(path, rows)
    assert path.read_text() == '{"epoch": 1}\n{"epoch": 2, "loss": 0.1}\n'
    write_json_rows(path, [])
    assert json_rows(path) == []
