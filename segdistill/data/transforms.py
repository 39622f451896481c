"""Albumentations pipelines: what a training sample goes through, and what an evaluation image does."""

import difflib
import inspect
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np
from albumentations.core.transforms_interface import BasicTransform

from segdistill.data.samples import LabelledImage
from segdistill.normalisation import Normalisation

# Loader processes are the parallelism here; OpenCV's own threads would fight with them and with torch.
cv2.setNumThreads(0)


def normalising(how: Normalisation) -> A.Normalize:
    """uint8 (H, W, 3) -> float32 (H, W, 3)"""
    return A.Normalize(mean=how.mean, std=how.std, max_pixel_value=255.0)


class TrainTransform:
    """Random augmentation of one sample as a pure function of (seed, epoch, index, visit).

    Neither the worker that runs it nor what ran before matters, so any number of workers and processes,
    and a resumed run, see the same pixels.
    """

    def __init__(self, transforms: Sequence[BasicTransform], *, seed: int) -> None:
        """
        Args:
            transforms: applied in this order.
            seed: of the run.
        """
        self.seed = seed
        self._compose = A.Compose(list(transforms))

    def __call__(
        self, sample: LabelledImage, *, epoch: int, index: int, visit: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Args:
            sample: decoded.
            epoch: from 0.
            index: of the sample.
            visit: how often the epoch came by this sample before.

        Returns:
            Image (h, w, 3) float32, normalised; mask (h, w) uint8.
        """
        key = (self.seed, epoch, index, visit) if visit else (self.seed, epoch, index)
        # Compose.set_random_seed would give every transform the same stream; this one they share.
        self._compose.set_random_state(np.random.default_rng(key), random.Random(repr(key)))
        out = self._compose(image=sample.image, mask=sample.mask)
        return out["image"], out["mask"]


class EvalTransform:
    """Resize an image to the network's input size and normalise; the mask stays as it is."""

    def __init__(self, *, size: tuple[int, int], normalisation: Normalisation) -> None:
        self.size = size
        self._normalise = normalising(normalisation)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (h, w, 3) float32"""
        return self._normalise(image=resize_image(image, *self.size))["image"]


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (height, width, 3): the mean of what is covered along an axis that shrinks, bilinear along one
    that grows.

    In two goes: where one axis shrinks and the other grows, OpenCV's INTER_AREA is no average but interpolates both.
    """
    rows, columns = min(image.shape[0], height), min(image.shape[1], width)
    if (rows, columns) != image.shape[:2]:
        image = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    if (rows, columns) != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image


def _resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    # cv2's INTER_NEAREST takes a cell's corner and would shift masks against images by up to half a pixel.
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


class RandomScaleCrop(A.DualTransform):
    """Random scale, then a random crop of one fixed size, in a single resampling.

    At scale s an image would be resized to s times `size`, and a window of `crop` pixels is cut out of that. The
    window is cut out of the source before anything is resized, so large images cost no more than what is kept
    of them. Where the window reaches beyond the image the result is padded.

    Measured at 2048 x 1024, crops of 512 x 1024, scales 0.5 to 2, in turn with resizing all and cropping then:
    this took 0.22 of the time, the whole augmentation 0.58 (0.17 of one that crops last). Decoding the PNG files
    takes seven times as long as the augmentation.
    """

    def __init__(
        self,
        size: tuple[int, int],
        scale: tuple[float, float],
        fill_mask: int,
        crop: tuple[int, int] | None = None,
        class_odds: Sequence[float] | None = None,
    ) -> None:
        """
        Args:
            size: (height, width) in pixels of the whole image at scale 1.
            scale: smallest and largest scale; drawn uniformly.
            fill_mask: mask value of the padding (the image's is 0, black).
            crop: (height, width) in pixels of the result; None for `size`, so that scale 1 shows everything.
            class_odds: one number per class. Of the classes in the image one is drawn with these odds, then a
                pixel of it, and the window, otherwise random, contains that pixel. None: no such condition.
        """
        super().__init__(p=1.0)
        self.size = size
        self.scale = scale
        self.fill_mask = fill_mask
        self.crop = crop or size
        self.class_odds = class_odds

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        scale = self.py_random.uniform(*self.scale)
        pixel = (None, None) if self.class_odds is None else self._pixel_of_a_class(data["mask"])
        spans = [
            self._span(source, whole, crop, scale, shown_pixel)
            for source, whole, crop, shown_pixel in zip(
                params["shape"][:2], self.size, self.crop, pixel, strict=True
            )
        ]
        return {"rows": spans[0], "columns": spans[1]}

    def _pixel_of_a_class(self, mask: np.ndarray) -> tuple[int, int] | tuple[None, None]:
        """Row and column; None if the mask shows no class with odds."""
        assert self.class_odds is not None
        pixels = cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()
        odds = [one if pixels[index] else 0.0 for index, one in enumerate(self.class_odds)]
        if not any(odds):
            return None, None
        (chosen,) = self.py_random.choices(range(len(odds)), odds)
        places = np.flatnonzero(mask == chosen)
        row, column = divmod(int(places[self.py_random.randrange(len(places))]), mask.shape[1])
        return row, column

    def _span(
        self, source: int, whole: int, crop: int, scale: float, pixel: int | None
    ) -> tuple[int, int, int, int]:
        """Along one axis: first and last pixel of the window in the source, first and last in the result."""
        window = min(source, max(1, round(source * (crop / whole) / scale)))
        shown = min(crop, max(1, round(whole * scale)))
        first, last = 0, source - window
        if pixel is not None:
            first, last = max(first, pixel - window + 1), min(last, pixel)
        start = self.py_random.randint(first, last)
        place = self.py_random.randint(0, crop - shown)
        return start, start + window, place, place + shown

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        return self._cut(img, params, fill=0, resize=resize_image)

    def apply_to_mask(self, mask: np.ndarray, **params: Any) -> np.ndarray:
        return self._cut(mask, params, fill=self.fill_mask, resize=_resize_mask)

    def _cut(
        self,
        source: np.ndarray,
        params: dict[str, Any],
        *,
        fill: int,
        resize: Callable[[np.ndarray, int, int], np.ndarray],
    ) -> np.ndarray:
        top, bottom, row, row_end = params["rows"]
        left, right, column, column_end = params["columns"]
        result = np.full((*self.crop, *source.shape[2:]), fill, source.dtype)
        window = np.ascontiguousarray(source[top:bottom, left:right])
        result[row:row_end, column:column_end] = resize(window, row_end - row, column_end - column)
        return result


def train_transforms(
    *,
    size: tuple[int, int],
    scale: tuple[float, float],
    flip: float,
    colour: float,
    blur: float,
    ignore_index: int,
    crop: tuple[int, int] | None = None,
    class_odds: Sequence[float] | None = None,
) -> list[BasicTransform]:
    """Random scale, crop with padding to the ignore index, flip, colour and blur.

    Args:
        size: (height, width) in pixels of the whole image at scale 1.
        scale: smallest and largest random scale, relative to the scale at which the whole image has `size`.
        flip: probability of a horizontal flip.
        colour: half-range of the brightness, contrast and saturation factors; a tenth of it for hue.
        blur: probability of a slight Gaussian blur.
        ignore_index: of the mask's padding.
        crop: (height, width) in pixels of the result; None for `size`.
        class_odds: of the class that the crop shows, see `RandomScaleCrop`; None for any place.
    """
    transforms: list[BasicTransform] = [RandomScaleCrop(size, scale, ignore_index, crop, class_odds)]
    if flip:
        transforms.append(A.HorizontalFlip(p=flip))
    if colour:
        factors = (1 - colour, 1 + colour)
        hue = (-0.1 * colour, 0.1 * colour)
        transforms.append(
            A.ColorJitter(brightness=factors, contrast=factors, saturation=factors, hue=hue, p=0.8)
        )
    if blur:
        transforms.append(A.GaussianBlur(blur_limit=(3, 5), p=blur))
    return transforms


def crop_to(size: tuple[int, int], *, ignore_index: int) -> list[BasicTransform]:
    """Pad to at least `size` (mask: ignore index; image: black), then crop it at a random place."""
    height, width = size
    return [
        A.PadIfNeeded(
            min_height=height,
            min_width=width,
            position="random",
            border_mode=cv2.BORDER_CONSTANT,
            fill=0,
            fill_mask=ignore_index,
        ),
        A.RandomCrop(height, width),
    ]


_KEEPING_LABELS = (cv2.INTER_NEAREST, cv2.INTER_NEAREST_EXACT)


class StillAnImage(A.ImageOnlyTransform):
    """Refuses what transforms of the user's choice may have made of an image, if it cannot be normalised any more."""

    def __init__(self) -> None:
        super().__init__(p=1.0)

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        if img.dtype != np.uint8 or img.shape[2:] != (3,):
            raise ValueError(
                f"they give {img.dtype} images of shape {img.shape}, which should be uint8 with 3 channels; leave out "
                "Normalize and ToFloat: normalisation is appended, by what the encoder's weights expect"
            )
        return img


def named_transforms(entries: Sequence[Mapping[str, Any]], *, ignore_index: int) -> list[BasicTransform]:
    """Any Albumentations transforms from plain data: [{name: CLAHE, p: 0.5}, ...].

    Args:
        entries: name and keyword arguments of each.
        ignore_index: what a transform that pads fills masks with, unless its `fill_mask` is given.

    Raises:
        ValueError: naming the entry, for an unknown transform, an unknown argument or a bad value.
    """
    return [
        _named_transform(place, dict(entry), ignore_index=ignore_index) for place, entry in enumerate(entries)
    ]


def _named_transform(place: int, arguments: dict[str, Any], *, ignore_index: int) -> BasicTransform:
    name = arguments.pop("name", None)
    known = {
        key: value
        for key, value in vars(A).items()
        if isinstance(value, type)
        and issubclass(value, BasicTransform)
        and value.__module__.startswith("albumentations.augmentations")
    }
    if not isinstance(name, str) or name not in known:
        close = difflib.get_close_matches(str(name), known, 1)
        hint = f"did you mean {close[0]!r}?" if close else "see the list in Albumentations' documentation"
        raise ValueError(f"entry {place}: Albumentations has no transform named {name!r}; {hint}")
    if (way := arguments.get("mask_interpolation")) not in (None, *_KEEPING_LABELS):
        raise ValueError(
            f"entry {place}: {name} with mask_interpolation={way} would mix class numbers into other ones; use "
            f"{cv2.INTER_NEAREST} (nearest) or {cv2.INTER_NEAREST_EXACT} (nearest, exact)"
        )
    if known[name] is A.Morphological:
        raise ValueError(
            f"entry {place}: {name} dilates or erodes masks by their numbers, into other classes"
        )
    parameter = inspect.signature(known[name]).parameters.get("fill_mask")
    # Albumentations pads masks with 0, which is a class.
    pads = parameter is not None and parameter.default == 0
    padding = {"fill_mask": ignore_index} if pads else {}
    try:
        # Albumentations only warns of arguments it does not know, and goes on without them.
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            warnings.filterwarnings(
                "ignore", ".*is a special case of", UserWarning
            )  # advice, all is done as asked
            return known[name](**(padding | arguments))
    except (UserWarning, ValueError, TypeError, NotImplementedError) as error:
        why = "; ".join(line.strip() for line in str(error).splitlines() if "further information" not in line)
        raise ValueError(f"entry {place}: {name} does not accept {arguments}: {why}") from None
