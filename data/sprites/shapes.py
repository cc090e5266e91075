"""Fill outlines, roughen edges and find windows, for the actors and the background of Sprites."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from data.sprites.exact import sample
from data.sprites.textures import draw_fractal_noise


def rasterise(outlines: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Fill polygons by the even-odd rule, their corners rounded to whole pixels: their union, bool (h, w).

    Unlike `cv2.fillPoly`, of which versions differ, it paints no edges: a pixel belongs to it if its centre does.
    """
    start = np.rint(np.concatenate(outlines)).astype(np.int64)
    end = np.rint(np.concatenate([np.roll(outline, -1, axis=0) for outline in outlines])).astype(np.int64)
    owner = np.repeat(np.arange(len(outlines)), [len(outline) for outline in outlines])
    down = (start[:, 1] < end[:, 1])[:, None]
    top, bottom = np.where(down, start, end), np.where(down, end, start)
    first = np.maximum(top[:, 1], 0)
    count = np.maximum(np.minimum(bottom[:, 1], shape[0]) - first, 0)  # of the rows that an edge crosses
    edge = np.repeat(np.arange(len(start)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count - first, count)
    (x, y), (dx, dy) = top[edge].T, (bottom - top)[edge].T
    column = np.clip(x - (y - row) * dx // dy, 0, shape[1])  # the first pixel to the right of the crossing
    size = (len(outlines), shape[0], shape[1] + 1)
    place = (owner[edge] * size[1] + row) * size[2] + column
    crossings = np.bincount(place, minlength=math.prod(size)).astype(np.uint8).reshape(size)[..., :-1]
    return (np.bitwise_xor.accumulate(crossings, axis=2) & 1).any(0)


def fill_polygon(outline: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Fill a polygon, given in pixels, with antialiasing: coverage (h, w) float32, in sixteenths."""
    mask = np.uint8(16) * rasterise([(outline + 0.5) * 4 - 0.5], (shape[0] * 4, shape[1] * 4))
    return cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 16


def ruffle_edge(rng: np.random.Generator, mask: np.ndarray, reach: float) -> np.ndarray:
    """Make an edge hairy by moving it back and forth by about `reach` pixels."""
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(np.float32)
    dx, dy = (float(reach) * draw_fractal_noise(rng, mask.shape, 0.5) for _ in range(2))
    return sample(mask, x + dx, y + dy)


def find_window(corners: np.ndarray, shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """Return the rows and columns of a picture that hold the points (N, 2); None if all are outside."""
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int) - 1, 0)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int) + 2, shape[::-1])
    return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None
