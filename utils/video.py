"""Write video files that common players and browsers can play, and cut-outs that keep their transparency.

PyAV writes H.264 in MP4. Its wheels contain x264, which is under the GPL and not part of this repository. If PyAV is
missing or has no encoder for H.264, OpenCV writes VP8 in WebM. Cut-outs are VP9 with alpha in WebM, by PyAV alone.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.errors import UserError
from utils.progress import log_line

# Constant rate factor of both encoders; less is better. Their scales differ, up to 51 in x264 and 63 in VP9, but at 20
# the eye hardly sees a difference to the frames in either.
QUALITY = "20"
MAX_DENOMINATOR = 1 << 16  # of a frame rate; time stamps in units of it must fit in the 32 bits of a container
DEFAULT_RATE = Fraction(24)  # frames per second, of folders of frames and of files that state no rate
MEND = "check the folder and its free space"


@dataclass(frozen=True)
class Encoding:
    """How PyAV writes a kind of video.

    Attributes:
        codec, options: of the stream. container, container_options: of the file.
        given, stored: pixels of the frames as they come, and in the file.
    """

    codec: str
    options: dict[str, str]
    container: str
    container_options: dict[str, str]
    given: str
    stored: str


H264, VP9 = "h264", "libvpx-vp9"
# Without `mbtree`, whose choices depend on memory beyond the frames, the same frames give the same file.
OVERLAY = Encoding(H264, {"crf": QUALITY, "mbtree": "0"}, "mp4", {"movflags": "+faststart"}, "rgb24", "yuv420p")
# `b` of 0 leaves the size to the quality. Frames with alpha allow no reference frames that are not shown.
CUT_OUT = Encoding(VP9, {"crf": QUALITY, "b": "0", "cpu-used": "4", "row-mt": "1", "auto-alt-ref": "0"}, "webm", {},
                   "rgba", "yuva420p")  # fmt: skip
Write = Callable[[np.ndarray], None]


@contextmanager
def open_video(
    path: Path, *, rate: Fraction, pixel_aspect: Fraction = Fraction(1), preset: str = "fast"
) -> Iterator[tuple[Path, Write]]:
    """Open an .mp4 that frames can be written to one by one; no file is left if writing fails.

    H.264 needs even sides, so the last row or column of an odd side is repeated.

    Args:
        rate: frames per second.
        pixel_aspect: width of a pixel divided by its height.
        preset: of x264, such as `fast` or `veryfast`, which takes less than half the time for about the same size.

    Yields:
        The path of the file: `path`, or, with a note on stderr, the same path with `.webm` if there is no encoder for
        H.264. And a function that writes a frame, (H, W, 3) uint8 RGB, all of one size; call it at least once.

    Raises:
        UserError: the file cannot be written.
    """
    open_encoder = _open_h264
    if not _has_encoder(H264):
        path, open_encoder = path.with_suffix(".webm"), _open_vp8
        log_line(f"note: {path}: VP8, since PyAV is missing or has no H.264; pip install av", all_processes=True)
    options = {"rate": rate, "pixel_aspect": pixel_aspect, "preset": preset}
    with _replace_when_done(path) as partial, open_encoder(partial, **options) as write:
        yield path, lambda frame: write(_pad_to_even_sides(frame))


@contextmanager
def open_cut_out(path: Path, *, rate: Fraction, pixel_aspect: Fraction = Fraction(1)) -> Iterator[Write]:
    """Open a .webm that frames with alpha can be written to one by one; no file is left if writing fails.

    Args:
        rate, pixel_aspect: as for `open_video`. PyAV must have VP9, see `can_write_cut_outs`.

    Yields:
        A function that writes a frame, (H, W, 4) uint8 RGB and alpha, all of one size; call it at least once.

    Raises:
        UserError: the file cannot be written.
    """
    with _replace_when_done(path) as partial, _open_pyav(partial, CUT_OUT, rate, pixel_aspect, {}) as write:
        yield write


@contextmanager
def _replace_when_done(path: Path) -> Iterator[Path]:
    """Yield the path of a partial file beside `path`, which takes its place if nothing fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    except _CannotWrite as error:
        raise UserError(f"{path}: cannot be written ({error}); {MEND}") from None
    finally:
        partial.unlink(missing_ok=True)


class _CannotWrite(Exception):
    """The encoder fails, or the disk is full or not writable."""


def can_write_cut_outs() -> bool:
    """Tell whether PyAV is there and has the encoder of VP9 that keeps transparency."""
    return _has_encoder(VP9)


def _has_encoder(codec: str) -> bool:
    try:
        import av

        av.Codec(codec, "w")
    except (ImportError, ValueError):  # av.codec.codec.UnknownCodecError derives from ValueError
        return False
    return True


def _pad_to_even_sides(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


@contextmanager
def _open_h264(path: Path, *, rate: Fraction, pixel_aspect: Fraction, preset: str) -> Iterator[Write]:
    """Yield a function that writes a frame, (H, W, 3) uint8 RGB with even sides."""
    with _open_pyav(path, OVERLAY, rate, pixel_aspect, {"preset": preset}) as write:
        yield write


@contextmanager
def _open_pyav(
    path: Path, kind: Encoding, rate: Fraction, pixel_aspect: Fraction, options: dict[str, str]
) -> Iterator[Write]:
    """Yield a function that writes a frame, (H, W, 3 or 4) uint8; `options` are added to those of `kind`."""
    import av

    av.logging.set_level(None)  # the messages of encoders do not help the user
    try:
        with av.open(f"file:{path}", "w", format=kind.container, options=kind.container_options) as container:
            stream = None

            def write(picture: np.ndarray) -> None:
                nonlocal stream
                if stream is None:
                    stream = container.add_stream(kind.codec, rate=rate.limit_denominator(MAX_DENOMINATOR),
                                                  options={**kind.options, **options})  # fmt: skip
                    _describe_stream(stream, picture.shape[1::-1], pixel_aspect, kind.stored)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=kind.given)
                container.mux(stream.encode(frame.reformat(format=kind.stored, dst_colorspace="ITU709")))

            yield write
            container.mux(stream.encode())
    except av.error.FFmpegError as error:
        raise _CannotWrite(error.strerror) from None


def _describe_stream(stream: Any, size: tuple[int, int], pixel_aspect: Fraction, pixels: str) -> None:
    """Set size (width, height), kind of pixels and colours of a stream."""
    from av.video.reformatter import ColorRange, Colorspace

    stream.width, stream.height = size
    stream.pix_fmt = pixels
    context = stream.codec_context
    context.sample_aspect_ratio = pixel_aspect
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries = context.color_trc = 1  # BT.709, to which the frames are converted


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


@contextmanager
def _open_vp8(path: Path, *, rate: Fraction, **_: Any) -> Iterator[Write]:
    """Do what `_open_h264` does; the other options are ignored, since OpenCV cannot pass them on."""
    writer = None

    def write(frame: np.ndarray) -> None:
        nonlocal writer
        if writer is None:
            with _silence_stderr():  # OpenCV warns about a tag that WebM does not need
                writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"VP80"), float(rate), frame.shape[1::-1])
            if not writer.isOpened():
                raise _CannotWrite("OpenCV has no encoder for VP8, or may not write there")
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    yield write
    writer.release()
