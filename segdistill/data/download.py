"""Download one file over HTTP: with progress, resumed when the connection breaks, whole or not at all."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from segdistill.console import new_console, progress_bar
from segdistill.errors import DataError

CHUNK_BYTES = 1 << 18
#: Answers that another try may change; 416 says that there is nothing to resume from where we are.
TRANSIENT_STATUS = {408, 416, 429, 500, 502, 503, 504}


class _BrokenError(Exception):
    """The transfer stopped early; another try may go better."""


def fetch(
    url: str,
    destination: Path,
    *,
    attempts: int = 4,
    timeout_seconds: float = 30.0,
    pause_seconds: float = 1.0,
) -> None:
    """Download `url` to `destination`, which appears only when it is whole (temp file, fsync, rename).

    Proxies are taken from the environment. The temp file `<destination>.part` is overwritten if an
    earlier process left one, and removed on every failure; callers in parallel need folders of their own. Whether the
    content is the right one is the caller's to verify.

    Args:
        attempts: tries in all; a broken transfer goes on where it stopped if the server can do that.
        timeout_seconds: longest silence of the server.
        pause_seconds: before the second try; doubled before each further one.

    Raises:
        DataError: the file cannot be had or written; names the URL.
    """
    part = destination.with_name(destination.name + ".part")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file, _shown(url) as progress:
                _receive(_Transfer(url, timeout_seconds, file, progress), attempts, pause_seconds)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, destination)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:  # the network's own errors never get here
        raise DataError(f"{url}: cannot be saved as {destination}: {error}") from error


def _receive(transfer: "_Transfer", attempts: int, pause_seconds: float) -> None:
    for attempt in range(attempts):
        if attempt:
            time.sleep(pause_seconds * 2 ** (attempt - 1))
        try:
            transfer.run()
            return
        except _BrokenError as error:
            last = error
    raise DataError(
        f"{transfer.url}: download failed after {attempts} tries with {transfer.amount()} received; "
        f"the last time: {last}"
    ) from last


@dataclass
class _Transfer:
    """One file on its way; what has been received survives a broken connection."""

    url: str
    timeout_seconds: float
    file: BinaryIO
    progress: Progress
    received: int = 0  # bytes
    total: int | None = None  # bytes; None when the server does not say
    validator: str | None = None  # ETag or Last-Modified: a file that has changed is not resumed

    def run(self) -> None:
        """Receive the rest; raises _BrokenError when it stops early."""
        with self._open() as response:
            self._place(response)
            for chunk in _chunks(response):
                self.file.write(chunk)
                self.received += len(chunk)
                self._show()
        # http.client gives a short body without an error when the length was announced.
        if self.total is not None and self.received != self.total:
            raise _BrokenError("the connection ended early")

    def amount(self) -> str:
        return f"{self.received} of {'an unknown number of' if self.total is None else self.total} bytes"

    def _open(self) -> HTTPResponse:
        headers = {"User-Agent": "segdistill"}
        if self.received:
            headers["Range"] = f"bytes={self.received}-"
            if self.validator is not None:
                headers["If-Range"] = self.validator
        try:
            return urlopen(Request(self.url, headers=headers), timeout=self.timeout_seconds)
        except HTTPError as error:
            error.close()
            answer = f"the server answered {error.code} {error.reason}"
            if error.code not in TRANSIENT_STATUS:
                raise DataError(f"{self.url}: {answer}") from error
            if error.code == 416:
                self._restart()
            raise _BrokenError(answer) from error
        except URLError as error:
            raise _BrokenError(f"no connection: {error.reason}") from error
        except (OSError, HTTPException) as error:
            raise _BrokenError(f"no answer: {error!r}") from error

    def _place(self, response: HTTPResponse) -> None:
        """Go on where the response begins: at what we have (206), or at 0 (200: the server ignored Range)."""
        if response.status == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if span is None or int(span[1]) != self.received or self.total not in (None, int(span[2])):
                self._restart()
                raise _BrokenError("the server resumed another file or at another place")
            self.total = int(span[2])
        elif response.status == 200:
            self._restart()
            length = response.headers.get("Content-Length")
            self.total = None if length is None else int(length)
            etag = response.headers.get("ETag")
            strong = etag is not None and not etag.startswith("W/")
            self.validator = etag if strong else response.headers.get("Last-Modified")
        else:
            self._restart()
            raise _BrokenError(f"an answer that does not fit: {response.status} {response.reason}")
        self._show()

    def _restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.received = 0

    def _show(self) -> None:
        self.progress.update(self.progress.task_ids[0], completed=self.received, total=self.total)


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """The body as it comes in. read1, unlike read, loses no byte when the connection breaks."""
    while True:
        try:
            chunk = response.read1(CHUNK_BYTES)
        except (OSError, HTTPException) as error:
            raise _BrokenError(f"the connection broke: {error!r}") from error
        if not chunk:
            return
        yield chunk


@contextmanager
def _shown(url: str) -> Iterator[Progress]:
    """A progress bar with one task on stderr; without a terminal, one plain line instead."""
    console = new_console(stderr=True)
    if not console.is_terminal:
        console.print(f"Downloading {url}")
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with progress_bar(console, "{task.description}", *columns, transient=False) as progress:
        progress.add_task(f"Downloading {url.rsplit('/', 1)[-1]}", total=None)
        yield progress
