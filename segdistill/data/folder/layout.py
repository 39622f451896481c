"""Where images and masks lie."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")
#: In a path: where the split's name stands.
SPLIT_PLACE = "{split}"


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
