"""Find the clusters that are only boundaries between others and reassign their tokens (docs/method.md, section 8).

A token on an edge shows parts of two things, and tokens on edges resemble each other wherever the edges are. The
clustering therefore makes boundary clusters: a ring around an object, half of it object and half of it background,
which keeps the two from touching.

    is_boundary = find_boundary_clusters(labels)
    labels = reassign_boundary_tokens(labels, is_boundary, centred)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from scipy import ndimage, sparse

from model.objects.affinity import CentredFeatures, Neighbourhood
from model.objects.scale import count_at_least_one, scale_area, scale_length


@dataclass(frozen=True)
class BoundaryLimits:
    """Limits that define a boundary cluster and the reassignment of its tokens.

    Those in tokens hold for the grid of `model.objects.scale`; `scale_to` gives those of another.
    `max_width`, `min_thin_share`, `min_between_share` and the neighbourhood are the first values tried, on dev-8.
    Other values of the two shares gained up to 2 points of J&F on the training videos of Sprites and lost on dev-8.
    `blob_size` and `blob_slenderness` protect clusters that must not be boundaries (tests/model/test_boundary.py).

    Attributes:
        max_width: tokens; most edges cover one or two tokens across.
        min_thin_share: share of a boundary cluster's tokens that are at most `max_width` wide, at least.
        blob_size: tokens; a component this large in one frame can be a blob, a smaller one could be no object anyway.
        blob_slenderness: a component larger than this many times its squared width is a line and not a blob.
        max_blob_share: share of a boundary cluster's tokens that are in blobs, at most.
        min_between_share: share of a boundary cluster's tokens between two different clusters, at least.
        reach, distance_scale, similarity_scale: of the `Neighbourhood` whose labels a boundary token can take; tokens,
            tokens, and difference of cosines. An edge is one or two tokens wide, so both sides are within 2 tokens.
        frames_at_once: frames; bounds the memory of the search, without effect on its result.
    """

    max_width: int = 2
    min_thin_share: float = 0.95
    blob_size: int = 4
    blob_slenderness: float = 2.5
    max_blob_share: float = 0.5
    min_between_share: float = 0.6
    reach: int = 2
    distance_scale: float = 1.5
    similarity_scale: float = 0.1
    frames_at_once: int = 64

    def scale_to(self, grid: tuple[int, int]) -> "BoundaryLimits":
        """Return the limits for a grid (h, w)."""
        return replace(
            self, max_width=count_at_least_one(scale_length(self.max_width, grid)),
            blob_size=count_at_least_one(scale_area(self.blob_size, grid)),
            reach=count_at_least_one(scale_length(self.reach, grid)),
            distance_scale=scale_length(self.distance_scale, grid),
        )  # fmt: skip

    @cached_property
    def neighbourhood(self) -> Neighbourhood:
        return Neighbourhood(
            reach=self.reach, distance_scale=self.distance_scale, similarity_scale=self.similarity_scale
        )


LIMITS = BoundaryLimits()


def find_boundary_clusters(labels: np.ndarray, limits: BoundaryLimits = LIMITS) -> np.ndarray:
    """Find the clusters that are only boundaries between others.

    The run of a token in its row or column is the stretch of equal labels around it. The shorter of its two runs
    crosses the cluster at this token (the one in the row if both are equal), and its length is the width there. A token
    lies between two things if the nearest other labels on both sides of that run differ; a pole in front of one
    background has the same label on both sides. A cluster is a boundary cluster if

        at least `min_thin_share` of its tokens have a width of at most `max_width`,
        at most `max_blob_share` of them are in blobs: components, in one frame, of at least `blob_size` tokens but not
        more than `blob_slenderness` width², and
        at least `min_between_share` of them lie between two things.

    The thinnest boundary clusters are found first and skipped from then on when the nearest other label is searched.
    So a thin thing between two boundaries, such as a neck, lies in front of one background and is kept. A long thin
    thing all along the edge between two others cannot be told from a boundary.

    Args:
        labels: (T, h, w) int >= 0.

    Returns:
        (number of labels,) bool.
    """
    sizes = np.bincount(labels.ravel())

    def average(measure: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Average a measure of tokens, (t, h, w) -> (t, h, w), over the tokens of each label; 0 for unused labels."""
        parts = _split_frames(labels, limits.frames_at_once)
        sums = sum(np.bincount(part.ravel(), measure(part).ravel(), minlength=len(sizes)) for part in parts)
        return sums / np.maximum(sizes, 1)

    is_boundary = np.zeros(len(sizes), dtype=bool)
    widths = average(_measure_width)
    is_thin = average(lambda part: _measure_width(part) <= limits.max_width) >= limits.min_thin_share
    is_thin &= average(partial(_find_blobs, limits=limits)) <= limits.max_blob_share
    while True:
        found = is_thin & ~is_boundary
        if found.any():
            found &= average(partial(_find_between, is_boundary=is_boundary)) >= limits.min_between_share
        if not found.any():
            return is_boundary
        is_boundary |= found & (widths == widths[found].min())


def reassign_boundary_tokens(
    labels: np.ndarray, is_boundary: np.ndarray, centred: CentredFeatures, limits: BoundaryLimits = LIMITS
) -> np.ndarray:
    """Give each token of a boundary cluster the label of the tokens around it, weighted as in `Neighbourhood`.

    A token with only boundary tokens within reach takes the label of the nearest token that has one by then. In a frame
    that holds nothing but boundary clusters, tokens keep their labels.

    Args:
        labels: (T, h, w) int >= 0.
        is_boundary: (number of labels,) bool.

    Returns:
        (T, h, w) int64.
    """
    result = labels.astype(np.int64)
    for frame, tokens in enumerate(result):
        boundary = is_boundary[tokens]
        if boundary.any() and not boundary.all():
            tokens[boundary] = _vote_for_labels(tokens, boundary, centred, frame, limits)[boundary]
    return result


def _vote_for_labels(
    tokens: np.ndarray, boundary: np.ndarray, centred: CentredFeatures, frame: int, limits: BoundaryLimits
) -> np.ndarray:
    """Replace the labels (h, w) of a frame within the mask `boundary` by those with the largest sum of weights."""
    near, weights = limits.neighbourhood.compute_weights(
        centred, frame=frame, tokens=boundary, other_frame=frame, others=~boundary
    )
    candidates, owners = np.unique(tokens[~boundary], return_inverse=True)
    votes = np.zeros((len(near), len(candidates)))
    row, column = np.nonzero(near)
    np.add.at(votes, (row, owners[near[row, column] - 1]), weights[row, column])
    found = np.where(boundary, -1, tokens)
    found[boundary] = np.where(votes.any(1), candidates[votes.argmax(1)], -1)
    return found[tuple(ndimage.distance_transform_edt(found < 0, return_distances=False, return_indices=True))]


def _split_frames(labels: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (labels[first : first + size] for first in range(0, len(labels), size))


def _measure_runs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure the run of equal labels (t, h, w) that each token is in, within its row and within its column."""
    return _measure_row_runs(labels), _measure_row_runs(labels.swapaxes(1, 2)).swapaxes(1, 2)


def _measure_row_runs(labels: np.ndarray) -> np.ndarray:
    """Measure the runs of equal labels (t, h, w) along the last axis."""
    starts = np.ones(labels.shape, dtype=bool)
    starts[..., 1:] = labels[..., 1:] != labels[..., :-1]
    run = starts.ravel().cumsum() - 1
    return np.bincount(run)[run].reshape(labels.shape)


def _measure_width(labels: np.ndarray) -> np.ndarray:
    """Measure the width (t, h, w) of each token's cluster at that token: the shorter of its two runs."""
    return np.minimum(*_measure_runs(labels))


def _find_blobs(labels: np.ndarray, *, limits: BoundaryLimits) -> np.ndarray:
    """Mark the tokens (t, h, w) in blobs; components are of one frame and hold together at corners too."""
    number = np.arange(labels.size).reshape(labels.shape)
    left, right = np.s_[..., :-1], np.s_[..., 1:]
    up, down = np.s_[:, :-1], np.s_[:, 1:]
    sides = ((left, right), (up, down))
    corners = ((np.s_[:, :-1, :-1], np.s_[:, 1:, 1:]), (np.s_[:, :-1, 1:], np.s_[:, 1:, :-1]))
    edges = [
        (number[one][same], number[other][same])
        for one, other in (*sides, *corners)
        for same in [labels[one] == labels[other]]
    ]
    one, other = (np.concatenate(ends) for ends in zip(*edges, strict=True))
    graph = sparse.coo_matrix((np.ones(len(one), dtype=bool), (one, other)), shape=(labels.size, labels.size))
    component = sparse.csgraph.connected_components(graph, directed=False)[1]
    size = np.bincount(component)[component].reshape(labels.shape)
    return (size >= limits.blob_size) & (size <= limits.blob_slenderness * _measure_width(labels) ** 2)


def _find_between(labels: np.ndarray, is_boundary: np.ndarray) -> np.ndarray:
    """Mark the tokens (t, h, w) that lie between two different labels, boundary clusters not counted."""
    in_row, in_column = _measure_runs(labels)
    to_left, to_right = _find_sides(labels, is_boundary)
    above, below = (side.swapaxes(1, 2) for side in _find_sides(labels.swapaxes(1, 2), is_boundary))
    by_row = in_row <= in_column
    one, other = np.where(by_row, to_left, above), np.where(by_row, to_right, below)
    return (one != other) & (one >= 0) & (other >= 0)


def _find_sides(labels: np.ndarray, is_boundary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest other label, no boundary cluster, to the left and to the right of each token (t, h, w).

    Left and right are along the last axis; -1 where there is no such label.
    """
    return _find_left(labels, is_boundary), _find_left(labels[..., ::-1], is_boundary)[..., ::-1]


def _find_left(labels: np.ndarray, is_boundary: np.ndarray) -> np.ndarray:
    """Find the left label of `_find_sides`. Two different labels are remembered, so that one is not the token's own."""
    result = np.full(labels.shape, -1, dtype=np.int32)
    latest, before = np.full((2, *labels.shape[:-1]), -1, dtype=np.int32)  # the two seen last
    for column in range(labels.shape[-1]):
        here = labels[..., column]
        result[..., column] = np.where(latest == here, before, latest)
        new = ~is_boundary[here] & (latest != here)
        before = np.where(new, latest, before)
        latest = np.where(new, here, latest)
    return result
