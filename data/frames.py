"""Read image files as frames, all files of a video in the same way, and resize frames for the network."""

import io
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils.errors import UserError
from utils.pictures import ORIENTATION, Picture, PictureError, find_value_range, read_picture, to_rgb

NUM_PROBES = 16  # frames from which the value range of a 16-bit video is found


class UnreadableImage(UserError):
    """An image file that cannot be decoded to its last pixel, or not to the picture that was meant."""

    def __init__(self, path: Path, reason: str, mend: str = "restore or remove this frame"):
        super().__init__(f"{path}: not a readable image ({reason}); {mend}")
        self.path = path


class FrameReader:
    """Read the image files of one video, converting all 16-bit frames to 8 bits by the same range of values.

    The range is found from `NUM_PROBES` frames spread over the video (`utils.pictures.find_value_range`). So a frame
    looks the same whichever other frames are read, and brightness does not flicker.

    Args:
        sources: image files, or their bytes.
        names: names of the sources for error messages; by default the sources themselves.
        mend: what the user can do about a damaged source, for error messages.

    Attributes:
        conversions: `what the file held; what was done` -> number of frames; plain 8-bit pictures are not counted.
    """

    def __init__(
        self, sources: Sequence[Path | bytes], names: Sequence[object] | None = None,
        mend: str = "restore or remove this frame",
    ):  # fmt: skip
        self.sources = sources
        self.mend = mend
        self.names = sources if names is None else names
        self.conversions: Counter[str] = Counter()

    def read(self, index: int) -> Tensor:
        """Read frame `index` as (3, H, W) uint8 RGB.

        Raises:
            UnreadableImage: the file is missing, truncated, damaged, animated, or has values without a known range.
                Pillow notices this; OpenCV would fill the missing part with grey.
        """
        picture = self._open(index)
        values = to_rgb(picture, *self.value_range) if picture.is_deep else picture.values
        self.conversions.update(map(self._complete_description, picture.conversions))
        return torch.from_numpy(values).permute(2, 0, 1)

    @cached_property
    def value_range(self) -> tuple[int, int]:
        """(low, high): the values of 16-bit frames that become 0 and 255."""
        places = np.linspace(0, len(self.sources) - 1, min(NUM_PROBES, len(self.sources))).round().astype(int)
        return find_value_range(picture for picture in map(self._probe, places) if picture and picture.is_deep)

    def _open(self, index: int) -> Picture:
        try:
            return read_picture(self.sources[index])
        except PictureError as error:
            mend = None if isinstance(self.sources[index], bytes) else error.mend  # no file that the user could change
            raise UnreadableImage(self.names[index], str(error), mend or self.mend) from error

    def _probe(self, index: int) -> Picture | None:
        try:
            return self._open(index)
        except UnreadableImage:  # `read` reports it when it comes to this frame
            return None

    def _complete_description(self, conversion: str) -> str:
        """Add the value range to the description of a 16-bit picture, which `read_picture` cannot know."""
        if ";" in conversion:
            return conversion
        return "{}; values {} to {} become 0 to 255".format(conversion, *self.value_range)


def read_image_size(source: Path | bytes, name: object = None) -> tuple[int, int]:
    """Read the (height, width) in pixels of an image file from its header, turned as its EXIF orientation demands.

    Args:
        source: an image file, or its bytes.
        name: name of the source for error messages; by default the source itself.

    Raises:
        UnreadableImage: there is no such file, or it has no header of an image.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            width, height = image.size
            # For a PNG without EXIF before its pixels, `getexif` would decode the whole file in search of it.
            has_exif = image.format != "PNG" or "exif" in image.info
            on_its_side = has_exif and image.getexif().get(ORIENTATION, 1) in range(5, 9)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableImage(source if name is None else name, str(error).splitlines()[0]) from error
    return (width, height) if on_its_side else (height, width)


def is_readable(path: Path) -> bool:
    """Tell whether a file is a picture that can be read."""
    try:
        FrameReader([path]).read(0)
    except UnreadableImage:
        return False
    return True


def resize(image: Tensor, resolution: tuple[int, int]) -> Tensor:
    """Resize an image (3, H, W) uint8 to `resolution` (height, width), bilinearly and without antialiasing.

    Clusters are sensitive to how frames are resized; this way comes closest to the scores of the released
    implementation (docs/results.md).
    """
    if tuple(image.shape[-2:]) == tuple(resolution):
        return image
    height, width = resolution
    resized = cv2.resize(image.permute(1, 2, 0).numpy(), (width, height), interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(resized).permute(2, 0, 1)
