"""Clusters that are no things but the outlines of some: found by shape, their tokens given to what is around them.

A token on an edge shows a part of two things, and tokens on edges look alike wherever the edges are, so that
clustering makes clusters of them: a ring around an object, which belongs half to it and half to what is behind it, and
which keeps the two from touching.

    outlines = find_outlines(labels)
    labels = give_away(labels, outlines, units)     # pixels decide anew which of the two it is

WIDTH, THIN, BETWEEN and AROUND are the first that were tried, on dev-8, and were kept: of others for THIN and BETWEEN
some did better on the training videos of Sprites, by 2 points of J&F at most, and worse on dev-8. SPECK and LONG are
there for what must not be one, see the tests.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from scipy import ndimage, sparse

from model.objects.affinity import CentredUnits, Neighbourhood

WIDTH = 2  # tokens that an outline is wide at most
THIN = 0.95  # of its tokens at least, where it is so
SPECK = 4  # tokens, from which a piece of it is a blob
LONG = 2.5  # unless it has more than so many times the square of its width
BLOBS = 0.5  # of its tokens, that are in blobs at most
BETWEEN = 0.6  # of its tokens at least, between two different labels
AROUND = Neighbourhood(reach=2, place=1.5, looks=0.1)
AT_ONCE = 64  # frames, so that memory does not grow with them


def find_outlines(labels: np.ndarray) -> np.ndarray:
    """Which labels are outlines of others: (number of labels,) bool.

    Across a token is along the shorter of the two runs of its label, in its row or its column, that it is in; of equal
    ones, in its row. It lies between two things where the nearest tokens of other labels to the two sides across have
    different ones: a pole before one background has the same on both. A label is an outline where

        THIN of its tokens are in runs of WIDTH or less across,
        BLOBS of them at most are in blobs: pieces, in a frame, of SPECK tokens or more but no more than LONG width²,
        and BETWEEN of them lie between two things.

    The thinnest (those as thin together) are found first, and looked through from then on, so that what is inside two
    outlines, such as a neck, lies in the one background that they do. A long thin thing all along the edge of two
    others cannot be told from an outline.

    labels: (T, h, w) int >= 0.
    """
    sizes = np.bincount(labels.ravel())

    def mean(values: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Over the tokens of each label, of what `values` gives for (t, h, w) of `labels`; 0 where it has none."""
        sums = sum(np.bincount(part.ravel(), values(part).ravel(), minlength=len(sizes)) for part in _parts(labels))
        return sums / np.maximum(sizes, 1)

    outlines = np.zeros(len(sizes), dtype=bool)
    widths = mean(_width)
    shaped = (mean(lambda part: _width(part) <= WIDTH) >= THIN) & (mean(_in_blob) <= BLOBS)
    while True:
        found = shaped & ~outlines
        if found.any():
            found &= mean(partial(_between, outlines=outlines)) >= BETWEEN
        if not found.any():
            return outlines
        outlines |= found & (widths == widths[found].min())


def give_away(labels: np.ndarray, outlines: np.ndarray, units: CentredUnits) -> np.ndarray:
    """Tokens of outlines take the label that those around them have, the nearer and the more alike the more they count.

    Where none but outlines are within reach it is that of the nearest token that has one by then, and in a frame of
    outlines alone they keep their own.

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


def _runs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How long the runs of its label are that each token of (t, h, w) is in: in its row, in its column."""
    return _run_lengths(labels), _run_lengths(labels.swapaxes(1, 2)).swapaxes(1, 2)


def _run_lengths(labels: np.ndarray) -> np.ndarray:
    """Of (t, h, w) along the last axis."""
    starts = np.ones(labels.shape, dtype=bool)
    starts[..., 1:] = labels[..., 1:] != labels[..., :-1]
    run = starts.ravel().cumsum() - 1
    return np.bincount(run)[run].reshape(labels.shape)


def _width(labels: np.ndarray) -> np.ndarray:
    return np.minimum(*_runs(labels))


def _in_blob(labels: np.ndarray) -> np.ndarray:
    """Whether each token of (t, h, w) is in a blob; a piece is of one frame, and holds together at corners too."""
    number = np.arange(labels.size).reshape(labels.shape)
    left, right = np.s_[..., :-1], np.s_[..., 1:]
    up, down = np.s_[:, :-1], np.s_[:, 1:]
    sides = ((left, right), (up, down))
    corners = ((np.s_[:, :-1, :-1], np.s_[:, 1:, 1:]), (np.s_[:, :-1, 1:], np.s_[:, 1:, :-1]))
    joined = [
        (number[one][same], number[other][same])
        for one, other in (*sides, *corners)
        for same in [labels[one] == labels[other]]
    ]
    one, other = (np.concatenate(ends) for ends in zip(*joined, strict=True))
    graph = sparse.coo_matrix((np.ones(len(one), dtype=bool), (one, other)), shape=(labels.size, labels.size))
    piece = sparse.csgraph.connected_components(graph, directed=False)[1]
    size = np.bincount(piece)[piece].reshape(labels.shape)
    return (size >= SPECK) & (size <= LONG * _width(labels) ** 2)


def _between(labels: np.ndarray, outlines: np.ndarray) -> np.ndarray:
    """Whether each token of (t, h, w) lies between two different labels that are no outlines."""
    in_row, in_column = _runs(labels)
    to_left, to_right = _sides(labels, outlines)
    above, below = (side.swapaxes(1, 2) for side in _sides(labels.swapaxes(1, 2), outlines))
    by_row = in_row <= in_column
    one, other = np.where(by_row, to_left, above), np.where(by_row, to_right, below)
    return (one != other) & (one >= 0) & (other >= 0)


def _sides(labels: np.ndarray, outlines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest label to the left and to the right, along the last axis, other than a token's own and no outline.

    labels (t, h, w); -1 where there is none.
    """
    return _left(labels, outlines), _left(labels[..., ::-1], outlines)[..., ::-1]


def _left(labels: np.ndarray, outlines: np.ndarray) -> np.ndarray:
    """Of the labels seen so far in a row, no outlines, the latest two that differ are kept: one of them is not here."""
    result = np.full(labels.shape, -1, dtype=np.int32)
    latest, before = np.full((2, *labels.shape[:-1]), -1, dtype=np.int32)  # two different ones, seen last
    for column in range(labels.shape[-1]):
        here = labels[..., column]
        result[..., column] = np.where(latest == here, before, latest)
        new = ~outlines[here] & (latest != here)
        before = np.where(new, latest, before)
        latest = np.where(new, here, latest)
    return result
