"""Open the videos that are to be segmented: folders of frames, video files, TFRecords."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from data.annotations.records import RECORD_KEYS
from data.decoding.base import CannotDecode
from data.decoding.scan import scan_with_bar
from data.flow import FlowFiles
from data.frames import FrameReader, read_image_size, resize
from data.tfrecord import MEND, Record, count_values, read_byte_features
from utils.errors import UserError
from utils.files import digest_files
from utils.names import format_ranges
from utils.pictures import format_size
from utils.progress import log_line
from utils.scoring.annotations import Annotations
from utils.video import DEFAULT_RATE

MEND_DAMAGE = "copy it again, or have eval.py go on without them: --allow_damaged"


class Video(Protocol):
    """A video that can be read in order, with annotations if it has any.

    Attributes:
        name: name of the video in its split.
        annotations: annotations of some or all of the frames, or None.
        flow: optical flow that the user gave, or None.
        frame_rate: frames per second.
        pixel_aspect: width of a pixel divided by its height.
        damage: which part of the video cannot be read, in words; None if nothing is damaged.
        doubt: which frames may be missing, in words, though the video can be read; None if nothing suggests it.
        conversions: kinds of conversions, as in `utils.pictures.Picture` -> number of frames of the last reading.
        root: the user's file or folder that it was found at; None for a video of a data set, which has one root.
    """

    name: str
    annotations: Annotations | None
    flow: FlowFiles | None
    frame_rate: Fraction
    pixel_aspect: Fraction
    damage: str | None
    doubt: str | None
    conversions: Counter[str]
    root: Path | None

    @property
    def frame_names(self) -> list[str]:
        """Names of the frames in order: the names of image files without suffix, or numbers."""
        ...

    @property
    def fingerprint(self) -> str:
        """A text that changes with the content of the video, so that outdated results are noticed."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames, found without decoding one; raises `UserError` if the first has no header."""
        ...

    def read(self, positions: Sequence[int] | None = None) -> Iterator[Tensor]:
        """Yield the frames, (3, H, W) uint8 RGB, all of one size; raise `UserError` at an unreadable frame.

        positions: rising positions of the frames to yield; None for all. Image files at others are not opened.
        """
        ...

    def read_with_errors(self, positions: Sequence[int] | None = None) -> Iterator[Tensor | UserError]:
        """Yield the frames as `read` does, with the error in place of each unreadable frame."""
        ...


def read_resized_frames(video: Video, resolution: tuple[int, int]) -> Iterator[Tensor]:
    """Yield the frames of a video resized to `resolution` (height, width): (3, height, width) uint8."""
    for frame in video.read():
        yield resize(frame, resolution)


class AnnotatedFrames(NamedTuple):
    """A video in memory: all frames (3, H, W) uint8, the positions of those annotated, and their label maps (H, W)."""

    name: str
    frames: list[Tensor]
    annotated: list[int]
    maps: list[np.ndarray]


def read_annotated_frames(video: Video, resolution: tuple[int, int]) -> AnnotatedFrames:
    """Read a video, its frames resized to `resolution` (height, width), with its annotations if it has any."""
    names = set(video.annotations.frame_names) if video.annotations else ()
    annotated = [place for place, name in enumerate(video.frame_names) if name in names]
    maps = [video.annotations.read(video.frame_names[place]) for place in annotated]
    return AnnotatedFrames(video.name, list(read_resized_frames(video, resolution)), annotated, maps)


def compute_fingerprint(video: Video) -> str:
    """Return a text that changes with the content of a video, and of its optical flow if the user gave any."""
    return video.fingerprint + (f", flow {video.flow.digest()}" if video.flow else "")


def compute_display_shape(video: Video) -> tuple[float, float]:
    """Return the (height, width) of a video as displayed, in square pixels."""
    height, width = video.size
    return height, width * float(video.pixel_aspect)


def _raise_errors(frames: Iterator[Tensor | UserError]) -> Iterator[Tensor]:
    """Yield the frames up to the first error, and raise that."""
    for frame in frames:
        if isinstance(frame, UserError):
            raise frame
        yield frame


def _replace_other_sizes(frames: Iterator[tuple[str, Tensor | UserError]]) -> Iterator[Tensor | UserError]:
    """Replace every frame whose size differs from that of the first readable frame by an error.

    Args:
        frames: (source for error messages, frame (3, H, W) or its error).
    """
    size = None
    for source, frame in frames:
        if isinstance(frame, Tensor):
            size = size or frame.shape[1:]
            if frame.shape[1:] != size:
                frame = UserError(f"{source}: {format_size(frame.shape[1:])} pixels, but the frames before it have "
                                  f"{format_size(size)}; a video has frames of one size")  # fmt: skip
        yield frame


def _read_with_notes(video: "ImageVideo | VideoFile", positions: Sequence[int] | None) -> Iterator[Tensor]:
    """Yield the frames of a video; report each kind of conversion once for the video, as a note on stderr."""
    for frame in _raise_errors(video.read_with_errors(positions)):
        for conversion in video.conversions.keys() - video.reported:
            log_line(f"note: video {video.name}: {conversion}", all_processes=True)
        video.reported |= video.conversions.keys()
        yield frame


class ImageVideo(ABC):
    """Base class of videos kept as images.

    Attributes:
        conversions: the conversions of the last reading, see `FrameReader`.
        reported: the conversions that a note has named.
    """

    flow: FlowFiles | None = None
    frame_rate = DEFAULT_RATE
    pixel_aspect = Fraction(1)
    damage = None
    doubt = None
    root: Path | None = None

    def __init__(self, name: str):
        self.name = name
        self.annotations: Annotations | None = None
        self.conversions: Counter[str] = Counter()
        self.reported: set[str] = set()

    @abstractmethod
    def _open_reader(self) -> FrameReader:
        """Return a reader of all frames; raise `UserError` if there can be none."""

    @cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames, from the header of the first."""
        reader = self._open_reader()
        return read_image_size(reader.sources[0], reader.names[0])

    def read(self, positions: Sequence[int] | None = None) -> Iterator[Tensor]:
        """Yield the frames, (3, H, W) uint8 RGB; report each kind of conversion once, as a note on stderr.

        Raises:
            UserError: a frame is unreadable, or has another size than the first.
        """
        return _read_with_notes(self, positions)

    def read_with_errors(self, positions: Sequence[int] | None = None) -> Iterator[Tensor | UserError]:
        try:
            reader = self._open_reader()
        except UserError as error:
            yield error
            return
        reader.conversions.clear()
        self.conversions = reader.conversions
        positions = range(len(reader.names)) if positions is None else positions
        yield from _replace_other_sizes((str(reader.names[i]), _read_or_error(reader, i)) for i in positions)


class FrameFolder(ImageVideo):
    """A video kept as image files in one folder."""

    def __init__(self, name: str, paths: list[Path]):
        super().__init__(name)
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

    def _open_reader(self) -> FrameReader:
        return self._reader


def _read_or_error(reader: FrameReader, index: int) -> Tensor | UserError:
    try:
        return reader.read(index)
    except UserError as error:
        return error


class VideoFile:
    """A video kept as a video file, which is decoded once to its end to find all damage (see `data.decoding`).

    Frames are named by their positions in the video, 00000, 00001, ...; undecodable frames are left out.

    Args:
        trust_index: where the file has an index of all frames, do not decode it first. `read` then raises the damage.
    """

    root: Path | None = None

    def __init__(self, name: str, path: Path, *, trust_index: bool = False):
        self.name = name
        self.path = path
        self.annotations = None
        self.flow: FlowFiles | None = None
        self.contents = scan_with_bar(path, trust_index=trust_index)
        self.frame_rate = self.contents.rate
        self.pixel_aspect = self.contents.pixel_aspect
        self.reported: set[str] = set()  # the conversions that a note has named

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
    def conversions(self) -> Counter[str]:
        """The conversions of the last reading, as in `ImageVideo`."""
        return self.contents.reader.conversions

    @property
    def damage(self) -> str | None:
        """How many frames cannot be decoded, and which as far as known; None if no damage has been found."""
        contents = self.contents
        if contents.missing:
            missing = format_ranges(sorted(set(range(contents.total)) - set(contents.positions)), most=3)
            counts = f"{contents.missing} of {contents.total} frames cannot be decoded, {missing} (counted from 0)"
            return f"{self.path}: {counts}; the file is damaged or cut short"
        if contents.faults:
            places = f"{contents.faults} places cannot be decoded"
            return f"{self.path}: {places}, though none of {contents.total} frames is lost"
        return None

    @property
    def doubt(self) -> str | None:
        """How many frames may be missing, and where; None if the times of the frames have no gaps."""
        if not (gaps := self.contents.gaps):
            return None
        where = f"after frame{'s' * (len(gaps) > 1)} {format_ranges(sorted(gaps), most=3)} (counted from 0)"
        return (f"{self.path}: about {sum(gaps.values())} frames may be missing {where}; the file does not state how "
                "many it had, so it is taken as whole; if it is not, copy it again")  # fmt: skip

    def read(self, positions: Sequence[int] | None = None) -> Iterator[Tensor]:
        """Yield the decodable frames, (3, H, W) uint8 RGB, counted without the others; report conversions once.

        Raises:
            UserError: the file has changed since it was opened, or is damaged and its index was trusted.
        """
        return _read_with_notes(self, positions)

    def read_with_errors(self, positions: Sequence[int] | None = None) -> Iterator[Tensor | UserError]:
        """Yield the frames as `read` does, but an error instead of raising it; it is always the last item."""
        done, count, is_whole = 0, len(self.contents.positions), False
        wanted = range(count) if positions is None else set(positions)
        self.conversions.clear()
        with suppress(CannotDecode, OSError, ValueError):  # PyAV's errors derive from OSError or ValueError
            for done, frame in enumerate(self.contents.reader.decode(self.path), 1):
                if done - 1 in wanted:
                    yield torch.from_numpy(frame).permute(2, 0, 1)
            is_whole = done == count
        if not is_whole:
            yield self._explain_failure(done)

    def _explain_failure(self, done: int) -> UserError:
        """Explain why other frames than expected, `done` of them, were decoded; decodes a trusted file completely."""
        count = len(self.contents.positions)
        if self.contents.from_index:
            try:
                self.contents = scan_with_bar(self.path)
            except UserError as error:
                return error
            if self.damage:
                return UserError(f"{self.damage}: {MEND_DAMAGE}")
        return UserError(f"{self.path}: {done} frames now, {count} before; leave the file alone while it is read")


def refuse_damaged_videos(videos: list[Video], *, allow_damaged: bool = False) -> None:
    """Refuse videos of which a part cannot be read, or warn about each of them if `allow_damaged`.

    Videos of which frames may be missing are never refused, but a warning says so.

    Raises:
        UserError: a video is damaged; the message describes the damage of the first.
    """
    for damage in filter(None, (video.damage for video in videos)):
        if not allow_damaged:
            raise UserError(f"{damage}: {MEND_DAMAGE}")
        log_line(f"warning: {damage}; going on without them")
    for doubt in filter(None, (video.doubt for video in videos)):
        log_line(f"warning: {doubt}")


class RecordVideo(ImageVideo):
    """A video kept as PNGs within one record of a TFRecord file, as TensorFlow Datasets stores MOVi.

    Frames are named by their positions, 00000, 00001, ...
    """

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

    def _open_reader(self) -> FrameReader:
        images = read_byte_features(self.record, RECORD_KEYS)[self.KEY]
        names = [f"{self.record}, frame {name}" for name in self.frame_names]
        return FrameReader(images, names, mend=MEND)
