"""Write video files that common players and browsers can play.

PyAV writes H.264 in MP4. Its wheels contain x264, which is under the GPL and not part of this repository. If PyAV is
missing or has no encoder for H.264, OpenCV writes VP8 in WebM.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.errors import UserError

QUALITY = {"crf": "20", "preset": "fast"}  # of x264; the eye hardly sees a difference to the frames
MAX_DENOMINATOR = 1 << 16  # of a frame rate; time stamps in units of it must fit in the 32 bits of a container
MEND = "check the folder and its free space"


def write_video(
    path: Path, frames: Iterable[np.ndarray], *, rate: Fraction, pixel_aspect: Fraction = Fraction(1)
) -> Path:
    """Write frames to an .mp4; no file is left if writing fails.

    H.264 needs even sides, so the last row or column of an odd side is repeated.

    Args:
        frames: at least one frame, (H, W, 3) uint8 RGB, all of one size.
        rate: frames per second.
        pixel_aspect: width of a pixel divided by its height.

    Returns:
        The path of the file: `path`, or, with a note on stderr, the same path with `.webm` if there is no encoder for
        H.264.

    Raises:
        UserError: the file cannot be written.
    """
    write = _write_h264
    if not _has_h264():
        path, write = path.with_suffix(".webm"), _write_vp8
        print(f"note: {path}: VP8, since PyAV is missing or has no H.264; pip install av", file=sys.stderr, flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    frames = iter(frames)
    first = next(frames)
    try:
        write(partial, _pad_to_even_sides(chain([first], frames)), rate=rate, pixel_aspect=pixel_aspect)
        partial.replace(path)
    except _CannotWrite as error:
        raise UserError(f"{path}: cannot be written ({error}); {MEND}") from None
    finally:
        partial.unlink(missing_ok=True)
    return path


class _CannotWrite(Exception):
    """The encoder fails, or the disk is full or not writable."""


def _has_h264() -> bool:
    try:
        import av

        av.Codec("h264", "w")
    except (ImportError, ValueError):  # av.codec.codec.UnknownCodecError derives from ValueError
        return False
    return True


def _pad_to_even_sides(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for frame in frames:
        height, width = frame.shape[:2]
        yield np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _write_h264(path: Path, frames: Iterable[np.ndarray], **options: Any) -> None:
    """Write frames (H, W, 3) uint8 RGB with even sides; `options` are those of `_add_stream`."""
    import av

    av.logging.set_level(None)  # the messages of x264 do not help the user
    try:
        with av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = None
            for picture in frames:
                stream = stream or _add_stream(container, picture.shape[1::-1], **options)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))
            container.mux(stream.encode())
    except av.error.FFmpegError as error:
        raise _CannotWrite(error.strerror) from None


def _add_stream(container: Any, size: tuple[int, int], *, rate: Fraction, pixel_aspect: Fraction) -> Any:
    """Add an H.264 stream to a container, for frames of `size` (width, height)."""
    from av.video.reformatter import ColorRange, Colorspace

    stream = container.add_stream("h264", rate=rate.limit_denominator(MAX_DENOMINATOR), options=QUALITY)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.sample_aspect_ratio = pixel_aspect
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries = context.color_trc = 1  # BT.709, to which the frames are converted
    return stream


@contextmanager
def _silence_stderr() -> Iterator[None]:
    """Discard everything written to stderr within the context, also by libraries in C."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _write_vp8(path: Path, frames: Iterable[np.ndarray], *, rate: Fraction, pixel_aspect: Fraction) -> None:
    """Write frames as `_write_h264` does; `pixel_aspect` is ignored, since OpenCV cannot store it."""
    writer = None
    for frame in frames:
        if writer is None:
            with _silence_stderr():  # OpenCV warns about a tag that WebM does not need
                writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"VP80"), float(rate), frame.shape[1::-1])
            if not writer.isOpened():
                raise _CannotWrite("OpenCV has no encoder for VP8, or may not write there")
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
