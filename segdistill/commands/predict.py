"""`segdistill predict`: masks and overlays of images and videos, by a run or an exported file."""

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from segdistill.commands.predict_sources import (
    MASK,
    OVERLAYS,
    VIDEO_OVERLAY,
    VIDEOS,
    check_places,
    find_images,
    frame_masks_of,
    is_video,
    listed,
    refuse_foreign_frames,
)
from segdistill.commands.segmenting_model import Model, load_model
from segdistill.console import counted, progress_bar, warn
from segdistill.data.files import dark_in_words, read_photo
from segdistill.data.taxonomy import Taxonomy
from segdistill.data.video import Video, write_video
from segdistill.errors import DataError, ExportError
from segdistill.export.segmenter import Segmenter
from segdistill.files import write_together
from segdistill.report.lettering import boxes_in_words
from segdistill.report.overlay import blend, largest_first, legend_entries, mask_image, outlined, with_legend

_JPEG_SIDE = 65500  # pixels, libjpeg's JPEG_MAX_DIMENSION
#: What keeps one result from its place, and not all of them: a name, or a folder or file in its way.
_OF_ONE_RESULT = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)


@dataclass(frozen=True)
class Style:
    """How overlays look: opacity of the classes' colours, 0..1, and whether a legend stands below."""

    opacity: float
    legend: bool


def predict(
    model: Path,
    source: Path,
    *,
    out: Path,
    stream: str | None,
    opacity: float,
    legend: bool,
    frame_masks: bool,
    console: Console,
) -> None:
    """Segment images or a video of any size.

    An image gets `<name>_mask.png`, a palette image of the class indexes at the image's stored size and
    orientation, and `<name>_overlay.jpg` (png beyond 65500 pixels a side). Of a folder all images below it are
    taken but for hidden ones, and its structure is kept; images of one folder that differ only in their suffix keep
    it in their `<name>`. A video gets `<name>_overlay.mp4` without sound, at its own rate; its legend always lists
    all classes, in their order, so that it does not jump. Existing results are replaced; masks that are no
    results, labels of the same name, never.

    Args:
        model: a run folder, or an ONNX file made by `segdistill export`.
        source: an image, a folder of images, or a video.
        out: folder of the results; not the one that holds the source.
        stream: by default the deployed network, or the one that the ONNX file holds. The other streams of a run
            come out of its checkpoint.
        opacity: of the classes' colours over the image, 0..1.
        legend: whether the overlays have one, below the picture.
        frame_masks: write the masks of a video's frames, too: `<name>_masks/<frame, from 000000>.png`.
        console: to print on.

    Raises:
        DataError: if there is nothing to segment, or, after all the others, for images that cannot be decoded or
            segmented, or whose results cannot have their place.
        PathError: if results cannot be written to `out`.
        RunFolderError: if the run folder is missing or foreign, or lacks the stream.
        ExportError: if the ONNX file is missing or foreign, or lacks the stream.
    """
    check_places(source, out)
    style = Style(opacity, legend)
    if is_video(source):
        if frame_masks:
            refuse_foreign_frames(out / source.stem)
        video = Video(source)
        loaded = _load(model, stream, style, console=console)
        _predict_video(loaded, video, out / source.stem, style, frame_masks=frame_masks, console=console)
    else:
        if frame_masks:
            raise DataError(
                f"--frame-masks writes the masks of a video's frames, and {source} is no video ({listed(VIDEOS)}); "
                "leave it out, every image gets its mask"
            )
        targets = find_images(source, out, console=console)
        loaded = _load(model, stream, style, console=console)
        _predict_images(loaded, targets, out, style, console=console)


def _load(path: Path, stream: str | None, style: Style, *, console: Console) -> Model:
    model = load_model(path, stream=stream)
    if style.legend and (boxes := boxes_in_words(model.taxonomy.names)):
        warn(console, boxes)
    return model


class Pace:
    """Counts images, and the seconds they take: altogether, and in the network alone."""

    def __init__(self) -> None:
        self.images = 0
        self._segmenting = 0.0
        self._started = time.perf_counter()

    def timed(self, segmenter: Segmenter, image: np.ndarray) -> np.ndarray:
        """The classes (H, W) of an image (H, W, 3)."""
        before = time.perf_counter()
        classes = segmenter.predict(image).classes
        self._segmenting += time.perf_counter() - before
        self.images += 1
        return classes

    def in_words(self, what: str) -> str:
        whole, network = (
            1e3 * seconds / self.images for seconds in (time.perf_counter() - self._started, self._segmenting)
        )
        return f"{whole:.0f} ms per {what}, {network:.0f} ms of it for the network"


# ---- images


@dataclass
class _Outcome:
    """What there is to say when all images are done.

    Attributes:
        overlays: patterns of the overlays' names.
        turned: images that viewers turn or mirror.
        peaks: largest values of images of 16 bits.
        problems: one message for each image without results.
    """

    overlays: set[str] = field(default_factory=set)
    turned: list[Path] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def _predict_images(
    model: Model, targets: dict[Path, Path], out: Path, style: Style, *, console: Console
) -> None:
    """Segment them one by one, tell how it went, and end with what could not be segmented."""
    pace, outcome = Pace(), _Outcome()
    with progress_bar(console) as progress:
        for source, target in progress.track(targets.items(), description="images"):
            try:
                _predict_image(model, source, target, style, pace, outcome)
            except (DataError, ExportError) as problem:
                outcome.problems.append(str(problem))
            except OSError as problem:
                if not _is_of_one_result(problem, out):
                    raise
                outcome.problems.append(_not_written(problem, source, target, out))
    problems = outcome.problems
    if written := len(targets) - len(problems):
        console.print(
            f"{counted(written, 'image')} by {model.title} -> {out}: "
            f"{' and '.join([f'*{MASK}', *sorted(outcome.overlays)])}, {pace.in_words('image')}",
        )
    _warn_of_images(outcome, console=console)
    if problems:
        raise DataError(
            problems[0]
            if len(targets) == 1
            else "\n  ".join([f"{len(problems)} of {len(targets)} images could not be segmented:", *problems])
        )


def _predict_image(
    model: Model, source: Path, target: Path, style: Style, pace: Pace, outcome: _Outcome
) -> None:
    """Write the mask and the overlay of one image; `pace` and `outcome` note it."""
    image, orientation, brightest = read_photo(source)
    classes = pace.timed(model.segmenter, image)
    picture = _overlay(image, classes, model.taxonomy, style, moving=False)
    ending = OVERLAYS[max(picture.shape) > _JPEG_SIDE]
    write_together(
        {
            target.with_name(target.name + ending): _encoded(picture, Path(ending).suffix),
            target.with_name(target.name + MASK): _encoded_mask(classes, model.taxonomy),
        }
    )
    outcome.overlays.add(f"*{ending}")
    if orientation != 1:
        outcome.turned.append(source)
    if brightest is not None:
        outcome.peaks.append(brightest)


def _warn_of_images(outcome: _Outcome, *, console: Console) -> None:
    """Tell of images that were segmented, but are perhaps not what they seem."""
    if turned := outcome.turned:
        warn(
            console,
            f"viewers turn or mirror {counted(len(turned), 'image')} by their EXIF tag, e.g. {turned[0]}; here they "
            "were segmented as they are stored, and a network takes what lies on its side for something else. Save "
            "them upright and predict again",
        )
    if dark := dark_in_words(outcome.peaks):
        warn(console, dark)


def _not_written(problem: OSError, source: Path, target: Path, out: Path) -> str:
    """Why an image's results could not have their place."""
    if problem.errno == errno.ENAMETOOLONG:
        return f"{source}: its results would have too long a name for {out}"
    return (
        f"{source}: its results {target}_* cannot be written: {problem.strerror}; remove what is in their way, or "
        "choose another --out"
    )


def _is_of_one_result(problem: OSError, out: Path) -> bool:
    """Whether others may still be written: not on a full disk, nor where nothing may be written at all."""
    if isinstance(problem, PermissionError):
        return os.access(out, os.W_OK)
    return problem.errno in _OF_ONE_RESULT


def _encoded(picture: np.ndarray, suffix: str) -> bytes:
    """The picture as the bytes of a file, made in memory: Pillow does not notice when a full disk takes only a part of
    a JPEG.
    """
    encoded = BytesIO()
    Image.fromarray(picture).save(
        encoded, Image.registered_extensions()[suffix], quality=92, subsampling="4:4:4"
    )
    return encoded.getvalue()


def _encoded_mask(classes: np.ndarray, taxonomy: Taxonomy) -> bytes:
    encoded = BytesIO()
    mask_image(classes, taxonomy.colours).save(encoded, "PNG")
    return encoded.getvalue()


# ---- video


def _put_masks_in_place(finished: Path, masks: Path) -> None:
    """Move all masks of a video to where they belong, instead of what an earlier video of the same name has left."""
    masks.mkdir(exist_ok=True)
    names = {path.name for path in finished.iterdir()}
    for name in names:
        os.replace(finished / name, masks / name)
    for path in masks.glob("*.png"):
        if path.stem.isdecimal() and path.name not in names:
            path.unlink()


def _predict_video(
    model: Model, video: Video, target: Path, style: Style, *, frame_masks: bool, console: Console
) -> None:
    pace = Pace()
    masks = frame_masks_of(target)
    overlay = target.with_name(target.name + VIDEO_OVERLAY)

    def pictures() -> Iterator[np.ndarray]:
        tracked = progress.track(video.frames(), video.announced_frames, description="frames")
        for number, frame in enumerate(tracked):
            classes = pace.timed(model.segmenter, frame)
            if frame_masks:
                write_together({Path(work, f"{number:06}.png"): _encoded_mask(classes, model.taxonomy)})
            yield _overlay(frame, classes, model.taxonomy, style, moving=True)

    target.parent.mkdir(parents=True, exist_ok=True)
    # Masks get their names together, when all of them are there.
    with (
        tempfile.TemporaryDirectory(prefix=f".{target.name[:20]}-", dir=target.parent) as work,
        progress_bar(console) as progress,
    ):
        write_video(overlay, pictures(), fps=video.fps)
        if frame_masks:
            _put_masks_in_place(Path(work), masks)
    console.print(
        f"{counted(pace.images, 'frame')} by {model.title} -> {overlay}{f' and {masks}' if frame_masks else ''}, "
        f"{pace.in_words('frame')}",
    )
    if video.announced_frames is not None and pace.images < video.announced_frames:
        console.print(
            f"the video says that it has {video.announced_frames} frames; only {pace.images} could be decoded",
        )


# ---- both


def _overlay(
    image: np.ndarray, classes: np.ndarray, taxonomy: Taxonomy, style: Style, *, moving: bool
) -> np.ndarray:
    """The overlay (H', W', 3) of an image (H, W, 3), higher by the legend: of the classes present, or of all in a
    moving picture.
    """
    picture = outlined(blend(image, taxonomy.colourise(classes), opacity=style.opacity), classes)
    if not style.legend:
        return picture
    entries = legend_entries(classes, taxonomy.names, taxonomy.colours)
    return with_legend(picture, entries if moving else largest_first(entries))
