"""Reading image files as they are meant: 8-bit RGB, and in words what was done to get there; the rest is refused."""

import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.names import natural_key

# Of damaged tags, which hide no picture; the user can do nothing about them.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")
# What is taken for an image file. Not every Pillow reads all of them: one that cannot be read is refused by name.
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".avif", ".heic", ".heif"}
# What Pillow raises for damaged files. A damaged TIFF alone can raise any but the first three.
FAULTS = (
    OSError, SyntaxError, Image.DecompressionBombError, ValueError, TypeError, LookupError, EOFError, OverflowError,
    struct.error, zlib.error, cv2.error,
)  # fmt: skip
DEEPEST = 65535  # the largest value of a picture of 16 bits
STRAY = 1e-4  # the share of pixels at either end that may be dead ones, a few in a frame of a thermal camera
ORIENTATION = 0x0112  # the tag of EXIF and TIFF
WHITE_IS_ZERO = 0  # of TIFF's PhotometricInterpretation


class PictureError(ValueError):
    """A file that is no picture to be read. `mend`: what helps, where it is not to restore the file."""

    def __init__(self, reason: str, mend: str | None = None):
        super().__init__(reason)
        self.mend = mend


class Picture(NamedTuple):
    """What an image file holds.

    values: (H, W, 3) uint8 RGB, ready; or of more than 8 bits (H, W) or (H, W, 3) uint16, for `to_rgb`.
    alpha: (H, W) uint16 of values that are uint16 and not all opaque, else None.
    kinds: what it is beside plain 8-bit grey, colours or palette, each as `what; what was done`.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    kinds: tuple[str, ...] = ()

    @property
    def is_deep(self) -> bool:
        return self.values.dtype == np.uint16


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder in the order of their numbers (2.png before 10.png), without hidden ones and folders."""
    with os.scandir(folder) as entries:  # it knows which are folders without asking for each
        names = [entry.name for entry in entries if not entry.is_dir() and not entry.name.startswith(".")]
    images = [path for path in map(folder.joinpath, names) if path.suffix.lower() in SUFFIXES]
    return sorted(images, key=lambda path: natural_key(path.name))


# ------------------------------------------------------------------ reading


def read_picture(source: Path | bytes) -> Picture:
    """Decode an image file, or the bytes of one, whole.

    Alpha is composited over white; the orientation of EXIF is applied; of 16-bit grey and colour all bits are kept.

    Raises:
        PictureError: missing, truncated or damaged; animated or of several pages; of values that have no range, as
            floating-point ones.
    """
    try:
        return _decode(source)
    except UnidentifiedImageError:
        raise PictureError(*_what_it_is(source)) from None
    except PictureError:
        raise
    except FAULTS as error:
        raise PictureError((str(error) or repr(error)).splitlines()[0]) from error


def _decode(source: Path | bytes) -> Picture:
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        refuse_several(image)
        is_deep = _has_deep_colours(image)
        turn = _orientation(image)
        image.load()
        kinds = ["EXIF orientation; turned upright"] if turn > 1 else []
        if image.mode == "I" or image.mode.startswith("I;16"):
            values, alpha = _deep_grey(image)
            kinds.append("16-bit grey")
        elif is_deep and image.mode in ("RGB", "RGBA", "LA"):
            values, alpha = _deep_colours(image, source, turn)
            kinds.append("16-bit colour")
        else:
            values, alpha = _eight_bits(image, kinds), None
        turn = _orientation(image)  # Pillow turns a TIFF itself
    if alpha is not None:
        kinds.append(COMPOSITED)
        alpha = _turned(alpha, turn)
    return Picture(_turned(values, turn), alpha, tuple(kinds))


COMPOSITED = "alpha; composited over white"


def _eight_bits(image: Image.Image, kinds: list[str]) -> np.ndarray:
    """(H, W, 3) uint8; what was done is added to `kinds`."""
    if image.mode == "F":
        raise PictureError("32-bit floating point", "save it with 8 or 16 bits")
    if image.mode.lower() in ("rgba", "la", "pa") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] < 255:
            kinds.append(COMPOSITED)
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode not in ("1", "L", "P", "RGB", "RGBX"):
        kinds.append(f"{image.mode}; turned to RGB{', without its profile' if image.mode == 'CMYK' else ''}")
    return np.array(image.convert("RGB"))


def _deep_grey(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Values (H, W) uint16, and alpha as in `Picture`."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > DEEPEST:
        raise PictureError(f"32-bit values {values.min()} to {values.max()}", "save it with 8 or 16 bits, from 0")
    values = values.astype(np.uint16)
    clear = image.info.get("transparency")
    alpha = None if clear is None else np.where(values == clear, 0, DEEPEST).astype(np.uint16)
    if getattr(image, "tag_v2", {}).get(262) == WHITE_IS_ZERO:
        values = DEEPEST - values
    return values, alpha if alpha is not None and not alpha.all() else None


def _deep_colours(image: Image.Image, source: Path | bytes, turn: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Values (H, W, 3) uint16, and alpha as in `Picture`. By OpenCV: Pillow keeps only the upper eight bits."""
    content = source if isinstance(source, bytes) else source.read_bytes()
    values = None
    if image.format != "TIFF" or turn == 1:  # versions of OpenCV differ in which they turn
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3 or values.shape[1::-1] != image.size:
        raise PictureError(f"16-bit {image.mode} of a rare kind", "save it as 16-bit PNG")
    alpha = values[..., 3] if values.shape[2] == 4 else None
    return values[..., 2::-1], alpha if alpha is not None and alpha.min() < DEEPEST else None


def refuse_several(image: Image.Image) -> None:
    """Refuse an open image of several pictures: an animation, or pages. Smaller copies of the first are none.

    Raises `PictureError`.
    """
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format == "MPO":  # a phone's JPEG with a depth or gain map after it
        return
    if image.format == "TIFF":
        count = sum(not _is_reduced(image, page) for page in range(count))
        image.seek(0)
    if count > 1:
        what = "pages" if image.format == "TIFF" else "animated"
        raise PictureError(f"{what}: {count} pictures in one file", "save one picture a file, or a video file of them")


def _is_reduced(image: Image.Image, page: int) -> bool:
    """Whether a page of a TIFF is a smaller copy of another, or a mask of it, as its NewSubfileType (254) says."""
    image.seek(page)
    return bool(image.tag_v2.get(254, 0) & 5)


def _has_deep_colours(image: Image.Image) -> bool:
    """Whether the file has more than 8 bits a channel, which Pillow's modes of colours do not say."""
    how = image.tile[0][3] if image.tile else ""  # "RGB;16B", or that and more
    if image.format == "PPM" and isinstance(how, tuple) and isinstance(how[1], int):
        return how[1] > 255  # the largest value
    return ";16" in (how if isinstance(how, str) else str(how[0]))


def _orientation(image: Image.Image) -> int:
    """1 (upright) to 8, as EXIF numbers them."""
    try:
        turn = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged tag raises anything; viewers show such a picture as it is stored
        return 1
    return turn if turn in range(1, 9) else 1


def _turned(values: np.ndarray, turn: int) -> np.ndarray:
    """(H, W, ...) turned upright: what EXIF's orientation asks for."""
    if turn >= 5:
        values = values.swapaxes(0, 1)
    down, right = (-1 if turn in (3, 4, 7, 8) else 1), (-1 if turn in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(values[::down, ::right])


# ------------------------------------------------------------------ more than 8 bits


def value_range(pictures: Iterable[Picture]) -> tuple[int, int]:
    """Which values of pictures of more than 8 bits become 0 and 255, for all of these pictures: (low, high).

    All values of as few bits as hold the largest: a sensor of 12 bits fills only 0 to 4095 of 16, and a picture that
    fills its bits keeps the brightness of its 8-bit copy. Where values lie within a quarter of that, as those of a
    thermal camera do, the smallest and the largest. 0 and 65535, which often say that nothing was measured, and as few
    pixels as are dead ones (`STRAY`) do not count.
    """
    counts = np.zeros(DEEPEST + 1, np.int64)
    for picture in pictures:
        seen = picture.values if picture.alpha is None else picture.values[picture.alpha > 0]
        counts += np.bincount(seen.ravel(), minlength=len(counts))
    counts[[0, -1]] = 0
    if not counts.any():
        return 0, DEEPEST
    below = np.cumsum(counts)
    stray = int(STRAY * below[-1])
    smallest, largest = int(np.searchsorted(below, stray + 1)), int(np.searchsorted(below, below[-1] - stray))
    ceiling = 2 ** max(largest.bit_length(), 8) - 1
    if ceiling == 255 or largest - smallest > ceiling // 4:
        return 0, ceiling
    if largest - smallest < 255:  # no value is spread over two greys: it would be noise that shows
        smallest = max((smallest + largest) // 2 - 127, 0)
        return smallest, smallest + 255
    return smallest, largest


def to_rgb(picture: Picture, low: int, high: int) -> np.ndarray:
    """(H, W, 3) uint8 of a picture of more than 8 bits: `low` becomes 0, `high` 255, what lies beyond is clipped."""
    table = np.rint((np.arange(DEEPEST + 1) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)
    values = table[picture.values]
    values = np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values
    if picture.alpha is None:
        return values
    opacity = picture.alpha[..., None] / np.float32(DEEPEST)
    return np.rint(opacity * values + (1 - opacity) * 255).astype(np.uint8)


# ------------------------------------------------------------------ what is no picture

_HEADS = {
    b"<": ("an HTML or XML page", "download it again"),
    b"version https://git-lfs": ("a Git LFS pointer", "fetch it with git lfs pull"),
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


def _what_it_is(source: Path | bytes) -> tuple[str, str | None]:
    """What a file is that Pillow does not know, by how it begins, and the mend."""
    head = source[:32] if isinstance(source, bytes) else _head(source)
    if not head:
        return "an empty file", None
    if head[4:8] == b"ftyp":  # the boxes that MP4 has too
        return _BRANDS.get(head[8:12], ("a video file", "give the video file itself"))
    known = (found for start, found in _HEADS.items() if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(start))
    return next(known, ("of no known image format", None))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(32)
