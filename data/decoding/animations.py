"""Decode animated pictures with Pillow."""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from data.decoding.base import NO_VIDEO, CannotDecode, Contents, Reader, ReportProgress, check_rate
from utils.errors import UserError, is_out_of_memory

ANIMATION_RATE = Fraction(10)  # frames per second of animated pictures without durations, as browsers show them


class PillowReader(Reader):
    """Decode animated GIF, WebP and APNG.

    FFmpeg cannot read animated WebP, and reports no error for a GIF cut short.
    """

    name = "Pillow"
    formats = ("GIF", "WEBP", "PNG")

    def scan(self, path: Path, report_progress: ReportProgress) -> Contents:
        try:
            with Image.open(path, formats=self.formats) as image:
                count, whole = getattr(image, "n_frames", 1), self._is_whole(path, image.format)
                size, seconds = image.size[::-1], 0.0
                if count < 2 and whole:
                    raise UserError(f"{path}: {NO_VIDEO}")
                done = 0
                for done, _ in enumerate(self._decode_frames(image), 1):
                    seconds += image.info.get("duration", 0) / 1000
                    report_progress(done, count)
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            if is_out_of_memory(error):
                raise
            raise CannotDecode from None  # without a reason: mostly the file is no picture at all
        if not done:
            raise CannotDecode("cut short before the end of its first frame")
        rate = check_rate(Fraction(done / seconds).limit_denominator(1001)) if seconds else None
        faults = int(not whole or done < count)
        return Contents(self, list(range(done)), max(count, done), size, faults=faults, rate=rate or ANIMATION_RATE)

    def decode(self, path: Path) -> Iterator[np.ndarray]:
        with Image.open(path, formats=self.formats) as image:
            yield from self._decode_frames(image)

    def _decode_frames(self, image: Image.Image) -> Iterator[np.ndarray]:
        """Decode the frames before the first undecodable one."""
        try:
            for frame in ImageSequence.Iterator(image):
                yield self._composite(frame.convert("RGBA"))
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            if is_out_of_memory(error):
                raise

    def _is_whole(self, path: Path, form: str) -> bool:
        """Tell whether a GIF has its last byte; for the other formats Pillow reports missing bytes itself."""
        if form != "GIF":
            return True
        with path.open("rb") as file:
            file.seek(max(os.path.getsize(path) - 64, 0))
            return file.read().rstrip(b"\0\r\n").endswith(b";")
