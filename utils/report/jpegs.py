"""Write the frames that a report shows as JPEGs: while eval.py decodes a video for its masks, or later.

<results>/.frames/<video>/<number>.jpg   frames, until the report takes them
<results>/.frames/<video>/key_<frame>.jpg   key frames that are not among these
<results>/.frames/<video>/poster.png     the frame for the list of videos, as it was before JPEG
<results>/.frames/<video>/frames.json    what all these depend on
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from utils.files import link_or_copy, replace_folder
from utils.report.sources import Source
from utils.scoring.annotations import Annotations

KEPT = ".frames"  # folder in a folder of results
ABOUT, POSTER = "frames.json", "poster.png"
VERSION = 1  # raise it with every change of the files


@dataclass(frozen=True)
class Limits:
    """Limits of a report's size. With these, 30 sequences of DAVIS (2,000 frames) take less than 60 MB.

    Attributes:
        frames: most frames of a video that are shown, spread evenly; playing needs no more, and files stay few.
        pixels: of all frames of a report together, which then take about 0.2 bytes a pixel.
        largest, smallest: pixels of one frame; more cannot be seen in a window, and with fewer nothing can.
        quality: of JPEG, 0 to 100.
        picture: width of the small pictures in the list, twice of what is seen, for displays of high density.
        picture_quality: of JPEG.
    """

    frames: int = 600
    pixels: int = 270_000_000
    largest: int = 854 * 480
    smallest: int = 400 * 225
    quality: int = 62
    picture: int = 320
    picture_quality: int = 82


LIMITS = Limits()


@dataclass(frozen=True)
class ReportFrames:
    """The frames that were written to the folder of a report.

    files: position of a frame -> name of its JPEG. shapes: position -> (height, width) before it was made smaller.
    poster: the frame (height, width, 3) uint8 RGB for the list of videos, at the size of the JPEGs.
    """

    files: dict[int, str]
    shapes: dict[int, tuple[int, int]]
    poster: np.ndarray


# ------------------------------------------------------------------ choices


def choose_positions(count: int) -> list[int]:
    """Choose the frames of a video that are shown: all, or every n-th if there are more than `LIMITS.frames`."""
    return list(range(0, count, -(-count // LIMITS.frames)))


def choose_pixels(frame_counts: Sequence[int]) -> int:
    """Choose the pixels of every frame of a report, given the number of frames of each video."""
    shown = sum(len(choose_positions(count)) for count in frame_counts)
    return min(max(LIMITS.pixels // max(shown, 1), LIMITS.smallest), LIMITS.largest)


def choose_size(shape: tuple[int, int], pixels: int, pixel_aspect: Fraction) -> tuple[int, int]:
    """Choose the (height, width) at which frames are shown: in square pixels, about `pixels` and never enlarged."""
    height, width = shape[0], shape[1] * float(pixel_aspect)
    scale = min(math.sqrt(pixels / (height * width)), 1.0)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def choose_poster(names: list[str], annotations: Annotations | None) -> int:
    """Choose the frame for the list of videos: the middle one, or the annotated one that is nearest to it."""
    annotated = set(annotations.frame_names) if annotations else set()
    middle = len(names) // 2
    known = [index for index, name in enumerate(names) if name in annotated] or range(len(names))
    return min(known, key=lambda index: abs(index - middle))


# ------------------------------------------------------------------ writing


@contextmanager
def keep_frames(
    results: Path, source: Source, *, pixels: int, key_frames: Sequence[int] = ()
) -> Iterator[Callable[[int, np.ndarray], None]]:
    """Yield a function that writes the frames of a video for the report that will be made of the results.

    It takes the position and the frame (H, W, 3) uint8 RGB of every frame, in order.

    Args:
        pixels: number of pixels of every JPEG, about.
        key_frames: positions of frames that the report shows beside those of `choose_positions`.
    """
    try:
        with replace_folder(results / KEPT / source.name) as folder:
            writer = _FrameWriter(folder, source, pixels=pixels, key_frames=key_frames)
            yield writer.add
            cv2.imwrite(str(folder / POSTER), cv2.cvtColor(writer.poster, cv2.COLOR_RGB2BGR))
            about = {"digest": _digest(source, pixels, key_frames), "shape": next(iter(writer.shapes.values()))}
            (folder / ABOUT).write_text(json.dumps(about))
    finally:
        with suppress(OSError):  # it holds frames of other videos
            (results / KEPT).rmdir()


def take_frames(
    folder: Path, source: Source, results: Path, *, pixels: int, key_frames: Sequence[int]
) -> ReportFrames | None:
    """Put the frames of a video into the existing folder of a report: those that `keep_frames` wrote, or decoded now.

    Returns:
        The frames; None if the source has none.
    """
    if found := _link_kept(folder, results / KEPT / source.name, source, pixels, key_frames):
        return found
    writer = _FrameWriter(folder, source, pixels=pixels, key_frames=key_frames)
    positions = sorted(writer.files)
    for position, frame in zip(positions, source.read(positions), strict=True):
        if frame is None:
            return None
        writer.add(position, np.asarray(frame).transpose(1, 2, 0))
    return ReportFrames(writer.files, writer.shapes, writer.poster)


def _link_kept(
    folder: Path, kept: Path, source: Source, pixels: int, key_frames: Sequence[int]
) -> ReportFrames | None:  # fmt: skip
    """Put kept frames into the folder of a report; None if they are missing, damaged, or not those that are wanted."""
    files = _name_files(source, key_frames)
    try:
        about = json.loads((kept / ABOUT).read_text())
        if about["digest"] != _digest(source, pixels, key_frames):
            return None
        shape, poster = tuple(about["shape"]), cv2.imread(str(kept / POSTER))
    except (FileNotFoundError, ValueError, LookupError, TypeError):  # missing or damaged: they are decoded again
        return None
    if poster is None or not all((kept / name).is_file() for name in files.values()):
        return None
    for name in files.values():
        link_or_copy(kept / name, folder / name)
    return ReportFrames(files, dict.fromkeys(files, shape), cv2.cvtColor(poster, cv2.COLOR_BGR2RGB))


class _FrameWriter:
    """Write the frames of a video as JPEGs to an existing folder, and remember the one for the list of videos."""

    def __init__(self, folder: Path, source: Source, *, pixels: int, key_frames: Sequence[int]):
        self.folder = folder
        self.files = _name_files(source, key_frames)
        self.shapes: dict[int, tuple[int, int]] = {}
        self.poster: np.ndarray | None = None
        self._pixels = pixels
        self._pixel_aspect = source.pixel_aspect
        self._poster_position = _find_poster(source)
        self._size: tuple[int, int] | None = None

    def add(self, position: int, frame: np.ndarray) -> None:
        """Write a frame (H, W, 3) uint8 RGB, if the report shows that at this position."""
        if position not in self.files:
            return
        self.shapes[position] = frame.shape[:2]
        self._size = self._size or choose_size(frame.shape[:2], self._pixels, self._pixel_aspect)
        small = cv2.resize(np.ascontiguousarray(frame), self._size[::-1], interpolation=cv2.INTER_AREA)
        (self.folder / self.files[position]).write_bytes(encode_jpeg(small, LIMITS.quality))
        if position == self._poster_position:
            self.poster = small


def _name_files(source: Source, key_frames: Sequence[int]) -> dict[int, str]:
    """Return position -> name of the JPEG of every frame that the report shows."""
    shown = choose_positions(len(source.frame_names))
    return {position: f"key_{position:05d}.jpg" for position in key_frames} | {
        position: f"{index:05d}.jpg" for index, position in enumerate(shown)
    }


def _find_poster(source: Source) -> int:
    """Find the position of the frame for the list of videos."""
    shown = choose_positions(len(source.frame_names))
    return shown[choose_poster([source.frame_names[position] for position in shown], source.annotations)]


def _digest(source: Source, pixels: int, key_frames: Sequence[int]) -> str:
    """Hash everything that the JPEGs of a video depend on."""
    text = repr((VERSION, LIMITS, pixels, source.fingerprint, source.pixel_aspect, sorted(key_frames),
                 _find_poster(source)))  # fmt: skip
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def encode_jpeg(frame: np.ndarray, quality: int) -> bytes:
    """Encode a picture (H, W, 3) uint8 RGB."""
    bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
