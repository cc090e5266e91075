"""Write videos that play everywhere.

H.264 in MP4 through PyAV. Its wheels carry x264, which is under the GPL; nothing of it is in this repository. Where
PyAV is missing, or made without an encoder for H.264, OpenCV's VP8 in WebM takes its place, which browsers play too.
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

QUALITY = {"crf": "20", "preset": "fast"}  # of x264: hardly to be told from the original
LARGEST_DENOMINATOR = 1 << 16  # of a frame rate, so that units of time fit a container's 32 bits
MEND = "check the folder and its free space"


def write_video(
    path: Path, frames: Iterable[np.ndarray], *, rate: Fraction, pixel_aspect: Fraction = Fraction(1)
) -> Path:
    """Write frames (H, W, 3) uint8 RGB, all of one size, to an .mp4, whole or not at all.

    H.264 has even sides: of an odd one the last row or column is there twice.

    Args:
        rate: frames per second.
        pixel_aspect: width of a pixel over its height.

    Returns:
        Where it was written: `path`, or a .webm beside it where there is no H.264, which a note on stderr says.

    Raises:
        UserError: it cannot be written.
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
        write(partial, _with_even_sides(chain([first], frames)), rate=rate, pixel_aspect=pixel_aspect)
        partial.replace(path)
    except _CannotWrite as error:
        raise UserError(f"{path}: cannot be written ({error}); {MEND}") from None
    finally:
        partial.unlink(missing_ok=True)
    return path


class _CannotWrite(Exception):
    """An encoder or the disk refuses."""


def _has_h264() -> bool:
    try:
        import av

        av.Codec("h264", "w")
    except (ImportError, ValueError):  # its UnknownCodecError is one
        return False
    return True


def _with_even_sides(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for frame in frames:
        height, width = frame.shape[:2]
        yield np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _write_h264(path: Path, frames: Iterable[np.ndarray], **options: Any) -> None:
    import av

    av.logging.set_level(None)  # what x264 says is of no use to the user
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
    """An H.264 stream of frames of `size` (width, height)."""
    from av.video.reformatter import ColorRange, Colorspace

    stream = container.add_stream("h264", rate=rate.limit_denominator(LARGEST_DENOMINATOR), options=QUALITY)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.sample_aspect_ratio = pixel_aspect
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries = context.color_trc = 1  # BT.709, as the colours are converted
    return stream


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Within it nothing reaches the terminal, not even from libraries in C."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _write_vp8(path: Path, frames: Iterable[np.ndarray], *, rate: Fraction, pixel_aspect: Fraction) -> None:
    """As `_write_h264`, but for the shape of pixels, which OpenCV cannot tell a file."""
    writer = None
    for frame in frames:
        if writer is None:
            with _silent_stderr():  # it complains of a tag that WebM has no need of
                writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"VP80"), float(rate), frame.shape[1::-1])
            if not writer.isOpened():
                raise _CannotWrite("OpenCV has no encoder for VP8, or may not write there")
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
