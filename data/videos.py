"""Videos for evaluation: a folder of frames, a video file or a TFRecord, read in order, strictly."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from data.annotations import RECORD_KEYS
from data.decoding import DEFAULT_RATE, CannotDecode, Contents, scan
from data.frames import FrameReader, resize
from data.tfrecord import MEND, Record, count_values, read_bytes_features
from utils import distributed
from utils.errors import UserError
from utils.files import digest_files
from utils.names import number_ranges
from utils.scoring.annotations import Annotations


class Video(Protocol):
    """A video: its name, the stems of its frames, its annotations if there are any, and its frames in order.

    Annotations may be sparse: their frames are some of the video's, never others.
    """

    name: str
    annotations: Annotations | None
    frame_rate: Fraction  # frames per second
    pixel_aspect: Fraction  # width of a pixel over its height
    damage: str | None  # what of the video cannot be read though the rest can

    @property
    def frame_names(self) -> list[str]: ...

    @property
    def fingerprint(self) -> str:
        """Changes when the content of the video does, so that results of another version are noticed."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames; raises `UserError` where the first cannot be had."""
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


def shown_shape(video: Video) -> tuple[float, float]:
    """(height, width) of a video as it is to be shown: in square pixels."""
    height, width = video.size
    return height, width * float(video.pixel_aspect)


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

    frame_rate = DEFAULT_RATE
    pixel_aspect = Fraction(1)
    damage = None

    def __init__(self, name: str, annotations: Annotations | None = None):
        self.name = name
        self.annotations = annotations
        self.kinds: Counter[str] = Counter()
        self._said: set[str] = set()

    @cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames."""
        return tuple(next(self.read()).shape[1:])

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
    """A video file, decoded once to its end to know what is in it; see `data.decoding`.

    Frames are named by their places in the video, 00000, 00001, ...; those that cannot be decoded are left out.
    """

    def __init__(self, name: str, path: Path):
        self.name = name
        self.path = path
        self.annotations = None
        self.contents = _scan_with_bar(path)
        self.frame_rate = self.contents.rate
        self.pixel_aspect = self.contents.pixel_aspect

    @property
    def frame_names(self) -> list[str]:
        return [f"{position:05d}" for position in self.contents.positions]

    @property
    def fingerprint(self) -> str:
        return f"{len(self.contents.positions)} frames, {digest_files([self.path])}"

    @property
    def size(self) -> tuple[int, int]:
        return self.contents.size

    @property
    def damage(self) -> str | None:
        """How many of its frames cannot be decoded, and which as far as that is known; None where it is whole."""
        found = self.contents
        if found.missing:
            lost = number_ranges(sorted(set(range(found.total)) - set(found.positions)), most=3)
            counts = f"{found.missing} of {found.total} frames cannot be decoded, {lost} (counted from 0)"
            return f"{self.path}: {counts}; the file is damaged or cut short"
        if found.faults:
            return f"{self.path}: {found.faults} places cannot be decoded, though none of {found.total} frames is lost"
        return None

    def read(self) -> Iterator[Tensor]:
        """Frames (3, H, W) uint8 RGB.

        Raises:
            UserError: the file has changed since it was first looked at.
        """
        return _strictly(self.attempt())

    def attempt(self) -> Iterator[Tensor | UserError]:
        """As `read`; there are no more after the first that cannot be had."""
        done, count = 0, len(self.contents.positions)
        with suppress(CannotDecode, OSError, ValueError):  # errors of FFmpeg are of the latter two
            for done, frame in enumerate(self.contents.reader.frames(self.path), 1):
                if done <= count:
                    yield torch.from_numpy(frame).permute(2, 0, 1)
        if done != count:
            yield UserError(f"{self.path}: {done} frames now, {count} before; leave the file alone while it is read")


def _scan_with_bar(path: Path) -> Contents:
    """`scan` with a bar for those that take more than a moment."""
    bar = tqdm(desc=f"checking {path.name}", unit="frame", delay=2, leave=False, disable=not distributed.is_main())

    def tick(done: int, total: int) -> None:
        bar.total = total or None
        bar.update(done - bar.n)

    with bar:
        return scan(path, tick=tick)


def check_whole(videos: list[Video], *, allow_damaged: bool = False) -> None:
    """Refuse videos of which a part cannot be read; where these are allowed, warn of each.

    Raises:
        UserError: naming the first.
    """
    for damage in filter(None, (video.damage for video in videos)):
        if not allow_damaged:
            raise UserError(f"{damage}: copy it again, or have eval.py go on without them: --allow_damaged")
        if distributed.is_main():
            print(f"warning: {damage}; going on without them", file=sys.stderr, flush=True)


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
