"""Decode video files with PyAV, the FFmpeg that reports damage."""

import heapq
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from data.decoding.base import (
    LIMITS,
    NO_VIDEO,
    CannotDecode,
    Contents,
    Reader,
    ReportProgress,
    check_rate,
    check_sizes,
)
from data.decoding.rotation import is_turned, read_display_matrix, turn_upright
from data.decoding.timing import ScanResult, count_frames, find_gaps, measure_rate
from utils.errors import UserError

if TYPE_CHECKING:
    import av

UNDECODED_ALPHA = "alpha that FFmpeg does not decode; colours below it shown, convert it to ProRes 4444 or PNGs"
INDEXED = {"mov", "mp4"}  # FFmpeg's names of the containers whose index lists every frame; both name one family
PICTURE_CODECS = ("mjpeg", "png", "bmp")  # a video of one such frame is a picture, perhaps the cover of a song


class PyAVReader(Reader):
    """Decode whatever FFmpeg reads. After a damaged packet it continues with the next one.

    Args:
        reorder: sort frames by time, since after damage a decoder can give frames too late.
        track: index of the stream to decode; None chooses one.
        size: (height, width) that every frame must have. At another size, or a damaged place, decoding then ends with
            `CannotDecode`. None accepts both.
    """

    name = "PyAV"

    def __init__(self, *, reorder: bool = False, track: int | None = None, size: tuple[int, int] | None = None):
        super().__init__()
        self.reorder = reorder
        self.track = track
        self.size = size

    def read_index(self, path: Path) -> Contents | None:
        """Return the contents of an MP4 or QuickTime file by its index; only its first frame is decoded.

        None if the index does not fit the packets in the file, as after the end was cut off, or if packets have no
        times of their own.
        """
        try:
            import av
        except ImportError:
            return None
        try:
            with self._open(path) as (container, stream):
                track, times = stream.index, self._list_times(container, stream)
                if times is None or (len(times) == 1 and stream.codec_context.name in PICTURE_CODECS):
                    return None
            with PyAVReader(track=track)._open(path) as (container, stream):
                found = ScanResult(frame_times=sorted(times))
                first = next(self._decode(container, stream, found), None)
                if first is None or found.faults:
                    return None
                found.turned = is_turned(read_display_matrix(first))
                size = (first.width, first.height) if found.turned else (first.height, first.width)
                rate = measure_rate(found, _read_rate(stream), stream.time_base, missing=0)
                aspect = _read_pixel_aspect(stream, is_turned=found.turned)
        except (CannotDecode, av.error.FFmpegError, OSError, ValueError):
            return None  # `scan` will give the reason
        return Contents(
            PyAVReader(track=track, size=size), list(range(len(times))), len(times), size, rate=rate,
            pixel_aspect=aspect, from_index=True,
        )  # fmt: skip

    def _list_times(self, container: "av.container.InputContainer", stream: "av.VideoStream") -> list[int] | None:
        """List the times at which packets are shown, in the order of the file.

        None unless the file has an index, its packets are those of the index, and each has a time of its own.
        """
        if not INDEXED & set(container.format.name.split(",")) or not stream.frames:
            return None
        times, number, is_whole = [], 0, True
        for packet in container.demux(stream):
            if packet.size or packet.dts is not None:  # the last packet, which ends the stream, has neither
                number += 1
                is_whole &= packet.size > 0 and not packet.is_corrupt
                times += [] if packet.is_discard else [packet.pts]
        is_timed = None not in times and len(set(times)) == len(times)
        return times if times and is_whole and is_timed and number == stream.frames else None

    def scan(self, path: Path, report_progress: ReportProgress) -> Contents:
        try:
            import av
        except ImportError:
            raise CannotDecode("not installed; pip install av") from None
        try:
            with self._open(path) as (container, stream):
                found = self._scan_stream(container, stream, report_progress)
                track, indexed, rate = stream.index, stream.frames, _read_rate(stream)
                aspect = _read_pixel_aspect(stream, is_turned=found.turned)
                if len(found.frame_times) == 1 and stream.codec_context.name in PICTURE_CODECS:
                    raise UserError(f"{path}: {NO_VIDEO}")
                unit, duration = stream.time_base, (container.duration or 0) / av.time_base
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise CannotDecode(str(getattr(error, "strerror", None) or error)) from None
        if not found.frame_times:
            raise CannotDecode("no frame can be decoded")
        if found.faults and None not in found.frame_times:
            found.frame_times.sort()
        size = check_sizes(path, found.sizes)
        gaps = {} if indexed else find_gaps(found.frame_times)
        rate = measure_rate(found, rate, unit, missing=sum(gaps.values()))
        total, positions = count_frames(found, indexed=indexed, duration=duration, rate=rate, gaps=gaps)
        return Contents(
            PyAVReader(reorder=found.faults > 0, track=track), positions, total, size, faults=found.faults,
            rate=rate, pixel_aspect=aspect, gaps=gaps if total == len(positions) else {},
        )  # fmt: skip

    def decode(self, path: Path) -> Iterator[np.ndarray]:
        found = ScanResult()
        with self._open(path) as (container, stream):
            for frame in self._sort_frames(self._decode(container, stream, found)):
                picture = self._to_rgb(frame, is_clear=stream.metadata.get("alpha_mode") == "1")
                picture = np.ascontiguousarray(turn_upright(picture, read_display_matrix(frame)))
                if self.size and (found.faults or picture.shape[:2] != self.size):
                    raise CannotDecode("not all frames that its index lists")
                yield picture
        if self.size and found.faults:
            raise CannotDecode("not all frames that its index lists")

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
    ) -> ScanResult:
        found = ScanResult()
        for frame in self._decode(container, stream, found):
            matrix = read_display_matrix(frame)
            found.turned = is_turned(matrix)
            size = (frame.width, frame.height) if found.turned else (frame.height, frame.width)
            found.sizes.setdefault(size, len(found.frame_times))
            found.frame_times.append(frame.pts)
            report_progress(len(found.frame_times), stream.frames)
        return found

    def _decode(
        self, container: "av.container.InputContainer", stream: "av.VideoStream", found: ScanResult
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


def _read_rate(stream: "av.VideoStream") -> Fraction | None:
    """Read the frame rate that a file states, if it can be one."""
    return check_rate(stream.average_rate or stream.guessed_rate)


def _read_pixel_aspect(stream: "av.VideoStream", *, is_turned: bool) -> Fraction:
    """Read the width of a pixel divided by its height, as the frames are displayed."""
    stated = stream.sample_aspect_ratio
    aspect = Fraction(stated) if stated and stated > 0 else Fraction(1)
    return 1 / aspect if is_turned else aspect
