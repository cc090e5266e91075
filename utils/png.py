"""Read and write label maps as PNG files."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from utils.errors import UserError, is_out_of_memory
from utils.files import write_atomically
from utils.pictures import FAULTS, PictureError, list_images, refuse_multiple_pictures

MAX_INDEXED = 255
MAX_LABEL = 65535
_LABEL_MODES = ("1", "L", "P", "I", "I;16", "I;16B")


def make_palette() -> np.ndarray:
    """Make the DAVIS / PASCAL VOC colour map, (256, 3) uint8: the bits of an id go to R, G and B in turn."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    ids = np.arange(256)
    for bit in range(8):
        for channel in range(3):
            source = 3 * bit + channel
            if source < 8:
                colours[:, channel] |= (((ids >> source) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def write_label_png(path: str | os.PathLike, labels: np.ndarray) -> None:
    """Write a label map, (H, W) of any integer type, ids 0 (background) to 65535.

    Ids up to 255 are written as an indexed PNG (mode P) with `make_palette()`, which the DAVIS toolkit reads; larger
    ids, as under the `paper` protocol, as a 16-bit greyscale PNG whose grey value is the id.

    Raises:
        UserError: an id is too large for a PNG.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "iub":
        raise ValueError(f"a label map is (H, W) of integers, not {labels.shape} of {labels.dtype}")
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0 or high > MAX_LABEL:
        raise UserError(f"{path}: ids {low}..{high} do not fit a PNG (0..{MAX_LABEL}); write fewer proposals")
    with write_atomically(path) as temporary:
        _to_image(labels, high).save(temporary, format="PNG")


def _to_image(labels: np.ndarray, high: int) -> Image.Image:
    if high > MAX_INDEXED:
        return Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint16))
    image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8)).convert("L")
    image.putpalette(make_palette().tobytes())
    return image


def find_pngs(folder: Path) -> dict[str, Path]:
    """Find the PNGs of a folder: name without ending -> path, in natural order, without hidden files.

    Returns nothing for a missing folder.

    Raises:
        UserError: two files have the same name but for the ending (`.png`, `.PNG`).
    """
    found: dict[str, Path] = {}
    for path in list_images(folder) if folder.is_dir() else []:
        if path.suffix.lower() == ".png" and found.setdefault(path.stem, path) != path:
            raise UserError(f"{path}: {found[path.stem].name} has the same name but for its ending; keep one")
    return found


def read_label_png(path: str | os.PathLike) -> np.ndarray:
    """Read a label map, (H, W) int32, from a PNG of one channel: indexed, 1-bit, 8-bit or 16-bit grey.

    Raises:
        UserError: the file is missing, damaged, animated, a JPEG by its content, or has colours instead of ids.
    """
    try:
        with Image.open(path) as image:
            refuse_multiple_pictures(image)
            if fault := _why_no_ids(image):
                raise UserError(f"{path}: {fault}")
            return np.asarray(image).astype(np.int32)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; write this label map first") from None
    except PictureError as error:
        raise UserError(f"{path}: {error}; {error.mend}") from None
    except FAULTS as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"{path}: not a whole, readable PNG ({error}); write or copy it again") from None


def _why_no_ids(image: Image.Image) -> str | None:
    """Explain why an open image cannot hold object ids, with the mend; None if it can."""
    if image.format in ("JPEG", "MPO"):
        return "a JPEG, which changes ids; save them as indexed PNG"
    if image.mode in _LABEL_MODES:
        return None
    known = {tuple(colour) for colour in make_palette().tolist()}
    colours = image.convert("RGB").getcolors(len(known)) if image.mode in ("RGB", "RGBA") else None
    if colours and {colour for _, colour in colours} <= known:
        return f"an image of mode {image.mode} in the DAVIS palette's colours; save it as indexed PNG with that palette"
    return f"an image of mode {image.mode} holds no ids; save it as indexed PNG"
