"""Open what a caller gives as a video: a path, or frames in memory."""

import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.loading import check_root, load_videos
from data.selection import check_sizes
from data.videos import Video
from utils.errors import UserError
from utils.flags.choices import OWN_VIDEO
from utils.pictures import format_size

Frames = Sequence[object] | np.ndarray | Tensor
KINDS = "an array, a tensor or a list of frames"
LAYOUTS = "give uint8 RGB frames, each (H, W, 3) or (3, H, W)"


class FrameArray:
    """A video in memory, which is not copied; it has what the predictor needs of a `data.videos.Video`.

    Args:
        frames: (T, H, W, 3) or (T, 3, H, W) uint8 RGB, as an array, a tensor or a sequence of frames.
        name: what error messages call them.

    Raises:
        UserError: there is no frame, or the first is none; `read` raises it for the others.
    """

    pixel_aspect = Fraction(1)

    def __init__(self, frames: Frames, *, name: str = "frames"):
        if not _is_frames(frames):
            raise UserError(f"{name}: of type {type(frames).__name__}; give {KINDS}")
        if isinstance(frames, np.ndarray | Tensor) and frames.ndim != 4:
            raise UserError(f"{name}: an array of shape {tuple(frames.shape)}; {LAYOUTS}, several of them")
        if len(frames) == 0:
            raise UserError(f"{name}: there are none; give at least one")
        self.frames = frames
        self.name = name
        self.size = tuple(to_frame(frames[0], source=f"{name}[0]").shape[1:])

    @property
    def frame_names(self) -> list[str]:
        return [f"{index:05d}" for index in range(len(self.frames))]

    def read(self, positions: Sequence[int] | None = None) -> Iterator[Tensor]:
        """Yield the frames at rising positions, or all: (3, H, W) uint8."""
        for index in range(len(self.frames)) if positions is None else positions:
            frame = to_frame(self.frames[index], source=f"{self.name}[{index}]")
            _check_size(frame, self.size, source=f"{self.name}[{index}]", other="the first has")
            yield frame


def read_stream(frames: Iterable[object], *, size: tuple[int, int] | None) -> Iterator[Tensor]:
    """Yield frames as they come: (3, H, W) uint8, all of `size`, that of the key frames, or of that of the first.

    Raises:
        UserError: a frame is none, or has another size.
    """
    other = "the first has" if size is None else "key_frames have"
    for index, given in enumerate(frames):
        frame = to_frame(given, source=f"frames[{index}]")
        size = size or tuple(frame.shape[1:])
        _check_size(frame, size, source=f"frames[{index}]", other=other)
        yield frame


def _check_size(frame: Tensor, size: tuple[int, int], *, source: str, other: str) -> None:
    if frame.shape[1:] != size:
        raise UserError(f"{source}: {format_size(frame.shape[1:])} pixels, but {other} {format_size(size)}; "
                        "give frames of one size")  # fmt: skip


def _is_frames(source: object) -> bool:
    return isinstance(source, Sequence | np.ndarray | Tensor) and not isinstance(source, str | bytes)


def to_frame(frame: object, *, source: str) -> Tensor:
    """Convert a frame, (H, W, 3) or (3, H, W) uint8 RGB, to a tensor (3, H, W) on the CPU.

    The colours of a pixel lie side by side in memory, as in frames read from files, so that every later step rounds in
    the same way.

    Raises:
        UserError: not such a frame; names `source`.
    """
    array = frame.detach().cpu().numpy() if isinstance(frame, Tensor) else np.asarray(frame)
    if array.dtype != np.uint8 or array.ndim != 3 or 3 not in (array.shape[0], array.shape[2]) or 0 in array.shape:
        raise UserError(f"{source}: {array.dtype} of shape {array.shape}; {LAYOUTS}")
    array = array if array.shape[2] == 3 else array.transpose(1, 2, 0)
    return torch.from_numpy(np.require(array, requirements=("C", "W"))).permute(2, 0, 1)


def open_source(source: str | os.PathLike | Frames) -> Video | FrameArray:
    """Open a video file, a folder of frames, or frames in memory.

    Raises:
        UserError: there is no video, or more than one.
    """
    if not isinstance(source, str | os.PathLike):
        if not _is_frames(source):
            raise UserError(f"frames: of type {type(source).__name__}; give a path, {KINDS}")
        return FrameArray(source)
    path = Path(source)
    check_root(OWN_VIDEO, path, split=None, flag="")
    videos = load_videos(OWN_VIDEO, path, flag="")
    if len(videos) > 1:
        raise UserError(f"{path}: holds {len(videos)} videos, such as {videos[0].name}; give one of them")
    check_sizes(videos)
    return videos[0]
