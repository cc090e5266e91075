"""What a report shows of a video beside its masks: frames and ground truth."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from utils.errors import UserError
from utils.files import digest_files
from utils.names import list_folders
from utils.pictures import PictureError, find_value_range, list_images, read_picture, to_rgb
from utils.png import find_pngs
from utils.scoring.annotations import Annotations, find_label_files
from utils.video import DEFAULT_RATE


class Source(Protocol):
    """A video as `data.videos.Video` gives it; here only what a report needs of it.

    Attributes:
        fingerprint: a text that changes with the content of the video.
        annotations: ground truth of some or all frames, or None.
        pixel_aspect: width of a pixel divided by its height.
    """

    name: str
    frame_names: list[str]
    frame_rate: Fraction
    pixel_aspect: Fraction
    fingerprint: str
    annotations: Annotations | None

    def read(self, positions: Sequence[int]) -> Iterator[Any]:
        """Yield the frames at rising positions, (3, H, W) uint8 RGB, as tensors or arrays."""
        ...


class FolderSource:
    """The frames and ground truth of one video of results, in folders that the user names.

    Args:
        masks: folder of the video's label PNGs; there is a frame for each of them.
        frames: folder with one folder of image files for each video, or None: the report then shows masks alone.
        annotations: folder with one folder of label PNGs for each video, or None.

    Raises:
        UserError: the folder of frames lacks the video or a frame of it.
    """

    frame_rate = DEFAULT_RATE
    pixel_aspect = Fraction(1)

    def __init__(self, masks: Path, *, frames: Path | None, annotations: Path | None):
        self.name = masks.name
        self.frame_names = list(find_pngs(masks))
        self.paths = None if frames is None else _find_frames(frames / self.name, self.frame_names)
        self.annotations = None
        if annotations is not None and (annotations / self.name).is_dir():
            self.annotations = find_label_files(annotations / self.name)

    @cached_property
    def fingerprint(self) -> str:
        return "" if self.paths is None else digest_files(self.paths)

    def read(self, positions: Sequence[int]) -> Iterator[np.ndarray | None]:
        """Yield the frames at rising positions, (3, H, W) uint8 RGB, or None for each if there are none."""
        for position in positions:
            yield None if self.paths is None else _read_rgb(self.paths[position]).transpose(2, 0, 1)


def list_masks(predictions: Path) -> list[Path]:
    """List the folders of label PNGs in a folder of predictions, in natural order."""
    return [folder for folder in list_folders(predictions) if find_pngs(folder)]


def _find_frames(folder: Path, names: list[str]) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"--frames {folder.parent}: holds no folder {folder.name}; give one folder of frames a video")
    there = {path.stem: path for path in list_images(folder)}
    if missing := [name for name in names if name not in there]:
        raise UserError(f"--frames {folder}: lacks frame {missing[0]} of the results; give the frames of these masks")
    return [there[name] for name in names]


def _read_rgb(path: Path) -> np.ndarray:
    """Read an image file, (H, W, 3) uint8."""
    try:
        picture = read_picture(path)
    except PictureError as error:
        raise UserError(f"{path}: {error}; {error.mend or 'restore this frame'}") from None
    return to_rgb(picture, *find_value_range([picture])) if picture.is_deep else picture.values
