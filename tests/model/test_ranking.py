import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model.objects.ranking import by_objectness, by_size, choose, describe, foreground, rank


def test_largest_first_and_the_rest_is_background():
    labels = np.array([[[3, 3, 3], [0, 0, 7]]], dtype=np.int32)
    assert rank(labels, by_size(labels), max_proposals=None)[labels].tolist() == [[[1, 1, 1], [2, 2, 3]]]
    assert rank(labels, by_size(labels), max_proposals=2)[labels].tolist() == [[[1, 1, 1], [2, 2, 0]]]


def test_backgrounds_rank_behind_objects():
    labels = np.zeros((2, 6, 8), dtype=np.int32)
    labels[:, 1:3, 1:3] = 1
    labels[:, 3:5, 3:7] = 2
    labels[:, :, 7] = 3
    scores = by_objectness(labels)
    np.testing.assert_allclose(scores, [0, np.sqrt(4 / 48), np.sqrt(8 / 48), 0])
    ids = rank(labels, scores, max_proposals=3)
    assert ids.tolist() == [3, 2, 1, 0]
    assert foreground(labels).tolist() == [0, 1, 1, 0]
    assert foreground(np.where(labels == 1, 0, labels)).tolist() == [0, 0, 1, 0]
    assert describe(labels, ids, scores)[0] == {"id": 1, "score": 0.4082, "share": 0.1667, "frames": 2}
    assert [entry["id"] for entry in describe(labels, ids, scores)] == [1, 2, 3]


def test_foreground_is_what_has_half_of_the_best_objectness():
    labels = np.zeros((1, 12, 16), dtype=np.int32)
    labels[:, 2:6, 2:6] = 1
    labels[:, 8:10, 2:4] = 2  # a quarter of the size of 1, so half of its objectness
    labels[:, 8:9, 8:11] = 3
    assert foreground(labels).tolist() == [0, 1, 1, 0]


def test_where_all_run_out_of_the_picture_the_one_that_does_least_is_foreground():
    labels = np.array([[[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]]])
    assert not by_objectness(labels)[1]
    assert foreground(labels).tolist() == [1, 0]
    narrow = labels[:, :2]  # nothing but border
    assert not by_objectness(narrow).any()
    assert foreground(narrow).tolist() == [1, 1]


@given(hnp.arrays(np.int32, (2, 3, 4), elements=st.integers(0, 30)), st.integers(1, 20))
def test_ranking_keeps_the_partition(labels, limit):
    for scores in (by_size(labels), by_objectness(labels)):
        ranked = rank(labels, scores, max_proposals=None)[labels]
        assert sorted(np.unique(ranked)) == list(range(1, len(np.unique(labels)) + 1))
        order = [scores[labels[ranked == place][0]] for place in range(1, ranked.max() + 1)]
        assert (np.diff(order) <= 0).all()
        for label in np.unique(labels):
            assert len(np.unique(ranked[labels == label])) == 1
        np.testing.assert_array_equal(
            rank(labels, scores, max_proposals=limit)[labels], np.where(ranked <= limit, ranked, 0)
        )


def test_of_more_than_allowed_the_best_are_chosen():
    labels, scores = np.arange(25).reshape(1, 5, 5), np.arange(25) / 25
    kept = {("davis", None): 20, ("davis", 30): 20, ("davis", 3): 3, ("paper", None): 25, ("paper", 3): 3}
    for (kind, limit), number in kept.items():
        ids = choose(kind, labels, scores, limit=limit)
        assert set(np.flatnonzero(ids)) == set(range(25 - number, 25))
