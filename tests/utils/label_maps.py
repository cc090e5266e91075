"""Label maps of one line and of a few frames, and their slot scores."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from utils.scoring.annotations import VOID
from utils.scoring.slots import (
    SlotScores,
    SlotTable,
    count_shared_pixels,
)


def row(*labels: int) -> np.ndarray:
    """A label map of one line."""
    return np.array([labels], dtype=np.int32)


def score(gts, predictions, **options) -> SlotScores:
    table = SlotTable(**options)
    for gt, prediction in zip(gts, predictions, strict=True):
        table.add(count_shared_pixels(gt, prediction))
    return table.scores()


def videos(highest: int, *, void: bool = False, frames: int = 4) -> st.SearchStrategy:
    """(frames, 4, 5) label maps."""
    values = st.integers(0, highest) | st.just(VOID) if void else st.integers(0, highest)
    return arrays(np.int32, (frames, 4, 5), elements=values)
