"""Scale limits in tokens from the grid on which they were chosen to any other (docs/method.md, section 8)."""

import math

REFERENCE_GRID = (20, 35)  # tokens; of dev-8 at 280x490 with patches of 14 pixels, and of Sprites at 160x280 with 8


def scale_length(tokens: float, grid: tuple[int, int]) -> float:
    """Return the length on a grid (h, w) that is the same share of the diagonal as `tokens` is of the reference's."""
    return tokens * math.hypot(*grid) / math.hypot(*REFERENCE_GRID)


def scale_area(tokens: float, grid: tuple[int, int]) -> float:
    """Return the area on a grid (h, w) that is the same share of the frame as `tokens` is of the reference grid."""
    return tokens * math.prod(grid) / math.prod(REFERENCE_GRID)


def count_at_least_one(tokens: float) -> int:
    """Round to a whole number of tokens, at least 1."""
    return max(round(tokens), 1)
