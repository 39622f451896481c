"""The files of a folder by their names."""

from pathlib import Path

from segdistill.data.files import IMAGE_SUFFIXES, as_key, files_below
from segdistill.errors import DataError

_SHOWN = 12  # names of what lies in a folder that is not as expected


def by_name(
    folder: Path, suffix: str, *, foreign: str = "", without: Path | None = None
) -> dict[str, list[Path]]:
    """`sub/folder/name` without `suffix` and file type -> its files; `foreign`: an ending to leave out; `without`: a
    folder below this one to leave out."""
    found: dict[str, list[Path]] = {}
    files = files_below(folder)
    garbled = [
        str(path).encode("utf-8", "backslashreplace").decode() for path in files if not _is_text(str(path))
    ]
    if garbled:
        raise DataError(
            f"{len(garbled)} files below {folder} have names that are not UTF-8 text, e.g. {garbled[0]}; rename them "
            "(archives of older systems leave such names)"
        )
    for path in files:
        place = path.relative_to(folder)
        if without in path.parents or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if not path.stem.endswith(suffix) or (foreign and path.stem.endswith(foreign)):
            continue
        name = place.with_name(path.stem.removesuffix(suffix)) if path.stem != suffix else place
        found.setdefault(as_key(name.as_posix()), []).append(path)
    return found


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def nearest(folder: Path) -> str:
    """What lies in the folder, or in the nearest one above it that exists."""
    while not folder.is_dir():
        folder = folder.parent
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" ... and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{folder.resolve()} holds {', '.join(names[:_SHOWN]) or 'nothing'}{more}"
