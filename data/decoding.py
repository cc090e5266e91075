"""Decode video files: animated pictures with Pillow, all else with PyAV, or with OpenCV where PyAV is missing or fails.

A file is decoded once to its end before anything is made of it (`scan`), so that damage is known beforehand: what the
container tells of its frames is often wrong or absent, and what a decoder can make of them shows only in decoding.
"""

import heapq
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image, ImageSequence

from utils.errors import UserError

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # silent; OpenCV reads it once, with the first video

if TYPE_CHECKING:
    import av

VIDEO_SUFFIXES = {
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp",
    ".ogv", ".mxf", ".gif", ".apng",
}  # fmt: skip
DEFAULT_RATE = Fraction(24)  # frames per second, where nothing tells
MAX_RATE = 1000  # what tells of more is no rate but a unit of time
RATE_TOLERANCE = 0.01  # by which a container's average may differ from that of its frames' times
# By how much the end of what is there may lie before the end that the container tells, in seconds and in frames.
END_TOLERANCE_SECONDS, END_TOLERANCE_FRAMES = 0.1, 2
OPENCV_COUNT_TOLERANCE = 0.02  # its number of frames is an estimate for some containers
NO_VIDEO = "a still picture, or one cut short, and no video; give a video file, or the folder of a video's frames"
LATE_FRAMES = 16  # as many as a decoder holds back at most; after damage some come that much too late

Tick = Callable[[int, int], None]


class CannotDecode(Exception):
    """One library cannot decode a file; another may."""


@dataclass
class Contents:
    """What decoding a video file to its end has shown.

    reader: decodes it again, to the same frames.
    positions: the places in the video of the frames that can be decoded, counted from 0, rising.
    total: frames that it should have, at least as many.
    faults: packets that could not be decoded.
    size: (height, width) of the frames, upright.
    pixel_aspect: width of a pixel over its height, for videos whose pixels are not square.
    rate: frames per second; where it varies, on average.
    """

    reader: "Reader"
    positions: list[int]
    total: int
    size: tuple[int, int]
    faults: int = 0
    pixel_aspect: Fraction = Fraction(1)
    rate: Fraction = DEFAULT_RATE

    @property
    def missing(self) -> int:
        return self.total - len(self.positions)


class Reader:
    """One way to decode a video file."""

    name: str

    def scan(self, path: Path, tick: Tick) -> Contents:
        """Decode a file to its end. Raises `CannotDecode` where no frame can be had, `UserError` for what no reader
        could mend."""
        raise NotImplementedError

    def frames(self, path: Path) -> Iterator[np.ndarray]:
        """The frames that `scan` counted, (H, W, 3) uint8 RGB, upright."""
        raise NotImplementedError


def scan(path: Path, *, tick: Tick = lambda done, total: None) -> Contents:
    """Decode a video file to its end with the first library that can.

    Args:
        tick: called with the number of frames decoded and the number that the file tells of, 0 where it does not.

    Raises:
        UserError: no library can decode a frame of it, it holds no video, or its frames are of several sizes.
    """
    reasons = []
    for reader in (PillowReader(), PyAVReader(), OpenCVReader()):
        try:
            return reader.scan(path, tick)
        except CannotDecode as error:
            reasons += [f"{reader.name}: {error}"] if str(error) else []
    raise UserError(
        f"{path}: no library can decode it ({'; '.join(reasons)}); it is damaged, cut short or no video: copy it "
        f"again, or convert it with ffmpeg -i {path.name} -c:v libx264 converted.mp4"
    )


def _check_sizes(path: Path, sizes: dict[tuple[int, int], int]) -> tuple[int, int]:
    """The one size of all frames. sizes: (height, width) -> the first frame that has it."""
    (height, width), *others = sizes
    if others:
        raise UserError(
            f"{path}: {others[0][1]}x{others[0][0]} pixels from frame {sizes[others[0]]} on, {width}x{height} before; "
            f"a video has frames of one size: ffmpeg -i {path.name} -vf scale={width}:{height} converted.mp4"
        )
    return height, width


def _plausible_rate(rate: Any) -> Fraction | None:
    return Fraction(rate) if rate and 0 < rate <= MAX_RATE else None


# ------------------------------------------------------------------ Pillow


class PillowReader(Reader):
    """Animated GIF, WebP and APNG: of these FFmpeg reads WebP not at all, and a GIF cut short without a word."""

    name = "Pillow"
    formats = ("GIF", "WEBP", "PNG")

    def scan(self, path: Path, tick: Tick) -> Contents:
        try:
            with Image.open(path, formats=self.formats) as image:
                count, whole = getattr(image, "n_frames", 1), self._ends_well(path, image.format)
                size, seconds = image.size[::-1], 0.0
                if count < 2 and whole:
                    raise UserError(f"{path}: {NO_VIDEO}")
                done = 0
                for done, _ in enumerate(self._attempt(image), 1):
                    seconds += image.info.get("duration", 0) / 1000
                    tick(done, count)
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
            raise CannotDecode from None  # mostly no picture at all
        if not done:
            raise CannotDecode("cut short before the end of its first frame")
        rate = _plausible_rate(Fraction(done / seconds).limit_denominator(1001)) if seconds else None
        faults = int(not whole or done < count)
        return Contents(self, list(range(done)), max(count, done), size, faults=faults, rate=rate or Fraction(10))

    def frames(self, path: Path) -> Iterator[np.ndarray]:
        with Image.open(path, formats=self.formats) as image:
            yield from self._attempt(image)

    def _attempt(self, image: Image.Image) -> Iterator[np.ndarray]:
        """Frames up to the first that cannot be decoded; what is transparent is black."""
        try:
            for frame in ImageSequence.Iterator(image):
                rgba = np.asarray(frame.convert("RGBA"))
                yield np.where(rgba[..., 3:] > 0, rgba[..., :3], np.uint8(0))
        except (OSError, SyntaxError, ValueError, EOFError):
            return

    def _ends_well(self, path: Path, form: str) -> bool:
        """Whether a GIF has its last byte; of the other formats Pillow itself tells."""
        if form != "GIF":
            return True
        with path.open("rb") as file:
            file.seek(max(os.path.getsize(path) - 64, 0))
            return file.read().rstrip(b"\0\r\n").endswith(b";")


# ------------------------------------------------------------------ PyAV


@dataclass
class _Found:
    """What one pass of `PyAVReader` meets. packet_times, frame_times: in units of the stream. sizes: see
    `_check_sizes`. end: in seconds, the latest of any stream."""

    frame_times: list[int | None] = field(default_factory=list)
    packet_times: list[int | None] = field(default_factory=list)
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    faults: int = 0
    skipped: int = 0  # frames of the index that are not to be shown
    end: float = 0.0
    turned: bool = False


class PyAVReader(Reader):
    """Whatever FFmpeg reads. Where a packet is damaged it goes on with the next.

    late: some frames may come after those that are to be shown later.
    """

    name = "PyAV"

    def __init__(self, *, late: bool = False):
        self.late = late

    def scan(self, path: Path, tick: Tick) -> Contents:
        try:
            import av
        except ImportError:
            raise CannotDecode("not installed; pip install av") from None
        try:
            with self._open(path) as (container, stream):
                found = self._pass(container, stream, tick)
                known, rate, aspect = stream.frames, stream.average_rate, stream.sample_aspect_ratio
                unit, duration = stream.time_base, (container.duration or 0) / av.time_base
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise CannotDecode(str(getattr(error, "strerror", None) or error)) from None
        if not found.frame_times:
            raise CannotDecode("no frame can be decoded")
        if found.faults and None not in found.frame_times:
            found.frame_times.sort()
        size = _check_sizes(path, found.sizes)
        rate = self._average_rate(found, _plausible_rate(rate), unit)
        total, positions = self._count(found, known=known, duration=duration, rate=rate)
        aspect = Fraction(aspect) if aspect and aspect > 0 else Fraction(1)
        return Contents(
            PyAVReader(late=found.faults > 0), positions, total, size, faults=found.faults, rate=rate,
            pixel_aspect=1 / aspect if found.turned else aspect,
        )  # fmt: skip

    def frames(self, path: Path) -> Iterator[np.ndarray]:
        with self._open(path) as (container, stream):
            for frame in self._in_order(self._decode(container, stream, _Found())):
                # Bicubic, as OpenCV: it makes no difference to 8 bits a channel, and of 10 the same colours.
                picture = frame.reformat(format="rgb24", interpolation="BICUBIC").to_ndarray()
                yield np.ascontiguousarray(_upright(picture, _display_matrix(frame)))

    @contextmanager
    def _open(self, path: Path) -> Iterator[tuple["av.container.InputContainer", "av.VideoStream"]]:
        """A file and its video, which is neither a cover picture nor a row of thumbnails."""
        import av
        from av.stream import Disposition

        av.logging.set_level(None)  # what a decoder says of damage goes nowhere: it is counted
        with av.open(f"file:{path}", metadata_errors="ignore") as container:
            form = container.format.name
            if form.endswith("_pipe") or form in ("image2", "tty"):
                raise UserError(f"{path}: {NO_VIDEO}")
            aside = Disposition.attached_pic | Disposition.timed_thumbnails
            streams = [stream for stream in container.streams.video if not stream.disposition & aside]
            if not streams and (sound := container.streams.audio) + (cover := container.streams.video):
                holds = " and ".join([*["sound"] * bool(sound), *["a cover picture"] * bool(cover)])
                raise UserError(f"{path}: holds {holds} but no video; give a file with a video")
            if not streams:
                raise CannotDecode("no video in it")
            if streams[0].codec_context is None:
                raise CannotDecode("no decoder for its codec")
            # Not several frames at a time: whether one is said to be damaged would depend on the threads' luck.
            streams[0].thread_type = "SLICE"
            yield container, streams[0]

    def _pass(self, container: "av.container.InputContainer", stream: "av.VideoStream", tick: Tick) -> _Found:
        found = _Found()
        for frame in self._decode(container, stream, found):
            matrix = _display_matrix(frame)
            found.turned = _is_turned(matrix)
            size = (frame.width, frame.height) if found.turned else (frame.height, frame.width)
            found.sizes.setdefault(size, len(found.frame_times))
            found.frame_times.append(frame.pts)
            tick(len(found.frame_times), stream.frames)
        return found

    def _decode(
        self, container: "av.container.InputContainer", stream: "av.VideoStream", found: _Found
    ) -> Iterator["av.VideoFrame"]:
        """The whole frames of a stream as the decoder gives them; what else is met goes to `found`."""
        import av

        packets = container.demux()
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:  # cut off
                found.faults += 1
                packet = None
            if packet is None:
                return
            if packet.pts is not None and packet.time_base:
                found.end = max(found.end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index:
                continue
            if packet.size == 0 and packet.dts is not None:  # an AVI's way to show the frame before once more
                found.skipped += 1
                continue
            if packet.size:
                found.skipped += packet.is_discard
                found.faults += packet.is_corrupt
                found.packet_times += [] if packet.is_discard else [packet.pts]
            try:
                frames = packet.decode()
            except av.error.EOFError:
                continue
            except av.error.FFmpegError:
                found.faults += 1
                continue
            for frame in frames:
                if frame.is_corrupt:
                    found.faults += 1
                else:
                    yield frame

    def _in_order(self, frames: Iterator["av.VideoFrame"]) -> Iterator["av.VideoFrame"]:
        """Frames in the order in which they are shown, which those after damage do not always come in."""
        if not self.late:
            yield from frames
            return
        waiting: list[tuple[int, int, Any]] = []
        for number, frame in enumerate(frames):
            if frame.pts is None:
                yield frame
                continue
            heapq.heappush(waiting, (frame.pts, number, frame))
            if len(waiting) > LATE_FRAMES:
                yield heapq.heappop(waiting)[-1]
        while waiting:
            yield heapq.heappop(waiting)[-1]

    def _average_rate(self, found: _Found, told: Fraction | None, unit: Fraction | None) -> Fraction:
        """What the container tells, unless the times of the frames tell otherwise."""
        times = [time for time in found.frame_times if time is not None]
        if len(times) < 2 or not unit or times[-1] <= times[0]:
            return told or DEFAULT_RATE
        measured = _plausible_rate((len(times) - 1) / ((times[-1] - times[0]) * unit))
        if measured is None or (told and (found.faults or abs(measured / told - 1) <= RATE_TOLERANCE)):
            return told or DEFAULT_RATE
        return measured.limit_denominator(1001)

    def _count(self, found: _Found, *, known: int, duration: float, rate: Fraction) -> tuple[int, list[int]]:
        """How many frames there should be, and the places of those that there are.

        known: by the index of the file; 0 where it has none, so that the duration it tells and faults decide.
        """
        there = len(found.frame_times)
        total = max(known - found.skipped, there)
        lost = duration - found.end
        if not known and lost > max(END_TOLERANCE_SECONDS, END_TOLERANCE_FRAMES / rate):
            total = max(total, there + round(lost * rate))
        if found.faults:
            total = max(total, len(found.packet_times))
        places = {time: place for place, time in enumerate(sorted(t for t in found.packet_times if t is not None))}
        positions = [places.get(time, -1) for time in found.frame_times]
        if total == there or len(places) < len(found.packet_times) or sorted({*positions} - {-1}) != positions:
            positions = list(range(there))
        return total, positions


def _display_matrix(frame: "av.VideoFrame") -> tuple[int, int, int, int]:
    """How a frame is turned to be upright: (a, b, c, d), which move a pixel from (x, y) to (ax + cy, bx + dy)."""
    from av.sidedata.sidedata import Type

    if (held := frame.side_data.get(Type.DISPLAYMATRIX)) is None:
        return 1, 0, 0, 1
    values = np.frombuffer(bytes(held), np.int32)
    return tuple(int(values[place]) for place in (0, 1, 3, 4))


def _is_turned(matrix: tuple[int, int, int, int]) -> bool:
    """Whether width and height change places."""
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _upright(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Turn and mirror a picture (H, W, 3) as its display matrix says, to the nearest quarter turn."""
    a, b, c, d = matrix
    right, down = a, d
    if _is_turned(matrix):
        picture, right, down = picture.transpose(1, 0, 2), c, b
    return picture[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


# ------------------------------------------------------------------ OpenCV


class OpenCVReader(Reader):
    """What OpenCV's own FFmpeg reads. It tells neither cover pictures from videos nor where a file is damaged."""

    name = "OpenCV"

    def scan(self, path: Path, tick: Tick) -> Contents:
        with self._open(path) as capture:
            told = max(round(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
            codec = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True).decode("latin-1")
            rate = _plausible_rate(Fraction(capture.get(cv2.CAP_PROP_FPS)).limit_denominator(1001))
            sides = [int(capture.get(key)) for key in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN)]
            count, size = 0, None
            while capture.grab():
                if not count:
                    size = capture.retrieve()[1].shape[:2]
                count += 1
                tick(count, told)
        if not count:
            raise CannotDecode("no frame can be decoded")
        if count == 1 and codec.lower() in ("mjpg", "png ", "mpng"):
            raise CannotDecode("only a picture, perhaps a cover")
        total = told if told - count > max(END_TOLERANCE_FRAMES, OPENCV_COUNT_TOLERANCE * told) else count
        aspect = Fraction(*sides) if min(sides) > 0 else Fraction(1)
        return Contents(self, list(range(count)), total, size, rate=rate or DEFAULT_RATE, pixel_aspect=aspect)

    def frames(self, path: Path) -> Iterator[np.ndarray]:
        with self._open(path) as capture:
            while (read := capture.read())[0]:
                yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)

    @contextmanager
    def _open(self, path: Path) -> Iterator[cv2.VideoCapture]:
        """A capture that writes nothing to the terminal."""
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        capture = cv2.VideoCapture(str(path))
        try:
            yield capture
        finally:
            capture.release()
            cv2.utils.logging.setLogLevel(level)
