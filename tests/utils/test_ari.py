"""Pixels that objects and segments share, ARI and FG-ARI: by hand, as properties, and against scikit-learn."""

import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import adjusted_rand_score

from tests.utils.label_maps import row, score, videos
from utils.scoring.annotations import VOID
from utils.scoring.slots import (
    EMPTY,
    add_tables,
    adjusted_rand_index,
    count_shared_pixels,
    measure_agreement,
)

# Counting


def test_contingency_by_hand():
    gt = np.array([[0, 1, 1], [VOID, 2, 1]])
    prediction = np.array([[3, 3, 0], [0, 0, 3]])
    objects, segments, counts = table = count_shared_pixels(gt, prediction)
    assert objects.tolist() == [0, 1, 2]
    assert segments.tolist() == [0, 3]
    assert counts.tolist() == [[0, 1], [1, 2], [1, 0]]
    # Object 1 has 3 pixels, object 2 one; outside void segment 0 has 2, segment 3 has 3.
    assert table.iou().tolist() == [[1 / 4, 2 / 4], [1 / 2, 0]]


def test_contingency_of_high_ids_is_that_of_low_ones():
    rng = np.random.default_rng(0)
    gt, prediction = rng.integers(0, 4, (9, 9)), rng.integers(0, 5, (9, 9))
    low = count_shared_pixels(gt, prediction)
    high = count_shared_pixels(gt * 20_000, prediction * 16_000)
    assert high.objects.tolist() == [20_000 * i for i in low.objects]
    assert high.segments.tolist() == [16_000 * i for i in low.segments]
    assert np.array_equal(high.counts, low.counts)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_contingency_takes_any_integer_type(dtype):
    gt, prediction = row(0, 1, VOID, 2).astype(dtype), row(200, 200, 3, 3).astype(dtype)
    assert count_shared_pixels(gt, prediction).counts.tolist() == [[0, 1], [0, 1], [1, 0]]


def test_contingency_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="ground truth is"):
        count_shared_pixels(row(0, 1), row(0, 1, 2))
    with pytest.raises(ValueError, match="negative"):
        count_shared_pixels(row(0, 1), row(0, -1))


def test_a_frame_of_void_is_nothing():
    table = count_shared_pixels(row(VOID, VOID), row(1, 2))
    assert table.counts.shape == (0, 0)
    assert np.isnan(measure_agreement(table)).all()


@settings(max_examples=30, deadline=None)
@given(videos(3, void=True), videos(4))
def test_merged_tables_are_the_table_of_all_frames(gts, predictions):
    table = EMPTY
    for gt, prediction in zip(gts, predictions, strict=True):
        table = add_tables(table, count_shared_pixels(gt, prediction))
    for streamed, whole in zip(table, count_shared_pixels(gts, predictions), strict=True):
        assert np.array_equal(streamed, whole)


def test_contingency_does_not_look_at_every_pair():
    rng = np.random.default_rng(0)
    prediction = np.kron(rng.integers(0, 301, (24, 43)), np.ones((20, 20), int))[:480, :854].astype(np.int32)
    gt = np.kron(rng.integers(0, 6, (6, 11)), np.ones((80, 80), int))[:480, :854].astype(np.int32)
    times = []
    for _ in range(15):
        start = time.perf_counter()
        count_shared_pixels(gt, prediction)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02  # 0.0015 on a core of its own; 1,800 comparisons of masks take over 0.1


# ARI


def test_ari_by_hand():
    # Of 15 pairs of 6 pixels 1 + 3 = 4 are together in both partitions, 3 + 3 = 6 in one, 1 + 6 = 7 in the other.
    # By chance 6 * 7 / 15 = 2.8, at most (6 + 7) / 2 = 6.5: (4 - 2.8) / (6.5 - 2.8) = 12 / 37.
    assert adjusted_rand_index(np.array([[2, 1], [0, 3]])) == pytest.approx(12 / 37)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[7]], 1.0),  # one group in both
        ([[3, 4]], 0.0),  # a single object in two segments
        ([[3], [4]], 0.0),  # two objects in a single segment
        ([[1, 0], [0, 1]], 1.0),  # each pixel a group of its own in both
        ([[0, 5], [2, 0]], 1.0),  # the same partition, other names
    ],
)
def test_ari_of_special_cases(counts, expected):
    assert adjusted_rand_index(np.array(counts)) == expected


@settings(max_examples=100, deadline=None)
@given(arrays(np.int32, (5, 6), elements=st.integers(0, 3)), arrays(np.int32, (5, 6), elements=st.integers(0, 9)))
def test_ari_is_that_of_scikit_learn(gt, prediction):
    counts = count_shared_pixels(gt, prediction).counts
    assert adjusted_rand_index(counts) == pytest.approx(adjusted_rand_score(gt.ravel(), prediction.ravel()), abs=1e-15)


def test_ari_of_a_video_whose_squares_exceed_64_bits():
    counts = np.array([[5, 1], [2, 9]], dtype=np.int64) * 10**9
    pairs = [
        Fraction(int(n) * (int(n) - 1), 2) for n in (*counts.ravel(), *counts.sum(1), *counts.sum(0), counts.sum())
    ]
    both, rows, columns, total = sum(pairs[:4]), sum(pairs[4:6]), sum(pairs[6:8]), pairs[8]
    expected = (both - rows * columns / total) / ((rows + columns) / 2 - rows * columns / total)
    assert adjusted_rand_index(counts) == pytest.approx(float(expected), rel=1e-15)


def test_fg_ari_leaves_background_out():
    # Background is torn into three segments, which costs ARI only.
    gt, prediction = row(0, 0, 0, 1, 1, 2, 2), row(4, 5, 6, 7, 7, 8, 8)
    assert measure_agreement(count_shared_pixels(gt, prediction)).fg_ari == 1.0
    assert measure_agreement(count_shared_pixels(gt, prediction)).ari < 1.0


def test_fg_ari_of_a_video_sees_identity_and_that_of_frames_does_not():
    gts, predictions = [row(1, 2), row(1, 2)], [row(3, 4), row(4, 3)]
    scores = score(gts, predictions)
    assert scores.fg_ari_frame == 1.0
    # Table [[1, 1], [1, 1]]: none of 6 pairs is together in both, 2 in each; (0 - 2/3) / (2 - 2/3) = -1/2.
    assert scores.fg_ari_video == pytest.approx(-1 / 2)


@settings(max_examples=40, deadline=None)
@given(videos(3, void=True), videos(5))
def test_ari_family_against_scikit_learn_on_pixels(gts, predictions):
    scores = score(gts, predictions)

    def ari(keep):
        return adjusted_rand_score(gts[keep], predictions[keep]) if keep.any() else np.nan

    def frames(keep):
        values = [adjusted_rand_score(g[k], p[k]) for g, p, k in zip(gts, predictions, keep, strict=True) if k.any()]
        return np.mean(values) if values else np.nan

    valid = gts != VOID
    foreground = valid & (gts > 0)
    for name, expected in {
        "ari_video": ari(valid),
        "ari_frame": frames(valid),
        "fg_ari_video": ari(foreground),
        "fg_ari_frame": frames(foreground),
    }.items():
        assert getattr(scores, name) == pytest.approx(expected, abs=1e-12, nan_ok=True), name
