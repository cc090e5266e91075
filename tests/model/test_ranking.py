import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model.objects.proposals import choose_proposals
from model.objects.ranking import (
    compute_border_ratios,
    compute_border_shares,
    compute_sizes,
    describe_proposals,
    find_background,
    multiply_components,
    rank_labels,
    rate_labels,
    select_foreground,
)
from model.segmenter import Segmentation


def compute_objectness(labels, motion=None):
    return multiply_components(rate_labels(labels, motion))


def test_largest_first_and_the_rest_is_background():
    labels = np.array([[[3, 3, 3], [0, 0, 7]]], dtype=np.int32)
    assert rank_labels(labels, compute_sizes(labels), max_proposals=None)[labels].tolist() == [[[1, 1, 1], [2, 2, 3]]]
    assert rank_labels(labels, compute_sizes(labels), max_proposals=2)[labels].tolist() == [[[1, 1, 1], [2, 2, 0]]]


def test_ties_go_to_the_larger_label_and_then_to_the_lower_number():
    labels = np.array([[[0, 1, 1, 2], [3, 3, 1, 2]]], dtype=np.int32)
    assert rank_labels(labels, np.ones(4), max_proposals=None).tolist() == [4, 1, 2, 3]
    assert rank_labels(labels, np.ones(4), max_proposals=2).tolist() == [0, 1, 2, 0]


def test_backgrounds_rank_behind_objects():
    labels = np.zeros((2, 6, 8), dtype=np.int32)
    labels[:, 1:3, 1:3] = 1
    labels[:, 3:5, 3:7] = 2
    labels[:, :, 7] = 3
    scores = compute_objectness(labels)
    np.testing.assert_allclose(scores, [0, np.sqrt(4 / 48), np.sqrt(8 / 48), 0])
    ids = rank_labels(labels, scores, max_proposals=3)
    assert ids.tolist() == [3, 2, 1, 0]
    assert select_foreground(labels).tolist() == [0, 1, 1, 0]
    assert select_foreground(np.where(labels == 1, 0, labels)).tolist() == [0, 0, 1, 0]
    background = find_background(labels, select_foreground(labels))
    assert background.tolist() == [True, False, False, True]
    described = describe_proposals(labels, ids, rate_labels(labels), background)
    assert "background" not in described[1]
    assert described[2]["background"]
    assert described[0] == {"id": 1, "score": 0.4082, "size": 0.4082, "border": 1.0, "share": 0.1667, "frames": 2}
    assert [entry["id"] for entry in described] == [1, 2, 3]


def test_foreground_has_at_least_half_of_the_best_objectness():
    labels = np.zeros((1, 12, 16), dtype=np.int32)
    labels[:, 2:6, 2:6] = 1
    labels[:, 8:10, 2:4] = 2  # a quarter of the size of 1, so half of its objectness
    labels[:, 8:9, 8:11] = 3
    assert select_foreground(labels).tolist() == [0, 1, 1, 0]


def test_if_all_objects_touch_the_border_the_one_that_touches_it_least_is_foreground():
    labels = np.array([[[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]]])
    assert not compute_objectness(labels)[1]
    assert select_foreground(labels).tolist() == [1, 0]
    narrow = labels[:, :2]  # nothing but border
    assert not compute_objectness(narrow).any()
    assert select_foreground(narrow).tolist() == [1, 1]


@given(hnp.arrays(np.int32, (2, 3, 4), elements=st.integers(0, 30)), st.integers(1, 20))
def test_ranking_keeps_the_partition(labels, limit):
    for scores in (compute_sizes(labels), compute_objectness(labels)):
        ranked = rank_labels(labels, scores, max_proposals=None)[labels]
        assert sorted(np.unique(ranked)) == list(range(1, len(np.unique(labels)) + 1))
        order = [scores[labels[ranked == place][0]] for place in range(1, ranked.max() + 1)]
        assert (np.diff(order) <= 0).all()
        for label in np.unique(labels):
            assert len(np.unique(ranked[labels == label])) == 1
        np.testing.assert_array_equal(
            rank_labels(labels, scores, max_proposals=limit)[labels], np.where(ranked <= limit, ranked, 0)
        )


def test_of_more_than_allowed_the_best_are_chosen():
    labels = np.repeat(np.arange(25), np.arange(1, 26)).reshape(1, 13, 25)  # label n has n + 1 tokens
    found = Segmentation(labels, 25, 1.0, {})
    kept = {("davis", None): 20, ("davis", 30): 20, ("davis", 3): 3, ("paper", None): 25, ("paper", 3): 3}
    for (kind, limit), number in kept.items():
        ids = choose_proposals(found, [kind], limit=limit).ids[kind]
        assert set(np.flatnonzero(ids)) == set(range(25 - number, 25))


def test_objects_that_move_rank_before_larger_ones():
    labels, motion = np.zeros((3, 12, 16), dtype=np.int32), np.zeros((3, 12, 16), dtype=np.float32)
    labels[:, 2:8, 2:8], labels[:, 8:11, 9:12] = 1, 2
    assert rank_labels(labels, compute_objectness(labels), max_proposals=2).tolist() == [0, 1, 2]
    motion[labels == 2] = 1.5
    rated = rate_labels(labels, motion)
    mean = 1.5 * 9 / 192
    np.testing.assert_allclose(rated["motion"], (np.array([0.02, 0.02, 1.52]) / (mean + 0.02)) ** 1.5, rtol=1e-6)
    assert rank_labels(labels, multiply_components(rated), max_proposals=2).tolist() == [0, 2, 1]
    assert select_foreground(labels, motion).tolist() == [0, 0, 1]


def test_in_a_video_that_moves_the_foreground_has_a_fifth_of_the_best_objectness():
    labels, motion = np.zeros((1, 20, 30), dtype=np.int32), np.full((1, 20, 30), 100, dtype=np.float32)
    labels[:, 1:11, 1:11] = 1
    labels[:, 12:14, 1:4], labels[:, 12:13, 8:11] = 2, 3  # objectness 0.24 and 0.17 of that of 1
    assert select_foreground(labels, motion).tolist() == [0, 1, 1, 0]


def test_ground_that_covers_much_of_the_border_is_background():
    labels = np.zeros((1, 12, 16), dtype=np.int32)
    labels[:, 4:], labels[:, 5:8, 6:10] = 1, 2  # 1 is at the border less often than elsewhere
    ratios, shares = compute_border_ratios(labels), compute_border_shares(labels)
    assert ratios[1] < 1
    np.testing.assert_allclose(shares, [22 / 52, 30 / 52, 0])
    assert find_background(labels, np.array([0, 0, 1])).tolist() == [True, True, False]
    assert find_background(labels, np.array([0, 1, 0])).tolist() == [True, False, False]


def test_rounding_leaves_no_objectness():
    labels = np.zeros((1, 10, 17), dtype=np.int32)  # 50 of 170 tokens are at the border
    border = np.zeros((10, 17), dtype=bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    labels[0][tuple(part[:35] for part in border.nonzero())] = 1  # 7/10 of the border and of all tokens
    labels[0][tuple(part[:84] for part in (~border).nonzero())] = 1
    ratio = compute_border_ratios(labels)[1]
    assert 0 < 1 - ratio < 1e-12
    assert not compute_objectness(labels).any()


def test_a_number_that_no_token_has_is_rated_without_nan():
    labels, motion = np.zeros((1, 4, 5), dtype=np.int32), np.ones((1, 4, 5), dtype=np.float32)
    labels[0, 1, 1] = 2
    for evidence in (None, motion):
        assert np.isfinite(multiply_components(rate_labels(labels, evidence))).all()


def test_what_is_mostly_border_has_no_objectness_however_it_moves():
    labels, motion = np.zeros((1, 20, 35), dtype=np.int32), np.zeros((1, 20, 35), dtype=np.float32)
    labels[0, :2, 10:15] = 1  # border ratio above 3
    motion[labels == 1] = 5
    assert compute_border_ratios(labels)[1] > 3
    assert rate_labels(labels, motion)["border"][1] == 0


def test_what_moves_may_leave_the_frame():
    labels = np.zeros((2, 12, 16), dtype=np.int32)
    labels[:, 4:6, :2], labels[:, :, 12:] = 1, 2
    np.testing.assert_allclose(rate_labels(labels)["border"], [1 - 32 / 52 * 192 / 140, 0, 0], atol=1e-12)
    motion = np.full(labels.shape, 0.5, dtype=np.float32)
    weight = 2 / 3 * 0.5 / 0.52
    expected = 1 - (1 - weight) * 2 / 52 * 192 / 4 - weight * 2 / 52 * 3
    np.testing.assert_allclose(rate_labels(labels, motion)["border"], [0, expected, 0], atol=1e-12)


@given(hnp.arrays(np.int32, (2, 5, 6), elements=st.integers(0, 4)))
def test_a_video_without_motion_is_ranked_as_without_the_measurement(labels):
    still = np.zeros(labels.shape, dtype=np.float32)
    np.testing.assert_array_equal(compute_objectness(labels, still), compute_objectness(labels))
    np.testing.assert_array_equal(select_foreground(labels, still), select_foreground(labels))


def test_the_foreground_rule_prefers_objects_away_from_the_border():
    labels = np.zeros((2, 9, 9), dtype=int)
    labels[:, 3:6, 3:6], labels[:, 6:, 4:6] = 4, 2  # one in the middle, one that stands on the lower edge
    expected = (labels == 4).astype(int)
    assert (select_foreground(labels)[labels][:, :3] == expected[:, :3]).all()
    assert (select_foreground(labels)[labels][:, 3:6] == expected[:, 3:6]).all()
    assert (select_foreground(np.zeros((1, 4, 4), dtype=int)) == 1).all()  # something always is
