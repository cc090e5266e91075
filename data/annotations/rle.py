"""Read masks that a JSON holds as COCO and YouTube-VIS write them: RLE or polygons."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_masks

from utils.errors import UserError
from utils.pictures import format_size
from utils.scoring.annotations import VOID

AGAIN = "download or export the JSON again"


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
