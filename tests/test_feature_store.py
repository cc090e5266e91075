"""Training on features that are kept: the same as made anew, whole after any interruption, never stale."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch

import train as train_program
from data.clips import index_videos
from data.views import FRAMES_TO_FILL, CachedClips, FrameViews, contents
from tests.conftest import TINY_BACKBONE, TINY_RESOLUTION, make_davis
from tests.test_train import NO_DROPOUT, log_of, torchrun
from utils.checkpoint import load_tensors
from utils.errors import UserError
from utils.feature_store import FILLED, FORMAT, MISSING, UNREADABLE, FeatureStore
from utils.origin import fingerprint

RESOLUTION = tuple(map(int, TINY_RESOLUTION))


def make_store(folder, *, entries=10, shape=(4, 3), **settings):
    store = FeatureStore(folder, settings=settings, entries=entries, shape=shape)
    store.prepare()
    return store


def test_what_is_written_is_read(tmp_path):
    store = make_store(tmp_path)
    features = torch.randn(3, 4, 3)
    store.write(5, features, [True, False, True])
    assert store.states().tolist() == [MISSING] * 5 + [FILLED, UNREADABLE, FILLED] + [MISSING] * 2
    assert torch.equal(store.read([7, 5]), features[[2, 0]].half())
    again = make_store(tmp_path)
    assert torch.equal(again.read([5]), features[:1].half())
    assert make_store(tmp_path, seed=1).states().tolist() == [MISSING] * 10


def test_a_frame_written_anew_is_noticed_whatever_its_size_and_time(tmp_path):
    path = tmp_path / "0.png"
    path.write_bytes(b"one frame")
    videos, about = {"a": [path]}, path.stat()
    before = contents(videos), fingerprint(videos)
    path.write_bytes(b"other one")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert contents(videos) != before[0]
    assert fingerprint(videos) != before[1]


def test_what_half_precision_cannot_hold_is_refused(tmp_path):
    store = make_store(tmp_path)
    for value in (7e4, float("inf"), float("nan")):
        with pytest.raises(UserError, match="too large for half precision"):
            store.write(0, torch.full((1, 4, 3), value), [True])
    assert (store.states() == MISSING).all()


def test_a_disk_without_room_is_refused_at_once(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"needs 0\.0 GB more, .* lower --cache_views"):
        make_store(tmp_path)
    assert not list(tmp_path.rglob("*.bin"))


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_states_tell_nothing_of_features_that_are_lost(tmp_path, damage):
    store = make_store(tmp_path)
    store.write(0, torch.ones(10, 4, 3), [True] * 10)
    path = store._path("features")
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="not there or cut short; it must be on a disk that all processes share"):
        store.states()
    assert (make_store(tmp_path).states() == MISSING).all()


def test_files_that_a_kill_left_empty_are_made_anew(tmp_path):
    store = make_store(tmp_path)
    store._path("states").write_bytes(b"")
    assert make_store(tmp_path).states().tolist() == [MISSING] * 10


def test_what_is_missing_after_all_was_made_is_an_error(tmp_path):
    """As on a disk that processes do not share, where each would find holes."""
    store = make_store(tmp_path)
    store.write(0, torch.ones(9, 4, 3), [True] * 8 + [False])
    with pytest.raises(UserError, match="1 of 10 features are missing though all were made; it must be on a disk"):
        store.check_filled()
    store.write(9, torch.ones(1, 4, 3), [True])
    store.check_filled()


def store_of(folder):
    about = json.loads(next(folder.glob("*/about.json")).read_text())
    entries, shape = about.pop("entries"), tuple(about.pop("shape"))
    assert about.pop("format") == FORMAT
    return FeatureStore(folder, settings=about, entries=entries, shape=shape)


def test_kept_features_are_those_of_the_augmented_frames(davis, tmp_path, run_train, tiny_weights):
    cache = tmp_path / "cache"
    run_train("--basepath", davis, "--output_path", tmp_path / "run", "--feature_cache", cache, "--cache_views", 3)
    videos = index_videos(davis)
    views = FrameViews(videos, resolution=RESOLUTION, num_views=3, seed=0)
    store = store_of(cache)
    assert len(views) == store.entries == 3 * sum(map(len, videos.values()))
    args = ["--backbone", TINY_BACKBONE, "--dino_path", str(tiny_weights), "--resolution", *TINY_RESOLUTION]
    network = train_program.make_network(train_program.make_parser().parse(args), None)
    clips = CachedClips(videos, store=store, num_views=3, resolution=RESOLUTION, num_frames=3, gap=1, seed=0)
    found = clips.read(1, [2, 3], np.random.default_rng(5))
    view, first = int(np.random.default_rng(5).integers(3)), len(next(iter(videos.values())))
    frames = torch.stack([views[(first + position) * 3 + view][0] for position in (2, 3)])
    with torch.no_grad():
        made = network.embed(frames[None])[0]
    torch.testing.assert_close(found.float(), made, rtol=2e-3, atol=2e-3)
    assert not torch.equal(views[0][0], views[1][0])  # views differ


def test_an_interrupted_filling_goes_on_and_ends_with_the_same_weights(davis, tmp_path, run_train):
    common = ["--basepath", davis, "--cache_views", 2, "--save_freq", 2, "--lr", 1e-3]
    run_train(*common, "--output_path", tmp_path / "whole", "--feature_cache", tmp_path / "a")
    store = store_of(tmp_path / "a")
    before = store._path("features").read_bytes()
    states = store._path("states")
    states.write_bytes(b"\0" * 9 + states.read_bytes()[9:])  # killed after entry 9 was made: 0 to 7 and 8 to 15 anew
    run_train(*common, "--output_path", tmp_path / "parts", "--feature_cache", tmp_path / "a", "--resume_path",
              tmp_path / "whole/step_0000002.pt")  # fmt: skip
    assert (store.states() == FILLED).all()
    assert store._path("features").read_bytes() == before
    whole, parts = (load_tensors(tmp_path / name / "last.pt")["blocks"] for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())


def test_two_processes_fill_one_store(tmp_path, tiny_weights, run_train):
    davis = make_davis(tmp_path / "DAVIS")
    common = ["--basepath", davis, "--num_train_steps", 2, "--lr", 1e-3, *NO_DROPOUT]
    run_train(*common, "--batch_size", 2, "--output_path", tmp_path / "one", "--feature_cache", tmp_path / "a")
    torchrun(tiny_weights, *common, "--output_path", tmp_path / "two", "--feature_cache", tmp_path / "b")
    one, two = (store_of(tmp_path / name) for name in "ab")
    assert (two.states() == FILLED).all()
    everything = list(range(one.entries))
    torch.testing.assert_close(two.read(everything), one.read(everything), rtol=2e-3, atol=2e-3)
    for first, second in zip(log_of(tmp_path / "one")[1:], log_of(tmp_path / "two")[1:], strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-3)


def test_asked_to_stop_while_filling(davis, tmp_path, run_train, monkeypatch):
    write = FeatureStore.write

    def write_and_ask(self, first, *rest):
        write(self, first, *rest)
        signal.raise_signal(signal.SIGTERM)

    common = ["--basepath", davis, "--output_path", tmp_path / "run", "--feature_cache", tmp_path / "cache"]
    monkeypatch.setattr(FeatureStore, "write", write_and_ask)
    with pytest.raises(SystemExit) as asked:
        run_train(*common)
    assert asked.value.code == 75
    assert (store_of(tmp_path / "cache").states() == FILLED).sum() == FRAMES_TO_FILL
    monkeypatch.setattr(FeatureStore, "write", write)
    run_train(*common, "--resume_path", "auto")
    assert load_tensors(tmp_path / "run/last.pt")["step"] == 4


def test_unreadable_frames_are_named_and_left_out(davis, tmp_path, run_train, capsys):
    damaged = next((davis / "JPEGImages/480p/ant").glob("*3.jpg"))
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(UserError, match="more than 1 %; restore the files"):
        run_train("--basepath", davis, "--output_path", tmp_path / "run", "--num_train_steps", 50,
                  "--feature_cache", tmp_path / "cache")  # fmt: skip
    assert str(damaged) in capsys.readouterr().err
    assert (store_of(tmp_path / "cache").states() == UNREADABLE).sum() == 4


def test_unreadable_frames_are_tried_again(davis, tmp_path, run_train):
    common = ["--basepath", davis, "--feature_cache", tmp_path / "cache", "--overfit", 1, "--watch_clips", 1]
    run_train(*common, "--output_path", tmp_path / "a")
    store = store_of(tmp_path / "cache")
    whole = store._path("features").read_bytes()
    store.write(3, torch.zeros(1, *store.shape), [False])  # a file server that did not answer
    run_train(*common, "--output_path", tmp_path / "b")
    assert (store.states() == FILLED).all()
    assert store._path("features").read_bytes() == whole


def test_a_link_to_nothing_is_an_unreadable_frame(davis, tmp_path, run_train):
    lost = next((davis / "JPEGImages/480p/ant").glob("*6.jpg"))
    lost.unlink()
    lost.symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(UserError, match=f"{lost.name}: one of 1 unreadable images met among 14"):
        run_train("--basepath", davis, "--output_path", tmp_path / "run", "--num_train_steps", 50,
                  "--feature_cache", tmp_path / "cache")  # fmt: skip


def test_frames_that_changed_have_other_contents(davis):
    videos = index_videos(davis)
    before = contents(videos)
    path = next(iter(videos.values()))[0]
    path.write_bytes(path.read_bytes() + b"\0")
    assert contents(videos) != before
