"""Read the annotations of FBMS-59 as released: PGM and PPM images whose values a `*.dat` defines."""

import codecs
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np

from data.annotations.images import MergedMasks, find_merged_masks, read_unconverted
from utils.errors import UserError
from utils.files import digest_files
from utils.names import check_name


class FbmsOriginal:
    """Read the annotations of a sequence of FBMS-59 as released: a `*.dat` and a PGM or PPM per annotated frame.

    The `*.dat` gives each region its value: the grey value in a PGM, red * 65536 + green * 256 + blue in a PPM.
    Region 0 is the background, and so are values that the `*.dat` does not define, as in the official evaluation. All
    other regions are merged to one foreground object.

    Args:
        files: name of a frame -> its PGM or PPM, in order.
        objects: values of the regions that are objects.
    """

    def __init__(self, files: dict[str, Path], objects: tuple[int, ...]):
        self.files = files
        self.objects = objects

    @property
    def frame_names(self) -> list[str]:
        return list(self.files)

    def read(self, frame: str) -> np.ndarray:
        path = self.files[frame]
        red, green, blue = read_unconverted(path).astype(np.int32)
        values = red * 65536 + green * 256 + blue if path.suffix.lower() == ".ppm" else red
        return np.isin(values, self.objects).astype(np.int32)

    def source(self, frame: str) -> str:
        return str(self.files[frame])

    def digest(self) -> str:
        return digest_files(list(self.files.values()), "fbms", self.objects)


def find_fbms_annotations(folder: Path, frames: list[str]) -> FbmsOriginal | MergedMasks:
    """Find the annotations of a sequence of FBMS-59: as released if there is a `*.dat`, else as binary masks."""
    definitions = sorted(folder.glob("*.dat"))
    if not definitions:
        if stray := sorted(path for path in folder.iterdir() if path.suffix.lower() in (".pgm", ".ppm")):
            raise UserError(f"{folder}: {stray[0].name} but no *.dat that defines its regions; complete the download")
        return find_merged_masks(folder, frames)
    if len(definitions) > 1:
        raise UserError(f"{folder}: {definitions[0].name} and {definitions[1].name}; keep the definition of this video")
    return _open_fbms_original(definitions[0], frames)


def find_undefined_fbms_images(folder: Path, annotations: FbmsOriginal | MergedMasks) -> list[Path]:
    """List the PGM and PPM images of a sequence of FBMS-59 that its `*.dat` does not name."""
    if isinstance(annotations, MergedMasks):
        return []
    known = set(annotations.files.values())
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in (".pgm", ".ppm") and path not in known)


def _open_fbms_original(definition: Path, frames: list[str]) -> FbmsOriginal:
    values, entries = _parse_definition(definition)
    files = {}
    for number, truth, image in entries:
        path = definition.parent / check_name(truth, definition)
        if not path.is_file():
            raise UserError(f"{path}: no such file, but {definition.name} names it; complete the download")
        stem = PurePosixPath(image.replace("\\", "/")).stem
        if stem not in frames and not 0 <= number < len(frames):
            raise UserError(f"{definition}: annotates frame {number} ({image}) of a video of {len(frames)} frames; "
                            "complete the download")  # fmt: skip
        files[stem if stem in frames else frames[number]] = path
    return FbmsOriginal(files, tuple(values[1:]))


def _parse_definition(path: Path) -> tuple[list[int], list[tuple[int, str, str]]]:
    """Parse a `*.dat` of FBMS-59, in which each line `name of a value:` is followed by a line with the value.

    Returns:
        The values of the regions, and for each annotated frame (number from 0, file of the annotation, file of the
        frame).
    """
    text = path.read_bytes().removeprefix(codecs.BOM_UTF8).decode("latin-1")
    lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
    found = {"Scale of region": [], "Frame number": [], "File name": [], "Input file name": []}
    for line, value in pairwise(lines):
        for key in found:
            if line.startswith(key) and line.endswith(":"):
                found[key].append(value)
    values, numbers, truths, images = found.values()
    try:
        regions, entries = [int(value) for value in values], list(zip(map(int, numbers), truths, images, strict=True))
    except ValueError as error:
        raise UserError(f"{path}: not a ground truth definition of FBMS ({error}); download it again") from None
    if len(regions) < 2 or not entries:
        raise UserError(f"{path}: defines {len(regions)} regions and {len(entries)} frames; download it again")
    return regions, entries
