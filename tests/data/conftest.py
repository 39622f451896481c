"""A small web site on the loopback interface that can misbehave like real ones do."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Site:
    """Serves `body` at every path.

    Attributes:
        body: what is published.
        url: of the file.
        cuts: for each request in turn, break the connection after so many bytes of the answer's body;
            requests beyond the list are served whole.
        statuses: for each request in turn, answer with this status instead (0: serve).
        with_ranges: honour the Range header.
        chunked: chunked transfer without a Content-Length, as GitHub serves archives.
        etag: the validator sent with every answer.
        ranges: the Range header of every request so far.
    """

    body: bytes
    url: str = ""
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    with_ranges: bool = True
    chunked: bool = False
    etag: str | None = None
    ranges: list[str | None] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        turn = len(self.ranges)
        wanted = request.headers.get("Range")
        self.ranges.append(wanted)
        request.close_connection = True
        status = self.statuses[turn] if turn < len(self.statuses) else 0
        if status:
            request.send_error(status)
            return
        start = 0
        condition = request.headers.get("If-Range")
        if wanted and self.with_ranges and condition in (None, self.etag):
            span = re.fullmatch(r"bytes=(\d+)-", wanted)
            assert span is not None, wanted
            start = int(span[1])
        if start and start >= len(self.body):
            request.send_error(416)
            return
        content = self.body[start:]
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        if self.etag is not None:
            request.send_header("ETag", self.etag)
        if self.chunked:
            request.send_header("Transfer-Encoding", "chunked")
        else:
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        cut = self.cuts[turn] if turn < len(self.cuts) else None
        sent = content[:cut]
        if self.chunked:
            request.wfile.write(b"%x\r\n%b\r\n" % (len(sent), sent) if sent else b"")
            request.wfile.write(b"0\r\n\r\n" if cut is None else b"")
        else:
            request.wfile.write(sent)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A running site; set its attributes before the first request."""
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    site = Site(body=bytes(range(256)) * 4000)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/archive.zip"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def dead_url(monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a server that has gone: connections are refused."""
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return f"http://127.0.0.1:{server.server_port}/archive.zip"
