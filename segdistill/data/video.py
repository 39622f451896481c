"""Videos as RGB frames, in and out, by OpenCV's FFmpeg. Sound is neither read nor written."""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from segdistill.errors import DataError
from segdistill.files import write_atomically

# OpenCV and FFmpeg would print on stderr, in words of their own, what the errors below say.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # heeded at FFmpeg's first use

#: Of the codecs that OpenCV's wheels can write, MPEG-4 part 2 plays in the most players (VLC, mpv, QuickTime,
#: Windows; browsers want H.264, which the wheels leave out for its licence) and costs a fiftieth of VP9's time.
_CODEC = cv2.VideoWriter.fourcc(*"mp4v")
_FALLBACK_FPS = 25.0


class Video:
    """A video file that is read from its beginning to its end.

    Attributes:
        fps: frames per second; 25 if the file does not say.
        announced_frames: how many the file says it has; None if it does not. A file that was cut short has fewer.
    """

    def __init__(self, path: Path) -> None:
        """Raises DataError if the file is no video that OpenCV can decode."""
        self._path = path
        self._capture = cv2.VideoCapture(os.path.abspath(path))  # FFmpeg takes `a:` for a protocol
        if not self._capture.isOpened():
            raise DataError(
                f"{path}: not a video, damaged or cut short, or of a codec that OpenCV lacks; "
                "try to mend it by `ffmpeg -i FILE mended.mp4`"
            )
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if math.isfinite(fps) and fps > 0 else _FALLBACK_FPS
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.announced_frames = int(count) if math.isfinite(count) and count > 0 else None

    def frames(self) -> Iterator[np.ndarray]:
        """Every frame that can be decoded, (H, W, 3) uint8 RGB, turned as the file asks for; only once.

        Raises:
            DataError: if there is none.
        """
        decoded, frame = self._capture.read()
        if not decoded:
            raise DataError(f"{self._path}: holds no frame that can be decoded")
        while decoded:
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            decoded, frame = self._capture.read()


def write_video(path: Path, frames: Iterable[np.ndarray], *, fps: float) -> None:
    """Write an MPEG-4 video; nothing is left behind if a frame raises.

    Args:
        path: of the file, `*.mp4`.
        frames: at least one, all of one size, (H, W, 3) uint8 RGB. Odd sides get a copy of their last row or
            column, since codecs halve the size of the colours.
        fps: frames per second.

    Raises:
        DataError: if OpenCV cannot encode this size or rate, or the written file is not whole.
    """
    write_atomically(path, lambda temporary: _encode(temporary, frames, fps=fps, file=str(path)))


def _encode(path: Path, frames: Iterable[np.ndarray], *, fps: float, file: str) -> None:
    writer = cv2.VideoWriter()
    count = 0
    try:
        for count, frame in enumerate(frames, 1):
            height, width = frame.shape[:2]
            even = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
            size = (even.shape[1], even.shape[0])
            if count == 1 and not writer.open(str(path), _CODEC, fps, size):
                raise DataError(
                    f"{file}: OpenCV cannot encode {size[0]}x{size[1]} pixels at {fps:g} frames per second as "
                    "MPEG-4 video, which takes up to 8191 pixels a side and 65535 frames per second; give it a "
                    "smaller or slower one (ffmpeg -i VIDEO -r 25 NEW)"
                )
            writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
    # The writer reports no error, not even of a full disk.
    found = cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT)
    if found != count:
        raise DataError(f"{file}: {max(0, int(found))} of {count} frames were written; is the disk full?")
