"""Boundary clusters, in hand-worked pictures and against the definition computed token by token."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model.objects.affinity import CentredFeatures
from model.objects.boundary import LIMITS, find_boundary_clusters, reassign_boundary_tokens

RING = """
    00000000000
    00022220000
    00211112000
    00211112000
    00211112000
    00022220000
    00000000000"""
POLE = """
    00000100000
    00000100000
    00000100000
    00000100000"""
NECK = """
    00002120000
    00002120000
    00002120000
    00002120000
    33333333333
    33333333333
    33333333333"""


def picture(text: str, *, frames: int = 1) -> np.ndarray:
    return np.array([[[int(token) for token in row] for row in text.split()]] * frames)


@pytest.mark.parametrize(("text", "expected"), [(RING, [2]), (POLE, []), (NECK, [2])])
def test_boundaries_lie_between_two_things(text, expected):
    """A ring does. A pole has one background on both sides, and so has a thin neck once its own boundary is skipped."""
    assert np.flatnonzero(find_boundary_clusters(picture(text))).tolist() == expected


@pytest.mark.parametrize("thing", [(2, 2), (5, 2), (2, 5), (3, 3)])
@pytest.mark.parametrize("upright", [True, False])
def test_compact_things_on_an_edge_are_no_boundary(thing, upright):
    labels = np.zeros((2, 12, 12), dtype=int)
    labels[:, :, 6:] = 1
    labels = labels if upright else labels.swapaxes(1, 2).copy()
    labels[:, 5 : 5 + thing[0], 5 : 5 + thing[1]] = 2
    assert not find_boundary_clusters(labels).any()


@pytest.mark.parametrize(("width", "found"), [(1, True), (2, True), (3, False)])
def test_boundaries_are_at_most_two_tokens_wide(width, found):
    labels = np.repeat([0, 2, 1], [4, width, 4])[None, :, None].repeat(12, axis=2)
    assert find_boundary_clusters(labels).tolist() == [False, False, found]


@pytest.mark.parametrize(("count", "most"), [(100, 0.01), (300, 0.1), (600, 0.2)])
def test_few_of_many_blobs_are_boundaries(count, most):
    """As clusters of a block that was trained for too long: cells around random places, of which some are thin.

    Those of less than four tokens could be no objects anyway.
    """
    random = np.random.default_rng(count)
    places, tokens = random.random((count, 2)) * (40, 60), np.indices((40, 60)).reshape(2, -1).T
    labels = ((tokens[:, None] - places) ** 2).sum(-1).argmin(1).reshape(1, 40, 60)
    taken = find_boundary_clusters(labels) & (np.bincount(labels.ravel()) >= 4)
    assert taken[labels].mean() < most


@pytest.mark.parametrize(("share", "thin"), [(0.94, False), (0.96, True)])
def test_how_much_has_to_be_thin(share, thin):
    """A line between two things with a knot of 4 by 4 tokens; the share is that of the line."""
    length = round(16 * share / (1 - share))
    labels = np.zeros((1, 8, length + 6), dtype=int)
    labels[:, 4:] = 1
    labels[:, 3, :length] = 2
    labels[:, 2:6, length : length + 4] = 2
    assert find_boundary_clusters(labels)[2] == thin


@pytest.mark.parametrize(("between", "found"), [(11, False), (12, True)])
def test_how_much_has_to_lie_between(between, found):
    """Twenty tokens of a line, below so many of which there is something else than above."""
    labels = np.zeros((1, 7, 20), dtype=int)
    labels[:, 4:, :between] = 1
    labels[:, 3] = 2
    assert find_boundary_clusters(labels)[2] == found


def test_clusters_that_are_wide_somewhere_are_no_boundary():
    assert not find_boundary_clusters(picture(RING.replace("211112", "222222", 2))).any()


def test_frames_are_counted_together():
    """A thing that is thin between two others in one frame of two lies there in half of its tokens."""
    thin = picture("000000 111111 222222")
    assert find_boundary_clusters(thin).tolist() == [False, True, False]
    apart = picture("000000 111111 000000")
    assert not find_boundary_clusters(np.concatenate([thin, apart])).any()
    assert find_boundary_clusters(np.concatenate([thin] * 3 + [apart] * 2)).tolist() == [False, True, False]


def slowly(labels: np.ndarray) -> np.ndarray:
    """The definition, token by token."""
    number = labels.max() + 1
    found = np.zeros(number, dtype=bool)

    def look(frame, row, column, axis, way):
        own, step = frame[row, column], np.roll((way, 0), axis)
        run, other, place = 0, None, np.array([row, column]) + step
        while ((place >= 0) & (place < frame.shape)).all():
            label = frame[tuple(place)]
            run += label == own and run >= 0
            if label != own:
                run = -run - 1 if run >= 0 else run
                if not found[label] and other is None:
                    other = label
            place = place + step
        return (run if run >= 0 else -run - 1), other

    def piece(frame, row, column):
        reached, left = {(row, column)}, [(row, column)]
        while left:
            y, x = left.pop()
            for place in itertools.product(range(y - 1, y + 2), range(x - 1, x + 2)):
                inside = all(0 <= k < size for k, size in zip(place, frame.shape, strict=True))
                if inside and frame[place] == frame[row, column] and place not in reached:
                    reached.add(place)
                    left.append(place)
        return len(reached)

    def measure(frame, row, column):
        sides = [[look(frame, row, column, axis, way) for way in (-1, 1)] for axis in (1, 0)]
        (in_row, in_column) = (1 + one[0] + other[0] for one, other in sides)
        one, other = (side[1] for side in sides[0 if in_row <= in_column else 1])
        width = min(in_row, in_column)
        return width, None not in (one, other) and one != other, piece(frame, row, column)

    while True:
        measured = {label: [] for label in range(number)}
        for frame in labels:
            for row, column in np.ndindex(frame.shape):
                measured[frame[row, column]].append(measure(frame, row, column))
        widths = {}
        for label, values in measured.items():
            if values and not found[label]:
                width, between, size = np.array(values, dtype=float).T
                if (
                    (width <= 2).mean() >= 0.95
                    and ((size >= 4) & (size <= 2.5 * width**2)).mean() <= 0.5
                    and between.mean() >= 0.6
                ):
                    widths[label] = width.mean()
        if not widths:
            return found
        for label, width in widths.items():
            found[label] |= width == min(widths.values())


@settings(deadline=None, max_examples=100)
@given(hnp.arrays(np.int64, st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 7)),
                  elements=st.integers(0, 3)))  # fmt: skip
def test_boundaries_are_those_of_the_definition(labels):
    assert find_boundary_clusters(labels).tolist() == slowly(labels).tolist()


def test_frames_are_measured_in_parts():
    labels = np.random.default_rng(0).integers(0, 3, (9, 4, 12)).repeat(2, axis=1)
    labels[:, :, 5] = 3
    whole = find_boundary_clusters(labels)
    assert (find_boundary_clusters(labels, replace(LIMITS, frames_at_once=2)) == whole).all()


def test_boundary_tokens_take_the_label_of_similar_neighbours():
    labels = picture(RING, frames=2)
    features = torch.tensor([[0.0, 1], [1, 0], [0.5, 0.5]])[torch.from_numpy(labels)]
    features[:, 1, 3:7] = torch.tensor([0.9, 0.2])  # the upper edge shows more of what is inside
    features[:, 5, 3:7] = torch.tensor([0.1, 0.9])
    centred = CentredFeatures(features.flatten(1, 2), labels.shape[1:])
    reassigned = reassign_boundary_tokens(labels, np.array([False, False, True]), centred)
    assert (reassigned[:, 1, 3:7] == 1).all()
    assert (reassigned[:, 5, 3:7] == 0).all()
    kept = labels < 2
    assert (reassigned[kept] == labels[kept]).all()
    assert (reassigned < 2).all()


def test_out_of_reach_the_nearest_label_counts_and_a_frame_of_boundaries_alone_is_kept():
    labels = picture("00000000 22222222 22222222 22222222 22222222 22222222 22222222 11111111", frames=2)
    labels[1] = 2
    centred = CentredFeatures(torch.ones(2, 64, 4), (8, 8))
    reassigned = reassign_boundary_tokens(labels, np.array([False, False, True]), centred)
    assert reassigned[0].tolist() == np.repeat([0, 0, 0, 0, 1, 1, 1, 1], 8).reshape(8, 8).tolist()
    assert (reassigned[1] == 2).all()
