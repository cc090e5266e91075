"""What is most stable over several thresholds (model/stability.py), and several thresholds at once."""

import json
import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.segmenter import CLUSTER_BYTES, MAP_BYTES, OBJECT_BYTES, Segmenter
from model.stability import OCTAVES, WHOLE, around, most_stable, stability, stable_objects
from model.stream import Stream
from tests.conftest import moving_disk, snapshot
from tests.test_network import make_network
from utils.errors import UserError

MAPS = st.integers(1, 3).flatmap(
    lambda half: st.lists(
        arrays(np.int32, (2, 3, 4), elements=st.integers(0, 5)), min_size=2 * half - 1, max_size=2 * half - 1
    )
)


def same_partition(one, other):
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1).shape[1]
    return pairs == len(np.unique(one)) == len(np.unique(other))


def test_thresholds_by_hand():
    assert around(3.0, 1) == [3.0]
    assert around(1.0, 3) == pytest.approx([math.sqrt(0.5), 1, math.sqrt(2)])
    assert around(2.0, 5) == pytest.approx([2 * 2**step for step in (-0.5, -0.25, 0, 0.25, 0.5)])
    assert around(0.3, 7)[3] == 0.3
    with pytest.raises(ValueError, match="4 thresholds: no odd number"):
        around(1.0, 4)


def test_stability_by_hand():
    """A label's best IoU with one of each other map, in the mean of these."""
    one, other, third = (np.array([[row]]) for row in ([0, 0, 0, 1], [2, 2, 2, 2], [0, 0, 1, 1]))
    first, second, last = stability([one, other, third])
    assert first == pytest.approx([(3 / 4 + 2 / 3) / 2, (1 / 4 + 1 / 2) / 2])
    assert second == pytest.approx([0, 0, (3 / 4 + 2 / 4) / 2])
    assert last == pytest.approx([(2 / 3 + 2 / 4) / 2, (1 / 2 + 2 / 4) / 2])
    assert stability([np.array([[[1, 1]]])])[0].tolist() == [0, 1]


def test_what_is_whole_at_most_thresholds_stays_whole():
    """An object that one of three maps joins to the background, and one splits, the middle one among them."""
    whole = np.zeros((2, 6, 8), dtype=int)
    whole[:, 1:5, 2:6] = 1
    lost, halves = np.zeros_like(whole), whole.copy()
    halves[:, 1:5, 4:6] = 2
    assert same_partition(most_stable([whole, whole.copy(), lost])[0], whole)
    assert same_partition(most_stable([whole, lost, whole.copy()])[0], whole)
    labels, source = most_stable([halves, lost, whole])
    assert same_partition(labels, whole)
    assert (source[whole == 1] == 2).all()


def test_what_nothing_takes_is_one_by_itself():
    """What is left of each of the middle map's labels, of ten and of eight tokens in a row."""
    maps = [[0] * 5 + [1] * 5, [0] * 6 + [1] * 2 + [2] * 2, [0] * 3 + [1] * 4 + [2] * 3]
    labels, source = most_stable([np.array([[row]]) for row in maps])
    # 0 to 4 and 7 to 9 are the most stable that are left whole.
    assert same_partition(labels, np.array([0] * 5 + [1] + [2] + [3] * 3))
    assert source.ravel().tolist() == [0] * 5 + [-1] * 2 + [2] * 3
    maps = [[0] * 6 + [1] * 2, [0] * 4 + [1] * 2 + [2] * 2, [0] * 5 + [1] * 2 + [2]]
    labels, _ = most_stable([np.array([[row]]) for row in maps])
    assert same_partition(labels, np.array([0] * 5 + [1] + [2] * 2))


def slowly(maps):
    """The same in sets of tokens, label by label."""
    parts = [{label: set(np.flatnonzero(m.ravel() == label)) for label in np.unique(m).tolist()} for m in maps]
    middle = len(maps) // 2

    def score(which, tokens):
        others = [part for place, part in enumerate(parts) if place != which]
        best = [max(len(tokens & its) / len(tokens | its) for its in part.values()) for part in others]
        return np.mean(best) if best else 1.0

    order = sorted(
        ((which, label) for which in range(len(maps)) for label in parts[which]),
        key=lambda pair: (-round(score(pair[0], parts[pair[0]][pair[1]]), 9), abs(pair[0] - middle), *pair),
    )
    result, source, count = {}, {}, 0
    for which, label in order:
        free = parts[which][label] - set(result)
        if free and len(free) >= WHOLE * len(parts[which][label]):
            result |= dict.fromkeys(free, count)
            source |= dict.fromkeys(free, which)
            count += 1
    for label, tokens in parts[middle].items():
        result |= dict.fromkeys(tokens - set(result), 1000 + label)
    flat = range(maps[0].size)
    return np.array([result[i] for i in flat]), np.array([source.get(i, -1) for i in flat])


@settings(max_examples=150, deadline=None)
@given(MAPS)
def test_against_a_slow_reference(maps):
    labels, source = most_stable(maps)
    expected, expected_source = slowly(maps)
    assert same_partition(labels, expected)
    assert source.ravel().tolist() == expected_source.tolist()
    assert labels.shape == source.shape == maps[0].shape
    assert np.unique(labels).tolist() == list(range(labels.max() + 1))
    if len(maps) == 1 or all(same_partition(maps[0], other) for other in maps):
        assert same_partition(labels, maps[0])


def disk_video(count=9):
    frames = np.stack([moving_disk(index, size=(64, 96), seed=0)[0] for index in range(count)])
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


@pytest.mark.parametrize("engine", ["fast", "exact"])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("tau", [0.2, 2.0])
def test_several_thresholds_at_once_are_each_alone(tiny_weights, engine, kept, tau, monkeypatch):
    """Also where nothing is kept of the windows, and the sketch's view is made anew for the labels."""
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=4.0)
    options = {"key_stride": 4, "clustering": engine}
    if not kept:
        monkeypatch.setattr("model.stream.Stream.floats_kept", lambda self, rank: 10**9)
    found = Segmenter(network, tau=tau, thresholds=3, **options)
    features, grid = found.encode(disk_video(), num_frames=9)
    together = found.cluster(features, grid)
    assert len({int(labels.max()) for labels in together.maps}) > 1  # or nothing is shown
    for one, labels in zip(around(tau, 3), together.maps, strict=True):
        alone = Segmenter(network, tau=one, **options).cluster(features, grid)
        np.testing.assert_array_equal(labels, alone.labels)
        assert len(alone.maps) == 1
    np.testing.assert_array_equal(together.labels, together.maps[1])
    assert together.num_clusters == Segmenter(network, tau=tau, **options).cluster(features, grid).num_clusters


def half_planes(cuts, shape=(4, 6, 12)):
    """A map for each of `cuts`: 1 to the right of that column."""
    return [np.broadcast_to((np.arange(shape[2]) >= cut).astype(np.int32), shape).copy() for cut in cuts]


def features_like(labels):
    """Features (T, h*w, 2) that tell labels 0 and 1 apart."""
    return torch.eye(2)[torch.from_numpy(labels).long()].flatten(1, 2)


def test_doubt_comes_from_where_labels_do(monkeypatch):
    """Of three maps with doubts of their own; the last has the only whole object, the middle one another."""
    maps = half_planes([6, 9, 6])
    doubts = [np.arange(maps[0].size).reshape(maps[0].shape) % 3 == place for place in range(3)]
    given, seen = [], []

    def with_doubt(labels, units, **options):
        given.append(options)
        seen.append(units)
        return labels, doubts[len(given) - 1]

    monkeypatch.setattr("model.stability.find_objects", with_doubt)
    objects, unsure = stable_objects(maps, features_like(maps[0]), split=False, max_objects=7)
    assert given == [{"max_objects": 7, "split": False}] * 3
    assert all(units is seen[0] for units in seen)  # made once
    labels, source = most_stable(maps)
    assert same_partition(objects, labels)
    assert same_partition(objects, maps[0])
    assert set(np.unique(source)) == {0}
    np.testing.assert_array_equal(unsure, doubts[0])


def test_crumbs_go_to_what_is_around_them(monkeypatch):
    """What no label takes: three tokens a frame beside label 1, which they look like, join it, and are unsure; as many
    as can be an object stay one."""
    monkeypatch.setattr("model.stability.find_objects", lambda labels, *_, **__: (labels, np.zeros(labels.shape, bool)))
    for rows, stays in ((3, False), (4, True)):
        crumb = np.zeros((4, rows, 12), dtype=bool)
        crumb[:, :, 6] = True
        first, last = np.zeros(crumb.shape, dtype=np.int32), np.zeros(crumb.shape, dtype=np.int32)
        first[:, :, 6:], last[:, :, 7:] = 1, 1
        monkeypatch.setattr(
            "model.stability.most_stable",
            lambda maps, crumb=crumb, last=last: (np.where(crumb, 2, last), np.where(crumb, -1, 0)),
        )
        objects, unsure = stable_objects([first, last, first], features_like(first))
        if stays:
            assert same_partition(objects, np.where(crumb, 2, last))
            assert not unsure.any()
        else:
            assert same_partition(objects, first)
            np.testing.assert_array_equal(unsure, crumb)
        assert objects.dtype == np.int32
    small = np.where(np.arange(12) == 6, 2, last[:, :3]).astype(np.int32)  # a label that one of the maps has stays
    monkeypatch.setattr("model.stability.most_stable", lambda maps: (small, np.zeros(small.shape, dtype=int)))
    np.testing.assert_array_equal(stable_objects([small] * 3, features_like(first[:, :3]))[0], small)


@pytest.mark.parametrize(("most", "left"), [(None, 6), (6, 6), (4, 4), (1, 1)])
def test_no_more_objects_than_allowed_are_left(monkeypatch, most, left):
    """Six stripes that look different, the same at all thresholds."""
    monkeypatch.setattr("model.stability.find_objects", lambda labels, *_, **__: (labels, np.zeros(labels.shape, bool)))
    stripes = np.broadcast_to(np.arange(12, dtype=np.int32) // 2, (4, 6, 12)).copy()
    features = torch.eye(6)[torch.from_numpy(stripes).long()].flatten(1, 2)
    objects, unsure = stable_objects([stripes] * 3, features, max_objects=most)
    assert np.unique(objects).tolist() == list(range(left))
    assert not unsure.any()


def test_segments_are_the_most_stable_of_objects_or_of_clusters(tiny_weights):
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=4.0)
    options = {"key_stride": 4, "tau": 0.6, "thresholds": 3}
    segmenter = Segmenter(network, **options, objects={"split": False})
    found = segmenter.segment(disk_video(), num_frames=9)
    features, grid = segmenter.encode(disk_video(), num_frames=9)
    together = segmenter.cluster(features, grid)
    objects, unsure = stable_objects(together.maps, features, split=False)
    np.testing.assert_array_equal(found.objects, objects)
    np.testing.assert_array_equal(found.unsure, unsure)
    assert not found.maps  # or they would be held while pixels are made
    assert found.seconds["objects"] > 0
    clusters = Segmenter(network, **options).segment(disk_video(), num_frames=9)
    stable, _ = most_stable(together.maps)
    np.testing.assert_array_equal(clusters.labels, stable)
    assert clusters.num_clusters == stable.max() + 1 != together.num_clusters
    assert clusters.objects is None
    assert "objects" not in clusters.seconds
    with pytest.raises(UserError, match="--thresholds 3: needs the whole video"):
        segmenter.open(disk_video()[:2])


def test_the_guard_looks_at_the_middle_threshold(tiny_weights, capsys):
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=4.0)
    options = {"key_stride": 4, "clusters": (3, 30)}
    found = Segmenter(network, tau=50.0, thresholds=3, **options)
    found = found.cluster(*found.encode(disk_video(), num_frames=9))
    alone = Segmenter(network, tau=50.0, **options).segment(disk_video(), num_frames=9)
    assert found.tau == alone.tau
    assert found.num_clusters == alone.num_clusters
    wanted = Segmenter(network, thresholds=3, key_stride=4, clusters=(10**5, 10**5 + 1))
    together = wanted.cluster(*wanted.encode(disk_video(), num_frames=9))
    assert f"no threshold found, {together.num_clusters} at --tau 1\n" in capsys.readouterr().err


def test_more_thresholds_need_more_memory(tiny_weights):
    network = make_network(tiny_weights)
    one, five = Segmenter(network, objects={}), Segmenter(network, objects={}, thresholds=5)
    shape = (12, 15, 64)
    assert one._spare_bytes(shape, (3, 5), 2) - five._spare_bytes(shape, (3, 5), 2) == 4 * (45 * (30 + 45) + 4 * 180)
    Segmenter(network, objects={}, memory_gb=1.8)._check_labels((10**6, 15, 64))
    with pytest.raises(
        UserError,
        match=r"objects of .* need 2\.8; raise it, lower .*, or give --proposals clusters, or give fewer --thr",
    ):
        Segmenter(network, objects={}, thresholds=5, memory_gb=1.8)._check_labels((10**6, 15, 64))
    with pytest.raises(
        UserError, match=r"1: clusters of 1000000 .* need 1\.9; raise it, .*, or give fewer --thresholds$"
    ):
        Segmenter(network, thresholds=3, memory_gb=1).segment(iter(disk_video()), num_frames=10**6)


@pytest.mark.parametrize(("labels", "count"), [(15, 3), (15, 9), (5000, 3), (5000, 9)])
def test_what_is_allowed_is_more_than_what_is_taken(labels, count):
    """Of memory, with the maps, for each token; `find_objects` leaves doubt and labels of its own beside them."""
    generator = np.random.default_rng(0)
    shape = (100, 24, 48)
    whole = generator.integers(0, labels, (100, 6, 12)).repeat(4, 1).repeat(4, 2)
    maps = [np.where(generator.random(shape) < 0.9, whole, generator.integers(0, labels, shape)).astype(np.int32)
            for _ in range(count)]  # fmt: skip
    tracemalloc.start()
    most_stable(maps)
    taken = tracemalloc.get_traced_memory()[1] / whole.size + 4 * count
    tracemalloc.stop()
    assert taken <= CLUSTER_BYTES + (count - 1) * MAP_BYTES
    assert taken + 5 * count <= OBJECT_BYTES + (count - 1) * MAP_BYTES


def test_all_thresholds_together_fit_the_budget(tiny_weights, monkeypatch):
    """Room for four centres, one of each window and threshold: three of one fit, of nine those found are merged."""
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=4.0)
    merged = []
    merge = Stream.merge
    monkeypatch.setattr(Stream, "merge", lambda self: merged.append(len(self.kept)) or merge(self))
    monkeypatch.setattr(Segmenter, "_spare_bytes", lambda self, shape, grid, keys: 4 * 2 * 5 * 4 * keys * 24)
    for thresholds, windows in ((1, [3]), (3, [2, 3])):
        merged.clear()
        segmenter = Segmenter(network, key_stride=4, tau=1e3, thresholds=thresholds)
        segmenter.cluster(*segmenter.encode(disk_video(), num_frames=9))
        assert merged == windows
    monkeypatch.setattr(Segmenter, "_spare_bytes", lambda self, shape, grid, keys: 2 * 2 * 5 * 4 * keys * 24)
    with pytest.raises(
        UserError, match=r"3 clusters in the first 1 of 3 windows, .*; raise either, or give fewer --thr"
    ):
        segmenter.cluster(*segmenter.encode(disk_video(), num_frames=9))


def test_a_label_that_is_left_just_enough_of_itself():
    """4 of the 5 tokens of the middle map's first label, which is WHOLE of it."""
    maps = [[0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1], [0, 1, 1, 1, 2, 2, 2]]
    labels, source = most_stable([np.array([[row]]) for row in maps])
    assert same_partition(labels, np.array([0, 1, 1, 1, 1, 2, 2]))
    assert source.ravel().tolist() == [0] + [1] * 6


def test_eval_by_thresholds(davis, tmp_path, run_eval):
    """Other masks, kept apart from those of one threshold; an even number is refused in one line."""
    base = ("--davis_path", davis, "--training_free", "--tau", 0.05, "--proposals", "clusters")
    made = {}
    for number in (1, 3):
        run_eval(*base, "--thresholds", number, "--save_path", tmp_path / str(number))
        settings = json.loads((tmp_path / str(number) / "settings.json").read_text())
        assert settings.get("thresholds") == (3 if number == 3 else None)
        assert settings.get("stability") == ({"octaves": OCTAVES, "whole": WHOLE} if number == 3 else None)
        made[number] = snapshot(tmp_path / str(number))
    assert made[1] != made[3]
    with pytest.raises(UserError, match="--overwrite"):
        run_eval(*base, "--thresholds", 3, "--save_path", tmp_path / "1")
    with pytest.raises(UserError, match="--thresholds: 4: give an odd number"):
        run_eval(*base, "--thresholds", 4, "--save_path", tmp_path / "4")
