"""Where a user's files lie, and writing files so that no reader ever sees half of one."""

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from segdistill.errors import PathError

_SHOWN = 20  # signs of a file's name in its temporary one, which must not be too long where the former is not


def expanded(path: Path) -> Path:
    """The path with `~` and `~user` replaced by the home folder.

    Raises:
        PathError: if there is no such user, or nobody knows the home folder.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise PathError(
            f"{path}: this machine knows no home folder {path.parts[0]}; write the whole path, from / on"
        ) from None


def make_room(path: Path, *, option: str) -> None:
    """Make the folder of a JSON file that ends long work, and refuse now what would fail then. The folder stays: each
    of several processes may ask, and none takes it away under another.

    Args:
        path: of the file.
        option: of the command line that names it.

    Raises:
        PathError: if it is a folder, or cannot be written.
    """
    if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
        raise PathError(f"{option} {path} is a folder; name a JSON file in it, e.g. {path / 'scores.json'}")
    _try_to_write(
        path.parent,
        name=path.name,
        said=f"{option} {path}",
        remedy="name a file in a folder that you may write to",
    )


def refuse_unwritable(folder: Path, *, said: str) -> None:
    """Refuse now a folder of results that could not be made or written to later. Nothing is left of the attempt: what
    else is wrong may be told after it. Of several processes only one may ask.

    Args:
        folder: that results will lie in.
        said: how the user names it, or a file in it, e.g. `out=DIR`.

    Raises:
        PathError: if it is a file or below one, or cannot be written.
    """
    missing = _missing(folder)
    try:
        _try_to_write(folder, said=said, remedy="name a folder that you may write to, it is made if need be")
    finally:
        _take_away(missing)


def _try_to_write(folder: Path, *, said: str, remedy: str, name: str = "") -> None:
    """Make a folder, and a file in it that is gone at once; a `name` that no file there can have is refused, too."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        with contextlib.suppress(FileNotFoundError):
            (folder / name).lstat()
    except OSError as error:
        raise PathError(f"{said} cannot be written: {error.strerror}; {remedy}") from None


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, and only then give it its name.

    Args:
        path: of the finished file; its folder is made if need be.
        write: gets the temporary path.
    """
    with _complete(path, write) as temporary:
        os.replace(temporary, path)


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files of which one without the others would be taken for the whole: none gets its name, or the place of an
    earlier one, before all of them are complete.
    """
    with contextlib.ExitStack() as until_named:
        complete = {
            path: until_named.enter_context(_complete(path, partial(Path.write_bytes, data=content)))
            for path, content in files.items()
        }
        if in_the_way := next((path for path in files if path.is_dir()), None):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(in_the_way))
        new = [path for path in files if not path.exists()]
        try:
            for path, temporary in complete.items():
                os.replace(temporary, path)
        except BaseException:
            for path in new:
                path.unlink(missing_ok=True)
            raise


@contextmanager
def _complete(path: Path, write: Callable[[Path], object]) -> Iterator[Path]:
    """A temporary file beside `path`, filled by `write` and flushed to disk; gone afterwards unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:_SHOWN]}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        # mkstemp's files are private; a run folder is meant to be shared like any other.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        _flush(temporary)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Make the folder of a file, and take away what was made of it if the file does not come to be."""
    missing = _missing(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        _take_away(missing)
        raise


def _missing(folder: Path) -> list[Path]:
    """What has to be made for a folder to be there, the innermost first."""
    return [one for one in (folder, *folder.parents) if not os.path.lexists(one)]


def _take_away(folders: Iterable[Path]) -> None:
    """Remove those folders that are empty; the innermost come first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def put_in_place(finished: Path, path: Path) -> None:
    """Flush a file to disk, and only then give it its name."""
    _flush(finished)
    os.replace(finished, path)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def json_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a file that holds one in each line, as JSON. Lines that hold none are left out: the last one while
    it is being written, and what a machine that lost its power made of others.

    Raises:
        OSError: if the file cannot be read.
    """
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        with contextlib.suppress(ValueError):
            if isinstance(row := json.loads(line), dict):
                rows.append(row)
    return rows


def write_json_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object in each line, atomically; NaN is refused, since it is no JSON."""
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def read_text(path: Path) -> str:
    """What somebody wrote in UTF-8, without the mark that some editors put in front.

    Raises:
        OSError: if it cannot be read.
        UnicodeError: if it is of another encoding; the message says what to do.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # UTF-16 has them between letters
        raise UnicodeError("not UTF-8 text: save it as UTF-8")
    return text


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; NaN is refused, since it is no JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
