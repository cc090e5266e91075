"""Reading frames: image files, strictly, those of a video alike; resizing to the network's resolution."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError
from utils.pictures import Picture, PictureError, read_picture, to_rgb, value_range
from utils.pictures import list_images as list_images

PROBES = 16  # frames that say which values a video of more than 8 bits has


class UnreadableImage(UserError):
    """An image file that cannot be decoded whole, or not as it is meant."""

    def __init__(self, path: Path, reason: str, mend: str = "restore or remove this frame"):
        super().__init__(f"{path}: not a readable image ({reason}); {mend}")
        self.path = path


class FrameReader:
    """Reads the image files of one video alike: those of more than 8 bits are brought to 8 by one range of values.

    That range is of `PROBES` frames spread over the video, so that reading any frame needs no other than these, a
    frame looks the same whichever others are read, and brightness does not flicker. See `utils.pictures.value_range`.

    Args:
        sources: image files, or their bytes.
        names: of them, for messages; the files themselves if not given.
        mend: what helps against a damaged one.

    Attributes:
        kinds: what was read beside plain 8-bit pictures, as `what; what was done` -> frames.
    """

    def __init__(
        self, sources: Sequence[Path | bytes], names: Sequence[object] | None = None,
        mend: str = "restore or remove this frame",
    ):  # fmt: skip
        self.sources = sources
        self.mend = mend
        self.names = sources if names is None else names
        self.kinds: Counter[str] = Counter()

    def read(self, index: int) -> Tensor:
        """Frame `index`, (3, H, W) uint8 RGB.

        Raises:
            UnreadableImage: the file is missing, truncated or damaged (a decoder that fills the missing part with
                grey, as OpenCV's does, would let it pass), animated, or of values without a range.
        """
        picture = self._open(index)
        values = to_rgb(picture, *self.value_range) if picture.is_deep else picture.values
        self.kinds.update(map(self._describe, picture.kinds))
        return torch.from_numpy(values).permute(2, 0, 1)

    @cached_property
    def value_range(self) -> tuple[int, int]:
        """The values that become 0 and 255, in frames of more than 8 bits."""
        places = np.linspace(0, len(self.sources) - 1, min(PROBES, len(self.sources))).round().astype(int)
        return value_range(picture for picture in map(self._probe, places) if picture and picture.is_deep)

    def _open(self, index: int) -> Picture:
        try:
            return read_picture(self.sources[index])
        except PictureError as error:
            raise UnreadableImage(self.names[index], str(error), error.mend or self.mend) from error

    def _probe(self, index: int) -> Picture | None:
        try:
            return self._open(index)
        except UnreadableImage:  # told when this frame itself is read
            return None

    def _describe(self, kind: str) -> str:
        return kind if ";" in kind else "{}; values {} to {} become 0 to 255".format(kind, *self.value_range)


def read_image(path: Path) -> Tensor:
    """An image file by itself as (3, H, W) uint8 RGB; of a video use `FrameReader`. Raises `UnreadableImage`."""
    return FrameReader([path]).read(0)


def is_readable(path: Path) -> bool:
    """Whether `read_image` takes the file."""
    try:
        read_image(path)
    except UnreadableImage:
        return False
    return True


def resize(image: Tensor, resolution: tuple[int, int]) -> Tensor:
    """(3, H, W) uint8 to `resolution` (height, width), uint8: bilinear, without antialiasing.

    Clusters are sensitive to how frames are resized; this way comes closest to the reference's scores
    (docs/results.md).
    """
    if tuple(image.shape[-2:]) == tuple(resolution):
        return image
    height, width = resolution
    resized = cv2.resize(image.permute(1, 2, 0).numpy(), (width, height), interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(resized).permute(2, 0, 1)
