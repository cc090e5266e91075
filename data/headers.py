"""Check the sizes of frames and annotations from the headers of the image files, before any file is decoded."""

from collections.abc import Iterable, Iterator

from data.annotations import FbmsOriginal, MergedMasks, RleVideo
from data.frames import format_size, read_image_size
from data.videos import FrameFolder, Video
from utils.errors import UserError
from utils.scoring.annotations import Annotations, LabelFiles


def check_sizes(videos: Iterable[Video]) -> None:
    """Refuse videos with frames of several sizes, and annotations of another size than their frame.

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
