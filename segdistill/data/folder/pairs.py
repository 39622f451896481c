"""Images and masks of equal names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segdistill.data.files import IMAGE_SUFFIXES, Listing, Pair
from segdistill.data.folder.layout import SPLIT_PLACE, FolderLayout
from segdistill.data.folder.names import by_name, nearest
from segdistill.data.problems import Kind, Problem
from segdistill.errors import DataError, DataMissingError


def matched(layout: FolderLayout, split: str) -> Listing:
    """Images and masks of equal names, in the folders of a split; "" for undivided ones.

    Raises:
        DataError: a folder is missing, has no image or mask, or nothing tells the two apart.
    """
    image_folder, mask_folder = (
        layout.root / (str(path).replace(SPLIT_PLACE, split) if SPLIT_PLACE in str(path) else path / split)
        for path in (layout.images, layout.masks)
    )
    for what, folder in (("images", image_folder), ("masks", mask_folder)):
        if not folder.is_dir():
            raise DataMissingError(
                f"{folder}: no such folder; the {what} should be there by data.root and data.folder.{what}. "
                f"{nearest(folder)}"
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
    beside = len(_images_in(undivided)) if split == "train" and SPLIT_PLACE not in str(layout.images) else 0
    note = f"{beside} images lie in {undivided} itself, in no split, and are not used" if beside else ""
    return Listing(tuple(pairs), tuple(sorted(problems, key=lambda problem: problem.line)), note)


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
        """The files of one side; `other` is the other side's folder and suffix, whose files do not count here."""
        beside, foreign = other
        files = by_name(
            folder,
            suffix,
            foreign=foreign if beside == folder else "",
            without=beside if folder in beside.parents else None,
        )
        if not files:
            raise DataError(
                f"{folder}: has no {what} ({' '.join(IMAGE_SUFFIXES)}) named *{suffix}.*. {nearest(folder)}"
            )
        return cls(what, folder, suffix, files)

    def without(self, other: "_Side") -> list[Problem]:
        """One problem for each file that has no partner there."""
        return [
            Problem(Kind.LONELY, f"{path}: has no {other.what} {other.folder / name}{other.suffix}.*")
            for name in self.files.keys() - other.files.keys()
            for path in self.files[name]
        ]

    def twins(self) -> list[Problem]:
        """One problem for each name that several files have."""
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


def _images_in(folder: Path) -> list[Path]:
    """The images in a folder, without those of its sub-folders."""
    return [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
