"""What `segdistill predict` is to segment, and where the results lie: an image, the images of a folder, or a video."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from segdistill.console import counted, warn
from segdistill.data.files import IMAGE_SUFFIXES, files_below
from segdistill.errors import DataError
from segdistill.files import refuse_unwritable

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
#: Of pictures that are neither image nor video here: they are left out of a folder, but not in silence.
_OTHER_PICTURES = (
    *(".gif", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".svg", ".exr", ".hdr", ".ppm", ".pgm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),  # as cameras take them
    *(".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".mts"),  # that move
)
#: How names of results end, by which they are known again; the second of `OVERLAYS` is for what no JPEG can hold.
MASK = "_mask.png"
OVERLAYS = ("_overlay.jpg", "_overlay.png")
VIDEO_OVERLAY = "_overlay.mp4"


def check_places(source: Path, out: Path) -> None:
    """Refuse now a source that is missing, and a folder that cannot take its results.

    Args:
        source: an image, a folder of images, or a video.
        out: folder of the results.

    Raises:
        DataError: if the source is missing, or results would mix with sources.
        PathError: if results cannot be written.
    """
    if not source.exists():
        raise DataError(f"{source}: no such image, folder or video")
    if out.resolve() == (source if source.is_dir() else source.parent).resolve():
        raise DataError(f"--out {out} is the folder of the source; choose another, so as not to mix the two")
    refuse_unwritable(out, said=f"--out {out}")


def is_video(source: Path) -> bool:
    """A file, and a video by its suffix."""
    return source.suffix.lower() in VIDEOS and source.is_file()


def find_images(source: Path, out: Path, *, console: Console) -> dict[Path, Path]:
    """Image -> path of its results without their endings; no two are equal. Results are no images the next time: an
    `out` inside the source is left out, and so are results of other calls in it. Pictures and videos that are left out
    are told.

    Args:
        source: an image, or a folder of images.
        out: folder of the results.
        console: to tell on.

    Raises:
        DataError: if `source` is no image, or a folder without one, or results would lie among the images or replace
            what is no result.
    """
    targets = _target_of(source, out) if source.is_file() else _targets_below(source, out, console=console)
    _refuse_foreign_masks(targets.values(), out)
    return targets


def _target_of(source: Path, out: Path) -> dict[Path, Path]:
    """See `find_images`, of a single file."""
    if source.suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(
            f"{source}: neither an image ({listed(IMAGE_SUFFIXES)}) nor a video ({listed(VIDEOS)}) by its suffix"
        )
    return {source: out / source.stem}


def _targets_below(source: Path, out: Path, *, console: Console) -> dict[Path, Path]:
    """See `find_images`, of a folder."""
    files = _files_but_results(source, out)
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if earlier := _results_among(images):
        console.print(f"{len(earlier)} files in {source} are results of earlier predictions, and left out")
        images = [image for image in images if image not in earlier]
    strange = _strangers(files)
    hint = "; give its videos one at a time" if strange.keys() & set(VIDEOS) else ""
    if not images:
        raise DataError(f"{source}: no image ({listed(IMAGE_SUFFIXES)}) in this folder or below it{hint}")
    if strange:
        warn(
            console,
            f"left out: {counted(strange.total(), 'file')} in {source}, by suffix no image "
            f"({', '.join(sorted(strange))}){hint}",
        )
    return {source / image: out / name for image, name in _distinct_names(images).items()}


def _files_but_results(source: Path, out: Path) -> list[Path]:
    """Files below the source, relative to it, without those in an `out` that lies inside it.

    Raises:
        DataError: if results would lie in the source although `out` does not.
    """
    results, top = out.resolve(), source.resolve()
    files = [path.relative_to(source) for path in files_below(source)]
    if top in results.parents:
        return [file for file in files if results not in (top / file).parents]
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if fallen := next((image for image in images if top in (results / image).parents), None):
        raise DataError(
            f"--out {out}: the results of {source / fallen} would lie in {source} and be taken for images the next "
            "time; choose another folder, beside the source or inside it"
        )
    return files


def _distinct_names(images: Sequence[Path]) -> dict[Path, Path]:
    """Image -> the same path without its suffix, or with it where another image would have the same results."""
    # Some file systems do not tell a.png from A.png.
    stems = Counter((image.parent, image.stem.casefold()) for image in images)
    names = {(image.parent, image.name.casefold()) for image in images}

    def is_alone(image: Path) -> bool:
        stem = (image.parent, image.stem.casefold())
        return stems[stem] == 1 and stem not in names

    return {image: image.parent / (image.stem if is_alone(image) else image.name) for image in images}


def refuse_foreign_frames(target: Path) -> None:
    """Masks of a video's frames where its masks would lie, which no earlier prediction has left.

    Args:
        target: path of the video's results without their endings.

    Raises:
        DataError: if there are some.
    """
    masks = frame_masks_of(target)
    if any(masks.glob("*.png")) and not target.with_name(target.name + VIDEO_OVERLAY).exists():
        raise DataError(
            f"{masks} holds images that are no results of an earlier prediction (which have "
            f"{target.name}{VIDEO_OVERLAY} beside them), and would be replaced; choose another --out"
        )


def frame_masks_of(target: Path) -> Path:
    """The folder of the masks of a video's frames."""
    return target.with_name(f"{target.name}_masks")


def _refuse_foreign_masks(targets: Iterable[Path], out: Path) -> None:
    """Labels are often called as results are here: `<image>_mask.png`. They must not be lost."""
    foreign = [
        mask
        for target in targets
        if (mask := target.with_name(target.name + MASK)).is_file()
        and not any(target.with_name(target.name + overlay).exists() for overlay in OVERLAYS)
    ]
    if foreign:
        raise DataError(
            f"--out {out}: {counted(len(foreign), 'file')}, e.g. {foreign[0]}, would be replaced and are no results of "
            f"an earlier prediction (which have *{OVERLAYS[0]} beside them): labels, perhaps; choose "
            "another --out"
        )


def listed(suffixes: tuple[str, ...]) -> str:
    """Suffixes as messages name them: `jpg png`."""
    return " ".join(suffix.removeprefix(".") for suffix in suffixes)


def _strangers(files: Iterable[Path]) -> Counter[str]:
    """How often each suffix of a picture or video comes that is no image's. Overlays of videos are results."""
    return Counter(
        suffix
        for file in files
        if (suffix := file.suffix.lower()) in (*_OTHER_PICTURES, *VIDEOS)
        and not file.name.endswith(VIDEO_OVERLAY)
    )


def _results_among(images: Sequence[Path]) -> set[Path]:
    """A mask and an overlay of the same name, side by side."""
    there = set(images)
    pairs = (
        (image, image.with_name(image.name.removesuffix(MASK) + overlay))
        for image in images
        if image.name.endswith(MASK)
        for overlay in OVERLAYS
    )
    return {one for pair in pairs if pair[1] in there for one in pair}
