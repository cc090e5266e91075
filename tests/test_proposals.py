import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model.proposals import rank_clusters


def test_largest_first_and_the_rest_is_background():
    labels = np.array([[[3, 3, 3], [0, 0, 7]]], dtype=np.int32)
    assert rank_clusters(labels, max_proposals=None)[labels].tolist() == [[[1, 1, 1], [2, 2, 3]]]
    assert rank_clusters(labels, max_proposals=2)[labels].tolist() == [[[1, 1, 1], [2, 2, 0]]]


@given(hnp.arrays(np.int32, (2, 3, 4), elements=st.integers(0, 30)), st.integers(1, 20))
def test_ranking_keeps_the_partition(labels, limit):
    ranked = rank_clusters(labels, max_proposals=None)[labels]
    assert sorted(np.unique(ranked)) == list(range(1, len(np.unique(labels)) + 1))
    sizes = np.bincount(ranked.ravel())[1:]
    assert (np.diff(sizes) <= 0).all()
    for cluster in np.unique(labels):
        assert len(np.unique(ranked[labels == cluster])) == 1
    np.testing.assert_array_equal(
        rank_clusters(labels, max_proposals=limit)[labels], np.where(ranked <= limit, ranked, 0)
    )
