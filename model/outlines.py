"""Clusters that are no things but the outlines of some: found by their shape, their tokens given to what they lie on.

A token on an edge shows a part of two things, and tokens on edges look alike wherever the edges are, so that
clustering makes clusters of them: a ring around an object, which belongs half to it and half to what is behind it, and
which keeps the two from touching.

    outlines = find_outlines(labels)
    labels = give_away(labels, outlines, units)     # which of the two a token shows more of, pixels decide anew
"""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from model.units import CentredUnits, Neighbourhood

WIDTH = 2  # tokens that an outline is wide at most
THIN = 0.95  # of its tokens at least, where it is so
BETWEEN = 0.6  # of its tokens at least, between two different labels
AROUND = Neighbourhood(reach=2, place=1.5, looks=0.1)
AT_ONCE = 64  # frames, so that memory does not grow with them


def find_outlines(labels: np.ndarray) -> np.ndarray:
    """Which labels are outlines of others: (number of labels,) bool.

    Across a token is along the shorter of the two runs of its label, in its row or its column, that it is in. It lies
    between two things where the nearest tokens of other labels to the two sides across have different ones: a pole has
    the same background on both. A label is an outline where THIN of its tokens are in runs of WIDTH or less across and
    BETWEEN of them lie between two things. The thinnest (those as thin together) are found first, and looked through
    from then on, so that what is inside two outlines, such as a neck, lies in the one background that they do.

    labels: (T, h, w) int >= 0.
    """
    sizes = np.bincount(labels.ravel())
    outlines = np.zeros(len(sizes), dtype=bool)
    widths = _mean(labels, sizes, (np.minimum(*_runs(part)) for part in _parts(labels)))
    thin = _mean(labels, sizes, (np.minimum(*_runs(part)) <= WIDTH for part in _parts(labels))) >= THIN
    while True:
        between = _mean(labels, sizes, (_between(part, outlines) for part in _parts(labels)))
        found = thin & ~outlines & (between >= BETWEEN)
        if not found.any():
            return outlines
        outlines |= found & (widths == widths[found].min())


def give_away(labels: np.ndarray, outlines: np.ndarray, units: CentredUnits) -> np.ndarray:
    """Tokens of outlines take the label, of those around them that are none, that looks most like them.

    Where none is within reach it is the nearest in the frame, and in a frame of nothing else they keep their own.

    labels (T, h, w) int >= 0; outlines (number of labels,) bool. Returns (T, h, w) int64.
    """
    result = labels.astype(np.int64)
    for frame, tokens in enumerate(result):
        unsure = outlines[tokens]
        if unsure.any() and not unsure.all():
            tokens[unsure] = _most_alike(tokens, unsure, units, frame)[unsure]
    return result


def _most_alike(tokens: np.ndarray, unsure: np.ndarray, units: CentredUnits, frame: int) -> np.ndarray:
    """Labels (h, w) of a frame with those `unsure` (h, w) bool replaced by what is around them."""
    near, weights = AROUND.weights(units, here=frame, asking=unsure, there=frame, known=~unsure)
    kept, owners = np.unique(tokens[~unsure], return_inverse=True)
    votes = np.zeros((len(near), len(kept)))
    row, place = np.nonzero(near)
    np.add.at(votes, (row, owners[near[row, place] - 1]), weights[row, place])
    found = np.where(unsure, -1, tokens)
    found[unsure] = np.where(votes.any(1), kept[votes.argmax(1)], -1)
    return found[tuple(ndimage.distance_transform_edt(found < 0, return_distances=False, return_indices=True))]


def _parts(labels: np.ndarray) -> Iterator[np.ndarray]:
    return (labels[first : first + AT_ONCE] for first in range(0, len(labels), AT_ONCE))


def _mean(labels: np.ndarray, sizes: np.ndarray, values: Iterator[np.ndarray]) -> np.ndarray:
    """Mean over the tokens of each label of values (t, h, w) of the parts of labels (T, h, w); 0 where it has none."""
    sums = sum(
        np.bincount(part.ravel(), value.ravel(), minlength=len(sizes))
        for part, value in zip(_parts(labels), values, strict=True)
    )
    return sums / np.maximum(sizes, 1)


def _runs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How long the runs of its label are that each token of (T, h, w) is in: in its row, in its column."""
    return _run_lengths(labels), _run_lengths(labels.swapaxes(1, 2)).swapaxes(1, 2)


def _run_lengths(labels: np.ndarray) -> np.ndarray:
    """Of (T, h, w) along the last axis."""
    starts = np.ones(labels.shape, dtype=bool)
    starts[..., 1:] = labels[..., 1:] != labels[..., :-1]
    run = starts.ravel().cumsum() - 1
    return np.bincount(run)[run].reshape(labels.shape)


def _between(labels: np.ndarray, outlines: np.ndarray) -> np.ndarray:
    """Whether each token of (T, h, w) lies between two different labels that are no outlines."""
    in_row, in_column = _runs(labels)
    to_left, to_right = _sides(labels, outlines)
    above, below = (side.swapaxes(1, 2) for side in _sides(labels.swapaxes(1, 2), outlines))
    by_row = in_row <= in_column
    one, other = np.where(by_row, to_left, above), np.where(by_row, to_right, below)
    return (one != other) & (one >= 0) & (other >= 0)


def _sides(labels: np.ndarray, outlines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest label to the left and to the right, along the last axis, other than a token's own and no outline.

    labels (T, h, w); -1 where there is none.
    """
    return _left(labels, outlines), _left(labels[..., ::-1], outlines)[..., ::-1]


def _left(labels: np.ndarray, outlines: np.ndarray) -> np.ndarray:
    result = np.full(labels.shape, -1, dtype=np.int32)
    latest, before = np.full((2, *labels.shape[:-1]), -1, dtype=np.int32)  # two different ones, seen last
    for column in range(labels.shape[-1]):
        here = labels[..., column]
        result[..., column] = np.where(latest == here, before, latest)
        new = ~outlines[here] & (latest != here)
        before = np.where(new, latest, before)
        latest = np.where(new, here, latest)
    return result
