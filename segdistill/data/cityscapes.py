"""Cityscapes as its archives unpack: `leftImg8bit/<split>/<city>/*_leftImg8bit.png` and `gtFine/...`.

Masks hold the 34 label ids; they become the 19 training classes as they are read, and all else is ignored.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from segdistill.data.files import Listing, Pair, read_mask
from segdistill.data.mask_code import Colour, MaskCode
from segdistill.data.problems import Kind, Problem
from segdistill.data.taxonomy import Taxonomy
from segdistill.errors import DataError, DataMissingError
from segdistill.files import expanded

#: The first is this project's, the second that of the official scripts.
ROOT_VARIABLES = ("SEGDISTILL_CITYSCAPES", "CITYSCAPES_DATASET")
DEFAULT_ROOT = Path("data/cityscapes")
#: Images of each split as published.
SPLITS = {"train": 2975, "val": 500, "test": 1525}
_IMAGE_END, _ID_END, _TRAIN_ID_END = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"

#: Label id, name and colour of the 19 training classes, in the order of their training ids; from
#: cityscapesScripts, helpers/labels.py (MIT).
CLASSES: tuple[tuple[int, str, Colour], ...] = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
CITYSCAPES = Taxonomy(
    names=tuple(name for _, name, _ in CLASSES),
    colours=tuple(colour for _, _, colour in CLASSES),
    ignore_index=255,
)
#: 255 is the licence plate, id -1, should somebody have written it into eight bits.
LABEL_IDS = MaskCode(
    values=dict.fromkeys((*range(34), 255), CITYSCAPES.ignore_index)
    | {label: index for index, (label, _, _) in enumerate(CLASSES)},
    colours={},
    ignore_index=CITYSCAPES.ignore_index,
    form="index",
)
TRAIN_IDS = MaskCode.of(CITYSCAPES)

WHERE_TO_GET = (
    "Cityscapes has to be fetched by yourself, after registration: https://www.cityscapes-dataset.com/downloads/, "
    "leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (241 MB), or by `pip install cityscapesscripts` "
    "and `csDownload`. Unpack both in one folder and name it: data.root=DIR or "
    f"{ROOT_VARIABLES[0]}=DIR"
)


@dataclass(frozen=True)
class Tree:
    """One split as it lies on disk; `label_ids`: whether masks hold label ids, or training ids."""

    listing: Listing
    label_ids: bool

    @property
    def code(self) -> MaskCode:
        return LABEL_IDS if self.label_ids else TRAIN_IDS


def resolve_root(root: Path | None) -> Path:
    """The folder of Cityscapes: `root`, else $SEGDISTILL_CITYSCAPES, $CITYSCAPES_DATASET, data/cityscapes."""
    named = next((os.environ[name] for name in ROOT_VARIABLES if os.environ.get(name)), DEFAULT_ROOT)
    return expanded(Path(root or named))


def list_split(root: Path, split: str) -> Tree:
    """The pairs of one split, sorted by name. `labelTrainIds` masks are used if there are no `labelIds`.

    Raises:
        DataError: a folder is missing or has no images, or all masks are missing.
    """
    images = _files(root / "leftImg8bit" / split, _IMAGE_END)
    masks = _files(root / "gtFine" / split, _ID_END)
    label_ids = bool(masks)
    end = _ID_END if label_ids else _TRAIN_ID_END
    masks = masks or _files(root / "gtFine" / split, _TRAIN_ID_END)
    for what, found, folder in (
        (f"*{_IMAGE_END}", images, root / "leftImg8bit" / split),
        (f"*{_ID_END} and no *{_TRAIN_ID_END}", masks, root / "gtFine" / split),
    ):
        if not found:
            state = "no such folder" if not folder.is_dir() else f"has no CITY/{what}"
            raise DataMissingError(f"{folder}: {state}. {WHERE_TO_GET}")
    lonely = [
        f"{images[key]}: has no mask {_partner(root, 'gtFine', split, key, end)}"
        for key in images.keys() - masks
    ]
    lonely += [
        f"{masks[key]}: has no image {_partner(root, 'leftImg8bit', split, key, _IMAGE_END)}"
        for key in masks.keys() - images
    ]
    pairs = tuple(Pair(key, images[key], masks[key]) for key in sorted(images.keys() & masks))
    problems = tuple(Problem(Kind.LONELY, line) for line in sorted(lonely))
    return Tree(Listing(pairs, problems), label_ids)


def refuse_unlabelled_test(listing: Listing, code: MaskCode) -> None:
    """Raises DataError if these are the masks published with the test images, which hold no class.

    Without any pair there is nothing to say of masks; the check tells which files lack their partner.
    """
    if not listing.pairs:
        return
    masks = (code.encode(read_mask(pair.mask)) for pair in listing.pairs)
    if all((mask == CITYSCAPES.ignore_index).all() for mask in masks):
        raise DataError(
            "the labels of Cityscapes' test images are not public: the masks in gtFine/test hold no class, so nothing "
            "can be scored here. Score on val, or send predictions to https://www.cityscapes-dataset.com/submit/"
        )


def describe_tree(root: Path) -> str:
    """What is there of every split, and what is missing; one line each.

    Raises:
        DataError: with the same lines, if training and validation are not whole.
    """
    lines: list[str] = []
    broken: list[str] = []
    for split, published in SPLITS.items():
        images = _files(root / "leftImg8bit" / split, _IMAGE_END)
        cities = Counter(path.parent.name for path in images.values())
        ids, train_ids = (_files(root / "gtFine" / split, end) for end in (_ID_END, _TRAIN_ID_END))
        lines.append(
            f"{split}: {len(images)} images of {len(cities)} cities (published: {published}), {len(ids)} labelIds, "
            f"{len(train_ids)} labelTrainIds" + ("; labelTrainIds are used" if train_ids and not ids else "")
        )
        if split == "test":
            continue
        try:
            broken += list_split(root, split).listing.lonely
        except DataError as error:
            broken.append(str(error).removesuffix(f". {WHERE_TO_GET}"))
    report = "\n".join([f"Cityscapes in {root}", *(f"  {line}" for line in lines)])
    if broken:
        listed = "\n".join(f"  {line}" for line in broken[:20])
        more = f"\n  ... and {len(broken) - 20} more" if len(broken) > 20 else ""
        raise DataError(f"{report}\nwhat is missing:\n{listed}{more}\n{WHERE_TO_GET}")
    return report


def _files(folder: Path, end: str) -> dict[str, Path]:
    """`city/name` without its ending -> file, of all cities."""
    found = (path for path in folder.glob(f"*/*{end}") if not path.name.startswith("."))
    return {f"{path.parent.name}/{path.name.removesuffix(end)}": path for path in found}


def _partner(root: Path, kind: str, split: str, key: str, end: str) -> Path:
    return root / kind / split / f"{key}{end}"
