"""Decode video files with OpenCV, where PyAV is missing or fails."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from data.decoding.base import LIMITS, CannotDecode, Contents, Reader, ReportProgress, check_rate
from utils.video import DEFAULT_RATE

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # silent; OpenCV reads it when it opens the first video


class OpenCVReader(Reader):
    """Decode with the FFmpeg in OpenCV, which takes cover pictures for videos and does not report damage."""

    name = "OpenCV"

    def scan(self, path: Path, report_progress: ReportProgress) -> Contents:
        with self._open(path) as capture:
            stated = max(round(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
            codec = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True).decode("latin-1")
            rate = check_rate(Fraction(capture.get(cv2.CAP_PROP_FPS)).limit_denominator(1001))
            sides = [int(capture.get(key)) for key in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN)]
            count, size = 0, None
            while capture.grab():
                if not count:
                    size = capture.retrieve()[1].shape[:2]
                count += 1
                report_progress(count, stated)
        if not count:
            raise CannotDecode("no frame can be decoded")
        if count == 1 and codec.lower() in ("mjpg", "png ", "mpng"):
            raise CannotDecode("only a picture, perhaps a cover")
        is_short = stated - count > max(LIMITS.end_frames, LIMITS.opencv_count_share * stated)
        total = stated if is_short else count
        aspect = Fraction(*sides) if min(sides) > 0 else Fraction(1)
        return Contents(self, list(range(count)), total, size, rate=rate or DEFAULT_RATE, pixel_aspect=aspect)

    def decode(self, path: Path) -> Iterator[np.ndarray]:
        with self._open(path) as capture:
            while (read := capture.read())[0]:
                yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)

    @contextmanager
    def _open(self, path: Path) -> Iterator[cv2.VideoCapture]:
        """Open a capture that writes nothing to the terminal."""
        logging = getattr(cv2.utils, "logging", cv2)  # where OpenCV 5 and OpenCV 4 have these functions
        level = logging.getLogLevel()
        logging.setLogLevel(0)
        capture = cv2.VideoCapture(str(path))
        try:
            yield capture
        finally:
            capture.release()
            logging.setLogLevel(level)
