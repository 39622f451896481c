"""A data set of the user's own: a folder of images and a folder of masks, or lists of files."""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segdistill.data.files import IMAGE_SUFFIXES, Listing, Pair, as_key, files_below
from segdistill.data.problems import Kind, Problem
from segdistill.errors import DataError, DataMissingError
from segdistill.files import read_text

SPLITS = ("train", "val", "test")
_SPLIT = "{split}"
_LIKE_A_SPLIT = re.compile(r"(train|val|valid|validate|test|dev)(ing|ation)?([-_ ]?\d*)", re.IGNORECASE)
_SHOWN = 12  # names of what lies in a folder that is not as expected


@dataclass(frozen=True)
class FolderLayout:
    """Where images and masks lie, and how they are dealt out to splits.

    Three layouts: `lists` name the files of each split; or every split has folders of its own, which are
    sub-folders `train`, `val` (and `test`) or stand where the paths say `{split}`; or neither, and each image's
    split follows from `seed` and its name.

    Attributes:
        root: all other paths are relative to it.
        images: folder of images, searched with its sub-folders.
        masks: folder of masks, with the same sub-folders; a mask bears its image's name.
        image_suffix: what image names have on top of that, before the file type, e.g. `_rgb`.
        mask_suffix: likewise for masks, e.g. `_mask`.
        lists: split -> text file, a line for each sample: the image's name without file type, or image and
            mask as paths (from `root`) with a tab or blanks between.
        shares: val and test -> share of all images (0..1) if the split is automatic.
        seed: of the automatic split.
    """

    root: Path
    images: Path
    masks: Path
    image_suffix: str
    mask_suffix: str
    lists: Mapping[str, Path]
    shares: Mapping[str, float]
    seed: int


def list_split(layout: FolderLayout, split: str) -> Listing:
    """The pairs of one split, sorted by name, and what is wrong with the others: files without partner, names, lists.

    Raises:
        DataError: a folder or list is missing or empty, or the split has nothing in it.
    """
    if layout.lists:
        listing = _from_list(layout, split)
    elif _SPLIT in str(layout.images) or (layout.root / layout.images / "train").is_dir():
        listing = _matched(layout, split)
    else:
        listing = _dealt(layout, split)
    if not listing.pairs and not listing.problems:
        raise DataError(f"the split {split} of {layout.root} is empty")
    return listing


def deal(names: Sequence[str], *, shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Name -> split. The order of names in SHA-256 of (seed, name) decides, so that it looks random and that
    a name added later moves few others. A split with a share above 0 gets at least one name.
    """
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    dealt = dict.fromkeys(ranked, "train")
    first = 0
    for split, share in shares.items():
        count = _count(share, len(ranked))
        dealt |= dict.fromkeys(ranked[first : first + count], split)
        first += count
    return dealt


def _count(share: float, total: int) -> int:
    return max(1, round(share * total)) if share else 0


def _dealt(layout: FolderLayout, split: str) -> Listing:
    """Automatic: a file without partner is dealt out as well, and told where it would have been used."""
    whole = _matched(layout, "")
    _refuse_folders_like_splits(layout)
    if split != "train" and not layout.shares.get(split):
        raise DataError(
            f"{layout.root} has no split {split}: give it a share by data.folder.{split}_share, a list by "
            f"data.folder.lists.{split}, or sub-folders {layout.images}/{split} and {layout.masks}/{split}"
        )
    splits = deal([pair.name for pair in whole.pairs], shares=layout.shares, seed=layout.seed)
    if whole.pairs and "train" not in splits.values():
        raise DataError(
            f"{layout.root} has {len(whole.pairs)} labelled images, {_none_left(layout, len(whole.pairs))}"
        )
    # Files without partner belong to no split; they are told once.
    problems = whole.problems if split == "train" else ()
    pairs = tuple(pair for pair in whole.pairs if splits[pair.name] == split)
    note = f"{len(pairs)} of {len(whole.pairs)} images, chosen by their names and data.folder.split_seed={layout.seed}"
    return Listing(pairs, problems, note)


def _refuse_folders_like_splits(layout: FolderLayout) -> None:
    """Raises DataError if images that are to be dealt out lie in folders of splits, `train` not being one of them."""
    folder = layout.root / layout.images
    alike = [name for name in _folders_in(folder) if _LIKE_A_SPLIT.fullmatch(name)]
    found = f"{folder} has the sub-folders {', '.join(alike)}"
    if not alike:
        return
    if set(alike) <= set(SPLITS):
        raise DataError(
            f"{found}, but no train: put the images to train on into {folder / 'train'} and their masks into "
            f"{layout.root / layout.masks / 'train'}, or say what belongs to each split by data.folder.lists"
        )
    raise DataError(
        f"{found}, which look like splits; but splits are called train, val and test here, and as they are, their "
        "images would be dealt out anew. Rename them (masks too; a link will do), or say what belongs to each split by "
        "data.folder.lists"
    )


def _none_left(layout: FolderLayout, total: int) -> str:
    """Why none of so many images is left to train on."""
    shares = {split: share for split, share in layout.shares.items() if share}
    if total <= len(shares):
        return f"too few for {' and '.join(shares)} to get one each and train the rest"
    made = [
        f"data.folder.{split}_share={share:g} makes {_count(share, total)} of them {split}"
        for split, share in shares.items()
    ]
    them = "these shares" if len(made) > 1 else "it"
    return f"and {' and '.join(made)}, which leaves none to train on: lower {them}"


@dataclass(frozen=True)
class _Side:
    """The images of a folder, or its masks.

    Attributes:
        what: `image` or `mask`.
        folder: where they lie.
        suffix: of their names.
        files: name -> its files; one, if all is well.
    """

    what: str
    folder: Path
    suffix: str
    files: Mapping[str, list[Path]]

    @classmethod
    def of(cls, what: str, folder: Path, suffix: str, *, other: tuple[Path, str]) -> "_Side":
        """`other`: folder and suffix of the other side, whose files do not count here."""
        beside, foreign = other
        files = _by_name(
            folder,
            suffix,
            foreign=foreign if beside == folder else "",
            without=beside if folder in beside.parents else None,
        )
        if not files:
            raise DataError(
                f"{folder}: has no {what} ({' '.join(IMAGE_SUFFIXES)}) named *{suffix}.*. {_nearest(folder)}"
            )
        return cls(what, folder, suffix, files)

    def without(self, other: "_Side") -> list[Problem]:
        """One for each file that has no partner there."""
        return [
            Problem(Kind.LONELY, f"{path}: has no {other.what} {other.folder / name}{other.suffix}.*")
            for name in self.files.keys() - other.files.keys()
            for path in self.files[name]
        ]

    def twins(self) -> list[Problem]:
        """One for each name of several files."""
        return [
            Problem(Kind.TWINS, " and ".join(map(str, paths)))
            for paths in self.files.values()
            if len(paths) > 1
        ]


def _tell_of_a_suffix(images: _Side, masks: _Side) -> None:
    """Raises DataError if no image has a mask, but all would if an ending of the names were known."""
    for longer, shorter in ((masks, images), (images, masks)):
        first = next(iter(longer.files))
        endings = (first.removeprefix(name) for name in shorter.files if first.startswith(name))
        for ending in endings:
            if all(
                name.endswith(ending) and name.removesuffix(ending) in shorter.files for name in longer.files
            ):
                raise DataError(
                    f"the {longer.what}s in {longer.folder} are named like the {shorter.what}s in {shorter.folder} "
                    f"with {ending!r} at their end: say so by data.folder.{longer.what}_suffix={ending}{longer.suffix}"
                )


def _matched(layout: FolderLayout, split: str) -> Listing:
    """Images and masks of equal names, in the folders of a split; "" for undivided ones."""
    image_folder, mask_folder = (
        layout.root / (str(path).replace(_SPLIT, split) if _SPLIT in str(path) else path / split)
        for path in (layout.images, layout.masks)
    )
    for what, folder in (("images", image_folder), ("masks", mask_folder)):
        if not folder.is_dir():
            raise DataMissingError(
                f"{folder}: no such folder; the {what} should be there by data.root and data.folder.{what}. "
                f"{_nearest(folder)}"
            )
    if image_folder == mask_folder and layout.image_suffix == layout.mask_suffix:
        raise DataError(
            f"{image_folder} is both the folder of images and that of masks (data.folder.images, data.folder.masks), "
            "and nothing in their names tells them apart: give one of the two a suffix by data.folder.mask_suffix or "
            "data.folder.image_suffix, or name both files on each line of data.folder.lists"
        )
    images = _Side.of("image", image_folder, layout.image_suffix, other=(mask_folder, layout.mask_suffix))
    masks = _Side.of("mask", mask_folder, layout.mask_suffix, other=(image_folder, layout.image_suffix))
    if not images.files.keys() & masks.files.keys():
        _tell_of_a_suffix(images, masks)
    problems = [*images.without(masks), *masks.without(images), *images.twins(), *masks.twins()]
    shared = sorted(images.files.keys() & masks.files.keys())
    pairs = [Pair(name, images.files[name][0], masks.files[name][0]) for name in shared]
    undivided = layout.root / layout.images
    beside = len(_images_in(undivided)) if split == "train" and _SPLIT not in str(layout.images) else 0
    note = f"{beside} images lie in {undivided} itself, in no split, and are not used" if beside else ""
    return Listing(tuple(pairs), tuple(sorted(problems, key=lambda problem: problem.line)), note)


def _folders_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _images_in(folder: Path) -> list[Path]:
    """Not those of its sub-folders."""
    return [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]


def _by_name(
    folder: Path, suffix: str, *, foreign: str = "", without: Path | None = None
) -> dict[str, list[Path]]:
    """`sub/folder/name` without `suffix` and file type -> its files; `foreign`: an ending to leave out; `without`: a
    folder below this one to leave out."""
    found: dict[str, list[Path]] = {}
    files = files_below(folder)
    garbled = [
        str(path).encode("utf-8", "backslashreplace").decode() for path in files if not _is_text(str(path))
    ]
    if garbled:
        raise DataError(
            f"{len(garbled)} files below {folder} have names that are not UTF-8 text, e.g. {garbled[0]}; rename them "
            "(archives of older systems leave such names)"
        )
    for path in files:
        place = path.relative_to(folder)
        if without in path.parents or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if not path.stem.endswith(suffix) or (foreign and path.stem.endswith(foreign)):
            continue
        name = place.with_name(path.stem.removesuffix(suffix)) if path.stem != suffix else place
        found.setdefault(as_key(name.as_posix()), []).append(path)
    return found


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class _Entry:
    """What a line of a list names.

    Attributes:
        where: the list, and the number of the line.
        pair: whose files are there; None if they are not, or if the line cannot be read.
        problems: of this line by itself.
    """

    where: str
    pair: Pair | None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class _Index:
    """What lists may name: the files below the folders of images and of masks, by name."""

    layout: FolderLayout
    images: Mapping[str, list[Path]]
    masks: Mapping[str, list[Path]]

    @classmethod
    def of(cls, layout: FolderLayout) -> "_Index":
        """A folder need not be there: lists may name paths of others."""
        sides = (
            (layout.root / layout.images, layout.image_suffix),
            (layout.root / layout.masks, layout.mask_suffix),
        )
        images, masks = (_by_name(folder, suffix) if folder.is_dir() else {} for folder, suffix in sides)
        return cls(layout, images, masks)

    def candidates(self, text: str) -> tuple[str, list[Path], list[Path]] | None:
        """The name of a line's sample, the images and the masks it may mean, there or not; None if it means nothing."""
        root = self.layout.root
        words = [word.strip() for word in (text.split("\t") if "\t" in text else text.split())]
        name = _plain(text, self.layout.image_suffix)
        if name in self.images or len(words) == 1:  # a name may hold blanks
            found = self.images.get(name, [root / self.layout.images / text])
            exact = [file for file in found if file.name == PurePosixPath(text).name]
            none = root / self.layout.masks / f"{name}{self.layout.mask_suffix}.*"
            return name, exact or found, self.masks.get(name, [none])
        if len(words) == 2:
            image, mask = words
            return _name_below(root, image), [root / image], [root / mask]
        return None

    def entry(self, where: str, text: str) -> _Entry:
        """What a line means; the first of several candidates, which is told."""
        hint = "; write / instead of \\" if "\\" in text else ""
        found = self.candidates(text)
        if found is None:
            line = f"{where}: {text!r} is neither a name nor image and mask; put a tab between paths that hold blanks"
            return _Entry(where, None, (Problem(Kind.LIST, line + hint),))
        name, images, masks = found
        problems = [
            Problem(Kind.TWINS, f"{where}: {what} may be {' or '.join(map(str, files))}")
            for what, files in ((text, images), (f"the mask of {text}", masks))
            if len(files) > 1
        ]
        # Path.is_file fails on what is too long for a name.
        missing = [str(path) for path in (images[0], masks[0]) if not os.path.isfile(path)]
        if missing:
            are = "are" if len(missing) > 1 else "is"
            problems.append(Problem(Kind.LIST, f"{where}: {' and '.join(missing)} {are} not there{hint}"))
        pair = None if missing else Pair(name, images[0], masks[0])
        return _Entry(where, pair, tuple(problems))


def _from_list(layout: FolderLayout, split: str) -> Listing:
    if split not in layout.lists:
        raise DataError(f"the data set has no split {split}: name its list by data.folder.lists.{split}")
    if not layout.root.is_dir():
        raise DataMissingError(f"{layout.root}: no such folder (data.root). {_nearest(layout.root)}")
    index = _Index.of(layout)
    entries = _entries(index, split)
    if not entries:
        raise DataError(
            f"{layout.root / layout.lists[split]}: the list of {split} is empty, no line names an image"
        )
    trained = _entries(index, "train") if split != "train" and "train" in layout.lists else []
    problems = [problem for entry in entries for problem in entry.problems] + _again(entries, trained)
    pairs = [entry.pair for entry in entries if entry.pair is not None]
    return Listing(tuple(sorted(pairs, key=lambda pair: pair.name)), tuple(problems))


def _entries(index: _Index, split: str) -> list[_Entry]:
    """Of all lines of a list but for empty ones and comments.

    Raises:
        DataError: the list cannot be read.
    """
    path = index.layout.root / index.layout.lists[split]
    try:
        content = read_text(path)
    except OSError as error:
        raise DataError(f"{path}: the list of {split} cannot be read: {error.strerror}") from None
    except UnicodeError as error:
        raise DataError(f"{path}: the list of {split} is {error}") from None
    lines = ((number, line.strip()) for number, line in enumerate(content.splitlines(), 1))
    return [
        index.entry(f"{path}, line {number}", text)
        for number, text in lines
        if text and not text.startswith("#")
    ]


def _again(entries: Sequence[_Entry], trained: Sequence[_Entry]) -> list[Problem]:
    """Images that come a second time, by whatever path: in their list, or in that of the training."""
    problems = []
    used: dict[str, str] = {}
    for entry in trained:
        if entry.pair is not None:
            used.setdefault(os.path.realpath(entry.pair.image), f"trained on ({entry.where})")
    for entry in entries:
        if entry.pair is None:
            continue
        if before := used.get(real := os.path.realpath(entry.pair.image)):
            problems.append(Problem(Kind.AGAIN, f"{entry.where}: {entry.pair.image} is also {before}"))
        used.setdefault(real, f"named in {entry.where}")
    return problems


def _name_below(root: Path, image: str) -> str:
    """An image's path without file type; from `root`, if it lies below, however it is spelled."""
    path = PurePosixPath(image)
    for resolved in (os.path.abspath, os.path.realpath):
        place, above = Path(resolved(root / image)), resolved(root)
        if place.is_relative_to(above):
            path = PurePosixPath(place.relative_to(above))
            break
    return os.path.splitext(path)[0]


def _plain(name: str, suffix: str) -> str:
    """A sample's name as a list may give it: with or without file type and suffix."""
    place = PurePosixPath(name)
    if place.suffix.lower() in IMAGE_SUFFIXES:
        place = place.with_suffix("")
    return as_key(place.as_posix()).removesuffix(suffix)


def _nearest(folder: Path) -> str:
    """What lies in the folder, or in the nearest one above it that exists."""
    while not folder.is_dir():
        folder = folder.parent
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" ... and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{folder.resolve()} holds {', '.join(names[:_SHOWN]) or 'nothing'}{more}"
