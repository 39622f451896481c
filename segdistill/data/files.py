"""Images and masks from files, decoded whole or not at all."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from segdistill.data.samples import LabelledImage
from segdistill.data.taxonomy import Taxonomy
from segdistill.errors import DataError


@dataclass(frozen=True)
class Pair:
    """Where one labelled image lies."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class PairedFiles:
    """One split of a data set kept as files: `Samples` that decodes on every load."""

    pairs: tuple[Pair, ...]
    taxonomy: Taxonomy

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        return self.pairs[index].name

    def load(self, index: int) -> LabelledImage:
        pair = self.pairs[index]
        return LabelledImage(read_image(pair.image), read_mask(pair.mask))


def read_image(path: Path) -> np.ndarray:
    """Decode an image as it is stored; an EXIF orientation is not applied, since no mask would follow it.

    Returns:
        (H, W, 3) uint8, RGB; grey and palette images are expanded, transparency is dropped.

    Raises:
        DataError: the file is missing, damaged, cut short, or has more than 8 bits per channel.
    """
    image = _decode(path)
    if image.mode == "F" or image.mode.startswith("I"):
        raise DataError(f"{path}: pixels have more than 8 bits (PIL mode {image.mode}); save it with 8 bits")
    return np.array(image.convert("RGB"))


def read_mask(path: Path) -> np.ndarray:
    """Decode a mask. A palette image gives its indexes; 16-bit grey is fine while the labels are below 256.

    Returns:
        (H, W) uint8, the labels as stored.

    Raises:
        DataError: the file is missing, damaged, cut short, or does not hold one small integer per pixel.
    """
    image = _decode(path)
    match image.mode:
        case "1" | "L" | "P":
            return np.array(image).astype(np.uint8, copy=False)
        case "I" | "I;16" | "I;16B":
            labels = np.array(image)
            if labels.min() < 0 or labels.max() > 255:
                raise DataError(
                    f"{path}: labels go from {labels.min()} to {labels.max()}; a mask holds 0 to 255"
                )
            return labels.astype(np.uint8)
        case mode:
            raise DataError(
                f"{path}: this is a colour image (PIL mode {mode}); a mask has one channel that holds "
                "the class index of each pixel: convert the colours to indexes"
            )


def _decode(path: Path) -> Image.Image:
    """Every pixel of an image file. Only PIL's full load() notices a file that was cut short."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnidentifiedImageError as error:
        what = (
            "not an image, or its header is damaged" if path.stat().st_size else "the file is empty (0 bytes)"
        )
        raise DataError(f"{path}: {what}") from error
    # For bad bytes PIL's readers raise OSError, SyntaxError, ValueError, struct.error, zlib.error and more.
    except Exception as error:
        raise DataError(f"{path}: cannot be decoded: {error}") from error
