"""A static web page that runs an exported network in the browser, off ONNX Runtime's own npm package.

The page needs no network beyond its own folder. Serve the folder by any static web server.
"""

import base64
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import zlib
from importlib import resources
from pathlib import Path
from typing import Any

from segdistill.data.download import fetch
from segdistill.errors import DataError, ExportError
from segdistill.export.description import CLASS_INDEX, CONFIDENCE
from segdistill.export.onnx_file import OnnxFile
from segdistill.files import expanded, write_json

RUNTIME_VERSION = "1.30.0"
RUNTIME_ARCHIVE = f"onnxruntime-web-{RUNTIME_VERSION}.tgz"
RUNTIME_URL = f"https://registry.npmjs.org/onnxruntime-web/-/{RUNTIME_ARCHIVE}"
#: `dist.integrity` of this version in the npm registry.
RUNTIME_INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
#: Path in the npm package -> name in the page: the WebAssembly backend for CPUs, no more. Many servers send
#: .mjs under a type that browsers refuse to run, so the page has it as .js.
RUNTIME_FILES = {
    "dist/ort.wasm.bundle.min.mjs": "ort.wasm.bundle.min.js",
    "dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
#: The npm package carries no text of its licence; it goes where the package's files go.
RUNTIME_LICENCE = "LICENSE.txt"
#: The version is part of the name, so a browser never mixes cached files of two versions.
RUNTIME_PREFIX = "onnxruntime-web-"

ASSETS = ("index.html", "page.js", "decode.js", "worker.js", "resample.js", "style.css", "icon.svg")
MODEL, SETTINGS = "model.onnx", "model.json"
#: In the settings: by this a folder is known as a page that may be replaced.
MADE_BY = "segdistill"


def cache_folder() -> Path:
    """Where downloads are kept: $XDG_CACHE_HOME/segdistill, else ~/.cache/segdistill.

    Raises:
        PathError: if nobody knows the home folder.
    """
    return expanded(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "segdistill"


def write_web_page(
    model: Path,
    folder: Path,
    *,
    runtime: Path | None,
    cache: Path,
    url: str = RUNTIME_URL,
    integrity: str = RUNTIME_INTEGRITY,
) -> None:
    """Write `folder`, which appears only when it is whole; an earlier page in its place is replaced.

    Args:
        model: an exported file of the `image` kind.
        folder: of the page.
        runtime: onnxruntime-web as npm's .tgz or as an unpacked package; None downloads it (33 MB, once).
        cache: folder that keeps the download.
        url: of the .tgz.
        integrity: `sha512-<base64>` of the .tgz, as npm writes it.

    Raises:
        ExportError: the file is of the wrong kind, onnxruntime-web cannot be had or is not the pinned one,
            or `folder` holds other files or cannot be written.
    """
    file = OnnxFile(model)
    if file.description.input != "image":
        raise ExportError(
            f"{model}: this file wants normalised images and gives logits, but the page feeds pixels and shows "
            "classes; export it with --input image"
        )
    folder = expanded(folder).resolve()
    runtime_files = ready_for_page(folder, runtime=runtime, cache=cache, url=url, integrity=integrity)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
            page, former = Path(work) / "page", Path(work) / "former"
            _fill(page, file, runtime_files)
            _move_into_place(page, folder, former)
    except OSError as error:
        raise ExportError(
            f"{folder}: the page cannot be put there: {error}; choose a folder that you may write to"
        ) from error


def ready_for_page(
    folder: Path,
    *,
    runtime: Path | None,
    cache: Path,
    url: str = RUNTIME_URL,
    integrity: str = RUNTIME_INTEGRITY,
) -> dict[str, bytes]:
    """All that a page needs beside its network: a place, and the files of onnxruntime-web by their names in it.

    Args:
        folder: of the page.
        runtime, cache, url, integrity: see `write_web_page`.

    Raises:
        ExportError: if either cannot be had.
    """
    _refuse_foreign(expanded(folder).resolve())
    return _read_runtime(runtime or _downloaded(cache, url, integrity), integrity)


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ExportError(f"{folder} is a file; choose a folder for the page")
    names = {path.name for path in folder.iterdir()} - {".DS_Store"}  # which macOS puts everywhere
    known = {*ASSETS, MODEL, SETTINGS} | {name for name in names if name.startswith(RUNTIME_PREFIX)}
    foreign = sorted(names - known if _is_page(folder) else names)
    if foreign:
        raise ExportError(
            f"{folder} holds files that are no part of such a page, and it would be replaced as a whole: "
            f"{', '.join(foreign[:5])}{', ...' if foreign[5:] else ''}; choose another folder or move them away"
        )


def _is_page(folder: Path) -> bool:
    try:
        return json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["made_by"] == MADE_BY
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _fill(page: Path, file: OnnxFile, runtime_files: dict[str, bytes]) -> None:
    runtime = page / f"{RUNTIME_PREFIX}{RUNTIME_VERSION}"
    runtime.mkdir(parents=True)
    for name, content in runtime_files.items():
        (runtime / name).write_bytes(content)
    assets = resources.files("segdistill.export") / "web_page"
    (runtime / RUNTIME_LICENCE).write_bytes((assets / "onnxruntime-web.LICENSE.txt").read_bytes())
    for name in ASSETS:
        (page / name).write_bytes((assets / name).read_bytes())
    shutil.copyfile(file.path, page / MODEL)
    write_json(page / SETTINGS, _settings(file, runtime.name))


def _settings(file: OnnxFile, runtime: str) -> dict[str, Any]:
    """What the page knows of its model: onnxruntime-web does not give out a file's metadata."""
    described = file.description
    score, data = described.score, described.data
    return {
        "made_by": MADE_BY,
        "name": " / ".join(described.network.values()),
        "stream": described.stream,
        "precision": described.precision,
        "miou": score.miou,
        "scored_on": f"{data['kind']} {score.protocol.split}",
        "licence": described.licence,
        "classes": [
            {"name": name, "colour": colour}
            for name, colour in zip(described.taxonomy.names, described.taxonomy.colours, strict=True)
        ],
        "file": MODEL,
        "bytes": file.path.stat().st_size,
        "runtime": runtime,
        "input": described.input_name,
        "class_index": CLASS_INDEX,
        "confidence": CONFIDENCE if described.confidence else None,
        "layout": described.layout,
        "size": described.size,
        "fixed_size": file.fixed_size,
        "fixed_batch": file.fixed_batch,
    }


def _move_into_place(page: Path, folder: Path, former: Path) -> None:
    if not folder.exists():
        page.rename(folder)
        return
    folder.rename(former)
    try:
        page.rename(folder)
    except BaseException:
        former.rename(folder)
        raise


def _downloaded(cache: Path, url: str, integrity: str) -> Path:
    """The verified .tgz in `cache`."""
    archive = cache / RUNTIME_ARCHIVE
    if archive.is_file() and _integrity(archive) == integrity:
        return archive
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=cache) as work:
            fresh = Path(work) / RUNTIME_ARCHIVE
            fetch(url, fresh)
            _verify(fresh, integrity, named=url)
            fresh.replace(archive)
    except DataError as error:
        raise ExportError(
            f"the page needs onnxruntime-web {RUNTIME_VERSION}, and its download failed.\n{error}\n{_ways_out()}"
        ) from error
    except OSError as error:
        raise ExportError(
            f"{cache}: onnxruntime-web cannot be kept there: {error}; set XDG_CACHE_HOME to a folder that you "
            "may write to"
        ) from error
    return archive


def _read_runtime(source: Path, integrity: str) -> dict[str, bytes]:
    """Name in the page -> content. Nothing is unpacked: only the members that are known by name are read."""
    if source.is_dir():
        return _read_package(source)
    if not source.is_file():
        raise ExportError(f"{source}: no such file or folder; it should be onnxruntime-web.\n{_ways_out()}")
    _verify(source, integrity, named=str(source))
    try:
        with tarfile.open(source, "r:gz") as tar:
            contents = {}
            for member, name in RUNTIME_FILES.items():
                stream = tar.extractfile(f"package/{member}")
                if stream is None:
                    raise KeyError(f"package/{member} is not a file")
                contents[name] = stream.read()
            return contents
    except (tarfile.TarError, KeyError, EOFError, OSError, zlib.error) as error:
        raise ExportError(f"{source}: not the npm package of onnxruntime-web: {error}") from error


def _read_package(package: Path) -> dict[str, bytes]:
    try:
        found = json.loads((package / "package.json").read_text(encoding="utf-8"))
        if (found["name"], found["version"]) != ("onnxruntime-web", RUNTIME_VERSION):
            raise ValueError(f"it holds {found['name']} {found['version']}")
        return {name: (package / member).read_bytes() for member, name in RUNTIME_FILES.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"{package}: not onnxruntime-web {RUNTIME_VERSION} as npm unpacks it: {error}\n{_ways_out()}"
        ) from error


def _integrity(file: Path) -> str:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha512").digest()
    return f"sha512-{base64.b64encode(digest).decode()}"


def _verify(file: Path, integrity: str, *, named: str) -> None:
    if (found := _integrity(file)) != integrity:
        raise ExportError(
            f"{named}: not onnxruntime-web {RUNTIME_VERSION} as published: its integrity is {found}, expected "
            f"{integrity}\n{_ways_out()}"
        )


def _ways_out() -> str:
    return (
        "Without network here: `npm pack onnxruntime-web@"
        f"{RUNTIME_VERSION}`, or fetch {RUNTIME_URL}, on another machine, then export with --web-runtime FILE"
    )
