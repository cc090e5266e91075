"""Videos for evaluation: a folder of frames, a video file or a TFRecord, read in order, strictly."""

import sys
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Protocol

import cv2
import torch
from torch import Tensor
from tqdm import tqdm

from data.annotations import RECORD_KEYS
from data.frames import FrameReader, resize
from data.tfrecord import MEND, Record, count_values, read_bytes_features
from utils.annotations import Annotations
from utils.errors import UserError
from utils.files import digest_files


class Video(Protocol):
    """A video: its name, the stems of its frames, its annotations if there are any, and its frames in order.

    Annotations may be sparse: their frames are some of the video's, never others.
    """

    name: str
    annotations: Annotations | None

    @property
    def frame_names(self) -> list[str]: ...

    @property
    def fingerprint(self) -> str:
        """Changes when the content of the video does, so that results of another version are noticed."""
        ...

    def read(self) -> Iterator[Tensor]:
        """Frames (3, H, W) uint8 RGB, all of one size; raises `UserError` at the first that cannot be had."""
        ...

    def attempt(self) -> Iterator[Tensor | UserError]:
        """As `read`, but in place of a frame that cannot be had comes its error, and those after it follow."""
        ...


def frames_at(video: Video, resolution: tuple[int, int]) -> Iterator[Tensor]:
    """The frames of a video at the network's resolution (height, width): (3, height, width) uint8."""
    for frame in video.read():
        yield resize(frame, resolution)


def _strictly(attempts: Iterator[Tensor | UserError]) -> Iterator[Tensor]:
    for frame in attempts:
        if isinstance(frame, UserError):
            raise frame
        yield frame


def _of_one_size(sources: Iterator[tuple[str, Tensor | UserError]]) -> Iterator[Tensor | UserError]:
    """Frames with where they come from -> the frames, an error in place of each of another size than the first."""
    size = None
    for source, frame in sources:
        if isinstance(frame, Tensor):
            size = size or frame.shape
            if frame.shape != size:
                frame = UserError(f"{source}: {frame.shape[2]}x{frame.shape[1]} pixels, but the frames before it have "
                                  f"{size[2]}x{size[1]}; a video has frames of one size")  # fmt: skip
        yield frame


class ImageVideo:
    """A video kept as images.

    Attributes:
        kinds: what the last reading met beside plain 8-bit pictures, see `FrameReader`.
    """

    def __init__(self, name: str, annotations: Annotations | None = None):
        self.name = name
        self.annotations = annotations
        self.kinds: Counter[str] = Counter()
        self._said: set[str] = set()

    def read(self) -> Iterator[Tensor]:
        """Frames (3, H, W) uint8 RGB. What kinds of pictures they are is said once, a line each on stderr.

        Raises:
            UserError: an unreadable frame, or one of another size than the first; it names the frame.
        """
        for frame in _strictly(self.attempt()):
            for kind in self.kinds.keys() - self._said:
                tqdm.write(f"note: video {self.name}: {kind}", file=sys.stderr)
            self._said |= self.kinds.keys()
            yield frame

    def _attempt_all(self, reader: FrameReader) -> Iterator[Tensor | UserError]:
        reader.kinds.clear()
        self.kinds = reader.kinds
        return _of_one_size((str(name), _attempt(reader, index)) for index, name in enumerate(reader.names))


class FrameFolder(ImageVideo):
    """A video kept as image files."""

    def __init__(self, name: str, paths: list[Path], annotations: Annotations | None = None):
        super().__init__(name, annotations)
        self.paths = paths
        self._reader = FrameReader(paths)
        by_stem: dict[str, Path] = {}
        for path in paths:
            if by_stem.setdefault(path.stem, path) != path:
                raise UserError(f"{path}: {by_stem[path.stem].name} has the same name but for its ending; keep one")

    @property
    def frame_names(self) -> list[str]:
        return [path.stem for path in self.paths]

    @property
    def fingerprint(self) -> str:
        return f"{len(self.paths)} frames, {digest_files(self.paths)}"

    def attempt(self) -> Iterator[Tensor | UserError]:
        return self._attempt_all(self._reader)


def _attempt(reader: FrameReader, index: int) -> Tensor | UserError:
    try:
        return reader.read(index)
    except UserError as error:
        return error


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
        return f"{self._length} frames, {digest_files([self.path])}"

    def read(self) -> Iterator[Tensor]:
        """Frames (3, H, W) uint8 RGB.

        Raises:
            UserError: the file ends earlier than when it was first looked at.
        """
        return _strictly(self.attempt())

    def attempt(self) -> Iterator[Tensor | UserError]:
        """As `read`; after a frame that cannot be decoded there are no more."""
        capture = cv2.VideoCapture(str(self.path))
        try:
            for index in range(self._length):
                decoded, frame = capture.read()
                if not decoded:
                    yield UserError(f"{self.path}: frame {index} cannot be decoded; convert the video again")
                    return
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


class RecordVideo(ImageVideo):
    """A video kept as PNGs within one record of a TFRecord file, as TFDS stores MOVi. Frames are 00000, 00001, ..."""

    KEY = "video"

    def __init__(self, name: str, record: Record):
        super().__init__(name)
        self.record = record

    @cached_property
    def frame_names(self) -> list[str]:
        return [f"{index:05d}" for index in range(count_values(self.record, self.KEY))]

    @property
    def fingerprint(self) -> str:
        return f"{len(self.frame_names)} frames, {self.record.length} bytes, checksum {self.record.checksum:08x}"

    def attempt(self) -> Iterator[Tensor | UserError]:
        try:
            images = read_bytes_features(self.record, RECORD_KEYS)[self.KEY]
        except UserError as error:
            yield error
            return
        names = [f"{self.record}, frame {name}" for name in self.frame_names]
        yield from self._attempt_all(FrameReader(images, names, mend=MEND))
