"""Write small video files of many kinds, whole and damaged, and tell which frames are read from them."""

import random
import sys
from fractions import Fraction

import av

from tests.conftest import moving_disk
from utils.video import open_video

SIZE = (96, 160)


def pictures(count=20, size=SIZE):
    """Frames (H, W, 3) uint8 of a disk, each with as many white columns at its left as its number."""
    frames = []
    for index in range(count):
        frame, _ = moving_disk(index, size=size, seed=0)
        frame[:, :index] = 255
        frames.append(frame)
    return frames


def write_video(path, frames, *, rate, pixel_aspect=Fraction(1)):
    """Write frames as overlays are written, and return the path of the file."""
    with open_video(path, rate=rate, pixel_aspect=pixel_aspect) as (path, write):
        for frame in frames:
            write(frame)
    return path


def encode(
    path, frames, *, codec="h264", rate=30, options=None, pix_fmt="yuv420p", rotation=0, before=None, times=None,
    unit=None,
):  # fmt: skip
    """Write frames with PyAV, at `times` in `unit` if given; `before(container)` may add a stream that comes first, and
    gives its packets."""
    container_options = {"movflags": "+faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=container_options) as container:
        earlier = before(container) if before else []
        stream = container.add_stream(codec, rate=rate, options=options or {"g": "5", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], pix_fmt
        if rotation:
            stream.set_display_rotation(rotation)
        if unit:
            stream.codec_context.time_base = unit
        container.start_encoding()
        for packet in earlier:
            container.mux(packet)
        for index, frame in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[index], unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def damage(path, target):
    """A copy with the bytes of its middle tenth replaced at random."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 10] = random.Random(1).randbytes(len(content) // 10)
    target.write_bytes(content)
    return target


def erase(path, target):
    """A copy with zeros in place of its middle tenth."""
    content = path.read_bytes()
    middle, length = len(content) // 2, len(content) // 10
    target.write_bytes(content[:middle] + bytes(length) + content[middle + length :])
    return target


def cut(path, target):
    content = path.read_bytes()
    target.write_bytes(content[: len(content) * 6 // 10])
    return target


def numbers(video):
    """Which of `pictures` the frames of a video show, by their white columns."""
    return [int((frame.float().mean((0, 1)) > 200).sum()) for frame in video.read()]


def without_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)


def has_encoder(codec):
    try:
        av.Codec(codec, "w")
    except ValueError:
        return False
    return True
