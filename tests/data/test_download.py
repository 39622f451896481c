"""Downloads against a server on the loopback interface."""

from pathlib import Path
from typing import Any

import pytest

from segdistill.data.download import fetch
from segdistill.errors import DataError


def get(site_url: str, destination: Path, **options: Any) -> None:
    fetch(site_url, destination, pause_seconds=0, timeout_seconds=5, **options)


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "new" / "file.zip"


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("chunked", [False, True])
def test_whole_file_arrives(site, destination: Path, chunked: bool) -> None:
    site.chunked = chunked
    get(site.url, destination)
    assert destination.read_bytes() == site.body
    assert files_in(destination.parent) == ["file.zip"]
    assert site.ranges == [None]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("etag", [None, '"v1"'])
def test_broken_connection_is_resumed_where_it_stopped(
    site, destination: Path, chunked: bool, etag: str | None
) -> None:
    site.cuts, site.chunked, site.etag = [300_000, 500_000], chunked, etag
    if chunked:  # without a length the total is only known from the 206 answers
        site.cuts = [300_000]
    get(site.url, destination)
    assert destination.read_bytes() == site.body
    offsets = [300_000] if chunked else [300_000, 800_000]
    assert site.ranges == [None, *(f"bytes={offset}-" for offset in offsets)]


def test_server_that_ignores_range_starts_over(site, destination: Path) -> None:
    site.cuts, site.with_ranges = [300_000], False
    get(site.url, destination)
    assert site.ranges == [None, "bytes=300000-"]
    assert destination.read_bytes() == site.body


def test_file_that_changed_meanwhile_is_not_glued_together(site, destination: Path) -> None:
    site.cuts, site.etag = [300_000], '"v1"'
    answer = site.answer

    def publish_another_after(request: Any) -> None:
        answer(request)
        site.body, site.etag = bytes(len(site.body)), '"v2"'

    site.answer = publish_another_after
    get(site.url, destination)
    assert destination.read_bytes() == bytes(len(site.body))


def test_nothing_left_to_resume_starts_over(site, destination: Path) -> None:
    site.chunked, site.cuts = True, [len(site.body)]  # all bytes came, the end mark did not
    get(site.url, destination)
    assert site.ranges == [None, f"bytes={len(site.body)}-", None]
    assert destination.read_bytes() == site.body


def test_connection_that_always_breaks_leaves_nothing(site, destination: Path) -> None:
    site.cuts = [1000] * 3
    with pytest.raises(DataError, match=rf"after 3 tries with 3000 of {len(site.body)} bytes") as caught:
        get(site.url, destination, attempts=3)
    assert site.url in str(caught.value)
    assert files_in(destination.parent) == []


def test_busy_server_is_asked_again(site, destination: Path) -> None:
    site.statuses = [503, 429]
    get(site.url, destination)
    assert destination.read_bytes() == site.body


def test_not_found_is_told_at_once(site, destination: Path) -> None:
    site.statuses = [404]
    with pytest.raises(DataError, match="404 Not Found") as caught:
        get(site.url, destination)
    assert site.url in str(caught.value)
    assert len(site.ranges) == 1
    assert files_in(destination.parent) == []


def test_refused_connection(dead_url: str, destination: Path) -> None:
    with pytest.raises(DataError, match=r"after 4 tries .* no connection") as caught:
        get(dead_url, destination)
    assert dead_url in str(caught.value)
    assert files_in(destination.parent) == []


def test_leftover_of_an_aborted_try_is_not_taken_for_the_file(site, destination: Path) -> None:
    destination.parent.mkdir()
    destination.with_name("file.zip.part").write_bytes(b"x" * (len(site.body) + 7))
    get(site.url, destination)
    assert destination.read_bytes() == site.body
    assert files_in(destination.parent) == ["file.zip"]


def test_failure_keeps_an_earlier_file(site, destination: Path) -> None:
    destination.parent.mkdir()
    destination.write_bytes(b"earlier")
    site.statuses = [404]
    with pytest.raises(DataError):
        get(site.url, destination)
    assert destination.read_bytes() == b"earlier"


def test_folder_that_cannot_be_made(site, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be saved as"):
        get(site.url, tmp_path / "file" / "archive.zip")


def test_without_a_terminal_there_is_one_plain_line(
    site, destination: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    get(site.url, destination)
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err == f"Downloading {site.url}\n"
