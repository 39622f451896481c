"""Predicted masks that lie in a folder, matched to the images of a split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch

from segdistill.data.files import as_key, files_below, read_mask
from segdistill.data.samples import LabelledImage, Samples, names_of
from segdistill.errors import DataError, EvaluationError
from segdistill.evaluation.evaluator import Labelling
from segdistill.evaluation.label_ids import frame_of, from_label_ids, is_cityscapes

STORED = "masks"  # the name of their only stream
_SUFFIX = "_mask"  # of what `predict` writes


@dataclass(frozen=True)
class MaskFolder:
    """
    Attributes:
        files: of each image of the split, in its order.
        num_classes: class indexes are below it.
        label_ids: whether the files hold Cityscapes' label ids instead of class indexes.
        unscored: number of files of images of other splits.
    """

    files: tuple[Path, ...]
    num_classes: int
    label_ids: bool
    unscored: int

    @classmethod
    def matching(
        cls,
        folder: Path,
        samples: Samples,
        *,
        split: str,
        label_ids: bool,
        image_suffix: str = "",
        elsewhere: Mapping[str, Sequence[str]] | None = None,
    ) -> "MaskFolder":
        """Find the mask of every image, see `KnownImages`.

        Args:
            folder: of the masks, and of its sub-folders.
            samples: the images that are scored.
            split: that they are of.
            label_ids: whether masks hold Cityscapes' label ids.
            image_suffix: of the image files, which is no part of the samples' names.
            elsewhere: split -> names of its images, of the other splits; their masks may be there, too.

        Raises:
            DataError: listing all images without a mask, all masks without an image, and all masks of one image.
            EvaluationError: if label ids are asked for that are not Cityscapes'.
        """
        cityscapes = is_cityscapes(samples.taxonomy)
        if label_ids and not cityscapes:
            raise EvaluationError(
                "--label-ids are Cityscapes' numbers of its classes; these data have others"
            )
        if not folder.is_dir():
            raise DataError(f"--masks {folder}: no such folder")
        names = names_of(samples)
        images = KnownImages.of(
            {split: names, **(elsewhere or {})}, image_suffix=image_suffix, by_frame=cityscapes
        )
        found = _Found.below(folder, images, names, split=split)
        if problems := found.problems(images):
            head = f"--masks {folder}: the split's {len(names)} images need one PNG each, and none may be unknown:"
            raise DataError("\n  ".join([head, *problems]))
        files = tuple(found.masks[name][0] for name in names)
        return cls(files, samples.taxonomy.num_classes, label_ids, found.unscored)

    def label(self, index: int, sample: LabelledImage) -> Mapping[str, Labelling]:
        """Raises DataError if the file is damaged, of another size than the label, or holds no class."""
        path = self.files[index]
        stored = read_mask(path)
        if stored.shape != sample.mask.shape:
            raise DataError(
                f"{path}: {_size(stored.shape)} pixels, but its label has {_size(sample.mask.shape)}"
            )
        classes = from_label_ids(stored) if self.label_ids else stored
        if classes.max() >= self.num_classes:
            strange = sorted(set(stored[classes >= self.num_classes].tolist()))
            what = "ids of the 19 classes" if self.label_ids else f"class indexes 0 to {self.num_classes - 1}"
            raise DataError(f"{path}: holds {', '.join(map(str, strange))}, but only {what} can be scored")
        return {STORED: Labelling(torch.from_numpy(classes), None)}


@dataclass
class _Found:
    """The PNG files of a folder, by what they are masks of.

    Attributes:
        masks: of each image of the split that is scored; one if all is well.
        strange: what is wrong with files that are of no image, or of several.
        unscored: number of files of images of other splits.
    """

    masks: dict[str, list[Path]]
    strange: list[str] = field(default_factory=list)
    unscored: int = 0

    @classmethod
    def below(cls, folder: Path, images: "KnownImages", names: Sequence[str], *, split: str) -> "_Found":
        found = cls({name: [] for name in names})
        for path in files_below(folder):
            if path.suffix.lower() == ".png":
                found.add(path, images.nearest(path.relative_to(folder)), split=split)
        return found

    def add(self, path: Path, nearest: Sequence["KnownImage"], *, split: str) -> None:
        """Sort in a file that may be the mask of some images."""
        match [image.name for image in nearest if image.split == split]:
            case [name]:
                self.masks[name].append(path)
            case []:
                self.unscored += bool(nearest)
                self.strange += [] if nearest else [f"{path}: the data have no such image"]
            case several:
                self.strange.append(f"{path}: may be the mask of {' or '.join(several)}")

    def problems(self, images: "KnownImages") -> list[str]:
        """One line for every image without a mask, every file without an image, and all masks of one image."""
        lacking = [
            f"{name}: no mask {images.wanted(name)}.png or {images.wanted(name)}{_SUFFIX}.png"
            for name, paths in self.masks.items()
            if not paths
        ]
        doubled = [
            f"{' and '.join(map(str, paths))}: masks of the same image"
            for paths in self.masks.values()
            if len(paths) > 1
        ]
        return [*lacking, *self.strange, *doubled]


class KnownImage(NamedTuple):
    split: str
    name: str  # in its split
    folders: tuple[str, ...]  # of the split and of the name, the outermost first


@dataclass(frozen=True)
class KnownImages:
    """All images of a data set, each to be found by the place of its mask.

    A mask bears its image's name, or that with `_mask` at its end, as `predict` writes it. Where images of several
    folders or splits have the same name, the mask is of those with which it has the most folders in common, counted
    from the innermost: `train/a/0001_mask.png` is no mask of `val/a/0001`.

    Attributes:
        by_name: last part of a name -> the images it may mean.
        image_suffix: what a mask's name may hold on top of its image's.
        by_frame: whether city, sequence and frame are all that counts of a name (Cityscapes).
    """

    by_name: Mapping[str, Sequence[KnownImage]]
    image_suffix: str
    by_frame: bool

    @classmethod
    def of(cls, splits: Mapping[str, Sequence[str]], *, image_suffix: str, by_frame: bool) -> "KnownImages":
        """`splits`: split -> names of its images."""
        found: dict[str, list[KnownImage]] = {}
        images = cls(found, image_suffix, by_frame)
        for split, names in splits.items():
            for name in names:
                place = PurePosixPath(images.wanted(name))
                found.setdefault(place.name, []).append(KnownImage(split, name, (split, *place.parent.parts)))
        return images

    def wanted(self, name: str) -> str:
        """What the mask of an image should be called, but for its ending; a mask's own name without it may be asked
        for, too."""
        frame = frame_of(PurePosixPath(name).name) if self.by_frame else None
        return frame or as_key(name)

    def nearest(self, place: Path) -> list[KnownImage]:
        """The images that a mask at a place may be of; several if nothing tells them apart."""
        path = PurePosixPath(as_key(place.as_posix()))
        named = self.wanted(path.stem)
        bare = named.removesuffix(_SUFFIX)
        # As `predict` writes it first: an image may itself be called x_mask.
        forms = (bare, bare.removesuffix(self.image_suffix), named)
        images = next((self.by_name[form] for form in forms if form in self.by_name), ())
        shared = [_shared_folders(image.folders, path.parent.parts) for image in images]
        return [image for image, count in zip(images, shared, strict=True) if count == max(shared)]


def _shared_folders(one: Sequence[str], other: Sequence[str]) -> int:
    """How many are the same, counted from the innermost."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"
