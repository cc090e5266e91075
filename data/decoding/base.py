"""Define what all readers of video files share: contents, limits, and the interface of a reader."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from utils.errors import UserError
from utils.pictures import composite_over_white
from utils.video import DEFAULT_RATE

NO_VIDEO = "a still picture, or one cut short, and no video; give a video file, or the folder of a video's frames"


@dataclass(frozen=True)
class DecodingLimits:
    """Limits by which headers are believed and files are found to be cut short.

    Attributes:
        max_rate: frames per second; a higher number in a header is no frame rate but a unit of time.
        rate_share: share by which the frame rate of the header may differ from that of the time stamps.
        end_seconds, end_frames: a file is cut short if its last frame ends earlier than the header states by more than
            both; the ends of sound and video differ by less.
        opencv_count_share: share of frames; OpenCV only estimates the number of frames of some containers.
        late_frames: frames; decoders hold back as many at most, so after damage frames can come that much too late.
        gap: usual intervals; longer intervals of a video of constant frame rate, and without an index, are gaps where
            frames are missing.
        intervals_per_gap: usual intervals for each gap at least; with more gaps the frame rate varies.
        rounded_units: units of time; an interval of fewer is not rounded, but exact.
    """

    max_rate: int = 1000
    rate_share: float = 0.01
    end_seconds: float = 0.1
    end_frames: int = 2
    opencv_count_share: float = 0.02
    late_frames: int = 16
    gap: float = 1.5
    intervals_per_gap: int = 10
    rounded_units: int = 8


LIMITS = DecodingLimits()
ReportProgress = Callable[[int, int], None]


class CannotDecode(Exception):
    """A library cannot decode a file, but another one might."""


@dataclass
class Contents:
    """Hold what a complete decoding of a video file has shown, or what its index states.

    Attributes:
        reader: decodes the file again, to the same frames.
        positions: rising positions in the video, from 0, of the frames that can be decoded.
        total: number of frames that the video should have, at least as many.
        size: (height, width) of the frames, upright.
        faults: number of packets that could not be decoded.
        pixel_aspect: width of a pixel divided by its height; not 1 in videos whose pixels are not square.
        rate: frames per second, on average if the rate varies.
        gaps: number of the frame before a gap in otherwise regular times -> frames that would fill the gap. The file
            does not state its number of frames, so they may be missing, or never have been there.
        from_index: the file was not decoded, but its index lists every frame. `reader` then ends with `CannotDecode` at
            a damaged place or a frame of another size.
    """

    reader: "Reader"
    positions: list[int]
    total: int
    size: tuple[int, int]
    faults: int = 0
    pixel_aspect: Fraction = Fraction(1)
    rate: Fraction = DEFAULT_RATE
    gaps: dict[int, int] = field(default_factory=dict)
    from_index: bool = False

    @property
    def missing(self) -> int:
        return self.total - len(self.positions)


class Reader(ABC):
    """Decode video files with one library.

    Attributes:
        name: name of the library, for error messages.
        conversions: kinds of conversions, as in `utils.pictures.Picture` -> number of frames decoded so far.
    """

    name: str

    def __init__(self):
        self.conversions: Counter[str] = Counter()

    def read_index(self, path: Path) -> Contents | None:
        """Return the contents by the index of a file, without decoding it; None if only decoding shows them."""
        return None

    @abstractmethod
    def scan(self, path: Path, report_progress: ReportProgress) -> Contents:
        """Decode a file to its end.

        Raises:
            CannotDecode: this library cannot decode any frame.
            UserError: no library could use the file.
        """

    def _composite(self, image: Image.Image) -> np.ndarray:
        """Return an RGBA image over white, (H, W, 3) uint8, and count it if any pixel is not opaque."""
        conversions: list[str] = []
        picture = composite_over_white(image, conversions)
        self.conversions.update(conversions)
        return picture

    @abstractmethod
    def decode(self, path: Path) -> Iterator[np.ndarray]:
        """Decode the frames that `scan` has found: (H, W, 3) uint8 RGB, upright."""


def check_sizes(path: Path, sizes: dict[tuple[int, int], int]) -> tuple[int, int]:
    """Return the size of all frames; raise `UserError` if there are several.

    Args:
        sizes: (height, width) -> the first frame of that size.
    """
    (height, width), *others = sizes
    if others:
        raise UserError(
            f"{path}: {others[0][1]}x{others[0][0]} pixels from frame {sizes[others[0]]} on, {width}x{height} before; "
            f"a video has frames of one size: ffmpeg -i {path.name} -vf scale={width}:{height} converted.mp4"
        )
    return height, width


def check_rate(rate: Any) -> Fraction | None:
    """Return a frame rate as a fraction, or None if it cannot be one."""
    return Fraction(rate) if rate and 0 < rate <= LIMITS.max_rate else None
