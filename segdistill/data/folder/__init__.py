"""A data set of the user's own: a folder of images and a folder of masks, or lists of files."""

from segdistill.data.files import Listing
from segdistill.data.folder.dealing import dealt
from segdistill.data.folder.layout import SPLIT_PLACE, SPLITS, FolderLayout
from segdistill.data.folder.lists import listed
from segdistill.data.folder.pairs import matched
from segdistill.errors import DataError

__all__ = ["SPLITS", "FolderLayout", "list_split"]


def list_split(layout: FolderLayout, split: str) -> Listing:
    """The pairs of one split, sorted by name, and what is wrong with the others: files without partner, names, lists.

    Raises:
        DataError: a folder or list is missing or empty, or the split has nothing in it.
    """
    if layout.lists:
        listing = listed(layout, split)
    elif SPLIT_PLACE in str(layout.images) or any(
        (layout.root / layout.images / one).is_dir() for one in ("train", split)
    ):  # a network may be scored where nothing is to train on
        listing = matched(layout, split)
    else:
        listing = dealt(layout, split)
    if not listing.pairs and not listing.problems:
        raise DataError(f"the split {split} of {layout.root} is empty")
    return listing
