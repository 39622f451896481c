"""Predicted masks that lie in a folder, matched to the images of a split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from segdistill.data.files import as_key, files_below, read_mask
from segdistill.data.samples import LabelledImage, Samples
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
        label_ids: bool,
        image_suffix: str = "",
        elsewhere: Sequence[str] = (),
    ) -> "MaskFolder":
        """Find the mask of every image: `<image>.png` or `<image>_mask.png`, anywhere below the folder; of
        Cityscapes any PNG whose name begins with the image's city, sequence and frame. Of images that all end in
        `image_suffix`, which is no part of the samples' names, with or without it. `elsewhere` are the names of images
        of other splits, whose masks may be there, too.

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
        names = [samples.name(index) for index in range(len(samples))]
        flat = [_key(Path(name), cityscapes=cityscapes) for name in names]
        nested = len(set(flat)) < len(flat)  # so only the folders tell some images apart

        def key_of(place: Path) -> str:
            return _nested_key(place) if nested else _key(place, cityscapes=cityscapes)

        keys = [key_of(Path(name)) for name in names]
        wanted = set(keys)
        known = wanted.union(key_of(Path(name)) for name in elsewhere)
        found: dict[str, list[Path]] = {}
        for path in (one for one in files_below(folder) if one.suffix.lower() == ".png"):
            place = path.relative_to(folder)
            key = key_of(place)
            key = key if key in known else key.removesuffix(image_suffix)
            found.setdefault(key, []).append(path)
        problems = [
            f"{name}: no mask {key}.png or {key}{_SUFFIX}.png"
            for name, key in zip(names, keys, strict=True)
            if key not in found
        ]
        for key, paths in sorted(found.items()):
            if key not in known:
                problems += [f"{path}: the data have no such image" for path in paths]
            elif key in wanted and len(paths) > 1:
                problems.append(f"{' and '.join(map(str, paths))}: masks of the same image")
        if problems:
            head = f"--masks {folder}: the split's {len(names)} images need one PNG each, and none may be unknown:"
            raise DataError("\n  ".join([head, *problems]))
        files = tuple(found[key][0] for key in keys)
        unscored = sum(len(paths) for key, paths in found.items() if key not in wanted)
        return cls(files, samples.taxonomy.num_classes, label_ids, unscored)

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


def _key(place: Path, *, cityscapes: bool) -> str:
    """By which an image and its mask find each other."""
    frame = frame_of(place.name) if cityscapes else None
    return frame or Path(_nested_key(place)).name


def _nested_key(place: Path) -> str:
    """Names may hold dots, so only what an image ends with is an ending."""
    named = place.with_suffix("") if place.suffix.lower() in (".png", ".jpg", ".jpeg") else place
    return as_key(named.as_posix()).removesuffix(_SUFFIX)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"
