"""Images and masks from files, decoded whole or not at all."""

import contextlib
import os
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from segdistill.data.mask_code import FOREIGN, MaskCode, MaskForm
from segdistill.data.problems import Kind, Problem
from segdistill.data.samples import LabelledImage
from segdistill.data.taxonomy import Taxonomy
from segdistill.errors import DataError, MaskFormError
from segdistill.memory import is_out_of_memory

Image.MAX_IMAGE_PIXELS = None  # PIL takes large images for an attack; these are the user's own

_ORIENTATION = 0x0112  # EXIF's and TIFF's tag
#: What Pillow does to a TIFF by that tag while it loads it -> what undoes it.
_UNDONE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_FEW_GREYS = {"L;2": 4, "L;4": 16}  # by Pillow's raw mode
_DARK = 64  # of the upper 8 of 16 bits: below this a camera has stored 10, 12 or 14 bits as they are
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")


@dataclass(frozen=True)
class Pair:
    """Where one labelled image lies."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Listing:
    """What the layout of a data set offers for one split.

    Attributes:
        pairs: sorted by name.
        problems: of files without partner, of names and of lists.
        note: what a user should know of how these pairs came about; or empty.
    """

    pairs: tuple[Pair, ...]
    problems: tuple[Problem, ...] = ()
    note: str = ""

    @property
    def lonely(self) -> tuple[str, ...]:
        """One line for every file that lacks its partner."""
        return tuple(line for kind, line in self.problems if kind is Kind.LONELY)


@dataclass(frozen=True)
class PairedFiles:
    """One split of a data set kept as files: `Samples` that decodes on every load."""

    pairs: tuple[Pair, ...]
    taxonomy: Taxonomy
    code: MaskCode

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        return self.pairs[index].name

    def load(self, index: int) -> LabelledImage:
        pair = self.pairs[index]
        stored = read_mask(pair.mask, self.code.reading, known=self.code.values)
        mask = self.code.encode(stored)
        if (mask == FOREIGN).any():  # the file was changed after the check
            raise DataError(f"{pair.mask}: {self.code.foreign(stored, mask)}")
        return LabelledImage(read_image(pair.image), mask)


def files_below(folder: Path) -> list[Path]:
    """All files of a folder and of its sub-folders, links to folders included, but for hidden ones; sorted.

    Every folder is entered once, by its path without links if there is one, else by the first link met: no file comes
    twice, and links between folders do not go round for ever. Links to a folder above themselves lead nowhere.

    Raises:
        DataError: the folder, or one below it, cannot be read.
    """
    found: list[Path] = []
    entered = set(folder.resolve().parents)

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}")

    starts = [folder]  # and behind it links, as they are met
    for start in starts:
        for place, folders, names in os.walk(start, onerror=refuse):
            real = Path(place).resolve()
            if real in entered:
                folders.clear()
                continue
            entered.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links = [path for name in folders if (path := Path(place, name)).is_symlink()]
            starts += [link for link in links if link.resolve() not in real.parents]
            found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(found)


def as_key(name: str) -> str:
    """The form of a file name by which files find each other: macOS writes an accent as a sign of its own."""
    return unicodedata.normalize("NFC", name)


class Photo(NamedTuple):
    """An image, see `read_image`, and what is lost of its file by that.

    Attributes:
        pixels: (H, W, 3) uint8.
        orientation: how a viewer turns or mirrors it by its EXIF or TIFF tag: 1 (not at all) to 8.
        brightest: largest value, 0..255, that an image of 16 bits has in its upper 8; None of any other.
    """

    pixels: np.ndarray
    orientation: int
    brightest: int | None


def dark_in_words(peaks: Sequence[int]) -> str:
    """What to say of images of 16 bits if they are dark once 8 are left; "" if they are not.

    Args:
        peaks: `Photo.brightest` of each.
    """
    if not peaks or max(peaks) >= _DARK:
        return ""
    return (
        f"images of 16 bits ({len(peaks)}) go up to {max(peaks)} of 255 in their upper 8 bits, which are used: they "
        "are dark. Scale them to 16 bits, or save them with 8"
    )


def read_photo(path: Path) -> Photo:
    """What `read_image` gives, with what it leaves out."""
    image, orientation, halved, _ = _decode(path)
    pixels = _rgb(image, path)
    return Photo(pixels, orientation, int(pixels.max()) if halved or _is_wide(image) else None)


def read_image(path: Path) -> np.ndarray:
    """Decode an image as it is stored; an EXIF or TIFF orientation is not applied, since no mask would follow it.

    Returns:
        (H, W, 3) uint8, RGB; grey and palette images are expanded, transparency is dropped. Of 16 bits per
        channel the upper 8 are kept (65535 becomes 255).

    Raises:
        DataError: the file is missing, damaged, cut short, has several pages, or holds 32-bit numbers.
    """
    return _rgb(_decode(path).image, path)


def _is_wide(image: Image.Image) -> bool:
    return image.mode.startswith("I;16")


def _rgb(image: Image.Image, path: Path) -> np.ndarray:
    if _is_wide(image):
        grey = (np.array(image).astype(np.uint16, copy=False) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.mode in ("F", "I"):
        raise DataError(
            f"{path}: pixels of 32 bits (PIL mode {image.mode}), and nobody knows which range is black to white; "
            "save it with 8 or 16 bits per channel"
        )
    return _colours(image)


def _colours(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8, without transparency; Pillow warns where it is dropped from a palette in one go."""
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def read_mask(path: Path, form: MaskForm = "index", *, known: Collection[int] = ()) -> np.ndarray:
    """Decode a mask.

    Args:
        path: of the file.
        form: `index`: one number per pixel, a palette image gives its indexes; `rgb`: colours, a palette is
            expanded, grey is taken for a colour; `auto`: colours of an RGB file, numbers of any other.
        known: numbers that mean something. In a grey image of 2 or 4 bits, which viewers spread over 0 to 255, they
            decide whether its numbers are meant or what viewers show.

    Returns:
        (H, W) uint8, or uint16 where a label is above 255; or (H, W, 3) uint8 colours.

    Raises:
        DataError: the file is missing, damaged, cut short or has several pages.
        MaskFormError: it is partly transparent, of 2 or 4 bits of grey that both readings or neither explain, or cannot
            be read in this form.
    """
    stored = _decode(path)
    if stored.halved:
        raise MaskFormError(
            f"{path}: several channels of 16 bits, of which the lower 8 would be lost, and small class numbers with "
            "them; save the mask with 8 bits per channel, or as one channel of class numbers"
        )
    image = _opaque(stored.image, path, form)
    wide = image.mode.startswith("I")
    if form == "rgb" and not wide:
        return _colours(image)
    if image.mode == "RGB":
        colours = np.array(image)
        if form == "auto":
            return colours
        if (colours == colours[..., :1]).all():
            return np.ascontiguousarray(colours[..., 0])
    elif image.mode in ("1", "L", "P"):
        labels = np.array(image).astype(np.uint8, copy=False)
        return _of_few_greys(labels, stored.few_greys, known, path) if stored.few_greys else labels
    elif wide and form != "rgb":
        labels = np.array(image)
        if labels.min() < 0 or labels.max() > 65535:
            raise MaskFormError(
                f"{path}: labels go from {labels.min()} to {labels.max()}; a mask holds 0 to 65535"
            )
        return labels.astype(np.uint8 if labels.max() < 256 else np.uint16)
    if wide:
        raise MaskFormError(
            f"{path}: a grey image of more than 8 bits (PIL mode {image.mode}) holds no colours"
        )
    if image.mode == "F":
        raise MaskFormError(f"{path}: floating-point numbers; save the labels as whole ones, of 8 or 16 bits")
    raise MaskFormError(
        f"{path}: this is a colour image (PIL mode {image.mode}); a mask has one channel that holds the class "
        "index of each pixel: convert the colours to indexes"
    )


def _of_few_greys(shown: np.ndarray, greys: int, known: Collection[int], path: Path) -> np.ndarray:
    """The numbers of a grey image that a viewer shows so: its own 0 to `greys` - 1, or those that are shown."""
    step = 255 // (greys - 1)
    readings = (shown // np.uint8(step), shown)
    explained = [one for one in readings if set(np.unique(one).tolist()) <= set(known)]
    if len(explained) == 1 or not shown.any():
        return explained[0] if explained else shown
    raise MaskFormError(
        f"{path}: grey of {greys} levels, which may mean 0 to {greys - 1} or 0, {step}, ..., 255; save the mask with 8 "
        "bits per pixel"
    )


def shown_colours(path: Path) -> np.ndarray | None:
    """A mask as a viewer shows it, whatever its numbers are: (H, W, 3) uint8, transparency dropped; None if they have
    more than 8 bits, of which nobody knows how they are shown."""
    image = _decode(path).image
    return None if image.mode.startswith(("I", "F")) else _colours(image)


def _opaque(image: Image.Image, path: Path, form: MaskForm) -> Image.Image:
    """The image without its alpha channel, should it have one; nobody knows what a transparent label means.

    A palette's number means what it does, transparent or not; its colour may be one nobody chose.
    """
    by_colour = image.mode == "RGB" or (form == "rgb" and image.mode in ("1", "L", "P"))
    if image.mode in ("LA", "RGBA"):
        alpha = image.getchannel("A")
    elif by_colour and "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
    else:
        return image
    transparent = int((np.array(alpha) < 255).sum())
    if transparent:
        raise MaskFormError(
            f"{path}: {transparent} pixels of this mask are transparent; save it without transparency, these pixels "
            "in the colour of their class or of what is ignored"
        )
    return image.convert(image.mode.removesuffix("A")) if image.mode in ("LA", "RGBA") else image


class _Stored(NamedTuple):
    """An image file, decoded.

    Attributes:
        image: every pixel as it is stored.
        orientation: as in `Photo`.
        halved: whether it has several channels of 16 bits, of which Pillow keeps the upper 8.
        few_greys: how many there are of grey with 2 or 4 bits, which Pillow spreads over 0 to 255; else 0.
    """

    image: Image.Image
    orientation: int
    halved: bool
    few_greys: int


def _decode(path: Path) -> _Stored:
    """Only PIL's full load() notices a file that was cut short."""
    orientation, few_greys = 1, 0
    try:
        # By its path, Pillow (13.0) maps an uncompressed TIFF into memory with width and height of what it has turned.
        with path.open("rb") as file, Image.open(file) as image:
            # How the file stores a pixel; empty once it is loaded.
            raw = str(image.tile)
            halved = image.mode in ("RGB", "RGBA", "LA") and ";16" in raw
            if image.mode == "L":
                few_greys = next((greys for mode, greys in _FEW_GREYS.items() if mode in raw), 0)
            with contextlib.suppress(Exception):  # whatever is wrong with the tags, the pixels may be there
                tag = int(image.getexif().get(_ORIENTATION, 1))
                orientation = tag if tag in _UNDONE else 1  # some cameras write 0 for what they do not know
            # Other formats with several frames (an MPO photo with its preview) begin with the picture itself.
            pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
            image.load()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnidentifiedImageError as error:
        what = (
            "not an image, or its header is damaged" if path.stat().st_size else "the file is empty (0 bytes)"
        )
        raise DataError(f"{path}: {what}") from error
    # For bad bytes PIL's readers raise OSError, SyntaxError, ValueError, struct.error, zlib.error and more.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise DataError(f"{path}: cannot be decoded: {error}") from error
    if pages > 1:
        raise DataError(f"{path}: holds {pages} pages; save each as a file of its own")
    turned = image.format == "TIFF" and orientation in _UNDONE
    return _Stored(image.transpose(_UNDONE[orientation]) if turned else image, orientation, halved, few_greys)
