"""Reading frames: image files, strictly; resizing to the network's resolution."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as VF

from utils.errors import UserError

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


def resize(image: Tensor, resolution: tuple[int, int]) -> Tensor:
    """(..., 3, H, W) uint8 to `resolution` (height, width), bilinear with antialiasing, uint8."""
    if tuple(image.shape[-2:]) == tuple(resolution):
        return image
    return VF.resize(image, list(resolution), antialias=True)


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder in name order, hidden ones left out."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
