"""Fill outlines, roughen edges and find windows, for the actors and the background of Sprites."""

import cv2
import numpy as np

from data.sprites.exact import sample
from data.sprites.textures import draw_fractal_noise


def fill_polygon(outline: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Fill a polygon, given in pixels, with antialiasing: coverage (h, w) float32, in sixteenths."""
    mask = np.zeros((shape[0] * 4, shape[1] * 4), np.uint8)
    cv2.fillPoly(mask, [np.round((outline + 0.5) * 4 - 0.5).astype(np.int32)], 16)
    return cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 16


def ruffle_edge(rng: np.random.Generator, mask: np.ndarray, reach: float) -> np.ndarray:
    """Make an edge hairy by moving it back and forth by about `reach` pixels."""
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(np.float32)
    dx, dy = (float(reach) * draw_fractal_noise(rng, mask.shape, 0.5) for _ in range(2))
    return sample(mask, x + dx, y + dy)


def find_window(corners: np.ndarray, shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """Rows and columns of the picture that hold the points (N, 2), or None where they are all outside."""
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int) - 1, 0)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int) + 2, shape[::-1])
    return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None
