"""Read image files as 8-bit RGB, or with all 16 bits, and describe every conversion; refuse all other files."""

import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.errors import is_out_of_memory
from utils.file_kinds import START, identify_foreign, read_start
from utils.names import sort_naturally

# Warnings about damaged TIFF tags: the picture can be read all the same, and the user cannot mend them.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")
# Suffixes of image files. Some versions of Pillow cannot read all of them; an error names the file then.
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".avif", ".heic", ".heif"}
# Exceptions that Pillow raises for damaged files; a damaged TIFF can raise any of them but the first three.
FAULTS = (
    OSError, SyntaxError, Image.DecompressionBombError, ValueError, TypeError, LookupError, EOFError, OverflowError,
    struct.error, zlib.error, cv2.error,
)  # fmt: skip
MAX_16_BIT = 65535
DEAD_PIXEL_SHARE = 1e-4  # of the pixels at either end of the values; a thermal camera has a few dead ones in a frame
ORIENTATION = 0x0112  # tag of EXIF and TIFF
PHOTOMETRIC_TAG, WHITE_IS_ZERO = 262, 0  # TIFF's PhotometricInterpretation and its value for inverted grey
SUBFILE_TYPE_TAG, REDUCED_OR_MASK = 254, 0b101  # TIFF's NewSubfileType; bits of smaller copies and of masks


class PictureError(ValueError):
    """A file that cannot be read as a picture. `mend` says what helps, if that is not to restore the file."""

    def __init__(self, reason: str, mend: str | None = None):
        super().__init__(reason)
        self.mend = mend


class Picture(NamedTuple):
    """Hold a decoded image file.

    values: (H, W, 3) uint8 RGB; or (H, W) or (H, W, 3) uint16 if the file has more than 8 bits, to be converted by
        `to_rgb`.
    alpha: (H, W) uint16 if `values` are uint16 and not all pixels are opaque, else None.
    conversions: one text for each conversion, `what the file held; what was done`; empty for a plain 8-bit picture.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    conversions: tuple[str, ...] = ()

    @property
    def is_deep(self) -> bool:
        return self.values.dtype == np.uint16


def list_images(folder: Path) -> list[Path]:
    """List the image files of a folder in natural order (2.png before 10.png), without hidden files and folders."""
    with os.scandir(folder) as entries:  # tells folders from files without a system call for each
        names = [entry.name for entry in entries if not entry.is_dir() and not entry.name.startswith(".")]
    return sort_naturally(path for path in map(folder.joinpath, names) if path.suffix.lower() in IMAGE_SUFFIXES)


# ------------------------------------------------------------------ reading


def read_picture(source: Path | bytes) -> Picture:
    """Decode an image file, or the bytes of one, to its last pixel.

    8-bit pictures with alpha are composited over white, the orientation of EXIF is applied, and 16-bit pictures keep
    all their bits.

    Raises:
        PictureError: the file is missing, truncated, damaged, animated, has several pages, or has values without a
            known range, such as floating-point ones.
    """
    try:
        return _decode(source)
    except UnidentifiedImageError:
        raise PictureError(*_identify_unreadable(source)) from None
    except PictureError:
        raise
    except FAULTS as error:
        if is_out_of_memory(error):
            raise
        raise PictureError((str(error) or repr(error)).splitlines()[0]) from error


def _decode(source: Path | bytes) -> Picture:
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        refuse_multiple_pictures(image)
        is_16_bit_colour = _has_16_bit_colours(image)
        turn = _read_orientation(image)
        image.load()
        conversions = ["EXIF orientation; turned upright"] if turn > 1 else []
        if image.mode == "I" or image.mode.startswith("I;16"):
            values, alpha = _read_16_bit_grey(image)
            conversions.append("16-bit grey")
        elif is_16_bit_colour and image.mode in ("RGB", "RGBA", "LA"):
            values, alpha = _read_16_bit_colours(image, source, turn)
            conversions.append("16-bit colour")
        else:
            values, alpha = _convert_to_8_bits(image, conversions), None
        turn = _read_orientation(image)  # 1 if Pillow has turned the picture itself, as it does for TIFF
    if alpha is not None:
        conversions.append(COMPOSITED)
        alpha = _turn_upright(alpha, turn)
    return Picture(_turn_upright(values, turn), alpha, tuple(conversions))


COMPOSITED = "alpha; composited over white"


def _convert_to_8_bits(image: Image.Image, conversions: list[str]) -> np.ndarray:
    """Return (H, W, 3) uint8; what was converted is appended to `conversions`."""
    if image.mode == "F":
        raise PictureError("32-bit floating point", "save it with 8 or 16 bits")
    if image.mode.lower() in ("rgba", "la", "pa") or "transparency" in image.info:
        return composite_over_white(image.convert("RGBA"), conversions)
    if image.mode not in ("1", "L", "P", "RGB", "RGBX"):
        conversions.append(f"{image.mode}; turned to RGB{', without its profile' if image.mode == 'CMYK' else ''}")
    return np.array(image.convert("RGB"))


def composite_over_white(image: Image.Image, conversions: list[str]) -> np.ndarray:
    """Return an RGBA image over white, (H, W, 3) uint8; append to `conversions` if any pixel is not opaque."""
    if image.getchannel("A").getextrema()[0] < 255:
        conversions.append(COMPOSITED)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _read_16_bit_grey(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Return values (H, W) uint16, and alpha as in `Picture`."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > MAX_16_BIT:
        raise PictureError(f"32-bit values {values.min()} to {values.max()}", "save it with 8 or 16 bits, from 0")
    values = values.astype(np.uint16)
    transparent = image.info.get("transparency")
    alpha = None if transparent is None else np.where(values == transparent, 0, MAX_16_BIT).astype(np.uint16)
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC_TAG) == WHITE_IS_ZERO:
        values = MAX_16_BIT - values
    return values, alpha if alpha is not None and not alpha.all() else None


def _read_16_bit_colours(image: Image.Image, source: Path | bytes, turn: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return values (H, W, 3) uint16, and alpha as in `Picture`. OpenCV reads them: Pillow keeps 8 of the 16 bits."""
    content = source if isinstance(source, bytes) else source.read_bytes()
    values = None
    if image.format != "TIFF" or turn == 1:  # whether OpenCV turns a TIFF depends on its version
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3 or values.shape[1::-1] != image.size:
        raise PictureError(f"16-bit {image.mode} of a rare kind", "save it as 16-bit PNG")
    alpha = values[..., 3] if values.shape[2] == 4 else None
    return values[..., 2::-1], alpha if alpha is not None and alpha.min() < MAX_16_BIT else None


def refuse_multiple_pictures(image: Image.Image) -> None:
    """Raise `PictureError` for an open image of several pictures: an animation, or pages.

    Smaller copies of a picture and masks of it, which TIFF keeps as pages, are not counted.
    """
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format == "MPO":  # a JPEG of a phone, followed by a depth map or gain map
        return
    if image.format == "TIFF":
        count = sum(not _is_copy_or_mask(image, page) for page in range(count))
        image.seek(0)
    if count > 1:
        what = "pages" if image.format == "TIFF" else "animated"
        raise PictureError(f"{what}: {count} pictures in one file", "save one picture a file, or a video file of them")


def _is_copy_or_mask(image: Image.Image, page: int) -> bool:
    """Tell whether a page of a TIFF is a smaller copy of another page or a mask of it."""
    image.seek(page)
    return bool(image.tag_v2.get(SUBFILE_TYPE_TAG, 0) & REDUCED_OR_MASK)


def _has_16_bit_colours(image: Image.Image) -> bool:
    """Tell whether a file has more than 8 bits a channel, which Pillow's modes of colour pictures do not show."""
    raw_mode = image.tile[0][3] if image.tile else ""  # such as "RGB;16B", alone or first in a tuple
    if image.format == "PPM" and isinstance(raw_mode, tuple) and isinstance(raw_mode[1], int):
        return raw_mode[1] > 255  # the largest value of the file
    return ";16" in (raw_mode if isinstance(raw_mode, str) else str(raw_mode[0]))


def _read_orientation(image: Image.Image) -> int:
    """Read the orientation of an open image as EXIF numbers it: 1 (upright) to 8."""
    try:
        turn = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged tag can raise anything; viewers show such a picture as it is stored
        return 1
    return turn if turn in range(1, 9) else 1


def _turn_upright(values: np.ndarray, turn: int) -> np.ndarray:
    """Turn and mirror an array (H, W, ...) as an EXIF orientation, 1 to 8, demands."""
    if turn >= 5:
        values = values.swapaxes(0, 1)
    down, right = (-1 if turn in (3, 4, 7, 8) else 1), (-1 if turn in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(values[::down, ::right])


# ------------------------------------------------------------------ 16 bits


def find_value_range(pictures: Iterable[Picture]) -> tuple[int, int]:
    """Choose which values of 16-bit pictures become 0 and 255: one (low, high) for all of them.

    Usually low is 0 and high the largest number of as many bits as the pictures use: a 12-bit sensor only gives values
    up to 4095. A picture that uses this range then looks as bright as its 8-bit copy. If all values lie within a
    quarter of this range, as those of a thermal camera do, low and high are the smallest and largest value. The values
    0 and 65535, which often mean "not measured", and as many pixels as may be dead (`DEAD_PIXEL_SHARE`) are ignored.
    """
    counts = np.zeros(MAX_16_BIT + 1, np.int64)
    for picture in pictures:
        visible = picture.values if picture.alpha is None else picture.values[picture.alpha > 0]
        counts += np.bincount(visible.ravel(), minlength=len(counts))
    counts[[0, -1]] = 0
    if not counts.any():
        return 0, MAX_16_BIT
    below = np.cumsum(counts)
    dead = int(DEAD_PIXEL_SHARE * below[-1])
    smallest, largest = int(np.searchsorted(below, dead + 1)), int(np.searchsorted(below, below[-1] - dead))
    ceiling = 2 ** max(largest.bit_length(), 8) - 1
    if ceiling == 255 or largest - smallest > ceiling // 4:
        return 0, ceiling
    if largest - smallest < 255:  # stretching fewer than 256 values over 256 greys would only show noise
        smallest = max((smallest + largest) // 2 - 127, 0)
        return smallest, smallest + 255
    return smallest, largest


def to_rgb(picture: Picture, low: int, high: int) -> np.ndarray:
    """Convert a 16-bit picture to (H, W, 3) uint8: `low` becomes 0, `high` 255, and values beyond them are clipped."""
    table = np.rint((np.arange(MAX_16_BIT + 1) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)
    values = table[picture.values]
    values = np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values
    if picture.alpha is None:
        return values
    opacity = picture.alpha[..., None] / np.float32(MAX_16_BIT)
    return np.rint(opacity * values + (1 - opacity) * 255).astype(np.uint8)


# ------------------------------------------------------------------ files that are no pictures

_HEADS = {
    b"\x76\x2f\x31\x01": ("OpenEXR", "save it with 8 or 16 bits"),
    b"#?RADIANCE": ("Radiance HDR", "save it with 8 or 16 bits"),
    b"%PDF": ("PDF", "save its pictures as PNG"),
    b"\xff\x0a": ("JPEG XL", "save it as JPEG or PNG"),
    b"\x00\x00\x00\x0cJXL ": ("JPEG XL", "save it as JPEG or PNG"),
    b"II*\x00": ("a TIFF of a kind that Pillow does not read", "save it as PNG, with 8 or 16 bits"),
    b"MM\x00*": ("a TIFF of a kind that Pillow does not read", "save it as PNG, with 8 or 16 bits"),
}
_BRANDS = {
    b"avif": ("AVIF, which this version of Pillow does not read", "update Pillow, or save it as JPEG or PNG"),
    b"avis": ("an animated AVIF", "save one picture a file"),
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), ("HEIC", "save it as JPEG or PNG")),
}


def _identify_unreadable(source: Path | bytes) -> tuple[str, str | None]:
    """Identify a file that Pillow cannot read by its first bytes; return what it is, and the mend if there is one."""
    start = source[:START] if isinstance(source, bytes) else read_start(source)
    if start[4:8] == b"ftyp":  # the container format of MP4, HEIC and AVIF
        return _BRANDS.get(start[8:12], ("a video file", "give the video file itself"))
    known = next((found for magic, found in _HEADS.items() if start.startswith(magic)), None)
    return known or identify_foreign(start, wanted="picture") or ("of no known image format", None)


def format_size(size: Sequence[int]) -> str:
    """Format (height, width) as "WIDTHxHEIGHT"."""
    return f"{size[1]}x{size[0]}"
