"""Splits of which a text file each names the samples."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segdistill.data.files import IMAGE_SUFFIXES, Listing, Pair, as_key
from segdistill.data.folder.layout import SPLITS, FolderLayout
from segdistill.data.folder.names import by_name, nearest
from segdistill.data.problems import Kind, Problem
from segdistill.errors import DataError, DataMissingError
from segdistill.files import read_text


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
        images, masks = (by_name(folder, suffix) if folder.is_dir() else {} for folder, suffix in sides)
        return cls(layout, images, masks)

    def has(self, text: str) -> bool:
        """Whether an image has this name."""
        return self.name(text) in self.images

    def name(self, text: str) -> str:
        """The name that a line may mean: as it stands if there is such an image (a photo.jpg that was converted is
        called photo.jpg.png), else without file type and suffix."""
        whole = as_key(text)
        return whole if whole in self.images else _plain(text, self.layout.image_suffix)

    def candidates(self, text: str) -> tuple[str, list[Path], list[Path]] | None:
        """The name of a line's sample, the images and the masks it may mean, there or not; None if it means nothing."""
        root = self.layout.root
        words = [word.strip() for word in (text.split("\t") if "\t" in text else text.split())]
        name = self.name(text)
        if name in self.images or len(words) == 1:  # a name may hold blanks
            found = self.images.get(name, [root / self.layout.images / text])
            exact = [file for file in found if file.name == PurePosixPath(text).name]
            plain = _plain(text, self.layout.image_suffix)
            others = self.images.get(plain, []) if plain != name else []
            twins = [file for file in others if file.name == PurePosixPath(text).name]
            none = root / self.layout.masks / f"{name}{self.layout.mask_suffix}.*"
            return name, [*twins, *(exact or found)], self.masks.get(name, [none])
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


def listed(layout: FolderLayout, split: str) -> Listing:
    """The pairs that the list of a split names.

    Raises:
        DataError: the list is missing, cannot be read, or is empty.
    """
    if split not in layout.lists:
        other = "val" if "val" in layout.lists else next(iter(layout.lists))
        raise DataError(
            f"the data set has no split {split}: name its list by data.folder.lists.{split} before the training. A "
            f"trained network scores other images by --split {other} data.root=DIR, if {layout.lists[other]} there "
            "names them"
        )
    if not layout.root.is_dir():
        raise DataMissingError(f"{layout.root}: no such folder (data.root). {nearest(layout.root)}")
    index = _Index.of(layout)
    entries = _entries(index, split)
    if not entries:
        raise DataError(
            f"{layout.root / layout.lists[split]}: the list of {split} is empty, no line names an image"
        )
    earlier = {
        use: _entries(index, one)
        for one, use in (("train", "trained on"), ("val", "in the list of val"))
        if SPLITS.index(one) < SPLITS.index(split) and _is_another(layout, one, split)
    }
    problems = [problem for entry in entries for problem in entry.problems] + _again(entries, earlier)
    pairs = [entry.pair for entry in entries if entry.pair is not None]
    return Listing(tuple(sorted(pairs, key=lambda pair: pair.name)), tuple(problems))


def _is_another(layout: FolderLayout, one: str, split: str) -> bool:
    """Whether there is a list of `one`: who only scores may have none of train, and test may be val on purpose."""
    path = layout.root / layout.lists.get(one, "")
    return path.is_file() and (one == "train" or not path.samefile(layout.root / layout.lists[split]))


def _entries(index: _Index, split: str) -> list[_Entry]:
    """The entries of a list: all its lines but empty ones and comments. An image may have a name that looks like a
    comment.

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
        if text and (not text.startswith("#") or index.has(text))
    ]


def _again(entries: Sequence[_Entry], earlier: Mapping[str, Sequence[_Entry]]) -> list[Problem]:
    """Images that come a second time, by whatever path: in their list, or in one of `earlier`, where what is to be said
    of its images leads to its lines."""
    problems = []
    used: dict[str, str] = {}
    for use, others in earlier.items():
        for entry in others:
            if entry.pair is not None:
                used.setdefault(os.path.realpath(entry.pair.image), f"{use} ({entry.where})")
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
