"""Ground truth as the datasets store it: label images, masks of one object each, FBMS originals, RLE, TFRecords.

Each is an `utils.scoring.annotations.Annotations`: 0 background, objects from 1, 255 void; small, and picklable.
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

from data.frames import FrameReader
from data.tfrecord import Record, read_bytes_features
from utils.errors import UserError
from utils.files import digest_files
from utils.names import plain_name
from utils.pictures import list_images
from utils.png import read_label_png
from utils.scoring.annotations import MAX_OBJECTS, VOID, LabelFiles

_COLOUR_MODES = ("RGB", "RGBA", "LA")
_LOSSLESS = (".png", ".bmp")  # what a mask is stored as
AGAIN = "download or export the JSON again"


# ------------------------------------------------------------------ image files


class MergedMasks:
    """Masks whose every value above 0, in any image of a frame, is the one foreground object; nothing is void.

    Args:
        files: frame name -> its images, one or one for each object, in order.
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
                raise UserError(f"{path}: {_size(mask.shape)} pixels, but {self.files[frame][0]} has "
                                f"{_size(masks[0].shape)}; restore these masks")  # fmt: skip
        return np.any(masks, axis=0).astype(np.int32)

    def source(self, frame: str) -> str:
        return str(self.files[frame][0])

    def digest(self) -> str:
        return digest_files([path for paths in self.files.values() for path in paths], "merged")


def _read_mask(path: Path) -> np.ndarray:
    """(H, W) bool: where a mask is above 0. Grey may be stored as RGB, as SegTrack does; colours are refused, and so
    is alpha, which leaves open what is background."""
    try:
        with Image.open(path) as image:
            mode = image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        mode = None  # the reader below says what is wrong
    if mode not in _COLOUR_MODES:
        return read_label_png(path) > 0
    colours = _read_exact(path)
    if (colours != colours[0]).any():
        raise UserError(f"{path}: an image of mode {mode} in colours holds no mask; save it in grey or indexed")
    return colours[0] > 0


def _read_exact(path: Path) -> np.ndarray:
    """(3, H, W) uint8 as they are stored. Raises `UserError` for images that have to be changed to be shown."""
    reader = FrameReader([path])
    values = reader.read(0).numpy()
    if reader.kinds:
        raise UserError(f"{path}: {next(iter(reader.kinds)).partition(';')[0]} in a mask; save it in grey or indexed, "
                        "with 8 bits")  # fmt: skip
    return values


def label_files(folder: Path, frames: list[str], *, ending: str = "") -> LabelFiles:
    """The label PNGs `<frame><ending>.png` of a folder."""
    paths = [path for path in list_images(folder) if path.suffix.lower() == ".png" and path.stem.endswith(ending)]
    return LabelFiles({path.stem.removesuffix(ending): path for path in paths})


def merged_masks(folder: Path, frames: list[str]) -> MergedMasks:
    """The masks of a folder, or of its folders of one object each; `<frame>_gt` is the mask of `<frame>` too."""
    if files := _masks_by_frame(folder, frames):
        return MergedMasks({frame: (path,) for frame, path in files.items()})
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    objects = [_masks_by_frame(path, frames) for path in folders]
    for path, masks in zip(folders, objects, strict=True):
        if stray := sorted(masks.keys() ^ objects[0].keys()):
            raise UserError(f"{path}: not the same frames as {folders[0]}; first without a partner: {stray[0]}; "
                            "complete the download")  # fmt: skip
    names = objects[0] if objects else {}
    return MergedMasks({name: tuple(masks[name] for masks in objects) for name in names})


def _masks_by_frame(folder: Path, frames: list[str]) -> dict[str, Path]:
    known, found = set(frames), {}
    for path in list_images(folder):
        if path.suffix.lower() in _LOSSLESS:
            name = path.stem if path.stem in known else path.stem.removesuffix("_gt")
            if found.setdefault(name, path) != path:
                raise UserError(f"{path}: {found[name].name} is a mask of the same frame; keep one")
    return found


# ------------------------------------------------------------------ FBMS-59 as it was released


class FbmsOriginal:
    """Ground truth of a sequence of FBMS-59: a definition `*.dat` and an image in PGM or PPM per annotated frame.

    The definition gives each region its value: the grey value in a PGM, red * 65536 + green * 256 + blue in a PPM.
    Region 0 is the background. A value that is not defined, which occurs, counts as background too, as in the
    official evaluation. All other regions are merged to the one foreground object.

    Args:
        files: frame name -> PGM or PPM, in order.
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
        red, green, blue = _read_exact(path).astype(np.int32)
        values = red * 65536 + green * 256 + blue if path.suffix.lower() == ".ppm" else red
        return np.isin(values, self.objects).astype(np.int32)

    def source(self, frame: str) -> str:
        return str(self.files[frame])

    def digest(self) -> str:
        return digest_files(list(self.files.values()), "fbms", self.objects)


def fbms_annotations(folder: Path, frames: list[str]) -> FbmsOriginal | MergedMasks:
    """Ground truth below one sequence of FBMS-59: as released where a `*.dat` lies there, else as binary images."""
    definitions = sorted(folder.glob("*.dat"))
    if not definitions:
        if stray := sorted(path for path in folder.iterdir() if path.suffix.lower() in (".pgm", ".ppm")):
            raise UserError(f"{folder}: {stray[0].name} but no *.dat that defines its regions; complete the download")
        return merged_masks(folder, frames)
    if len(definitions) > 1:
        raise UserError(f"{folder}: {definitions[0].name} and {definitions[1].name}; keep the definition of this video")
    return _fbms_original(definitions[0], frames)


def fbms_unread(folder: Path, annotations: FbmsOriginal | MergedMasks) -> list[Path]:
    """The PGM and PPM images below one sequence of FBMS-59 that its definition does not name."""
    if isinstance(annotations, MergedMasks):
        return []
    known = set(annotations.files.values())
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in (".pgm", ".ppm") and path not in known)


def _fbms_original(definition: Path, frames: list[str]) -> FbmsOriginal:
    values, entries = _parse_definition(definition)
    files = {}
    for number, truth, image in entries:
        path = definition.parent / plain_name(truth, definition)
        if not path.is_file():
            raise UserError(f"{path}: no such file, but {definition.name} names it; complete the download")
        stem = PurePosixPath(image.replace("\\", "/")).stem
        if stem not in frames and not 0 <= number < len(frames):
            raise UserError(f"{definition}: annotates frame {number} ({image}) of a video of {len(frames)} frames; "
                            "complete the download")  # fmt: skip
        files[stem if stem in frames else frames[number]] = path
    return FbmsOriginal(files, tuple(values[1:]))


def _parse_definition(path: Path) -> tuple[list[int], list[tuple[int, str, str]]]:
    """Values of the regions, and for each annotated frame its number from 0, file of ground truth, file of the frame.

    The file is lines of `what it is:`, each followed by a line with its value.
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
    """An object of a video in JSON: a segmentation for each frame, empty where it is not seen; a crowd is void."""

    segmentations: tuple
    is_crowd: bool = False


class RleVideo:
    """Masks of one video of YouTube-VIS: compressed or uncompressed RLE, or polygons.

    Where objects overlap the one listed later is on top.

    Args:
        name: of the video, for messages.
        frames: names of its frames.
        size: (height, width) in pixels.
        tracks: its objects; ids are 1, 2, ... in this order, crowds left out.
        origin: the JSON file, for messages.
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
        # Crowds first: an object before a crowd stays an object.
        ordered = [track for track in self.tracks if track.is_crowd] + [t for t in self.tracks if not t.is_crowd]
        identity = 0
        for track in ordered:
            identity += not track.is_crowd
            segmentation = track.segmentations[self._positions[frame]]
            if is_seen(segmentation):
                mask = decode_segmentation(segmentation, self.size, self.source(frame))
                labels[mask] = VOID if track.is_crowd else identity
        return labels

    def source(self, frame: str) -> str:
        return f"{self.origin}, video {self.name}, frame {frame}"

    def digest(self) -> str:
        content = [self.name, self.size, list(self._positions), [(t.segmentations, t.is_crowd) for t in self.tracks]]
        return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


OUTSIDE = 4  # pycocotools takes memory for every pixel that an outline passes, wherever it is


def is_seen(segmentation: object) -> bool:
    """Whether a segmentation of COCO shows anything: label tools write null, {}, [] or [[]] where it does not."""
    empty = isinstance(segmentation, list) and all(polygon == [] for polygon in segmentation)
    return not (empty or segmentation is None or segmentation == {})


def decode_segmentation(segmentation: object, size: tuple[int, int], source: str) -> np.ndarray:
    """A COCO segmentation as (H, W) bool.

    Args:
        segmentation: RLE ({"size": [H, W], "counts": text or list of numbers}), a polygon or a list of polygons.
        size: (H, W) that it must have.
        source: where it comes from, for messages.

    Raises:
        UserError: another size, runs that do not fill it, or neither RLE nor polygons.
    """
    height, width = size
    try:
        if isinstance(segmentation, list):
            segmentation = _rle_of_polygons(segmentation, height, width)
        if list(segmentation["size"]) != [height, width]:
            raise UserError(f"{source}: an RLE of {_size(segmentation['size'])} pixels in a video of {_size(size)}; "
                            f"{AGAIN}")  # fmt: skip
        runs = run_lengths(segmentation["counts"])
        if min(runs, default=0) < 0 or sum(runs) != height * width:
            raise ValueError(f"its runs cover {sum(runs)} of {height * width} pixels")
        return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise UserError(f"{source}: not a segmentation of COCO ({error}); {AGAIN}") from error


def _rle_of_polygons(polygons: list, height: int, width: int) -> dict:
    """RLE of the union of polygons, each [x, y, x, y, ...] of three corners or more, drawn as COCO draws them.

    Empty ones count for nothing; a list of numbers is one polygon.
    """
    polygons = [points for points in (polygons if isinstance(polygons[0], list) else [polygons]) if points != []]
    for points in polygons:
        numbers = isinstance(points, list) and all(type(number) in (int, float) for number in points)
        if not numbers or len(points) < 6 or len(points) % 2:
            raise ValueError("a polygon is not x, y, x, y, ... of three corners or more")
        if not all(abs(number) <= OUTSIDE * max(height, width) for number in points):
            raise ValueError(f"a polygon has corners far outside of the {_size((height, width))} pixels")
    rle = coco_masks.merge(coco_masks.frPyObjects(polygons, height, width))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def run_lengths(counts: str | list) -> list[int]:
    """Runs of an RLE, which alternate between 0 and 1 down the columns, from COCO's text if need be.

    The text is read here because pycocotools makes of one that ends too early a mask of memory never written.
    Each number is in groups of 5 bits, the lowest first, as characters from "0"; bit 6 of a character says that more
    follow, the sign is the highest bit of the last. From the fourth on each is the difference to the run two before.
    """
    if isinstance(counts, list):
        return [int(run) for run in counts]
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
    """Label PNGs within one record of a TFRecord file, as TFDS stores MOVi.

    Args:
        record: the video's record.
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
        images = read_bytes_features(self.record, RECORD_KEYS)[self.KEY]
        if len(images) != len(self._positions):
            raise UserError(f"{self.record}: {len(images)} segmentations for {len(self._positions)} frames; "
                            "download this file again")  # fmt: skip
        try:
            with Image.open(io.BytesIO(images[self._positions[frame]])) as image:
                labels = np.asarray(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{self.source(frame)}: not a readable PNG ({error}); download this file again") from error
        if labels.ndim != 2 or labels.max(initial=0) > MAX_OBJECTS:
            raise UserError(f"{self.source(frame)}: not an image of object ids up to {MAX_OBJECTS}; "
                            "give the folder of another data set")  # fmt: skip
        return labels.astype(np.int32)

    def source(self, frame: str) -> str:
        return f"{self.record}, {self.KEY} of frame {frame}"

    def digest(self) -> str:
        """Of the checksum that the file keeps of the record, which `read` verifies."""
        content = f"{self.record.length}:{self.record.checksum}:{len(self._positions)}"
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


# What is read of a record at once, so that its frames and segmentations share one reading.
RECORD_KEYS = ("video", RecordSegmentations.KEY)


def _size(shape: tuple[int, ...] | list[int]) -> str:
    """(H, W) as text, WxH."""
    return f"{shape[1]}x{shape[0]}"
