"""Videos in and out."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from segdistill.data.video import Video, write_video
from segdistill.errors import DataError


def flat(count: int, *, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames of growing red on blue."""
    return [np.full((height, width, 3), (20 * place, 0, 128), np.uint8) for place in range(count)]


def write_jpegs(path: Path, frames: list[np.ndarray]) -> Path:
    """A bare stream of JPEGs: it has no header, so nobody knows how many there are."""
    path.write_bytes(b"".join(cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes() for frame in frames))
    return path


@pytest.mark.parametrize("fps", [1.0, 12.5, 23.976, 29.97, 60.0])
def test_round_trip(tmp_path: Path, fps: float) -> None:
    frames = flat(7)
    write_video(tmp_path / "new" / "clip.mp4", frames, fps=fps)
    read = Video(tmp_path / "new" / "clip.mp4")
    assert read.fps == pytest.approx(fps, rel=1e-4)
    assert read.announced_frames == 7
    decoded = list(read.frames())
    assert len(decoded) == 7
    for before, after in zip(frames, decoded, strict=True):
        assert after.shape == (48, 64, 3)
        assert after.dtype == np.uint8
        assert np.abs(after.astype(int) - before).max() <= 8, "the same colours, red still red"


@pytest.mark.parametrize(("height", "width"), [(47, 63), (47, 64), (48, 63), (1, 1)])
def test_odd_sides_become_even_by_a_copy_of_the_edge(tmp_path: Path, height: int, width: int) -> None:
    write_video(tmp_path / "clip.mp4", flat(2, height=height, width=width), fps=25)
    first, second = Video(tmp_path / "clip.mp4").frames()
    assert first.shape == (height + height % 2, width + width % 2, 3)
    assert np.abs(second.astype(int) - (20, 0, 128)).max() <= 8


def test_a_frame_that_raises_leaves_nothing(tmp_path: Path) -> None:
    def frames():  # type: ignore[no-untyped-def]
        yield from flat(3)
        raise KeyboardInterrupt

    (tmp_path / "clip.mp4").write_text("the old one")
    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "clip.mp4", frames(), fps=25)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["the old one"]


def test_what_the_writer_loses_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer_of_cv2 = cv2.VideoWriter

    class FullDisk:
        def __init__(self) -> None:
            writer = writer_of_cv2()
            self.open, self.release, self.really_write = writer.open, writer.release, writer.write
            self.left = 3

        def write(self, frame: np.ndarray) -> None:
            self.left -= 1
            if self.left >= 0:
                self.really_write(frame)

    monkeypatch.setattr(cv2, "VideoWriter", FullDisk)
    with pytest.raises(DataError, match=r"clip\.mp4: 3 of 5 frames were written; is the disk full\?"):
        write_video(tmp_path / "clip.mp4", flat(5), fps=25)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("width", "fps"), [(8200, 25.0), (64, 90000.0)])
def test_what_mpeg4_cannot_hold_is_told(
    tmp_path: Path, width: int, fps: float, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=rf"cannot encode {width}x48 pixels at {fps:g} frames per second"):
        write_video(tmp_path / "clip.mp4", flat(1, width=width), fps=fps)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == "", "FFmpeg keeps its words to itself"


@pytest.mark.parametrize("content", [b"", b"no video at all" * 99, "cut short"])
def test_no_video(tmp_path: Path, content: bytes | str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "clip.mp4"
    if isinstance(content, str):
        write_video(path, flat(9), fps=25)
        content = path.read_bytes()[: path.stat().st_size // 2]  # the index is at the end
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"clip\.mp4: not a video, damaged or cut short"):
        Video(path)
    assert capfd.readouterr().err == ""


def test_a_video_that_breaks_off_gives_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for frame in flat(10):
        writer.write(frame)
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    read = Video(path)
    assert read.announced_frames == 10
    assert 2 <= len(list(read.frames())) < 10


def test_unknown_count_and_frames_of_several_sizes(tmp_path: Path) -> None:
    path = write_jpegs(tmp_path / "clip.avi", [*flat(3), *flat(2, height=24, width=36)])
    read = Video(path)
    assert read.announced_frames is None
    assert [frame.shape for frame in read.frames()] == [(48, 64, 3)] * 5
