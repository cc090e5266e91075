import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model.objects.affinity import CentredFeatures, sum_features
from model.objects.find import find_objects, remove_flicker
from model.objects.merge import merge_similar_clusters
from model.objects.ranking import compute_border_ratios
from model.objects.tracks import (
    LIMITS,
    follow_components,
    join_successive_tracks,
    label_frames,
    split_tracks,
    vote_for_tracks,
)


def video(frames: list[str]) -> np.ndarray:
    """Frames written as rows of digits, rows parted by blanks."""
    return np.array([[[int(token) for token in row] for row in frame.split()] for frame in frames])


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return pairs.shape[1] == len(np.unique(one)) == len(np.unique(other))


def centred_of(labels: np.ndarray, colours: list[list[float]]) -> CentredFeatures:
    return CentredFeatures(features_of(labels, colours), labels.shape[1:])


def features_of(labels: np.ndarray, colours: list[list[float]]) -> torch.Tensor:
    """Each cluster's tokens have one feature."""
    return torch.tensor(colours)[torch.from_numpy(labels)].flatten(1, 2)


def test_features_are_summed_by_label():
    labels = video(["02 22", "20 22"])
    centred = centred_of(labels, [[-1.0, 0], [9, 9], [1, 0]])
    np.testing.assert_allclose(sum_features(labels, centred), [[-2, 0], [0, 0], [6, 0]], atol=1e-6)


def test_parts_that_look_alike_and_touch_become_one():
    labels = video(["0000 0120 0120 0003"] * 2)
    alike = [[-1.0, 0, 0], [1, 0.1, 0], [1, -0.1, 0], [1, 0, 0]]
    merged = merge_similar_clusters(labels, centred_of(labels, alike))
    # 3 looks like them too, but only its corner meets 2: no token of it has a neighbour of theirs.
    assert same_partition(merged, video(["0000 0110 0110 0003"] * 2))
    different = [[-1.0, 0, 0], [1, 1, 0], [1, -1, 0], [1, 0, 0]]
    assert same_partition(merge_similar_clusters(labels, centred_of(labels, different)), labels)


def test_a_short_common_boundary_merges_nothing():
    labels = video(["00000000 01111000 01111222 01111022 00000022"])
    colours = [[-1.0, 0], [1, 0], [1, 0.01]]
    assert same_partition(merge_similar_clusters(labels, centred_of(labels, colours)), labels)


def test_a_small_part_is_merged_with_a_large_one():
    """Their common boundary is a quarter of the small part's boundary, and little of the large one's."""
    labels = video(["00000000000 01111111100 01111111120 01111111100 00000000000"])
    colours = [[-1.0, 0], [1, 0], [1, 0.01]]
    assert same_partition(merge_similar_clusters(labels, centred_of(labels, colours)), labels > 0)


def test_an_edge_keeps_apart_what_is_alike_on_the_whole():
    labels = video(["00000000 01112220 01112220 00000000"])
    features = features_of(labels, [[-1.0, 0], [1, 0], [1, 0]]).view(1, 4, 8, 2).clone()
    assert len(np.unique(merge_similar_clusters(labels, CentredFeatures(features.view(1, 32, 2), (4, 8))))) == 2
    features[:, 1:3, 3], features[:, 1:3, 4] = torch.tensor([1.0, 2]), torch.tensor([1.0, -2])
    assert len(np.unique(merge_similar_clusters(labels, CentredFeatures(features.view(1, 32, 2), (4, 8))))) == 3


def test_a_gradual_change_keeps_apart_what_differs_on_the_whole():
    """Neighbouring tokens are 20 degrees apart, the means of the clusters 80."""
    labels = video(["00000000 11112222 11112222 11112222 11112222 00000000"])
    angles = torch.arange(8).mul(20).deg2rad()
    features = torch.stack([angles.cos(), angles.sin()], dim=-1).repeat(1, 6, 1, 1)
    features[:, [0, 5]] = -2 * features[0, 1].mean(0)
    assert same_partition(merge_similar_clusters(labels, CentredFeatures(features.flatten(1, 2), (6, 8))), labels)


def test_flicker_is_dropped_and_change_is_not():
    labels = np.array([0, 0, 1, 0, 0, 2, 2, 1, 1]).reshape(-1, 1, 1)
    assert remove_flicker(labels).ravel().tolist() == [0, 0, 0, 0, 0, 2, 2, 1, 1]
    for short in (labels[:1], labels[:2]):
        assert (remove_flicker(short) == short).all()


def follow(mask: np.ndarray, features: torch.Tensor | None = None) -> np.ndarray:
    """`follow_components` of tokens that all look alike, or have these features (T, h, w, C)."""
    features = torch.ones(*mask.shape, 2) if features is None else features
    return follow_components(label_frames(mask), CentredFeatures(features.flatten(1, 2), mask.shape[1:]))


def split(labels: np.ndarray, which: list[int]) -> np.ndarray:
    centred = CentredFeatures(torch.ones(len(labels), labels[0].size, 2), labels.shape[1:])
    return split_tracks(labels, centred, clusters=np.array(which, dtype=int))


def rows(row: str, count: int, times: int) -> list[str]:
    """`times` frames with `count` such rows between empty ones."""
    empty = "0" * len(row)
    return [" ".join([empty, *[row] * count, empty])] * times


APART, NEAR, TOUCHING = rows("0111000001110", 3, 4), rows("0001110111000", 3, 1), rows("0001111110000", 3, 4)


def test_two_objects_that_meet_and_part_stay_two():
    tracks = follow(video(APART + NEAR + TOUCHING + NEAR + APART) == 1)
    left, right = tracks[0, 1, 1], tracks[0, 1, 11]
    assert left != right
    for frame in tracks:
        row = frame[1][frame[1] > 0]
        assert (row[0], row[-1]) == (left, right)
    assert np.unique(tracks).tolist() == sorted([0, left, right])


def test_features_tell_objects_apart_where_positions_do_not():
    """Two that touch move two tokens a frame, as far as they are wide: by place alone one would take the other's."""
    frames = ["011022000000 011022000000"] * 4
    frames += [" ".join(["0" * (1 + 2 * step) + "1122" + "0" * (7 - 2 * step)] * 2) for step in range(1, 4)]
    labels = video(frames)
    colours = torch.tensor([[0.0, 0], [1, 0.5], [1, -0.5]])[torch.from_numpy(labels)]
    tracks = follow(labels > 0, colours)
    assert same_partition(tracks, labels)


def test_objects_that_part_later_were_two_before():
    tracks = follow(video(TOUCHING + NEAR + APART) == 1)
    for frame in tracks:
        row = frame[1][frame[1] > 0]
        assert (row[0], row[-1]) == (tracks[-1, 1, 1], tracks[-1, 1, 11])
    assert len(np.unique(tracks)) == 3


def test_an_object_that_breaks_for_a_moment_stays_one():
    broken = ["000000000 001101100 001101100 000000000"] * 2
    whole = ["000000000 001111100 001111100 000000000"] * 10
    assert np.unique(follow(video(whole + broken + whole) == 1)).tolist() == [0, 1]


def test_an_object_that_returns_is_the_same_object():
    gone = rows("0000000001110", 3, 4)
    tracks = join_successive_tracks(follow(video(APART + gone + APART) == 1))
    assert len(np.unique(tracks)) == 3
    assert tracks[0, 1, 1] == tracks[-1, 1, 1] != tracks[0, 1, 11]


def test_small_and_short_tracks_stay_with_the_largest():
    speck = ["000000000 011000010 011000000 000000000"] * 8
    short = ["000000000 011000110 011000110 000000000"] * 2
    alone = ["000000000 011000000 011000000 000000000"] * 8
    assert np.unique(split(video(speck), [1])).tolist() == [0, 1]
    assert np.unique(split(video(alone + short), [1])).tolist() == [0, 1]
    assert np.unique(split(video(alone + short * 2), [1])).tolist() == [0, 1, 2]
    assert (split(video(APART), []) == video(APART)).all()


def test_whole_objects_of_a_video():
    """Two of a kind, each of two parts, before a background: two clusters too many and one too few."""
    labels = video(["000000000000 011000000110 022000000220 000000000000"] * 6)
    labels[3, 1, 1] = 0  # for a moment
    centred = centred_of(labels, [[8.0, 5, 5], [10, 5.2, 5], [10, 4.8, 5]])  # alike but for what they have in common
    found, boundary = find_objects(labels, centred, reassign=False)
    assert not boundary.any()
    expected = video(["000000000000 011000000220 011000000220 000000000000"] * 6)
    assert same_partition(found, expected)
    assert found.dtype == np.int32
    counts = {
        (merge, split): find_objects(labels, centred, reassign=False, merge=merge, split=split)[0].max() + 1
        for merge in (False, True)
        for split in (False, True)
    }
    # Without merging, each part of each of the two is an object.
    assert counts == {(False, False): 3, (True, False): 2, (False, True): 5, (True, True): 3}


def test_boundary_clusters_are_no_objects():
    """A thing with a ring around it that looks more like what is behind it."""
    rows = "0000000000 0002222000 0021111200 0021111200 0021111200 0002222000 0000000000"
    labels = video([rows] * 4)
    centred = centred_of(labels, [[-1.0, 1], [1, 0.9], [-0.9, 1]])
    found, boundary = find_objects(labels, centred)
    assert same_partition(found, video([rows.replace("2", "0")] * 4))
    assert (boundary == (labels == 2)).all()
    kept, sure = find_objects(labels, centred, reassign=False, merge=False, split=False)
    assert same_partition(kept, labels)
    assert not sure.any()


def test_centred_features_of_another_grid_are_refused():
    labels = np.zeros((2, 3, 4), dtype=int)
    with pytest.raises(ValueError, match=r"\(3, 4\), features on \(4, 3\)"):
        find_objects(labels, CentredFeatures(torch.zeros(2, 12, 2), (4, 3)))


def test_a_background_in_two_pieces_stays_one():
    labels = video([" ".join(["000011110000"] * 6)] * 6)
    assert same_partition(find_objects(labels, centred_of(labels, [[-1.0, 0], [1, 0]]))[0], labels)


def test_border_ratio():
    labels = np.zeros((2, 4, 5), dtype=int)
    labels[:, 1:3, 1:4] = 2
    ratios = compute_border_ratios(labels)
    assert ratios[2] == 0
    assert np.isinf(ratios[1])
    np.testing.assert_allclose(ratios[0], 1 / (14 / 20))


shapes = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 6))
volumes = hnp.arrays(np.int64, shapes, elements=st.integers(0, 3))


@settings(deadline=None, max_examples=60)
@given(volumes, st.randoms(use_true_random=False))
def test_objects_of_any_labels(labels, random):
    """Every token has one, numbers have no gaps, and how clusters are numbered does not matter."""
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(len(labels), labels[0].size, 3)))
    centred = CentredFeatures(features, labels.shape[1:])
    found, boundary = find_objects(labels, centred)
    assert found.shape == boundary.shape == labels.shape
    assert np.unique(found).tolist() == list(range(found.max() + 1))
    renumbered = np.array(random.sample(range(7), 4))[labels]
    same, same_boundary = find_objects(renumbered, centred)
    assert same_partition(found, same)
    assert (boundary == same_boundary).all()


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(bool, shapes))
def test_tracks_cover_the_mask(mask):
    tracks = follow(mask)
    assert ((tracks > 0) == mask).all()
    assert ((join_successive_tracks(tracks) > 0) == mask).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_the_shortest_absence_is_bridged_first(seed):
    """Against comparing every pair of tracks again after each that is joined."""
    random = np.random.default_rng(seed)
    tracks = random.integers(1, 12, (random.integers(1, 12), 1, 3)) * (random.random((1, 3)) < 0.8)
    seen = {track: {frame for frame in range(len(tracks)) if track in tracks[frame]} for track in np.unique(tracks)}
    expected = tracks.copy()
    seen.pop(0, None)
    while pairs := [
        (min(abs(here - there) for here in seen[one] for there in seen[other]), one, other)
        for one in seen
        for other in seen
        if one < other and not seen[one] & seen[other]
    ]:
        _, one, other = min(pairs)
        expected[expected == other] = one
        seen[one] |= seen.pop(other)
    assert (join_successive_tracks(tracks) == expected).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_the_nearest_and_most_similar_tokens_vote(seed):
    """Against the weights of all pairs of tokens."""
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 24, 2)
    tracks, inside = random.integers(0, 4, (height, width)), random.random((height, width)) < 0.7
    centred = CentredFeatures(torch.from_numpy(random.normal(size=(2, height * width, 4))), (height, width))
    known, voters, places = np.unique(tracks[tracks > 0]), np.argwhere(tracks > 0), np.argwhere(inside)
    if len(known) < 2:
        return
    distance = ((places[:, None] - voters) ** 2).sum(-1)
    cosine = (centred[1][inside] @ centred[0][tracks > 0].T).numpy()
    weight = np.exp((cosine - 1) / LIMITS.similarity_scale - distance / (2 * LIMITS.distance_scale**2)) * (
        distance <= LIMITS.reach**2
    )
    votes = [np.sort(weight[:, tracks[tracks > 0] == track], axis=1)[:, -LIMITS.voters :].sum(1) for track in known]
    expected = np.where(np.any(votes, axis=0), known[np.argmax(votes, axis=0)], 0)
    assert vote_for_tracks(tracks, inside, centred, track_frame=0, token_frame=1)[inside].tolist() == expected.tolist()


def test_an_object_in_one_piece_is_not_split():
    """However far it jumps from frame to frame."""
    assert np.unique(split(video(rows("1100000000000", 3, 4) + rows("0000000000011", 3, 4)), [1])).tolist() == [0, 1]


def peak_memory(function, *args, **options) -> int:
    tracemalloc.start()
    try:
        function(*args, **options)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_pairs_of_clusters():
    labels = np.arange(50 * 80).reshape(1, 50, 80)
    centred = CentredFeatures(torch.randn(1, 4000, 64, generator=torch.Generator().manual_seed(0)), (50, 80))
    assert peak_memory(merge_similar_clusters, labels, centred) < 4000**2


def test_memory_does_not_grow_with_pairs_of_tokens():
    mask = np.ones((2, 50, 80), dtype=bool)
    mask[:, :, 40] = False
    assert peak_memory(follow, mask) < 2 * 4000**2


def test_objects_are_apart_in_at_least_a_tenth_of_the_frames():
    """Three frames apart are enough in a short video and too few in one where they touch in forty."""
    short, long = (rows("0001110111000", 3, 3) + rows("0001111110000", 3, times) for times in (10, 40))
    assert len(np.unique(follow(video(short) == 1))) == 3
    assert len(np.unique(follow(video(long) == 1))) == 3  # they began apart: two tracks, none the other's child
    short, long = (rows("0001111110000", 3, 1) + frames for frames in (short, long))
    assert len(np.unique(follow(video(short) == 1))) == 3
    assert len(np.unique(follow(video(long) == 1))) == 2


def test_an_object_is_seen_in_at_least_a_tenth_of_the_video():
    beside = rows("0111000001110", 3, 4)
    for frames, objects in ((30, 2), (60, 1)):
        labels = video(beside + rows("0111000000000", 3, frames))
        assert len(np.unique(split(labels, [1]))) == 1 + objects


def test_two_that_touch_and_move_apart_are_two():
    """The tokens on both sides of a motion boundary show which frames have two components."""
    labels = video(TOUCHING * 3)
    boundaries = np.zeros(labels.shape, dtype=bool)
    boundaries[2:10, :, 5:7] = True  # as long as the two move differently
    centred = CentredFeatures(torch.ones(len(labels), labels[0].size, 2), labels.shape[1:])
    found = split_tracks(labels, centred, clusters=np.array([1]), boundaries=boundaries)
    for frame in found:
        assert len(np.unique(frame[labels[0] > 0])) == 2
        assert frame[2, 3] != frame[2, 8]
    boundaries[7:] = False  # five frames, which count two, are too few
    assert (split_tracks(labels, centred, clusters=np.array([1]), boundaries=boundaries) == labels).all()
