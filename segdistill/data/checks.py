"""Look at every image and mask once before a run, and name everything that is wrong in one message."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from segdistill.cores import usable_cores
from segdistill.data.files import Pair, PairedFiles, read_mask, read_photo
from segdistill.data.mask_code import FOREIGN
from segdistill.data.mask_evidence import Evidence, look_at
from segdistill.data.problems import Kind, Problem, of_split
from segdistill.data.samples import LabelledImage
from segdistill.data.statistics import pixels_by_class
from segdistill.errors import DataError, MaskFormError

MAX_THREADS = 8
_SAME_SIZE = (2, 3, 4)  # EXIF orientations: mirrored, upside down, or both


@dataclass(frozen=True)
class Checked:
    """What the check has seen of a split without problems.

    Attributes:
        decoded: the samples in the order of the pairs; None if they were not kept.
        pixels: (N, C + 1) int64, pixels of each class in each sample; the last column counts ignored ones.
        decoded_bytes: that all samples together take in memory.
        digest: of the images' names and files and of the masks' classes; however a mask is stored.
        turned: images that a viewer shows turned or mirrored, although their size does not tell.
        peaks: `brightest` of each image of 16 bits.
    """

    decoded: tuple[LabelledImage, ...] | None
    pixels: np.ndarray
    decoded_bytes: int
    digest: str
    turned: tuple[Path, ...] = ()
    peaks: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Finding:
    """About one pair; the sample is None if a file is unreadable."""

    sample: LabelledImage | None
    pixels: np.ndarray | None
    problems: tuple[Problem, ...]
    digest: bytes = b""
    turned: Path | None = None
    brightest: int | None = None  # of an image of 16 bits, in its upper 8
    evidence: Evidence = field(default_factory=Evidence)


def check_files(
    files: PairedFiles,
    *,
    evidence: Evidence,
    listed: Sequence[Problem] = (),
    keep_bytes: float = 0,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Decode every pair once and collect all problems. Changes nothing on disk.

    Args:
        files: a split.
        evidence: what its masks say about others is added to it, and to be judged once all splits are checked.
        listed: problems of its listing, to be told along.
        keep_bytes: keep the decoded samples as long as all of them fit into this; `math.inf` keeps any.
        threads: decoders at a time, PIL lets other threads run; by default one for each core, at most 8.
        progress: called with (pairs done, pairs in all) after every pair.

    Raises:
        DataError: something is wrong; the message lists it by kind and file, with a remedy per kind.
    """
    problems = [*listed]
    bad_pairs, decoded_bytes = 0, 0
    turned: list[Path] = []
    peaks: list[int] = []
    kept: list[LabelledImage] | None = [] if keep_bytes else None
    digest = hashlib.sha256()
    pixels = np.zeros((len(files), files.taxonomy.num_classes + 1), np.int64)
    with _findings(files, threads or min(MAX_THREADS, usable_cores())) as findings:
        for place, finding in enumerate(findings):
            problems += finding.problems
            bad_pairs += bool(finding.problems)
            digest.update(finding.digest)
            evidence.add(finding.evidence)
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
    if problems:
        raise DataError(of_split(problems, bad_pairs=bad_pairs, num_pairs=len(files)))
    return Checked(
        None if kept is None else tuple(kept),
        pixels,
        decoded_bytes,
        digest.hexdigest(),
        turned=tuple(turned),
        peaks=tuple(peaks),
    )


@contextmanager
def _findings(files: PairedFiles, threads: int) -> Iterator[Iterator[_Finding]]:
    """What is found in each pair, in their order. A few of them are decoded ahead: all would fill the memory."""
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
    problems: list[Problem] = []
    image = stored = turned = brightest = None
    try:
        image, orientation, brightest = read_photo(pair.image)
        if orientation in _SAME_SIZE or (orientation != 1 and image.shape[0] == image.shape[1]):
            turned = pair.image
    except DataError as error:
        problems.append(Problem(Kind.UNREADABLE, str(error)))
    try:
        stored = read_mask(pair.mask, files.code.reading, known=files.code.values)
    except MaskFormError as error:
        problems.append(Problem(Kind.FORM, str(error)))
    except DataError as error:
        problems.append(Problem(Kind.UNREADABLE, str(error)))
    if stored is None:
        return _Finding(None, None, tuple(problems))
    mask = files.code.encode(stored)
    pixels = pixels_by_class(mask, files.taxonomy)
    contradiction, evidence = look_at(pair.mask, stored, mask, files.code)
    if contradiction:
        problems.append(Problem(Kind.CONTRADICTION, f"{pair.mask}: {contradiction}"))
    elif (mask == FOREIGN).any():
        problems.append(Problem(Kind.LABELS, f"{pair.mask}: {files.code.foreign(stored, mask)}"))
    elif pixels[-1] == mask.size:
        problems.append(Problem(Kind.VOID, f"{pair.mask}: every pixel is ignored{_what_is_ignored(stored)}"))
    if image is not None and image.shape[:2] != mask.shape:
        problems.append(
            Problem(Kind.SIZE, f"{pair.mask}: mask {_size(mask)}, image {_size(image)} (width x height)")
        )
    sample = None if image is None else LabelledImage(image, mask)
    digest = b"" if problems else _digest(pair, mask)
    return _Finding(sample, pixels, tuple(problems), digest, turned, brightest, evidence)


def _digest(pair: Pair, mask: np.ndarray) -> bytes:
    """The image counts as it lies there: what is decoded of a JPEG depends on the library."""
    parts = (pair.name.encode(), pair.image.read_bytes(), repr(mask.shape).encode(), mask.tobytes())
    return b"".join(hashlib.sha256(part).digest() for part in parts)


def _what_is_ignored(stored: np.ndarray) -> str:
    first = stored.reshape(-1, *stored.shape[2:])[0]
    same = (stored == first).all()
    return f" (value {tuple(first.tolist()) if first.ndim else int(first)})" if same else ""


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
