"""mBO and mIoU, and properties of all slot scores: by hand, and against masks one by one."""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import adjusted_rand_score

from tests.utils.label_maps import row, score, videos
from utils.scoring.annotations import VOID
from utils.scoring.sequence import SlotSequence
from utils.scoring.slots import (
    SlotScores,
    SlotTable,
    count_shared_pixels,
    match_and_average,
    measure_agreement,
)
from utils.scoring.tables import Scores

NAMES = SlotScores._fields[:12]


# mBO and mIoU


def test_mbo_lets_a_segment_serve_twice_and_miou_does_not():
    # Both objects have IoU 2 / 4 with the only segment.
    result = measure_agreement(count_shared_pixels(row(1, 1, 2, 2), row(5, 5, 5, 5)))
    assert result.mbo == 1 / 2
    assert result.miou == 1 / 4


def test_background_of_the_prediction_is_a_segment():
    assert measure_agreement(count_shared_pixels(row(1, 1, 0, 0), row(0, 0, 3, 3))).miou == 1.0


def test_iou_of_video_clips_and_frames_by_hand():
    gts = [row(1, 1, 0, 0), row(1, 1, 1, 1), row(0, 0, 0, 0)]
    predictions = [row(1, 1, 2, 2), row(2, 2, 2, 1), row(1, 1, 1, 1)]
    scores = score(gts, predictions, clip_frames=2)
    # IoU of the object with segment 1: 1, then 1/4, then 0 as only the segment is there. With segment 2: 0, then 3/4;
    # in the last frame neither is there, so it does not count.
    assert scores.miou_video == pytest.approx(max((1 + 1 / 4 + 0) / 3, (0 + 3 / 4) / 2))
    assert scores.miou_frame == scores.mbo_frame == pytest.approx((1 + 3 / 4) / 2)
    # As tubes: the object has 6 pixels, segment 1 has 3 + 4 and shares 3, segment 2 has 5 and shares 3.
    assert scores.mbo_video == pytest.approx(max(3 / (6 + 7 - 3), 3 / (6 + 5 - 3)))
    # The only whole clip lacks the last frame, and with it 4 pixels of segment 1.
    assert scores.miou_clip == scores.mbo_clip == pytest.approx(3 / (6 + 3 - 3))
    assert (scores.frames, scores.object_frames, scores.clips, scores.objects) == (3, 2, 1, 1)


def test_solv_counts_a_frame_once_where_object_and_segment_are_apart():
    # IoU 1, then 0 in the frame that holds both, neither touching the other.
    assert score([row(1, 0), row(1, 0)], [row(1, 0), row(0, 1)]).miou_video == 1 / 2


def test_solv_matches_once_per_video_and_takes_fg_ari_after_that():
    gt, prediction = row(1, 1, 1, 1, 2, 2), row(1, 1, 2, 3, 4, 4)
    scores = score([gt], [prediction])
    assert scores.miou_video == pytest.approx((2 / 4 + 1) / 2)
    # [[2, 1, 1, 0], [0, 0, 0, 2]]: 2 of 15 pairs in both, 7 and 2 in one each: (2 - 14/15) / (4.5 - 14/15).
    assert scores.fg_ari_frame == pytest.approx(32 / 107)
    # Segments 2 and 3, unmatched, become one: [[2, 2, 0], [0, 0, 2]]: (3 - 7 * 3/15) / (5 - 7 * 3/15).
    assert scores.fg_ari_matched == pytest.approx(4 / 9)


def test_objects_left_without_a_segment_count_nothing():
    assert score([row(1, 2, 3)], [row(7, 7, 7)]).miou_video == pytest.approx(1 / 9)
    assert measure_agreement(count_shared_pixels(row(1, 2, 3), row(7, 7, 7))).miou == pytest.approx(1 / 9)


def test_clips_are_whole_and_in_order():
    gts, predictions = [row(1, 2)] * 5, [row(1, 2), row(2, 1), row(1, 2), row(1, 2), row(2, 1)]
    # The first clip swaps its segments: each tube shares 1 of 3 pixels. The second is perfect, the fifth frame is none.
    assert score(gts, predictions, clip_frames=2).miou_clip == pytest.approx((1 / 3 + 1) / 2)
    assert score(gts, predictions, clip_frames=2).clips == 2
    assert np.isnan(score(gts, predictions, clip_frames=6).miou_clip)
    whole = score(gts, predictions, clip_frames=5)
    assert (whole.mbo_clip, whole.fg_ari_clip, whole.clips) == (whole.mbo_video, whole.fg_ari_video, 1)


def test_later_objects_are_background_when_only_those_of_the_first_frame_count():
    gts, predictions = [row(0, 1, 1), row(2, 1, 2)], [row(3, 4, 4), row(5, 4, 3)]
    expected = score([row(0, 1, 1), row(0, 1, 0)], predictions)
    assert score(gts, predictions, first_frame_objects=True) == pytest.approx(expected, nan_ok=True)
    assert score(gts, predictions).objects == 2


def test_a_sequence_without_objects_has_only_ari():
    scores = score([row(0, 0), row(VOID, 0)], [row(1, 1), row(1, 2)], clip_frames=1)
    assert scores.ari_video == 0.0
    assert (scores.frames, scores.object_frames, scores.clips, scores.objects) == (2, 0, 0, 0)
    assert all(np.isnan(getattr(scores, name)) for name in NAMES if not name.startswith("ari"))
    assert np.isnan(SlotTable().scores().ari_video)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 5)), elements=st.floats(0, 1)))
def test_matching_is_the_best_of_all(iou):
    objects, segments = iou.shape
    padded = np.pad(iou, ((0, 0), (0, objects)))
    best = max(
        sum(padded[k, p] for k, p in enumerate(choice))
        for choice in itertools.permutations(range(segments + objects), objects)
    )
    assert match_and_average(iou) == pytest.approx(best / objects)


def slow_iou(a: np.ndarray, b: np.ndarray) -> float:
    return np.logical_and(a, b).sum() / np.logical_or(a, b).sum()


def slow_scores(gts: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """mBO of video and frames and SOLV's mIoU, mask by mask, matching by trying everything."""
    valid = gts != VOID
    objects = np.setdiff1d(np.unique(gts[valid]), [0])
    if not len(objects):
        return dict.fromkeys(("mbo_video", "mbo_frame", "miou_video"), np.nan)
    segments = np.unique(predictions[valid])

    def frame_mean(k, p):
        pairs = [(g == k, v & (s == p)) for g, s, v in zip(gts, predictions, valid, strict=True)]
        return np.mean([slow_iou(a, b) for a, b in pairs if (a | b).any()])

    tubes = [max(slow_iou(gts == k, valid & (predictions == p)) for p in segments) for k in objects]
    frames = [
        np.mean([max(slow_iou(g == k, v & (s == p)) for p in segments) for k in objects if (g == k).any()])
        for g, s, v in zip(gts, predictions, valid, strict=True)
        if np.isin(g, objects).any()
    ]
    padded = [*segments, *[-1] * len(objects)]
    table = {(k, p): frame_mean(k, p) if p >= 0 else 0.0 for k in objects for p in padded}
    matched = max(
        sum(table[pair] for pair in zip(objects, choice, strict=True))
        for choice in itertools.permutations(padded, len(objects))
    )
    return {"mbo_video": np.mean(tubes), "mbo_frame": np.mean(frames), "miou_video": matched / len(objects)}


@settings(max_examples=60, deadline=None)
@given(videos(2, void=True, frames=3), videos(3, frames=3))
def test_iou_family_against_masks(gts, predictions):
    scores = score(gts, predictions)
    for name, expected in slow_scores(gts, predictions).items():
        assert getattr(scores, name) == pytest.approx(expected, abs=1e-12, nan_ok=True), name


def test_fg_ari_after_matching_against_relabelled_maps():
    rng = np.random.default_rng(0)  # large enough that no two segments are equally good
    gts, predictions = rng.integers(0, 4, (3, 40, 50)), rng.integers(0, 7, (3, 40, 50))
    pairs = list(itertools.product(range(1, 4), range(7)))
    means = {
        (k, p): np.mean([slow_iou(a == k, b == p) for a, b in zip(gts, predictions, strict=True)]) for k, p in pairs
    }
    choice = max(itertools.permutations(range(7), 3), key=lambda c: sum(means[k + 1, p] for k, p in enumerate(c)))
    merged_predictions = np.where(np.isin(predictions, choice), predictions, 99)
    frames = zip(gts, merged_predictions, strict=True)
    expected = np.mean([adjusted_rand_score(gt[gt > 0], prediction[gt > 0]) for gt, prediction in frames])
    assert score(gts, predictions).fg_ari_matched == pytest.approx(expected, abs=1e-12)


# Properties of all


@settings(max_examples=40, deadline=None)
@given(videos(3, void=True))
def test_a_perfect_prediction_scores_one(gts):
    gts[0, 0, 0] = 1
    names = {(gt_id, 7 * gt_id + 2) for gt_id in range(4)} | {(VOID, 0)}
    predictions = np.vectorize(dict(names).get)(gts)
    scores = score(gts, predictions, clip_frames=2)
    assert [getattr(scores, name) for name in NAMES] == pytest.approx([1.0] * len(NAMES))


@settings(max_examples=40, deadline=None)
@given(videos(3, void=True), videos(4), st.permutations(range(1, 4)), st.permutations(range(5)))
def test_names_of_objects_and_segments_do_not_matter(gts, predictions, objects, segments):
    renamed = np.arange(VOID + 1)
    renamed[1:4] = objects
    before = score(gts, predictions, clip_frames=2)
    after = score(renamed[gts], np.array(segments)[predictions], clip_frames=2)
    for name in NAMES:
        if name != "fg_ari_matched":  # equally good assignments may merge other segments
            assert getattr(after, name) == pytest.approx(getattr(before, name), abs=1e-12, nan_ok=True), name


@settings(max_examples=40, deadline=None)
@given(videos(2, void=True), videos(4), videos(9))
def test_what_is_predicted_on_void_does_not_matter(gts, predictions, others):
    changed = np.where(gts == VOID, others, predictions)
    assert score(gts, changed) == pytest.approx(score(gts, predictions), nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(videos(3, void=True), videos(5))
def test_mbo_bounds_miou_and_all_bound_one(gts, predictions):
    scores = score(gts, predictions, clip_frames=2)
    for part in ("frame", "clip"):
        mbo, miou = getattr(scores, f"mbo_{part}"), getattr(scores, f"miou_{part}")
        assert np.isnan(mbo) or 0 <= miou <= mbo <= 1
    assert all(np.isnan(getattr(scores, name)) or -1 <= getattr(scores, name) <= 1 for name in NAMES)


def test_memory_hardly_grows_with_the_video():
    rng = np.random.default_rng(0)
    frame = count_shared_pixels(rng.integers(0, 4, (60, 80)), rng.integers(0, 100, (60, 80)))
    table, sizes = SlotTable(), []
    for _ in range(3):
        for _ in range(60):
            table.add(frame)
        sizes.append(len(pickle.dumps(table)))
    assert (sizes[2] - sizes[1]) / 60 < 4 * frame.counts.size + 1500  # bytes a frame


# Means over sequences


def test_means_weigh_what_their_source_weighs():
    one = score([row(1, 1, 2)], [row(1, 1, 2)], clip_frames=1)
    other = score([row(1, 1), row(0, 1), row(0, 0)], [row(3, 4), row(3, 3), row(3, 3)], clip_frames=1)
    empty = score([row(0, 0)], [row(1, 1)], clip_frames=1)
    assert other.mbo_frame == other.mbo_clip == 1 / 2

    def means(*sequences):
        return Scores("slots", tuple(SlotSequence(str(k), 1, 1, s) for k, s in enumerate(sequences))).summary()

    found = means(one, other, empty)
    assert list(found) == list(NAMES)
    # One frame, and two, have objects; one sequence has two objects, the other one; all four sequences' frames count.
    assert found["mbo_frame"] == found["mbo_clip"] == pytest.approx((1 + 2 * 1 / 2) / 3)
    assert found["miou_video"] == pytest.approx((2 * 1 + other.miou_video) / 3)
    assert found["mbo_video"] == pytest.approx((one.mbo_video + other.mbo_video) / 2)
    assert found["ari_frame"] == pytest.approx((one.ari_frame + 3 * other.ari_frame + 1) / 5)
    assert np.isnan(means(empty)["mbo_frame"])
