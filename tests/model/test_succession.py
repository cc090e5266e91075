import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

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


def join_given(
    monkeypatch, counts: list[list[int]], angles: list[float], flow: dict[tuple[int, int], int]
) -> list[int]:
    """Join labels with given numbers of tokens in each frame, angles of features in degrees, and tokens that pass."""
    counts = np.array(counts)
    frames = [np.repeat(np.arange(len(counts)), column) for column in counts.T]
    rest = len(counts)  # a label of its own fills the frames
    labels = np.full((len(frames), 1, counts.sum(0).max() + 1), rest)
    for row, frame in zip(labels[:, 0], frames, strict=True):
        row[: len(frame)] = frame
    radians = torch.tensor([*angles, 180.0]).deg2rad()
    centred = centred_of(labels, torch.stack([radians.cos(), radians.sin()], dim=1).tolist())
    centred.mean.zero_()
    passed = np.zeros((rest + 1, rest + 1))
    for pair, number in flow.items():
        passed[pair] = number
    monkeypatch.setattr("model.objects.succession.count_transitions", lambda *_: passed)
    joined = join_successors(labels, centred, NEAR)
    return [int(joined[labels == label][0]) for label in range(rest)]


FIRST, SECOND = [10, 10, 0, 0], [0, 0, 10, 10]


def test_nine_tenths_of_the_tokens_must_pass(monkeypatch):
    assert join_given(monkeypatch, [FIRST, SECOND], [0, 0], {(0, 1): 8}) == [0, 1]
    assert join_given(monkeypatch, [FIRST, SECOND], [0, 0], {(0, 1): 9}) == [0, 0]
    assert join_given(monkeypatch, [FIRST, SECOND], [0, 0], {(1, 0): 11, (0, 1): 2}) == [0, 0]
    # The smaller size counts, in the frames that show a label.
    assert join_given(monkeypatch, [[40, 40, 0, 0], [0, 0, 0, 10]], [0, 0], {(0, 1): 9}) == [0, 0]


def test_labels_that_overlap_in_time_must_be_more_similar(monkeypatch):
    """An overlap of a quarter leaves 0.3 for the difference of the cosine from 1."""
    counts, flow = [[10] * 4 + [0] * 3, [0] * 3 + [10] * 4], {(0, 1): 10}
    for cosine, expected in ((0.71, [0, 0]), (0.69, [0, 1])):
        assert join_given(monkeypatch, counts, [0, float(np.rad2deg(np.arccos(cosine)))], flow) == expected
    for cosine, expected in ((0.51, [0, 0]), (0.49, [0, 1])):
        angle = float(np.rad2deg(np.arccos(cosine)))
        assert join_given(monkeypatch, [FIRST, SECOND], [0, angle], flow) == expected


def test_joined_labels_are_measured_as_one(monkeypatch):
    half = {(0, 1): 10, (0, 2): 5, (1, 2): 5}  # 2 comes half from 0 and half from 1
    third = [[10, 0, 0], [0, 10, 0], [0, 0, 10]]
    assert join_given(monkeypatch, third, [0, 0, 0], half) == [0, 0, 0]
    assert join_given(monkeypatch, third, [0, 0, 0], {(b, a): n for (a, b), n in half.items()}) == [0, 0, 0]
    # 1 is more like 0 than like 2, and 2 is not like the two of them.
    chain = {(0, 1): 10, (1, 2): 10}
    assert join_given(monkeypatch, [[30, 0, 0], [0, 10, 0], [0, 0, 10]], [0, 35, 80], chain) == [0, 0, 2]
    # 2 follows 1, but was there beside 0, which 1 follows too.
    assert join_given(monkeypatch, [[10, 0], [0, 10], [10, 0]], [0, 0, 20], chain) == [0, 0, 2]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=hnp.arrays(np.int64, (4, 5), elements=st.integers(0, 3)).filter(lambda counts: counts.any(1).all()),
    angles=st.lists(st.floats(0, 60), min_size=4, max_size=4, unique=True),
    flow=hnp.arrays(np.int64, (4, 4), elements=st.integers(0, 4)),
    order=st.permutations(range(4)),
)
def test_the_numbers_of_labels_do_not_matter(monkeypatch, counts, angles, flow, order):
    found = join_given(monkeypatch, counts.tolist(), angles, dict(np.ndenumerate(flow)))
    order = list(order)
    again = join_given(
        monkeypatch, counts[order].tolist(), [angles[i] for i in order], dict(np.ndenumerate(flow[order][:, order]))
    )
    assert [[a == b for b in again] for a in again] == [[found[i] == found[j] for j in order] for i in order]
