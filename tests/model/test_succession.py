import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model.objects import tracks
from model.objects.affinity import CentredFeatures, Neighbourhood
from model.objects.succession import LIMITS, count_transitions, join_successors
from tests.model.test_objects import centred_of, same_partition, video

NEAR = Neighbourhood(reach=2, distance_scale=2.0, similarity_scale=0.05)
# A dog that runs to the right and turns around; 1 and 2 are its two views, 3 a bush behind it.
DOG = [
    "00000000 01100033 01100033 00000000",
    "00000000 00110033 00110033 00000000",
    "00000000 00110033 00110033 00000000",
    "00000000 00220033 00220033 00000000",
    "00000000 00220033 00220033 00000000",
    "00000000 00022033 00022033 00000000",
]
BEHIND, FRONT, BACK, BUSH = [-1.0, 0, 0], [1, 0.4, 0], [1, -0.4, 0], [1, 0, -2]


def join(labels: np.ndarray, colours: list[list[float]]) -> np.ndarray:
    return join_successors(labels, centred_of(labels, colours), NEAR)


def test_two_views_of_one_object_become_one():
    labels = video(DOG)
    joined = join(labels, [BEHIND, FRONT, BACK, BUSH])
    assert same_partition(joined, np.where(labels == 2, 1, labels))


def test_a_third_view_joins_the_first_two():
    labels = video(DOG + [DOG[-1].replace("2", "4")] * 3)
    joined = join(labels, [BEHIND, FRONT, BACK, BUSH, [1, -0.2, 0.3]])
    assert same_partition(joined, np.where((labels == 2) | (labels == 4), 1, labels))


def test_what_follows_but_looks_different_stays_apart():
    labels = video(DOG)
    assert same_partition(join(labels, [BEHIND, FRONT, [0.3, -1.0, 0.5], BUSH]), labels)


def move_an_edge(lengths: list[int]) -> tuple[np.ndarray, CentredFeatures]:
    """Move the edge between 1 and 2 over a still object of ten columns: 1 covers `lengths` of them."""
    rows = [f"0{'1' * length}{'2' * (10 - length)}0" for length in lengths]
    labels = video([f"{'0' * 12} {row} {row}" for row in rows])
    columns = torch.linspace(-0.4, 0.4, 12).expand(*labels.shape)
    still = torch.stack([torch.from_numpy(labels > 0) * 2 - 1, columns, torch.zeros_like(columns)], dim=-1)
    return labels, CentredFeatures(still.flatten(1, 2), labels.shape[1:])


def test_a_gradual_change_is_followed():
    labels, centred = move_an_edge([10, 8, 6, 4, 2, 0])
    assert same_partition(join_successors(labels, centred, NEAR), labels > 0)


def test_what_stays_side_by_side_stays_apart():
    """Many tokens pass from one to the other, and they look alike."""
    labels, centred = move_an_edge([9, 8, 7, 6, 5])
    flow = count_transitions(labels, centred, NEAR)
    assert flow[1, 2] >= LIMITS.min_flow * (labels == 2).sum((1, 2)).mean()
    assert same_partition(join_successors(labels, centred, NEAR), labels)


def test_an_object_that_melts_into_the_background_stays_apart():
    labels = video(DOG[:2] * 2 + ["00000000 00000033 00000033 00000000"] * 4)
    assert same_partition(join(labels, [[1, 0.1, 0], FRONT, BACK, BUSH]), labels)


def test_tokens_that_pass_back_are_subtracted():
    labels = video([DOG[0], DOG[0].replace("1", "2")] * 5)
    assert same_partition(join(labels, [BEHIND, FRONT, BACK, BUSH]), np.where(labels == 2, 1, labels))
    labels = labels[:-1]  # as many passed back as forth
    assert same_partition(join(labels, [BEHIND, FRONT, BACK, BUSH]), labels)


def test_transitions_follow_what_moves():
    """A thing that moves by a token passes none to another label, and what it uncovers comes from the background."""
    labels = video(["0000000 0110000 0110000 0000000", "0000000 0011000 0011000 0000000"])
    flow = count_transitions(labels, centred_of(labels, [BEHIND, FRONT]), NEAR)
    assert flow.tolist() == [[2, 0], [0, 2]]


@pytest.mark.parametrize("frames", [1, 2])
def test_short_videos_of_one_label(frames):
    labels = np.zeros((frames, 3, 4), dtype=int)
    assert (join(labels, [BEHIND]) == 0).all()


@settings(max_examples=30, deadline=None)
@given(
    labels=hnp.arrays(np.int64, (4, 4, 5), elements=st.integers(0, 5)),
    seed=st.integers(0, 99),
    order=st.permutations(range(6)),
)
def test_joining_only_joins_and_does_not_depend_on_the_numbers(labels, seed, order):
    features = torch.randn(4, 20, 3, generator=torch.Generator().manual_seed(seed)) + 1
    near = tracks.LIMITS.scale_to((4, 5)).neighbourhood
    joined = join_successors(labels, CentredFeatures(features, (4, 5)), near)
    for number in np.unique(labels):
        assert len(np.unique(joined[labels == number])) == 1
    renumbered = join_successors(np.array(order)[labels], CentredFeatures(features, (4, 5)), near)
    assert same_partition(joined, renumbered)
