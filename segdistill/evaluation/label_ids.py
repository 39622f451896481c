"""Cityscapes' two numberings: the 19 classes that are trained and scored, and the ids of its files and server."""

import re

import numpy as np

from segdistill.data.cityscapes import CLASSES
from segdistill.data.taxonomy import Taxonomy

#: Name -> label id of each class, in the order of the class indexes ("trainIds").
LABEL_IDS = {name: label for label, name, _ in CLASSES}
SERVER_SIZE = (1024, 2048)  # height and width in pixels of every image
_FRAME = re.compile(r"[^/\\_]+_\d{6}_\d{6}")  # city, sequence, frame
_TO_ID = np.array(list(LABEL_IDS.values()), np.uint8)


def is_cityscapes(taxonomy: Taxonomy) -> bool:
    """Whether the classes are its 19, in their order."""
    return taxonomy.names == tuple(LABEL_IDS)


def to_label_ids(classes: np.ndarray) -> np.ndarray:
    """(H, W) class indexes 0..18 -> (H, W) uint8 label ids."""
    return _TO_ID[classes]


def from_label_ids(ids: np.ndarray) -> np.ndarray:
    """(H, W) label ids -> (H, W) uint8 class indexes; 255 where an id is none of the 19."""
    table = np.full(256, 255, np.uint8)
    table[_TO_ID] = np.arange(len(_TO_ID))
    return table[np.where(ids < len(table), ids, 0)]  # 0 is "unlabeled"; files of 16 bits hold more


def frame_of(name: str) -> str | None:
    """`city_sequence_frame` in the name of an image or a file; None if there is none."""
    found = _FRAME.search(name)
    return found[0] if found else None
