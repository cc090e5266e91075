"""Videos for evaluation: a folder of frames or a video file, read in order, strictly."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import cv2
import torch
from torch import Tensor

from data.frames import read_image, resize
from utils.annotations import Annotations
from utils.errors import UserError


class Video(Protocol):
    """A video: its name, the stems of its frames, its annotations if there are any, and its frames in order."""

    name: str
    annotations: Annotations | None

    @property
    def frame_names(self) -> list[str]: ...

    @property
    def fingerprint(self) -> str:
        """Changes when the video does, so that results of another version are noticed: frames and bytes."""
        ...

    def read(self) -> Iterator[Tensor]:
        """Frames (3, H, W) uint8 RGB, all of one size."""
        ...


def frames_at(video: Video, resolution: tuple[int, int]) -> Iterator[Tensor]:
    """The frames of a video at the network's resolution (height, width): (3, height, width) uint8."""
    for frame in video.read():
        yield resize(frame, resolution)


def frame_size(video: Video) -> tuple[int, int]:
    """(height, width) of a video's frames in pixels."""
    height, width = next(iter(video.read())).shape[-2:]
    return height, width


class FrameFolder:
    """A video kept as image files."""

    def __init__(self, name: str, paths: list[Path], annotations: Annotations | None = None):
        self.name = name
        self.paths = paths
        self.annotations = annotations
        by_stem: dict[str, Path] = {}
        for path in paths:
            if by_stem.setdefault(path.stem, path) != path:
                raise UserError(f"{path}: {by_stem[path.stem].name} has the same name but for its ending; keep one")

    @property
    def frame_names(self) -> list[str]:
        return [path.stem for path in self.paths]

    @property
    def fingerprint(self) -> str:
        return f"{len(self.paths)} frames, {sum(path.stat().st_size for path in self.paths)} bytes"

    def read(self) -> Iterator[Tensor]:
        """Frames (3, H, W) uint8 RGB.

        Raises:
            UserError: an unreadable frame, or one of another size than the first; it names the frame.
        """
        size = None
        for path in self.paths:
            frame = read_image(path)
            size = size or frame.shape
            if frame.shape != size:
                raise UserError(f"{path}: {frame.shape[1]}x{frame.shape[2]} pixels, but the frames before it have "
                                f"{size[1]}x{size[2]}; a video has frames of one size")  # fmt: skip
            yield frame


class VideoFile:
    """A video file that OpenCV can decode."""

    def __init__(self, name: str, path: Path):
        self.name = name
        self.path = path
        self.annotations = None
        self._length = self._count()

    @property
    def frame_names(self) -> list[str]:
        return [f"{index:05d}" for index in range(self._length)]

    @property
    def fingerprint(self) -> str:
        return f"{self._length} frames, {self.path.stat().st_size} bytes"

    def read(self) -> Iterator[Tensor]:
        """Frames (3, H, W) uint8 RGB.

        Raises:
            UserError: the file ends earlier than when it was first looked at.
        """
        capture = cv2.VideoCapture(str(self.path))
        try:
            for index in range(self._length):
                decoded, frame = capture.read()
                if not decoded:
                    raise UserError(f"{self.path}: frame {index} cannot be decoded; convert the video again")
                yield torch.from_numpy(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)
        finally:
            capture.release()

    def _count(self) -> int:
        """Frames that can be decoded; what the container claims is often wrong."""
        capture = cv2.VideoCapture(str(self.path))
        count = 0
        while capture.grab():
            count += 1
        capture.release()
        if not count:
            raise UserError(f"{self.path}: not a video that OpenCV can decode; convert it, or give a folder of frames")
        return count
