"""Read annotations kept as image files: label PNGs, and binary masks of a foreground."""

from pathlib import Path

import numpy as np
from PIL import Image

from utils.errors import UserError
from utils.files import digest_files
from utils.names import list_folders
from utils.pictures import format_size, list_images
from utils.png import find_pngs, read_label_png
from utils.scoring.annotations import LabelFiles

_COLOUR_MODES = ("RGB", "RGBA", "LA")
_LOSSLESS_SUFFIXES = (".png", ".bmp")  # of masks


class MergedMasks:
    """Read masks of a single foreground: every pixel above 0 in any mask of a frame belongs to it; nothing is void.

    Args:
        files: name of a frame -> its masks, one for the frame or one for each object.
    """

    def __init__(self, files: dict[str, tuple[Path, ...]]):
        self.files = files

    @property
    def frame_names(self) -> list[str]:
        return list(self.files)

    def read(self, frame: str) -> np.ndarray:
        masks = [_read_mask(path) for path in self.files[frame]]
        for path, mask in zip(self.files[frame], masks, strict=True):
            if mask.shape != masks[0].shape:
                raise UserError(f"{path}: {format_size(mask.shape)} pixels, but {self.files[frame][0]} has "
                                f"{format_size(masks[0].shape)}; restore these masks")  # fmt: skip
        return np.any(masks, axis=0).astype(np.int32)

    def source(self, frame: str) -> str:
        return str(self.files[frame][0])

    def digest(self) -> str:
        return digest_files([path for paths in self.files.values() for path in paths], "merged")


def _read_mask(path: Path) -> np.ndarray:
    """Read where a mask is above 0, as (H, W) bool.

    Grey stored as RGB, as in SegTrack, is accepted. Colours are refused, and so is alpha, since transparent pixels
    could be foreground or background.
    """
    try:
        with Image.open(path) as image:
            mode = image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        mode = None  # `read_label_png` explains what is wrong
    if mode not in _COLOUR_MODES:
        return read_label_png(path) > 0
    colours = read_unconverted(path)
    if (colours != colours[0]).any():
        raise UserError(f"{path}: an image of mode {mode} in colours holds no mask; save it in grey or indexed")
    return colours[0] > 0


def read_unconverted(path: Path) -> np.ndarray:
    """Read an image as (3, H, W) uint8. Raises `UserError` if its values would have to be converted."""
    from data.frames import FrameReader  # imports torch, which the other annotations do without

    reader = FrameReader([path])
    values = reader.read(0).numpy()
    if reader.conversions:
        kind = next(iter(reader.conversions)).partition(";")[0]
        raise UserError(f"{path}: {kind} in a mask; save it in grey or indexed, with 8 bits")
    return values


def find_frame_labels(folder: Path, frames: list[str], *, ending: str = "") -> LabelFiles:
    """Find the label PNGs `<frame><ending>.png` of a folder."""
    pngs = find_pngs(folder).items()
    return LabelFiles({name.removesuffix(ending): path for name, path in pngs if name.endswith(ending)})


def find_merged_masks(folder: Path, frames: list[str]) -> MergedMasks:
    """Find the masks in a folder, or in its folders of one object each; a mask is called `<frame>` or `<frame>_gt`."""
    if files := _find_masks(folder, frames):
        return MergedMasks({frame: (path,) for frame, path in files.items()})
    folders = list_folders(folder)
    objects = [_find_masks(path, frames) for path in folders]
    for path, masks in zip(folders, objects, strict=True):
        if stray := sorted(masks.keys() ^ objects[0].keys()):
            raise UserError(f"{path}: not the same frames as {folders[0]}; first without a partner: {stray[0]}; "
                            "complete the download")  # fmt: skip
    names = objects[0] if objects else {}
    return MergedMasks({name: tuple(masks[name] for masks in objects) for name in names})


def _find_masks(folder: Path, frames: list[str]) -> dict[str, Path]:
    """Find the masks directly in a folder: name of the frame -> mask."""
    known, found = set(frames), {}
    for path in list_images(folder):
        if path.suffix.lower() in _LOSSLESS_SUFFIXES:
            name = path.stem if path.stem in known else path.stem.removesuffix("_gt")
            if found.setdefault(name, path) != path:
                raise UserError(f"{path}: {found[name].name} is a mask of the same frame; keep one")
    return found
