"""Decode video files: animated pictures with Pillow, others with PyAV, or with OpenCV if PyAV is missing or fails.

`scan` first decodes a file to its end, so that damage is known before anything is computed. The header is not enough:
it often has a wrong number of frames or none, and only decoding shows which frames can be decoded.
"""

import heapq
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image, ImageSequence

from utils.errors import UserError, is_out_of_memory
from utils.file_kinds import identify_foreign, read_start
from utils.pictures import composite_over_white

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # silent; OpenCV reads it when it opens the first video

if TYPE_CHECKING:
    import av

VIDEO_SUFFIXES = {
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp",
    ".ogv", ".mxf", ".gif", ".apng",
}  # fmt: skip
DEFAULT_RATE = Fraction(24)  # frames per second, if the file does not state a rate
ANIMATION_RATE = Fraction(10)  # frames per second of animated pictures without durations, as browsers show them
NO_VIDEO = "a still picture, or one cut short, and no video; give a video file, or the folder of a video's frames"
UNDECODED_ALPHA = "alpha that FFmpeg does not decode; colours below it shown, convert it to ProRes 4444 or PNGs"
PICTURE_CODECS = ("mjpeg", "png", "bmp")  # a video of one such frame is a picture, perhaps the cover of a song


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
    """Hold what a complete decoding of a video file has shown.

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
    """

    reader: "Reader"
    positions: list[int]
    total: int
    size: tuple[int, int]
    faults: int = 0
    pixel_aspect: Fraction = Fraction(1)
    rate: Fraction = DEFAULT_RATE
    gaps: dict[int, int] = field(default_factory=dict)

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


def scan(path: Path, *, report_progress: ReportProgress = lambda done, total: None) -> Contents:
    """Decode a video file to its end with the first library that can.

    Args:
        report_progress: called with the number of decoded frames, and that in the header or 0.

    Raises:
        UserError: no library can decode a frame of the file, it holds no video, or its frames have several sizes.
    """
    reasons = []
    for reader in (PillowReader(), PyAVReader(), OpenCVReader()):
        try:
            return reader.scan(path, report_progress)
        except CannotDecode as error:
            reasons += [f"{reader.name}: {error}"] if str(error) else []
    if found := identify_foreign(read_start(path), wanted="video"):
        raise UserError(f"{path}: is {'; '.join(found)}")
    raise UserError(
        f"{path}: no library can decode it ({'; '.join(reasons)}); it is damaged, cut short or no video: copy it "
        f"again, or convert it with ffmpeg -i {path.name} -c:v libx264 converted.mp4"
    )


def _check_sizes(path: Path, sizes: dict[tuple[int, int], int]) -> tuple[int, int]:
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


def _check_rate(rate: Any) -> Fraction | None:
    """Return a frame rate as a fraction, or None if it cannot be one."""
    return Fraction(rate) if rate and 0 < rate <= LIMITS.max_rate else None


# ------------------------------------------------------------------ Pillow


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
        rate = _check_rate(Fraction(done / seconds).limit_denominator(1001)) if seconds else None
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


# ------------------------------------------------------------------ PyAV


@dataclass
class _ScanResult:
    """Collect what one pass of `PyAVReader` over a file finds.

    frame_times, packet_times: presentation times of decoded frames and of packets, in units of the stream.
    sizes: (height, width) -> the first frame of that size.
    faults: number of damaged packets and frames.
    skipped: number of frames in the index of the file that are not to be shown.
    end: latest end of any packet of any stream, in seconds.
    turned: whether the last frame is to be shown on its side.
    """

    frame_times: list[int | None] = field(default_factory=list)
    packet_times: list[int | None] = field(default_factory=list)
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    faults: int = 0
    skipped: int = 0
    end: float = 0.0
    turned: bool = False


class PyAVReader(Reader):
    """Decode whatever FFmpeg reads. After a damaged packet it continues with the next one.

    Args:
        reorder: sort frames by time, since after damage a decoder can give frames too late.
        track: index of the stream to decode; None chooses one.
    """

    name = "PyAV"

    def __init__(self, *, reorder: bool = False, track: int | None = None):
        super().__init__()
        self.reorder = reorder
        self.track = track

    def scan(self, path: Path, report_progress: ReportProgress) -> Contents:
        try:
            import av
        except ImportError:
            raise CannotDecode("not installed; pip install av") from None
        try:
            with self._open(path) as (container, stream):
                found = self._scan_stream(container, stream, report_progress)
                track, indexed, aspect = stream.index, stream.frames, stream.sample_aspect_ratio
                rate = stream.average_rate or stream.guessed_rate
                if len(found.frame_times) == 1 and stream.codec_context.name in PICTURE_CODECS:
                    raise UserError(f"{path}: {NO_VIDEO}")
                unit, duration = stream.time_base, (container.duration or 0) / av.time_base
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise CannotDecode(str(getattr(error, "strerror", None) or error)) from None
        if not found.frame_times:
            raise CannotDecode("no frame can be decoded")
        if found.faults and None not in found.frame_times:
            found.frame_times.sort()
        size = _check_sizes(path, found.sizes)
        gaps = {} if indexed else find_gaps(found.frame_times)
        rate = self._measure_rate(found, _check_rate(rate), unit, missing=sum(gaps.values()))
        total, positions = self._count_frames(found, indexed=indexed, duration=duration, rate=rate, gaps=gaps)
        aspect = Fraction(aspect) if aspect and aspect > 0 else Fraction(1)
        return Contents(
            PyAVReader(reorder=found.faults > 0, track=track), positions, total, size, faults=found.faults,
            rate=rate, pixel_aspect=1 / aspect if found.turned else aspect,
            gaps=gaps if total == len(positions) else {},
        )  # fmt: skip

    def decode(self, path: Path) -> Iterator[np.ndarray]:
        with self._open(path) as (container, stream):
            for frame in self._sort_frames(self._decode(container, stream, _ScanResult())):
                picture = self._to_rgb(frame, is_clear=stream.metadata.get("alpha_mode") == "1")
                yield np.ascontiguousarray(_turn_upright(picture, _read_display_matrix(frame)))

    def _to_rgb(self, frame: "av.VideoFrame", *, is_clear: bool) -> np.ndarray:
        """Convert a frame to (H, W, 3) uint8, over white if it has alpha.

        Args:
            is_clear: the file states that it has alpha. FFmpeg's own decoder of VP9 does not decode it.
        """
        may_be_clear = frame.format.has_palette or any(part.is_alpha for part in frame.format.components)
        # Bicubic as in OpenCV: videos of 10 bits then get the same colours; those of 8 bits do not change.
        picture = frame.reformat(format="rgba" if may_be_clear else "rgb24", interpolation="BICUBIC").to_ndarray()
        if may_be_clear:
            return self._composite(Image.fromarray(picture))
        self.conversions.update([UNDECODED_ALPHA] * is_clear)
        return picture

    @contextmanager
    def _open(self, path: Path) -> Iterator[tuple["av.container.InputContainer", "av.VideoStream"]]:
        """Open a file and choose its main video stream, which is no cover picture and no row of thumbnails."""
        import av
        from av.stream import Disposition

        av.logging.set_level(None)  # silent: damage is counted here
        with av.open(f"file:{path}", metadata_errors="ignore") as container:
            form = container.format.name
            if form == "tty":  # the name of FFmpeg for text
                raise CannotDecode
            if form.endswith("_pipe") or form == "image2":
                raise UserError(f"{path}: {NO_VIDEO}")
            no_video = Disposition.attached_pic | Disposition.timed_thumbnails
            streams = [stream for stream in container.streams.video if not stream.disposition & no_video]
            if not streams and (sound := container.streams.audio) + (cover := container.streams.video):
                holds = " and ".join([*["sound"] * bool(sound), *["a cover picture"] * bool(cover)])
                raise UserError(f"{path}: holds {holds} but no video; give a file with a video")
            if not streams:
                raise CannotDecode("no video in it")
            stream = streams[0]
            if len(streams) > 1:
                track = self.track
                if track is None:
                    track = self._choose_track(path, [stream.index for stream in streams])
                stream = container.streams[track]
            if stream.codec_context is None:
                raise CannotDecode("no decoder for its codec")
            # Threads must not decode several frames at a time: which frames are reported damaged would vary by chance.
            stream.thread_type = "SLICE"
            yield container, stream

    def _choose_track(self, path: Path, tracks: list[int]) -> int:
        """Choose the first stream with at least half as many packets as the longest.

        Cover pictures of one packet are not always marked as such, and streams of the same video, as of several
        angles, can differ by a few packets.
        """
        import av

        counts = dict.fromkeys(tracks, 0)
        with av.open(f"file:{path}", metadata_errors="ignore") as container, suppress(av.error.FFmpegError):
            for packet in container.demux([container.streams[track] for track in tracks]):
                counts[packet.stream.index] += packet.size > 0
        return next(track for track in tracks if 2 * counts[track] >= max(counts.values()))

    def _scan_stream(
        self, container: "av.container.InputContainer", stream: "av.VideoStream", report_progress: ReportProgress
    ) -> _ScanResult:
        found = _ScanResult()
        for frame in self._decode(container, stream, found):
            matrix = _read_display_matrix(frame)
            found.turned = _is_turned(matrix)
            size = (frame.width, frame.height) if found.turned else (frame.height, frame.width)
            found.sizes.setdefault(size, len(found.frame_times))
            found.frame_times.append(frame.pts)
            report_progress(len(found.frame_times), stream.frames)
        return found

    def _decode(
        self, container: "av.container.InputContainer", stream: "av.VideoStream", found: _ScanResult
    ) -> Iterator["av.VideoFrame"]:
        """Yield the undamaged frames of a stream in the order of the decoder; record everything else in `found`."""
        import av

        packets = container.demux()
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:  # the file ends too early
                found.faults += 1
                packet = None
            if packet is None:
                return
            if packet.pts is not None and packet.time_base:
                found.end = max(found.end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream.index != stream.index:  # in packets that end a stream, `stream_index` is always 0
                continue
            if packet.size == 0 and packet.dts is not None:  # in an AVI, this shows the previous frame again
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

    def _sort_frames(self, frames: Iterator["av.VideoFrame"]) -> Iterator["av.VideoFrame"]:
        """Yield frames in the order in which they are shown, if `reorder`; else unchanged."""
        if not self.reorder:
            yield from frames
            return
        waiting: list[tuple[int, int, Any]] = []
        for number, frame in enumerate(frames):
            if frame.pts is None:
                yield frame
                continue
            heapq.heappush(waiting, (frame.pts, number, frame))
            if len(waiting) > LIMITS.late_frames:
                yield heapq.heappop(waiting)[-1]
        while waiting:
            yield heapq.heappop(waiting)[-1]

    def _measure_rate(
        self, found: _ScanResult, stated: Fraction | None, unit: Fraction | None, *, missing: int
    ) -> Fraction:
        """Return the frame rate that the header states, or that of the time stamps if the two differ.

        Args:
            unit: seconds of one unit of the time stamps.
            missing: number of frames that would fill the gaps between the time stamps.
        """
        times = [time for time in found.frame_times if time is not None]
        if len(times) < 2 or not unit or times[-1] <= times[0]:
            return stated or DEFAULT_RATE
        measured = _check_rate((len(times) - 1 + missing) / ((times[-1] - times[0]) * unit))
        if measured is None or (stated and (found.faults or abs(measured / stated - 1) <= LIMITS.rate_share)):
            return stated or DEFAULT_RATE
        return measured.limit_denominator(1001)

    def _count_frames(
        self, found: _ScanResult, *, indexed: int, duration: float, rate: Fraction, gaps: dict[int, int]
    ) -> tuple[int, list[int]]:
        """Return how many frames the video should have, and the positions of the decoded ones.

        Args:
            indexed: number of frames in the index of the file, or 0 if it has none. The number is then estimated from
                the duration in the header and from the faults.
            duration: seconds stated in the header.
            gaps: see `find_gaps`; only counted as missing frames if other damage is certain.
        """
        decoded = len(found.frame_times)
        total = max(indexed - found.skipped, decoded)
        missing_seconds = duration - found.end
        if not indexed and missing_seconds > max(LIMITS.end_seconds, LIMITS.end_frames / rate):
            total = max(total, decoded + round(missing_seconds * rate))
        in_gaps = sum(gaps.values()) if found.faults or total > decoded else 0
        total += in_gaps
        if found.faults:
            total = max(total, len(found.packet_times))
        if in_gaps and decoded + in_gaps >= len(found.packet_times):
            return total, list(accumulate((1 + gaps.get(index, 0) for index in range(decoded - 1)), initial=0))
        places = {time: place for place, time in enumerate(sorted(t for t in found.packet_times if t is not None))}
        positions = [places.get(time, -1) for time in found.frame_times]
        if total == decoded or len(places) < len(found.packet_times) or sorted({*positions} - {-1}) != positions:
            positions = list(range(decoded))  # none are missing, or the time stamps do not tell which
        return total, positions


def find_gaps(times: Sequence[int | None]) -> dict[int, int]:
    """Find where frames may be missing from a video of constant frame rate.

    All intervals but the gaps must be equal, up to rounding of the times, and the gaps whole multiples of them. Nothing
    is found in a video of varying frame rate, as phones and screen recorders write them.

    Args:
        times: presentation times of the decoded frames, in units of the stream.

    Returns:
        Number of the frame before each gap -> number of frames that would fill it.
    """
    if None in times or len(times) < 2:
        return {}
    intervals = np.diff(np.array(times, np.int64))
    usual = np.median(intervals)
    wide = intervals >= LIMITS.gap * usual
    regular = intervals[~wide]
    rounding = 1 if usual >= LIMITS.rounded_units else 0  # in units, between the longest and the shortest interval
    is_constant = len(regular) and regular.min() > 0 and np.ptp(regular) <= rounding
    if not is_constant or len(regular) < LIMITS.intervals_per_gap * wide.sum():
        return {}
    lengths = intervals[wide] / regular.mean()
    steps = lengths.round()
    # The mean of the intervals is known to a fraction of a unit only, and that counts for every step.
    if (np.abs(lengths - steps) * regular.mean() > rounding * (1 + steps / len(regular))).any():
        return {}
    return dict(zip(np.flatnonzero(wide).tolist(), (steps.astype(int) - 1).tolist(), strict=True))


def _read_display_matrix(frame: "av.VideoFrame") -> tuple[int, int, int, int]:
    """Read the matrix (a, b, c, d) that turns a frame upright by moving each pixel (x, y) to (ax + cy, bx + dy)."""
    from av.sidedata.sidedata import Type

    if (content := frame.side_data.get(Type.DISPLAYMATRIX)) is None:
        return 1, 0, 0, 1
    values = np.frombuffer(bytes(content), np.int32)
    return tuple(int(values[place]) for place in (0, 1, 3, 4))


def _is_turned(matrix: tuple[int, int, int, int]) -> bool:
    """Tell whether a display matrix swaps width and height."""
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _turn_upright(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Turn and mirror a picture (H, W, 3) as its display matrix says, to the nearest quarter turn."""
    a, b, c, d = matrix
    right, down = a, d
    if _is_turned(matrix):
        picture, right, down = picture.transpose(1, 0, 2), c, b
    return picture[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


# ------------------------------------------------------------------ OpenCV


class OpenCVReader(Reader):
    """Decode with the FFmpeg in OpenCV, which takes cover pictures for videos and does not report damage."""

    name = "OpenCV"

    def scan(self, path: Path, report_progress: ReportProgress) -> Contents:
        with self._open(path) as capture:
            stated = max(round(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
            codec = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True).decode("latin-1")
            rate = _check_rate(Fraction(capture.get(cv2.CAP_PROP_FPS)).limit_denominator(1001))
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
