"""Look at every image and mask once before a run, and name everything that is wrong in one message."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from pathlib import Path

import numpy as np

from segdistill.cores import usable_cores
from segdistill.data.files import Pair, PairedFiles, read_mask, read_photo, shown_colours
from segdistill.data.mask_code import FOREIGN, MaskCode
from segdistill.data.samples import LabelledImage
from segdistill.data.statistics import pixels_by_class
from segdistill.errors import DataError, MaskFormError

LINES_PER_KIND = 20  # listed in the message; the rest are counted
MAX_THREADS = 8
_SAME_SIZE = (2, 3, 4)  # EXIF orientations: mirrored, upside down, or both


class Kind(Enum):
    """The kinds of problem; each value is (title, remedy)."""

    LONELY = ("files without partner", "add the missing file, or remove the one that is alone")
    UNREADABLE = ("not readable", "put back whole copies of these files, or remove both files of the pair")
    FORM = ("not stored as masks are", "as the lines say")
    CONTRADICTION = (
        "numbers say one class and colours another",
        "say which counts by data.folder.mask_format: rgb for the colours of classes (a palette may be the choice of "
        "the program that made the file small), index for the numbers; or save grey masks with 8 bits and no palette",
    )
    EITHER = (
        "two values where one class was given without any",
        "say what they are by data.folder.classes: values: [1] if 255 is not labelled, values: [1, 255] if both are "
        "the class",
    )
    SIZE = (
        "image and mask differ in size",
        "use the mask that was drawn on this very image, at its size; a photo that an EXIF tag turns has to be "
        "saved upright",
    )
    LABELS = (
        "labels outside the classes",
        "map these values to classes or to the ignored value, or choose the taxonomy these masks follow; a mask "
        "saved as JPEG has wrong values for good, PNG keeps them",
    )
    VOID = (
        "no labelled pixel",
        "remove these pairs, nothing can be learnt from them; or correct the ignored value",
    )


@dataclass(frozen=True)
class Checked:
    """What the check has seen of a split without problems.

    Attributes:
        decoded: the samples in the order of the pairs; None if they were not kept.
        pixels: (N, C + 1) int64, pixels of each class in each sample; the last column counts ignored ones.
        decoded_bytes: that all samples together take in memory.
        turned: images that a viewer shows turned or mirrored, although their size does not tell.
        peaks: `brightest` of each image of 16 bits.
    """

    decoded: tuple[LabelledImage, ...] | None
    pixels: np.ndarray
    decoded_bytes: int
    turned: tuple[Path, ...] = ()
    peaks: tuple[int, ...] = ()


@dataclass
class _Levels:
    """What the masks of a split show together about the numbers they hold.

    Attributes:
        doubtful: a line for each mask whose numbers are of a class and are shown in the grey of what is ignored.
        plain: a mask whose numbers are shown as they are, that of what is ignored among them.
        users: of `MaskCode.either`: number -> a mask that holds it.
    """

    doubtful: list[str] = field(default_factory=list)
    plain: Path | None = None
    users: dict[int, Path] = field(default_factory=dict)

    def add(self, other: "_Levels") -> None:
        self.doubtful += other.doubtful
        self.plain = self.plain or other.plain
        self.users = other.users | self.users

    def problems(self) -> list[tuple[Kind, str]]:
        """What no mask shows alone."""
        found = []
        if self.plain is not None:
            found += [
                (Kind.CONTRADICTION, f"{line}, which {self.plain} holds as a number")
                for line in self.doubtful
            ]
        if len(self.users) > 1:
            where = (f"{number} in {path}" for number, path in sorted(self.users.items()))
            found.append((Kind.EITHER, " and ".join(where)))
        return found


@dataclass(frozen=True)
class _Finding:
    """About one pair; the sample is None if a file is unreadable."""

    sample: LabelledImage | None
    pixels: np.ndarray | None
    problems: tuple[tuple[Kind, str], ...]
    turned: Path | None = None
    brightest: int | None = None  # of an image of 16 bits, in its upper 8
    levels: _Levels = field(default_factory=_Levels)


def check_files(
    files: PairedFiles,
    *,
    lonely: Sequence[str] = (),
    keep_bytes: float = 0,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Decode every pair once and collect all problems. Changes nothing on disk.

    Args:
        files: a split.
        lonely: a line for each file that has no partner, to be told along.
        keep_bytes: keep the decoded samples as long as all of them fit into this; `math.inf` keeps any.
        threads: decoders at a time, PIL lets other threads run; by default one for each core, at most 8.
        progress: called with (pairs done, pairs in all) after every pair.

    Raises:
        DataError: something is wrong; the message lists it by kind and file, with a remedy per kind.
    """
    problems: dict[Kind, list[str]] = {kind: [] for kind in Kind}
    problems[Kind.LONELY] += lonely
    bad_pairs, decoded_bytes = 0, 0
    turned: list[Path] = []
    peaks: list[int] = []
    kept: list[LabelledImage] | None = [] if keep_bytes else None
    pixels = np.zeros((len(files), files.taxonomy.num_classes + 1), np.int64)
    levels = _Levels()
    with _findings(files, threads or min(MAX_THREADS, usable_cores())) as findings:
        for place, finding in enumerate(findings):
            for kind, line in finding.problems:
                problems[kind].append(line)
            bad_pairs += bool(finding.problems)
            levels.add(finding.levels)
            turned += [finding.turned] if finding.turned else []
            peaks += [] if finding.brightest is None else [finding.brightest]
            if finding.pixels is not None:
                pixels[place] = finding.pixels
            if finding.sample is not None:
                decoded_bytes += finding.sample.image.nbytes + finding.sample.mask.nbytes
                if decoded_bytes > keep_bytes or bad_pairs:
                    kept = None
                if kept is not None:
                    kept.append(finding.sample)
            if progress is not None:
                progress(place + 1, len(files))
    for kind, line in levels.problems():
        problems[kind].append(line)
        bad_pairs = min(bad_pairs + 1, len(files))
    if any(problems.values()):
        raise DataError(_message(problems, bad_pairs, len(files)))
    return Checked(
        None if kept is None else tuple(kept),
        pixels,
        decoded_bytes,
        turned=tuple(turned),
        peaks=tuple(peaks),
    )


@contextmanager
def _findings(files: PairedFiles, threads: int) -> Iterator[Iterator[_Finding]]:
    """In the order of the pairs, with a few of them decoded ahead: all at once would fill the memory."""
    pool = ThreadPoolExecutor(threads)

    def iterate() -> Iterator[_Finding]:
        places = iter(files.pairs)
        ahead = [pool.submit(_check_pair, pair, files) for pair in islice(places, 2 * threads)]
        while ahead:
            finding = ahead.pop(0).result()
            ahead += [pool.submit(_check_pair, pair, files) for pair in islice(places, 1)]
            yield finding

    try:
        yield iterate()
    finally:
        pool.shutdown(cancel_futures=True)


def _check_pair(pair: Pair, files: PairedFiles) -> _Finding:
    problems: list[tuple[Kind, str]] = []
    image = stored = turned = brightest = None
    try:
        image, orientation, brightest = read_photo(pair.image)
        if orientation in _SAME_SIZE or (orientation != 1 and image.shape[0] == image.shape[1]):
            turned = pair.image
    except DataError as error:
        problems.append((Kind.UNREADABLE, str(error)))
    try:
        stored = read_mask(pair.mask, files.code.reading)
    except MaskFormError as error:
        problems.append((Kind.FORM, str(error)))
    except DataError as error:
        problems.append((Kind.UNREADABLE, str(error)))
    if stored is None:
        return _Finding(None, None, tuple(problems))
    mask = files.code.encode(stored)
    pixels = pixels_by_class(mask, files.taxonomy)
    contradiction, levels = _held_against_colours(pair.mask, stored, mask, files.code)
    if contradiction:
        problems.append((Kind.CONTRADICTION, f"{pair.mask}: {contradiction}"))
    elif (mask == FOREIGN).any():
        problems.append((Kind.LABELS, f"{pair.mask}: {files.code.foreign(stored, mask)}"))
    elif pixels[-1] == mask.size:
        problems.append((Kind.VOID, f"{pair.mask}: every pixel is ignored{_what_is_ignored(stored)}"))
    if image is not None and image.shape[:2] != mask.shape:
        problems.append(
            (Kind.SIZE, f"{pair.mask}: mask {_size(mask)}, image {_size(image)} (width x height)")
        )
    sample = None if image is None else LabelledImage(image, mask)
    return _Finding(sample, pixels, tuple(problems), turned, brightest, levels)


def _held_against_colours(
    path: Path, stored: np.ndarray, encoded: np.ndarray, code: MaskCode
) -> tuple[str, _Levels]:
    """Of a mask that was read by its numbers: where its colours contradict them, and what they say beside others'."""
    if stored.ndim == 3:
        return "", _Levels()
    users = {number: path for number in code.either if (stored == number).any()}
    colours = shown_colours(path) if code.form == "auto" else None
    if colours is None:
        return "", _Levels(users=users)
    void = code.void_if_shown(stored, colours)
    doubtful = [f"{path}: {void} pixels of a class are shown in the grey of what is ignored"] if void else []
    plain = (encoded == code.ignore_index).any() and (colours == stored[..., None]).all()
    return code.contradiction(stored, colours), _Levels(doubtful, path if plain else None, users)


def _what_is_ignored(stored: np.ndarray) -> str:
    first = stored.reshape(-1, *stored.shape[2:])[0]
    same = (stored == first).all()
    return f" (value {tuple(first.tolist()) if first.ndim else int(first)})" if same else ""


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _message(problems: dict[Kind, list[str]], bad_pairs: int, num_pairs: int) -> str:
    count = sum(len(lines) for lines in problems.values())
    alone = len(problems[Kind.LONELY])
    where = [f"{bad_pairs} of {num_pairs} labelled images"] if bad_pairs or not alone else []
    where += [f"{alone} file{'s'[: alone != 1]} without partner"] if alone else []
    text = [f"{count} problem{'s'[: count != 1]} in {' and '.join(where)}"]
    for kind, lines in problems.items():
        if not lines:
            continue
        title, remedy = kind.value
        text.append(f"{title} ({len(lines)}) - {remedy}:")
        text += [f"  {line}" for line in lines[:LINES_PER_KIND]]
        if len(lines) > LINES_PER_KIND:
            text.append(f"  ... and {len(lines) - LINES_PER_KIND} more")
    return "\n".join(text)
