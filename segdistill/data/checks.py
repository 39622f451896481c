"""Look at every image and mask once before a run, and name everything that is wrong in one message."""

from collections.abc import Callable, Sequence
from enum import Enum

import numpy as np

from segdistill.data.files import Pair, read_image, read_mask
from segdistill.data.samples import LabelledImage
from segdistill.data.taxonomy import Taxonomy
from segdistill.errors import DataError

LINES_PER_KIND = 20  # listed in the message; the rest are counted
VALUES_PER_MASK = 10  # a mask of the wrong sort may hold 256 wrong values


class Kind(Enum):
    """The kinds of problem; each value is (title, remedy)."""

    UNREADABLE = ("not readable", "put back whole copies of these files, or remove both files of the pair")
    SIZE = ("image and mask differ in size", "use the mask that was drawn on this very image, at its size")
    LABELS = (
        "labels outside the classes",
        "map these values to classes or to the ignored value, or choose the taxonomy these masks follow",
    )
    VOID = (
        "no labelled pixel",
        "remove these pairs, nothing can be learnt from them; or correct the ignored value",
    )


def check_pairs(
    pairs: Sequence[Pair],
    taxonomy: Taxonomy,
    *,
    keep: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[LabelledImage, ...]:
    """Decode every pair once and collect all problems. Changes nothing on disk.

    Args:
        pairs: the files of a split.
        taxonomy: says which values a mask may hold.
        keep: return the decoded samples, ready for `CachedSamples(source, decoded)`.
        progress: called with (pairs done, pairs in all) after every pair.

    Returns:
        The samples in the order of `pairs`; empty unless `keep`.

    Raises:
        DataError: something is wrong; the message lists it by kind and file, with a remedy per kind.
    """
    problems: dict[Kind, list[str]] = {kind: [] for kind in Kind}
    bad_pairs = 0
    kept: list[LabelledImage] = []
    for done, pair in enumerate(pairs, start=1):
        sample, found = _check_pair(pair, taxonomy)
        for kind, line in found:
            problems[kind].append(line)
        bad_pairs += bool(found)
        if keep and sample is not None:
            kept.append(sample)
        if progress is not None:
            progress(done, len(pairs))
    if bad_pairs:
        raise DataError(_message(problems, bad_pairs, len(pairs)))
    return tuple(kept)


def _check_pair(pair: Pair, taxonomy: Taxonomy) -> tuple[LabelledImage | None, list[tuple[Kind, str]]]:
    """The decoded pair, None if a file is unreadable; and what is wrong with it."""
    problems: list[tuple[Kind, str]] = []
    image = mask = None
    try:
        image = read_image(pair.image)
    except DataError as error:
        problems.append((Kind.UNREADABLE, str(error)))
    try:
        mask = read_mask(pair.mask)
    except DataError as error:
        problems.append((Kind.UNREADABLE, str(error)))
    if mask is not None:
        problems += _check_labels(pair, mask, taxonomy)
    if image is None or mask is None:
        return None, problems
    if image.shape[:2] != mask.shape:
        line = f"{pair.mask}: mask {_size(mask)}, image {_size(image)} (width x height)"
        problems.append((Kind.SIZE, line))
    return LabelledImage(image, mask), problems


def _check_labels(pair: Pair, mask: np.ndarray, taxonomy: Taxonomy) -> list[tuple[Kind, str]]:
    pixels = np.bincount(mask.ravel(), minlength=256)  # (256,): pixels per value
    present = set(np.flatnonzero(pixels).tolist())
    if present == {taxonomy.ignore_index}:
        return [(Kind.VOID, f"{pair.mask}: every pixel is {taxonomy.ignore_index}, which is ignored")]
    foreign = sorted(present - set(taxonomy.allowed_values()))
    if not foreign:
        return []
    listed = ", ".join(f"{value} ({pixels[value]} px)" for value in foreign[:VALUES_PER_MASK])
    more = f" ... and {len(foreign) - VALUES_PER_MASK} more values" if len(foreign) > VALUES_PER_MASK else ""
    allowed = f"allowed: 0 to {taxonomy.num_classes - 1}, and {taxonomy.ignore_index} for ignored"
    return [(Kind.LABELS, f"{pair.mask}: {listed}{more}; {allowed}")]


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _message(problems: dict[Kind, list[str]], bad_pairs: int, num_pairs: int) -> str:
    count = sum(len(lines) for lines in problems.values())
    text = [f"{count} problem{'s'[: count != 1]} in {bad_pairs} of {num_pairs} labelled images"]
    for kind, lines in problems.items():
        if not lines:
            continue
        title, remedy = kind.value
        text.append(f"{title} ({len(lines)}) - {remedy}:")
        text += [f"  {line}" for line in lines[:LINES_PER_KIND]]
        if len(lines) > LINES_PER_KIND:
            text.append(f"  ... and {len(lines) - LINES_PER_KIND} more")
    return "\n".join(text)
