"""Undivided images, dealt out to splits."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from segdistill.data.files import Listing
from segdistill.data.folder.layout import SPLITS, FolderLayout
from segdistill.data.folder.pairs import matched
from segdistill.errors import DataError

_LIKE_A_SPLIT = re.compile(r"(train|val|valid|validate|test|dev)(ing|ation)?([-_ ]?\d*)", re.IGNORECASE)


def dealt(layout: FolderLayout, split: str) -> Listing:
    """The pairs of undivided images that fall to a split.

    Raises:
        DataError: the split has no share, training would be left without an image, or sub-folders look like splits.
    """
    whole = matched(layout, "")
    _refuse_folders_like_splits(layout, split)
    if split != "train" and not layout.shares.get(split):
        raise DataError(
            f"{layout.root} has no split {split}: before the training, give it a share by data.folder.{split}_share, "
            f"a list by data.folder.lists.{split}, or sub-folders {layout.images}/{split} and {layout.masks}/{split}. "
            f"A trained network scores other images by data.root=DIR, if they lie in DIR/{layout.images}/{split} and "
            f"their masks in DIR/{layout.masks}/{split}"
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


def _refuse_folders_like_splits(layout: FolderLayout, split: str) -> None:
    """Raises DataError if images that are to be dealt out lie in folders of splits, `train` not being one of them."""
    folder = layout.root / layout.images
    alike = [name for name in _folders_in(folder) if _LIKE_A_SPLIT.fullmatch(name)]
    found = f"{folder} has the sub-folders {', '.join(alike)}"
    if not alike:
        return
    if set(alike) <= set(SPLITS) and split != "train":
        raise DataError(f"{found}, but no {split}: score these by --split {alike[0]}")
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


def _folders_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


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
