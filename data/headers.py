"""What the headers of image files say of their sizes: frames and masks that do not fit are known before any is read."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from data.annotations import FbmsOriginal, MergedMasks, RleVideo
from data.frames import UnreadableImage
from data.videos import FrameFolder, Video
from utils.errors import UserError
from utils.scoring.annotations import Annotations, LabelFiles

_ORIENTATION = 0x0112  # of EXIF; 5 to 8 lay the picture on its side


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels of an image file as it is shown.

    Raises:
        UnreadableImage: no such file, or no header of an image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            # A PNG without it in front would be decoded whole in search of it.
            has_exif = image.format != "PNG" or "exif" in image.info
            turned = has_exif and image.getexif().get(_ORIENTATION, 1) in range(5, 9)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableImage(path, str(error).splitlines()[0]) from error
    return (width, height) if turned else (height, width)


def check_sizes(videos: Iterable[Video]) -> None:
    """Refuse videos whose frames are of several sizes, and annotations of another size than their frame.

    Only files of one image each are looked at; what else is wrong shows when it is read.

    Raises:
        UserError: naming the first such file, or one that is no image.
    """
    for video in videos:
        if not isinstance(video, FrameFolder):
            continue
        sizes = {path.stem: image_size(path) for path in video.paths}
        first = next(iter(sizes.values()))
        for path in video.paths:
            if sizes[path.stem] != first:
                raise UserError(f"{path}: {_text(sizes[path.stem])} pixels, but the frames before it have "
                                f"{_text(first)}; a video has frames of one size")  # fmt: skip
        for frame in video.annotations.frame_names if video.annotations else ():
            for source, size in _mask_sizes(video.annotations, frame):
                if size != first:
                    raise UserError(f"{source}: {_text(size)} pixels, but its frame has {_text(first)}; restore one of "
                                    "them")  # fmt: skip


def _mask_sizes(annotations: Annotations, frame: str) -> Iterator[tuple[object, tuple[int, int]]]:
    """What the annotation of a frame is read from, with the sizes; nothing where only reading it would tell."""
    if isinstance(annotations, RleVideo):
        yield annotations.source(frame), annotations.size
    elif isinstance(annotations, LabelFiles | FbmsOriginal):
        yield annotations.files[frame], image_size(annotations.files[frame])
    elif isinstance(annotations, MergedMasks):
        yield from ((path, image_size(path)) for path in annotations.files[frame])


def _text(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
