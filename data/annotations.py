"""Read annotations as the data sets store them: label images, binary masks, FBMS originals, RLE, TFRecords.

Every class here implements `utils.scoring.annotations.Annotations`: label maps with 0 for background, objects from 1
and 255 for void. The objects hold paths, not pixels, and can be pickled.
"""

import codecs
import hashlib
import io
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from pycocotools import mask as coco_masks

from data.frames import FrameReader, format_size
from data.tfrecord import Record, read_byte_features
from utils.errors import UserError, is_out_of_memory
from utils.files import digest_files
from utils.names import check_name
from utils.pictures import list_images
from utils.png import read_label_png
from utils.scoring.annotations import MAX_OBJECTS, VOID, LabelFiles

_COLOUR_MODES = ("RGB", "RGBA", "LA")
_LOSSLESS_SUFFIXES = (".png", ".bmp")  # of masks
AGAIN = "download or export the JSON again"


# ------------------------------------------------------------------ image files


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
    colours = _read_unconverted(path)
    if (colours != colours[0]).any():
        raise UserError(f"{path}: an image of mode {mode} in colours holds no mask; save it in grey or indexed")
    return colours[0] > 0


def _read_unconverted(path: Path) -> np.ndarray:
    """Read an image as (3, H, W) uint8. Raises `UserError` if its values would have to be converted."""
    reader = FrameReader([path])
    values = reader.read(0).numpy()
    if reader.conversions:
        kind = next(iter(reader.conversions)).partition(";")[0]
        raise UserError(f"{path}: {kind} in a mask; save it in grey or indexed, with 8 bits")
    return values


def find_label_files(folder: Path, frames: list[str], *, ending: str = "") -> LabelFiles:
    """Find the label PNGs `<frame><ending>.png` of a folder."""
    paths = [path for path in list_images(folder) if path.suffix.lower() == ".png" and path.stem.endswith(ending)]
    return LabelFiles({path.stem.removesuffix(ending): path for path in paths})


def find_merged_masks(folder: Path, frames: list[str]) -> MergedMasks:
    """Find the masks in a folder, or in its folders of one object each; a mask is called `<frame>` or `<frame>_gt`."""
    if files := _find_masks(folder, frames):
        return MergedMasks({frame: (path,) for frame, path in files.items()})
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
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


# ------------------------------------------------------------------ FBMS-59 as released


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
        red, green, blue = _read_unconverted(path).astype(np.int32)
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


# ------------------------------------------------------------------ JSON with RLE masks


@dataclass(frozen=True)
class Track:
    """An object in a JSON: one segmentation for each frame, empty where it is not visible. A crowd counts as void."""

    segmentations: tuple
    is_crowd: bool = False


class RleVideo:
    """Decode the masks of one video of YouTube-VIS: compressed or uncompressed RLE, or polygons.

    Where objects overlap, the later one in the JSON is on top.

    Args:
        name: name of the video, for error messages.
        frames: names of its frames.
        size: (height, width) in pixels.
        tracks: its objects; those that are no crowd get the ids 1, 2, ... in this order.
        origin: the JSON file, for error messages.
    """

    def __init__(self, name: str, frames: list[str], size: tuple[int, int], tracks: list[Track], origin: Path):
        self.name = name
        self.size = size
        self.tracks = tracks
        self.origin = origin
        self._positions = {frame: index for index, frame in enumerate(frames)}

    @property
    def frame_names(self) -> list[str]:
        return list(self._positions)

    def read(self, frame: str) -> np.ndarray:
        labels = np.zeros(self.size, np.int32)
        # Crowds are drawn first, so that void never covers an object.
        ordered = [track for track in self.tracks if track.is_crowd] + [t for t in self.tracks if not t.is_crowd]
        identity = 0
        for track in ordered:
            identity += not track.is_crowd
            segmentation = track.segmentations[self._positions[frame]]
            if is_visible(segmentation):
                mask = decode_segmentation(segmentation, self.size, self.source(frame))
                labels[mask] = VOID if track.is_crowd else identity
        return labels

    def source(self, frame: str) -> str:
        return f"{self.origin}, video {self.name}, frame {frame}"

    def digest(self) -> str:
        content = [self.name, self.size, list(self._positions), [(t.segmentations, t.is_crowd) for t in self.tracks]]
        return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


# Largest coordinate of a polygon, in sides of the frame: pycocotools takes memory for every pixel of an outline.
MAX_OUTSIDE = 4


def is_visible(segmentation: object) -> bool:
    """Tell whether a segmentation is not empty; label tools write null, {}, [] or [[]] for an invisible object."""
    empty = isinstance(segmentation, list) and all(polygon == [] for polygon in segmentation)
    return not (empty or segmentation is None or segmentation == {})


def decode_segmentation(segmentation: object, size: tuple[int, int], source: str) -> np.ndarray:
    """Decode a segmentation of COCO to a mask (H, W) bool.

    Args:
        segmentation: RLE ({"size": [H, W], "counts": text or list of numbers}), a polygon or a list of polygons.
        size: the (H, W) that the segmentation must have.
        source: where the segmentation stands, for error messages.

    Raises:
        UserError: the segmentation has another size, its runs do not add up to that size, or it is neither RLE nor
            polygons.
    """
    height, width = size
    try:
        if isinstance(segmentation, list):
            segmentation = _encode_polygons(segmentation, height, width)
        if list(segmentation["size"]) != [height, width]:
            sizes = f"an RLE of {format_size(segmentation['size'])} pixels in a video of {format_size(size)}"
            raise UserError(f"{source}: {sizes}; {AGAIN}")
        runs = decode_run_lengths(segmentation["counts"])
        if min(runs, default=0) < 0 or sum(runs) != height * width:
            raise ValueError(f"its runs cover {sum(runs)} of {height * width} pixels")
        return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise UserError(f"{source}: not a segmentation of COCO ({error}); {AGAIN}") from error


def _encode_polygons(polygons: list, height: int, width: int) -> dict:
    """Return the RLE of the union of polygons, drawn as COCO draws them.

    Args:
        polygons: polygons [x, y, x, y, ...] of at least three corners, or one such polygon; empty ones are ignored.
    """
    polygons = [points for points in (polygons if isinstance(polygons[0], list) else [polygons]) if points != []]
    for points in polygons:
        numbers = isinstance(points, list) and all(type(number) in (int, float) for number in points)
        if not numbers or len(points) < 6 or len(points) % 2:
            raise ValueError("a polygon is not x, y, x, y, ... of three corners or more")
        if not all(abs(number) <= MAX_OUTSIDE * max(height, width) for number in points):
            raise ValueError(f"a polygon has corners far outside of the {format_size((height, width))} pixels")
    rle = coco_masks.merge(coco_masks.frPyObjects(polygons, height, width))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def read_whole_number(value: object) -> int:
    """Convert a number of a JSON to int; 3.0, as some tools write 3, is whole.

    Raises:
        TypeError: no number, or one that is not whole.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
        raise TypeError(f"{value!r} is no whole number")
    return int(value)


def decode_run_lengths(counts: str | list) -> list[int]:
    """Decode the lengths of the runs of an RLE, which alternate between 0 and 1 down the columns of the mask.

    pycocotools is not used, because it returns uninitialised memory for a text that ends too early. The text stores
    each number as groups of 5 bits, the lowest group first, as characters from "0" on. The sixth bit of a character
    says that another group follows; the highest bit of the last group is the sign. From the fourth number on, the
    number is the difference to the run two places before.

    Args:
        counts: COCO's text, or the list of lengths.
    """
    if isinstance(counts, list):
        return [read_whole_number(run) for run in counts]
    if not isinstance(counts, str):
        raise TypeError("its counts are neither text nor a list")
    runs: list[int] = []
    value, shift = 0, 0
    for byte in counts.encode("ascii"):
        group = byte - 48
        if not 0 <= group < 64:
            raise ValueError(f"character {chr(byte)!r}")
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            value -= (group & 16) and 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise ValueError("its text ends within a number")
    return runs


# ------------------------------------------------------------------ TFRecord


class RecordSegmentations:
    """Read the label PNGs in one record of a TFRecord file, as TensorFlow Datasets stores MOVi.

    Args:
        record: the record of the video.
        frames: names of its frames.
    """

    KEY = "segmentations"

    def __init__(self, record: Record, frames: list[str]):
        self.record = record
        self._positions = {frame: index for index, frame in enumerate(frames)}

    @property
    def frame_names(self) -> list[str]:
        return list(self._positions)

    def read(self, frame: str) -> np.ndarray:
        images = read_byte_features(self.record, RECORD_KEYS)[self.KEY]
        if len(images) != len(self._positions):
            raise UserError(f"{self.record}: {len(images)} segmentations for {len(self._positions)} frames; "
                            "download this file again")  # fmt: skip
        try:
            with Image.open(io.BytesIO(images[self._positions[frame]])) as image:
                labels = np.asarray(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if is_out_of_memory(error):
                raise
            raise UserError(f"{self.source(frame)}: not a readable PNG ({error}); download this file again") from error
        if labels.ndim != 2 or labels.max(initial=0) > MAX_OBJECTS:
            raise UserError(f"{self.source(frame)}: not an image of object ids up to {MAX_OBJECTS}; "
                            "give the folder of another data set")  # fmt: skip
        return labels.astype(np.int32)

    def source(self, frame: str) -> str:
        return f"{self.record}, {self.KEY} of frame {frame}"

    def digest(self) -> str:
        """Return a digest of the checksum that the file stores with the record and that `read` verifies."""
        content = f"{self.record.length}:{self.record.checksum}:{len(self._positions)}"
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


# Features that are always read together, so that frames and segmentations of a record are read from disk once.
RECORD_KEYS = ("video", RecordSegmentations.KEY)
