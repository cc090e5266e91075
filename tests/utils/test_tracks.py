"""Video AP and AR and identity switches: by hand, and against pycocotools and TrackEval."""

import contextlib
import io
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from utils.scoring import tracks
from utils.scoring.annotations import VOID
from utils.scoring.slots import count_shared_pixels
from utils.scoring.tracks import MIN_OVERLAP, THRESHOLDS, Tracks, TubeTable, evaluate_tracks, identity_switches

NUMBERS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR@1", "AR@10", "AR@100")


def sequence(iou, scores, *, objects: float = 100.0, proposals: float = 100.0) -> Tracks:
    """Tracks from their IoU (objects, proposals), all objects and all proposals of one area."""
    iou = np.array(iou, dtype=np.float64)
    areas = np.full(iou.shape[0], objects), np.full(iou.shape[1], proposals)
    return Tracks(iou, np.array(scores, dtype=np.float64), *areas)


def table_of(gts, predictions) -> TubeTable:
    table = TubeTable()
    for gt, prediction in zip(gts, predictions, strict=True):
        table.add(count_shared_pixels(np.asarray(gt), np.asarray(prediction)))
    return table


# Tubes


def test_tubes_by_hand():
    gts = [[[1, 1, 0, 0]], [[1, 1, 2, VOID]], [[0, 0, 0, 0]]]
    predictions = [[[4, 4, 4, 0]], [[0, 4, 9, 9]], [[9, 9, 0, 0]]]
    found = table_of(gts, predictions).tracks()
    # Object 1 has 2 + 2 pixels, object 2 one; proposal 4 has 3 + 1, proposal 9 has 1 + 2 outside void.
    assert found.iou.tolist() == [[3 / (4 + 4 - 3), 0], [0, 1 / (1 + 3 - 1)]]
    assert found.scores.tolist() == [1 / 4, 1 / 9]
    # Means over the frames in which a tube is seen.
    assert found.object_areas.tolist() == [2.0, 1.0]
    assert found.proposal_areas.tolist() == [2.0, 1.5]


def test_tubes_of_a_sequence_without_objects_or_proposals():
    assert table_of([[[0, 0]]], [[[3, 0]]]).tracks().iou.shape == (0, 1)
    assert table_of([[[1, 0]]], [[[0, 0]]]).tracks().iou.shape == (1, 0)
    assert TubeTable().tracks().iou.shape == (0, 0)


def test_memory_does_not_grow_with_the_video():
    rng = np.random.default_rng(0)
    frame = count_shared_pixels(rng.integers(0, 4, (30, 40)), rng.integers(0, 50, (30, 40)))
    table = TubeTable()
    table.add(frame)
    size = len(pickle.dumps(table))
    for _ in range(100):
        table.add(frame)
    assert len(pickle.dumps(table)) == size


# AP and AR by hand


def test_ap_and_ar_by_hand():
    # Best first: a miss, then 0.8 with the first object, then 0.55 with the second.
    found = evaluate_tracks(
        [sequence([[0.1, 0.8, 0], [0, 0, 0.55]], [3, 2, 1])], thresholds=(0.5, 0.6), max_dets=(1, 2, 3)
    )
    # At 0.5 precision is 0, 1/2, 2/3, so 2/3 at every recall. At 0.6 it is 0, 1/2, 1/3, and 1/2 up to recall 0.5: at
    # 51 of 101 recalls, and 0 at the others.
    assert found["AP50"] == pytest.approx(2 / 3)
    assert found["AP"] == pytest.approx((2 / 3 + 51 / 101 / 2) / 2)
    assert np.isnan(found["AP75"])
    assert (found["AR@1"], found["AR@2"], found["AR@3"]) == pytest.approx((0, 1 / 2, (1 + 1 / 2) / 2))


def test_proposals_of_all_sequences_are_ranked_together():
    good, bad = sequence([[0.9]], [0.5]), sequence([[0.1]], [0.7])
    # Best first a miss, then a hit: precision 0, 1/2, recall 1/2.
    assert evaluate_tracks([good, bad], thresholds=(0.5,))["AP"] == pytest.approx(51 / 101 / 2)
    late = sequence([[0.1]], [0.3])
    assert evaluate_tracks([good, late], thresholds=(0.5,))["AP"] == pytest.approx(51 / 101)


def test_a_sequence_without_objects_gives_false_positives():
    good, empty = sequence([[0.9]], [0.5]), sequence(np.empty((0, 3)), [0.9, 0.8, 0.1])
    assert evaluate_tracks([good])["AP50"] == 1.0
    assert evaluate_tracks([good, empty])["AP50"] == pytest.approx(1 / 3)
    assert evaluate_tracks([good, empty])["AR@1"] == evaluate_tracks([good])["AR@1"] == pytest.approx(9 / 10)


def test_each_object_is_found_once_and_the_best_proposal_chooses_first():
    # The better proposal takes object 2, of higher IoU, so the other one, which overlaps only that, misses.
    found = evaluate_tracks([sequence([[0.6, 0], [0.7, 0.9]], [2, 1])], thresholds=(0.5,))
    assert found["AR@10"] == 1 / 2
    # With the scores the other way round both are found.
    assert evaluate_tracks([sequence([[0.6, 0], [0.7, 0.9]], [1, 2])], thresholds=(0.5,))["AR@10"] == 1.0


def test_equal_scores_keep_the_order_of_ids():
    assert evaluate_tracks([sequence([[0.9, 0.1]], [1, 1])])["AR@1"] == pytest.approx(9 / 10)
    assert evaluate_tracks([sequence([[0.1, 0.9]], [1, 1])])["AR@1"] == 0


def test_area_ranges_ignore_what_lies_outside():
    small, large = sequence([[0.9]], [0.5]), sequence([[0.8]], [0.6], objects=300**2, proposals=300**2)
    miss = sequence(np.empty((0, 1)), [0.9], proposals=200**2)
    found = evaluate_tracks([small, large, miss], thresholds=(0.5,))
    assert found["AP_small"] == found["AP_large"] == 1.0
    assert np.isnan(found["AP_medium"])
    assert found["AP"] == pytest.approx(2 / 3)


def test_an_object_in_the_area_range_comes_before_a_better_one_outside():
    # Overlaps both; among small objects it finds the first, among large ones the second.
    one = Tracks(np.array([[0.6], [0.9]]), np.ones(1), np.array([100.0, 300.0**2]), np.array([100.0]))
    found = evaluate_tracks([one], thresholds=(0.5,))
    assert found["AP_small"] == found["AP_large"] == 1.0
    assert found["AP"] == pytest.approx(51 / 101)


def test_without_objects_or_sequences():
    assert all(np.isnan(value) for value in evaluate_tracks([sequence(np.empty((0, 2)), [1, 2])]).values())
    with pytest.raises(ValueError, match="no sequences"):
        evaluate_tracks([])
    assert evaluate_tracks([sequence(np.empty((2, 0)), [])])["AP"] == 0


# AP and AR against others

# Areas that divide the small maps below as YouTube-VIS divides its videos.
RANGES = {"AP": (0, 1e10), "AP_small": (0, 130), "AP_medium": (130, 165), "AP_large": (165, 1e10)}


def blocky(rng: np.random.Generator, frames: int, highest: int) -> np.ndarray:
    """(frames, 24, 32) label maps of blocks that keep their place but for some."""
    still = rng.integers(0, highest + 1, (1, 6, 8))
    blocks = np.where(rng.random((frames, 6, 8)) < 0.3, rng.integers(0, highest + 1, (frames, 6, 8)), still)
    return np.kron(blocks, np.ones((1, 4, 4), dtype=int)).astype(np.int32)


def similar(rng: np.random.Generator, gts: np.ndarray) -> np.ndarray:
    """Label maps that follow `gts` under other ids, with blocks of noise, so that IoUs spread over the thresholds."""
    names = rng.permutation(9)
    predictions = names[np.where(gts == VOID, 0, gts)]
    noise = blocky(rng, len(gts), 8)
    return np.where(
        np.kron(rng.random((len(gts), 12, 16)) < rng.uniform(0, 0.35), np.ones((1, 2, 2))) > 0, noise, predictions
    )


def data_set(seed: int, frames: int, *, ties: bool = False) -> list[tuple[np.ndarray, np.ndarray, dict[int, float]]]:
    """Sequences of ground truth, prediction and scores; the last have no objects or no proposals."""
    rng = np.random.default_rng(seed)
    videos = []
    for index in range(9):
        gts = blocky(rng, frames, 0 if index == 7 else 4)
        predictions = similar(rng, gts) * (index != 8)
        gts[:, :2, :5] = VOID
        scores = dict(enumerate(rng.random(9).round(1 if ties else 9).tolist()))
        videos.append((gts, predictions, scores))
    return videos


def our_numbers(videos, **options) -> dict[str, float]:
    return evaluate_tracks([scored_tracks(*video) for video in videos], **options)


def scored_tracks(gts, predictions, scores: dict[int, float]) -> Tracks:
    """Tracks with other scores of the proposals than the ranks that their ids are."""
    found = table_of(gts, predictions).tracks()
    ids = (1 / found.scores).round().astype(int).tolist()
    return found._replace(scores=np.array([scores[i] for i in ids], dtype=np.float64))


def encode(mask: np.ndarray) -> dict:
    return rle.encode(np.asfortranarray(mask.astype(np.uint8)))


def ids_of(labels: np.ndarray, valid: np.ndarray) -> list[int]:
    return [i for i in np.unique(labels[valid]).tolist() if i > 0]


def coco_numbers(videos, ranges: list[tuple[float, float]]) -> list[float]:
    """pycocotools' twelve numbers of one-frame videos."""
    objects, proposals = [], []
    for image, (gts, predictions, scores) in enumerate(videos, start=1):
        gt, prediction, valid = gts[0], predictions[0], gts[0] != VOID
        for i in ids_of(gt, valid):
            part = encode(gt == i)
            number = len(objects) + 1
            objects.append(
                {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "segmentation": part}
                | {"area": float(rle.area(part)), "bbox": rle.toBbox(part).tolist()}
            )
        for i in ids_of(prediction, valid):
            part = encode(valid & (prediction == i))
            proposals.append({"image_id": image, "category_id": 1, "segmentation": part, "score": scores[i]})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": [{"id": i + 1, "height": 24, "width": 32} for i in range(len(videos))]}
        truth.dataset |= {"annotations": objects, "categories": [{"id": 1}]}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(proposals), "segm")
        evaluation.params.useCats = 0
        evaluation.params.areaRng = [list(limits) for limits in ranges]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


@pytest.mark.parametrize("seed", range(6))
def test_one_frame_videos_agree_with_pycocotools(seed, monkeypatch):
    monkeypatch.setattr(tracks, "AREA_RANGES", RANGES)
    videos = data_set(seed, 1, ties=seed % 2 == 1)
    ours = our_numbers(videos)
    theirs = coco_numbers(videos, list(RANGES.values()))[:9]
    assert 0.05 < ours["AP"] < 0.95
    assert [ours[name] for name in NUMBERS] == pytest.approx(theirs, abs=1e-9)


def trackeval_matches(metric, gts, predictions, scores) -> dict:
    """TrackEval's matches of one sequence, given as RLE masks by frame."""
    valid = gts != VOID

    def tubes(labels):
        masks = {i: valid & (labels == i) for i in ids_of(labels, valid)}
        return {i: {t: encode(m) for t, m in enumerate(tube) if m.any()} for i, tube in masks.items()}

    def areas(tubes):
        return [float(np.mean([rle.area(part) for part in tube.values()])) for tube in tubes]

    objects, proposals = tubes(gts), tubes(predictions)
    ranked = sorted(proposals, key=lambda i: -scores[i])
    tubes_ranked = [proposals[i] for i in ranked]
    data = {
        "gt_track_ids": list(objects),
        "gt_tracks": list(objects.values()),
        "gt_track_areas": areas(objects.values()),
    }
    data |= {"dt_track_ids": ranked, "dt_tracks": tubes_ranked, "dt_track_areas": areas(tubes_ranked)}
    return metric.eval_sequence(data | {"dt_track_scores": np.array([scores[i] for i in ranked]), "iou_type": "mask"})


@pytest.mark.parametrize("seed", range(3))
def test_tubes_agree_with_trackeval(seed, monkeypatch):
    trackeval = pytest.importorskip("trackeval")
    monkeypatch.setattr(tracks, "AREA_RANGES", RANGES)
    videos = data_set(seed, 5)
    config = {"AREA_RANGES": list(RANGES.values())[1:], "AREA_RANGE_LABELS": ["small", "medium", "large"]}
    config |= {"USE_TIME_RANGES": False, "IOU_THRESHOLDS": np.array(THRESHOLDS), "PRINT_CONFIG": False}
    theirs = {}
    for most in (1, 10):
        metric = trackeval.metrics.TrackMAP(config | {"MAX_DETECTIONS": most})
        matches = {str(index): trackeval_matches(metric, *video) for index, video in enumerate(videos)}
        combined = metric.combine_sequences(matches)
        theirs[f"AR@{most}"] = combined["AR_all"].mean()
    # No sequence has more than ten proposals, so the last are of all.
    theirs |= {f"AP_{name}": combined[f"AP_{name}"].mean() for name in ("small", "medium", "large")}
    theirs |= {"AP": combined["AP_all"].mean(), "AP50": combined["AP_all"][0], "AP75": combined["AP_all"][5]}
    ours = our_numbers(videos, max_dets=(1, 10))
    assert 0.05 < ours["AP"] < 0.95
    assert ours == pytest.approx(theirs, abs=1e-9)


# Properties of AP and AR


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(1, 5)), st.permutations(range(1, 9)))
def test_names_of_objects_and_proposals_do_not_matter(seed, objects, proposals):
    [(gts, predictions, scores)] = data_set(seed, 3)[:1]
    rename = np.arange(VOID + 1)
    rename[1:5] = objects
    rename_proposals = np.array([0, *proposals])
    renamed = rename[gts], rename_proposals[predictions], {rename_proposals[i]: score for i, score in scores.items()}
    assert our_numbers([renamed]) == pytest.approx(our_numbers([(gts, predictions, scores)]), nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_perfect_result_scores_one_and_void_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    gts = blocky(rng, 3, 4)
    gts[:, :2, :5] = VOID
    predictions = np.where(gts == VOID, rng.integers(0, 5, gts.shape), 5 * gts)
    only = [label for label in np.unique(predictions[gts != VOID]).tolist() if label]
    found = evaluate_tracks([table_of(gts, predictions).tracks()])
    assert found["AP"] == found["AR@10"] == 1.0
    assert found["AR@1"] == pytest.approx(1 / len(only))


# Identity


def test_identity_switches_by_hand():
    # Object 0: proposals 3 3 5, unseen, 5 3: two switches. Object 1: 4, none, 4 unseen, 6, 6, 6: one.
    assignment = [(3, 4), (3, None), (5, 4), (9, 6), (5, 6), (3, 6)]
    visible = np.array([(1, 1), (1, 1), (1, 0), (0, 1), (1, 1), (1, 1)], dtype=bool)
    assert identity_switches(assignment, visible, np.ones_like(visible)) == (3, 5 + 5)


def test_poor_matches_are_no_matches():
    assignment, visible = [(3,), (8,), (3,), (7,)], np.ones((4, 1), dtype=bool)
    overlap = np.array([[0.9], [0.2], [0.5], [0.6]])
    assert identity_switches(assignment, visible, np.ones((4, 1))) == (3, 4)
    assert identity_switches(assignment, visible, overlap) == (1, 4)  # the second is poor: 3, 3, 7


def test_one_assignment_per_video_has_no_switches():
    visible = np.random.default_rng(0).random((20, 3)) < 0.7
    assert identity_switches([(2, None, 0)] * 20, visible, np.ones((20, 3))).switches == 0


def test_identity_switches_of_nothing_and_of_what_does_not_fit():
    assert identity_switches([(1,)], np.zeros((1, 1), dtype=bool), np.ones((1, 1))) == (0, 0)
    for assignment in ([(1, 2)], [(1,), (1,)]):
        with pytest.raises(ValueError, match="not one of 1 objects in each of 1 frames"):
            identity_switches(assignment, np.ones((1, 1), dtype=bool), np.ones((1, 1)))


@pytest.mark.parametrize("seed", range(5))
def test_identity_switches_are_those_of_trackeval(seed):
    trackeval = pytest.importorskip("trackeval")
    rng = np.random.default_rng(seed)
    frames, objects, proposals = 40, 4, 6
    assignment = [tuple(rng.permutation(proposals)[:objects].tolist()) for _ in range(frames)]
    visible, overlap = rng.random((frames, objects)) < 0.7, rng.random((frames, objects))
    ours = identity_switches(assignment, visible, overlap)
    # TrackEval matches anew; with one proposal to choose for each object it finds the assignment given.
    similarity = np.zeros((frames, objects, proposals))
    for t, chosen in enumerate(assignment):
        similarity[t, np.arange(objects), chosen] = overlap[t]
    data = {
        "gt_ids": [np.flatnonzero(seen) for seen in visible],
        "tracker_ids": [np.arange(proposals)] * frames,
        "similarity_scores": [table[seen] for table, seen in zip(similarity, visible, strict=True)],
    }
    data |= {"num_gt_ids": objects, "num_gt_dets": int(visible.sum()), "num_tracker_dets": frames * proposals}
    theirs = trackeval.metrics.CLEAR({"THRESHOLD": MIN_OVERLAP, "PRINT_CONFIG": False}).eval_sequence(
        data | {"num_timesteps": frames}
    )
    assert ours.switches > 5
    assert ours == (theirs["IDSW"], theirs["CLR_TP"] + theirs["CLR_FN"])
