"""Turn frames upright as the display matrix of a video file says."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av


def read_display_matrix(frame: "av.VideoFrame") -> tuple[int, int, int, int]:
    """Read the matrix (a, b, c, d) that turns a frame upright by moving each pixel (x, y) to (ax + cy, bx + dy)."""
    from av.sidedata.sidedata import Type

    if (content := frame.side_data.get(Type.DISPLAYMATRIX)) is None:
        return 1, 0, 0, 1
    values = np.frombuffer(bytes(content), np.int32)
    return tuple(int(values[place]) for place in (0, 1, 3, 4))


def is_turned(matrix: tuple[int, int, int, int]) -> bool:
    """Tell whether a display matrix swaps width and height."""
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def turn_upright(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Turn and mirror a picture (H, W, 3) as its display matrix says, to the nearest quarter turn."""
    a, b, c, d = matrix
    right, down = a, d
    if is_turned(matrix):
        picture, right, down = picture.transpose(1, 0, 2), c, b
    return picture[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
