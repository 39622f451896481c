"""A data set of the user's own: a folder of images and a folder of masks, or lists of files."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segdistill.data.files import IMAGE_SUFFIXES, Listing, Pair, as_key, files_below
from segdistill.data.problems import Kind, Problem
from segdistill.errors import DataError, DataMissingError

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
        count = max(1, round(share * len(ranked))) if share else 0
        dealt |= dict.fromkeys(ranked[first : first + count], split)
        first += count
    return dealt


def _dealt(layout: FolderLayout, split: str) -> Listing:
    """Automatic: a file without partner is dealt out as well, and told where it would have been used."""
    whole = _matched(layout, "")
    if split != "train" and not layout.shares.get(split):
        raise DataError(
            f"{layout.root} has no split {split}: give it a share by data.folder.{split}_share, a list by "
            f"data.folder.lists.{split}, or sub-folders {layout.images}/{split} and {layout.masks}/{split}"
        )
    alike = [name for name in _folders_in(layout.root / layout.images) if _LIKE_A_SPLIT.fullmatch(name)]
    if alike:
        raise DataError(
            f"{layout.root / layout.images} has the sub-folders {', '.join(alike)}, which look like splits; but splits "
            "are called train, val and test here, and as they are, their images would be dealt out anew. Rename them "
            "(masks too; a link will do), or say what belongs to each split by data.folder.lists"
        )
    splits = deal([pair.name for pair in whole.pairs], shares=layout.shares, seed=layout.seed)
    if whole.pairs and "train" not in splits.values():
        raise DataError(
            f"{layout.root} has {len(whole.pairs)} labelled images, too few for "
            f"{' and '.join(name for name, share in layout.shares.items() if share)} to get one each and train the rest"
        )
    # Files without partner belong to no split; they are told once.
    problems = whole.problems if split == "train" else ()
    pairs = tuple(pair for pair in whole.pairs if splits[pair.name] == split)
    note = f"{len(pairs)} of {len(whole.pairs)} images, chosen by their names and data.folder.split_seed={layout.seed}"
    return Listing(pairs, problems, note)


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


def _from_list(layout: FolderLayout, split: str) -> Listing:
    if split not in layout.lists:
        raise DataError(f"the data set has no split {split}: name its list by data.folder.lists.{split}")
    listed, problems = _listed(layout, split)
    times = Counter(pair.image for pair in listed)
    problems += [f"{layout.lists[split]}: {image} is named {n} times" for image, n in times.items() if n > 1]
    for pair in listed:
        missing = [path for path in (pair.image, pair.mask) if not path.is_file()]
        problems += [f"{layout.lists[split]}: {path} is not there" for path in missing]
    if split != "train" and "train" in layout.lists:
        trained = {pair.image for pair in _listed(layout, "train")[0]}
        problems += [
            f"{layout.lists[split]}: {image} is also trained on ({layout.lists['train']})"
            for image in times
            if image in trained
        ]
    pairs = [pair for pair in listed if pair.image.is_file() and pair.mask.is_file()]
    return Listing(
        tuple(sorted(pairs, key=lambda pair: pair.name)), tuple(Problem(Kind.LIST, line) for line in problems)
    )


def _listed(layout: FolderLayout, split: str) -> tuple[list[Pair], list[str]]:
    """The pairs a list names, there or not, and lines that cannot be read."""
    path = layout.root / layout.lists[split]
    if not layout.root.is_dir():
        raise DataMissingError(f"{layout.root}: no such folder (data.root). {_nearest(layout.root)}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the list of {split} cannot be read as text: {error}") from None
    pairs, problems = [], []
    images = _by_name(layout.root / layout.images, layout.image_suffix)
    masks = _by_name(layout.root / layout.masks, layout.mask_suffix)
    for number, line in enumerate(lines, 1):
        name = line.strip()
        words = [word.strip() for word in (line.split("\t") if "\t" in line else line.split())]
        plain = _plain(name, layout.image_suffix)
        if not name or name.startswith("#"):
            continue
        if plain in images or len(words) == 1:  # a name may hold blanks
            found = images.get(plain, [layout.root / layout.images / name])
            exact = [file for file in found if file.name == PurePosixPath(name).name] or found
            if len(exact) > 1:
                problems.append(f"{path}, line {number}: {name} may be {' or '.join(map(str, exact))}")
            mask = masks.get(plain, [layout.root / layout.masks / f"{plain}{layout.mask_suffix}.*"])
            if len(mask) > 1:
                problems.append(
                    f"{path}, line {number}: the mask of {name} may be {' or '.join(map(str, mask))}"
                )
            pairs.append(Pair(plain, exact[0], mask[0]))
        elif len(words) == 2:
            image, mask_file = words
            plain = PurePosixPath(image).with_suffix("").as_posix()
            pairs.append(Pair(plain, layout.root / image, layout.root / mask_file))
        else:
            problems.append(
                f"{path}, line {number}: {name!r} is neither a name nor image and mask; "
                "put a tab between paths that hold blanks"
            )
    return pairs, problems


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
