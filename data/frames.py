"""Reading frames: image files, strictly; resizing to the network's resolution."""

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from utils.errors import UserError
from utils.names import natural_key

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"}


class UnreadableImage(UserError):
    """An image file that cannot be decoded whole."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path}: not a readable image ({reason}); restore or remove this frame")
        self.path = path


def read_image(path: Path) -> Tensor:
    """An image file as (3, H, W) uint8 RGB.

    Raises:
        UnreadableImage: the file is missing, truncated or damaged. A decoder that fills the missing part with grey,
            as OpenCV's does, would let it pass.
    """
    try:
        with Image.open(path) as image:
            array = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableImage(path, str(error).splitlines()[0]) from error
    return torch.from_numpy(array).permute(2, 0, 1)


def image_size(path: Path) -> tuple[int, int] | None:
    """(height, width) of an image as it is shown, from its header alone; None where that cannot be read."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return image.size if turned else image.size[::-1]
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError):
        return None


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
    (assets/results.md).
    """
    if tuple(image.shape[-2:]) == tuple(resolution):
        return image
    height, width = resolution
    resized = cv2.resize(image.permute(1, 2, 0).numpy(), (width, height), interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(resized).permute(2, 0, 1)


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder in the order of their numbers (2.png before 10.png), hidden ones left out."""
    images = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    return sorted(images, key=lambda path: natural_key(path.name))
