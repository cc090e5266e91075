"""Clusters that are outlines of others, by hand-worked pictures and against a slow reading of the definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model import outlines
from model.outlines import BETWEEN, THIN, WIDTH, find_outlines, give_away
from model.units import CentredUnits

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
def test_outlines_lie_between_two_things(text, expected):
    """A ring does; a pole has one background on both sides, and so has a neck once its own outline is looked through,
    thin as it is."""
    assert np.flatnonzero(find_outlines(picture(text))).tolist() == expected


def test_what_is_wide_somewhere_is_no_outline():
    assert not find_outlines(picture(RING.replace("211112", "222222", 2))).any()


def test_frames_are_counted_together():
    """A thing that is thin between two others in one frame of two lies there in half of its tokens."""
    thin = picture("000 111 222")
    assert find_outlines(thin).tolist() == [False, True, False]
    apart = picture("000 111 000")
    assert not find_outlines(np.concatenate([thin, apart])).any()
    assert find_outlines(np.concatenate([thin] * 3 + [apart] * 2)).tolist() == [False, True, False]


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

    def measure(frame, row, column):
        sides = [[look(frame, row, column, axis, way) for way in (-1, 1)] for axis in (1, 0)]
        (in_row, in_column) = (1 + one[0] + other[0] for one, other in sides)
        one, other = (side[1] for side in sides[0 if in_row <= in_column else 1])
        return min(in_row, in_column), None not in (one, other) and one != other

    while True:
        measured = {label: [] for label in range(number)}
        for frame in labels:
            for row, column in np.ndindex(frame.shape):
                measured[frame[row, column]].append(measure(frame, row, column))
        widths = {}
        for label, values in measured.items():
            if values and not found[label]:
                width, between = np.array(values, dtype=float).T
                if (width <= WIDTH).mean() >= THIN and between.mean() >= BETWEEN:
                    widths[label] = width.mean()
        if not widths:
            return found
        for label, width in widths.items():
            found[label] |= width == min(widths.values())


@settings(deadline=None, max_examples=100)
@given(hnp.arrays(np.int64, st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 7)),
                  elements=st.integers(0, 4)))  # fmt: skip
def test_outlines_are_those_of_the_definition(labels):
    assert find_outlines(labels).tolist() == slowly(labels).tolist()


def test_frames_are_looked_at_in_parts(monkeypatch):
    labels = np.random.default_rng(0).integers(0, 3, (9, 4, 12)).repeat(2, axis=1)
    labels[:, :, 5] = 3
    whole = find_outlines(labels)
    monkeypatch.setattr(outlines, "AT_ONCE", 2)
    assert (find_outlines(labels) == whole).all()


def test_tokens_of_an_outline_go_to_what_they_look_like():
    labels = picture(RING, frames=2)
    features = torch.tensor([[0.0, 1], [1, 0], [0.5, 0.5]])[torch.from_numpy(labels)]
    features[:, 1, 3:7] = torch.tensor([0.9, 0.2])  # the upper edge shows more of what is inside
    features[:, 5, 3:7] = torch.tensor([0.1, 0.9])
    units = CentredUnits(features.flatten(1, 2), labels.shape[1:])
    given = give_away(labels, np.array([False, False, True]), units)
    assert (given[:, 1, 3:7] == 1).all()
    assert (given[:, 5, 3:7] == 0).all()
    kept = labels < 2
    assert (given[kept] == labels[kept]).all()
    assert (given < 2).all()


def test_out_of_reach_the_nearest_counts_and_a_frame_of_outlines_alone_keeps_them():
    labels = picture("00000000 22222222 22222222 22222222 22222222 22222222 11111111", frames=2)
    labels[1] = 2
    units = CentredUnits(torch.ones(2, 56, 4), (7, 8))
    given = give_away(labels, np.array([False, False, True]), units)
    assert given[0].tolist() == np.repeat([0, 0, 0, 0, 1, 1, 1], 8).reshape(7, 8).tolist()
    assert (given[1] == 2).all()
