"""Fill outlines, roughen edges and place images in a picture, for the actors and the background of Sprites."""

import cv2
import numpy as np

from data.sprites.textures import draw_fractal_noise


def fill_polygon(outline: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Fill a polygon, given in pixels, with antialiasing: coverage (h, w) float32."""
    mask = np.zeros((shape[0] * 4, shape[1] * 4), np.uint8)
    cv2.fillPoly(mask, [np.round((outline + 0.5) * 4 - 0.5).astype(np.int32)], 255)
    return cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def ruffle_edge(rng: np.random.Generator, mask: np.ndarray, reach: float) -> np.ndarray:
    """Make an edge hairy by moving it back and forth by about `reach` pixels."""
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(np.float32)
    dx, dy = (float(reach) * draw_fractal_noise(rng, mask.shape, 0.5) for _ in range(2))
    return cv2.remap(mask, x + dx, y + dy, cv2.INTER_LINEAR)


def find_window(corners: np.ndarray, shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """Rows and columns of the picture that hold the points (N, 2), or None where they are all outside."""
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int) - 1, 0)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int) + 2, shape[::-1])
    return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None


def place_image(
    image: np.ndarray, matrix: np.ndarray, rows: slice, cols: slice, *, border: int = cv2.BORDER_CONSTANT
) -> np.ndarray:
    """Warp an image into a window of the picture."""
    matrix = matrix.copy()
    matrix[:, 2] -= (cols.start, rows.start)
    return cv2.warpAffine(image, matrix, (cols.stop - cols.start, rows.stop - rows.start), borderMode=border)
