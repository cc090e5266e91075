"""Select the videos of a run: which data set, which of its videos, at which resolution."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from data.annotations.fbms import FbmsOriginal
from data.annotations.images import MergedMasks
from data.annotations.rle import RleVideo
from data.flow import FlowFiles
from data.frames import UnreadableImage, read_image_size
from data.loading import load_videos
from data.resolution import MAX_SHAPE_CHANGE, ResolutionRule, measure_shape_change
from data.videos import FrameFolder, Video, compute_display_shape
from utils.errors import UserError
from utils.pictures import format_size
from utils.progress import log_line
from utils.scoring.annotations import Annotations, LabelFiles
from utils.scoring.label_checks import check_labels

MOST_OPENED = 500  # videos whose shape is checked, because that opens a file of each


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which videos of a data set to evaluate. Fields are named as the flags are.

    clips: the user's own video files and folders, if named without a flag; `root` is then the first of them.
    root: folder of the data set, or a video file. root_flag: the flag that named it. videos: "A:B", by number.
    sequences: by name. annotations: folder of label PNGs. flow_path: folder of optical flow.
    allow_damaged: take what can be decoded of damaged files.
    """

    dataset: str
    clips: list[str]
    root: Path
    root_flag: str
    split: str
    videos: str | None
    sequences: list[str] | None
    annotations: Path | None
    flow_path: Path | None
    allow_damaged: bool

    @property
    def name(self) -> str:
        """The name of the split, with a suffix if only some of its videos are selected."""
        part = f"-{self.videos.replace(':', '-')}" if self.videos else ""
        return f"{self.split}{part}{'-selected' if self.sequences else ''}"

    def find_root(self, video: Video) -> Path:
        """Return the absolute path from which `load_videos` opens a video again."""
        return (video.root or self.root).absolute()

    def load(self) -> list[Video]:
        """List the videos; generates data sets that are generated.

        Raises:
            UserError: as `load_videos`, or a file of optical flow is missing.
        """
        videos = load_videos(
            self.dataset, self.root, split=self.split, flag=self.root_flag, sequences=self.sequences,
            videos=self.videos, annotations=self.annotations, allow_damaged=self.allow_damaged,
            clips=[Path(clip) for clip in self.clips],
        )  # fmt: skip
        if self.flow_path:
            for video in videos:
                video.flow = FlowFiles(self.flow_path / video.name, video.frame_names)
        return videos


def ground_truth(videos: Iterable[Video], protocols: Sequence[str]) -> dict[str, Annotations]:
    """Collect the annotations of the videos that have some, by name, as `protocols` read them.

    Raises:
        UserError: annotations that cannot be scored, see `check_labels`.
    """
    return check_labels({video.name: video.annotations for video in videos if video.annotations is not None}, protocols)


def check_sizes(videos: Iterable[Video]) -> None:
    """Refuse videos with frames of several sizes, and annotations of another size than their frame, from headers.

    Only videos kept as image files are checked. All other faults are found when the files are read.

    Raises:
        UserError: a file has another size, or is no image.
    """
    for video in videos:
        if not isinstance(video, FrameFolder):
            continue
        sizes = {path.stem: read_image_size(path) for path in video.paths}
        first = next(iter(sizes.values()))
        for path in video.paths:
            if sizes[path.stem] != first:
                raise UserError(f"{path}: {format_size(sizes[path.stem])} pixels, but the frames before it have "
                                f"{format_size(first)}; a video has frames of one size")  # fmt: skip
        for frame in video.annotations.frame_names if video.annotations else ():
            for source, size in _read_mask_sizes(video.annotations, frame):
                if size != first:
                    sizes = f"{format_size(size)} pixels, but its frame has {format_size(first)}"
                    raise UserError(f"{source}: {sizes}; restore one of them")


def _read_mask_sizes(annotations: Annotations, frame: str) -> Iterator[tuple[object, tuple[int, int]]]:
    """Yield (source, size) of the files of a frame's annotation; nothing if the size is only known after decoding."""
    if isinstance(annotations, RleVideo):
        yield annotations.source(frame), annotations.size
    elif isinstance(annotations, LabelFiles | FbmsOriginal):
        yield annotations.files[frame], read_image_size(annotations.files[frame])
    elif isinstance(annotations, MergedMasks):
        yield from ((path, read_image_size(path)) for path in annotations.files[frame])


def choose_resolutions(videos: Iterable[Video], rule: ResolutionRule) -> dict[str, tuple[int, int]]:
    """Choose the network's resolution (height, width) for each video; a note says where shapes change."""
    shapes = {video.name: compute_display_shape(video) for video in videos}
    if note := rule.describe_changes(shapes):
        log_line(f"note: {note}")
    return {name: rule.choose(shape) for name, shape in shapes.items()}


def warn_about_shapes(videos: dict[str, list[Path]], resolution: tuple[int, int]) -> None:
    """Say which training videos --resolution distorts; one holds for all videos, because clips are stacked.

    Args:
        videos: name -> frames. Of more than `MOST_OPENED` videos some are checked, spread evenly.
        resolution: (height, width).
    """
    names = list(videos)
    sample = names[:: -(-len(names) // MOST_OPENED)]
    sizes = {}
    for name in sample:
        with suppress(UnreadableImage):  # reported when the frame itself is read
            sizes[name] = read_image_size(videos[name][0])
    changes = {name: measure_shape_change(resolution, size) for name, size in sizes.items()}
    if odd := [name for name, change in changes.items() if change > MAX_SHAPE_CHANGE]:
        worst = max(odd, key=changes.get)
        checked = f"{len(sizes)} videos{' looked at' if len(sizes) < len(videos) else ''}"
        log_line("note: --resolution {} {}: changes the shape of {} of {} by more than a factor of {}, such as "
                 "{} of {}x{} by {:.2f}; clips of a batch have one shape".format(
                *resolution, len(odd), checked, MAX_SHAPE_CHANGE, worst, *sizes[worst], changes[worst]))  # fmt: skip
