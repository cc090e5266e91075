"""A video is segmented as the formulas say: by every engine, for any number of frames, at a given or chosen tau."""

import numpy as np
import pytest
import torch

from data.loading import load_videos
from data.videos import read_resized_frames
from model import clustering as plain
from model.attention import mean_attention
from model.engine.exact import assign, find_window_centres, merge_centres
from model.engine.windows import ENGINES, Engine, pool_tokens, select_diagonals
from model.network import build_network
from model.segmenter import key_frame_indices
from model.stream import FrameStream
from tests.benchmarks.inference import agreement
from tests.conftest import moving_disk
from tests.model.inputs import make_network, make_segmenter, video
from utils.errors import UserError
from utils.parallel import prefetch


def test_key_frames():
    assert key_frame_indices(40, 10) == [0, 10, 20, 30]
    assert key_frame_indices(45, 10) == [0, 10, 20, 30]  # T // R of them, though frame 40 exists
    assert key_frame_indices(7, 10) == [0]
    assert key_frame_indices(1, 1) == [0]
    assert key_frame_indices(2000, 10, 20) == list(range(0, 2000, 100))
    assert key_frame_indices(40, 10, 4) == [0, 10, 20, 30]
    assert key_frame_indices(70, 10, 3) == [0, 20, 40]


@pytest.mark.parametrize("num_frames", [1, 2, 4, 9])
def test_segmenter_is_the_clustering_of_all_rows(tiny_weights, num_frames):
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=3.0)
    frames = video(num_frames)
    found = make_segmenter(network, key_stride=2, tau=0.05).segment(frames, num_frames=num_frames)
    features = network.encode(torch.stack(frames))
    keys = network.keys(features[key_frame_indices(num_frames, 2)].flatten(0, 1))
    rows = mean_attention(network.queries(features.flatten(0, 1)), keys)
    expected = plain.cluster(rows, window=45, tau=0.05)
    assert found.labels.shape == (num_frames, 3, 5)
    assert found.labels.max() < found.num_clusters
    assert found.num_clusters > 1
    assert found.labels.ravel().tolist() == expected.tolist()


@pytest.mark.parametrize("clustering", ["exact", "fast"])
def test_frames_as_they_come(tiny_weights, clustering):
    """The first frames get the labels that they get as a video of their own; shown again, they get them again."""
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=3.0)
    segmenter = make_segmenter(network, tau=0.05, clustering=clustering, frame_batch=2)
    first, later = video(6)[:3], video(6)[3:]
    expected = segmenter.segment(first, num_frames=3)
    stream = FrameStream(segmenter, torch.stack(first[:1]))
    for _ in range(2):
        assert stream.step(torch.stack(first)).tolist() == expected.labels.tolist()
        assert stream.num_clusters == expected.num_clusters
    assert stream.step(torch.stack(later)).max() < stream.num_clusters
    with pytest.raises(UserError, match="--num_t 2: .*one block"):
        FrameStream(make_segmenter(make_network(tiny_weights, num_blocks=2)), torch.stack(first[:1]))


def test_features_that_are_not_finite_are_refused(tiny_weights, tmp_path):
    network = make_network(tiny_weights)
    network.backbone.vit.patch_embed.proj.weight.data[0] = float("inf")
    segmenter = make_segmenter(network, feature_cache=tmp_path)
    with pytest.raises(UserError, match="--backbone test_vit: .*check its weights"):
        segmenter.segment(video(2), num_frames=2)
    assert not list(tmp_path.rglob("*.npy"))


def test_attention_that_is_zero_nearly_everywhere(tiny_weights):
    """At so high a temperature attention is exactly zero nearly everywhere."""
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=60.0)
    found = make_segmenter(network, key_stride=2, clustering="fast").segment(video(6), num_frames=6)
    assert found.num_clusters > 1
    assert found.labels.max() > found.labels.min()


@pytest.mark.parametrize("clustering", ["exact", "fast"])
def test_key_frames_are_limited(tiny_weights, clustering):
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=3.0)
    options = {"key_stride": 1, "clustering": clustering}
    found = make_segmenter(network, max_key_frames=2, **options).segment(video(8), num_frames=8)
    assert found.labels.shape == (8, 3, 5)
    other = make_segmenter(network, key_stride=4, clustering=clustering).segment(video(8), num_frames=8)
    assert found.labels.tolist() == other.labels.tolist()


def test_fast_engine_by_its_definition(tiny_weights):
    """Attention to the means of 3x3 key tokens, and a smaller threshold; centres of one in so many tokens alone."""
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=3.0)
    features = network.encode(torch.stack(video(6)))
    found = make_segmenter(network, key_stride=2, tau=0.05, clustering="fast").cluster(features, (3, 5))
    keys = network.keys(pool_tokens(features[:5:2], (3, 5), 3).flatten(0, 1))
    rows = mean_attention(network.queries(features.flatten(0, 1)), keys)
    fast = ENGINES["fast"]
    some = [(t + y + x) % fast.row_stride == 0 for t in range(3) for y in range(3) for x in range(5)]
    windows = [part[some] for part in rows.split(3 * 3 * 5)]
    tau = fast.shrinkage * 0.05
    near = [(plain.symmetric_kl(part, part) <= tau).fill_diagonal_(True) for part in windows]
    centres = [find_window_centres(*part, tau=tau) for part in zip(windows, near, strict=True)]
    expected = assign(rows, merge_centres(torch.cat(centres), tau=tau))
    assert keys.shape[1] == 3 * 2
    assert 1 < len(windows[0]) < 45
    assert found.num_clusters > 1
    assert found.labels.ravel().tolist() == expected.tolist()


def test_plain_is_the_formulas_and_chooses_another_tau_as_the_engines_do(tiny_weights, capsys):
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=4.0)
    frames = [torch.from_numpy(moving_disk(index, size=(64, 96), seed=0)[0]).permute(2, 0, 1) for index in range(9)]

    def segment(clustering, **options):
        found = make_segmenter(network, key_stride=4, clustering=clustering, **options).segment(frames, num_frames=9)
        return found.labels.tolist(), found.num_clusters, found.tau

    for options in ({"tau": 0.3}, {"tau": 50.0, "clusters": (3, 30)}, {"clusters": (10**5, 10**5 + 1)}):
        assert segment("plain", **options) == segment("exact", **options)
    assert capsys.readouterr().err.count("no threshold found") == 2
    with pytest.raises(UserError, match="--memory_gb 1e-05: .*give --clustering exact"):
        segment("plain", memory_gb=1e-5)
    with pytest.raises(UserError, match="--clustering plain: .*whole video"):
        FrameStream(make_segmenter(network, clustering="plain"), torch.stack(frames[:1]))


def test_settings_of_the_fast_engine():
    """As the page of results has it."""
    assert ENGINES["fast"] == Engine(ranks=(128, 128), key_pool=3, shrinkage=0.77, row_stride=3)


def test_diagonals_cover_every_position_once_in_a_round():
    assert select_diagonals(0, 1, (2, 4), 2).tolist() == [0, 2, 5, 7]
    assert select_diagonals(1, 1, (2, 4), 2).tolist() == [1, 3, 4, 6]
    chosen = select_diagonals(2, 3, (4, 7), 3)
    assert (chosen % 28).sort().values.tolist() == list(range(28))
    assert chosen.tolist() == sorted(chosen.tolist())
    assert select_diagonals(0, 3, (1, 1), 2).tolist() == [0, 2]


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_fast_engine_covers_every_position_of_single_frames(tiny_weights, monkeypatch, at_once):
    """Counted on from one step to the next, and anew with another threshold."""
    chosen = []
    monkeypatch.setattr(
        "model.engine.windows.select_diagonals", lambda *args: chosen.append(args[:2]) or select_diagonals(*args)
    )
    segmenter = make_segmenter(make_network(tiny_weights), clustering="fast")
    stream = FrameStream(segmenter, torch.stack(video(1)))
    for frames in torch.stack(video(6)).split(at_once):
        stream.step(frames)
    assert chosen == [(first, at_once) for first in range(0, 6, at_once)]
    stream.clusterer.reset(1.0)
    stream.step(torch.stack(video(1)))
    assert chosen[-1] == (0, 1)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_exact_engine_on_real_video(shared, tau):
    """Against docs/method.md word by word in float64; at least 99.9 % of the tokens have the same label."""
    (video,) = load_videos("video", shared / "data/davis17_dev/JPEGImages/480p/dog", flag="--basepath")
    network = build_network(backbone="embedded")
    network.init_blocks("identity", temperature=5 + tau)  # so that some clusters are found at every tau
    segmenter = make_segmenter(network, key_stride=4, tau=tau)
    frames = [frame for _, frame in zip(range(12), read_resized_frames(video, (80, 144)), strict=False)]
    features, grid = segmenter.encode(frames, num_frames=12)
    found = segmenter.cluster(features, grid)
    plainly = make_segmenter(network.double(), key_stride=4, tau=tau, clustering="plain")
    expected = plainly.cluster(features.double(), grid)
    assert found.num_clusters == expected.num_clusters >= 2
    assert agreement(found.labels, expected.labels) >= 0.999


def test_pooled_tokens_by_hand():
    features = torch.arange(15.0).view(1, 15, 1)  # 3 x 5
    assert pool_tokens(features, (3, 5), 2).flatten().tolist() == [3, 5, 6.5, 10.5, 12.5, 14]


def test_feature_cache(tiny_weights, monkeypatch, tmp_path):
    network = make_network(tiny_weights)
    frames = [(255 * frame).to(torch.uint8) for frame in video(6)]
    expected, _ = make_segmenter(network).encode(frames, num_frames=6)
    make_segmenter(network, feature_cache=tmp_path).encode(frames[:4], num_frames=4)
    assert len(list(tmp_path.rglob("*.npy"))) == 4
    encoded = []
    monkeypatch.setattr(network, "encode", lambda x, encode=network.encode: encoded.append(len(x)) or encode(x))
    features, _ = make_segmenter(network, feature_cache=tmp_path).encode(frames, num_frames=6)
    torch.testing.assert_close(features, expected)
    assert sum(encoded) == 2
    make_segmenter(network, feature_cache=tmp_path, amp="bf16").encode(frames, num_frames=6)  # not the same features
    assert sum(encoded) == 8
    for kept in tmp_path.rglob("*.npy"):
        kept.write_bytes(kept.read_bytes()[:200])
    with pytest.raises(UserError, match=r"\.npy: damaged .*delete it"):
        make_segmenter(network, feature_cache=tmp_path).encode(frames, num_frames=6)


def test_an_error_while_reading_ahead_comes_up(tiny_weights):
    def broken():
        yield video(1)[0]
        raise UserError("frame 1: damaged")

    with pytest.raises(UserError, match="frame 1: damaged"):
        make_segmenter(make_network(tiny_weights)).segment(broken(), num_frames=2)
    made = []
    ahead = prefetch((made.append(item) or item for item in range(100)), ahead=2)
    assert [next(ahead), next(ahead)] == [0, 1]
    ahead.close()
    assert len(made) < 7  # two taken, two ready, one at hand


@pytest.mark.parametrize("engine", ["fast", "exact"])
def test_a_tau_chosen_by_the_number_of_clusters(tiny_weights, capsys, engine):
    """Whatever tau was, and with the labels that belong to the one chosen; where tau does, it stays."""
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=4.0)
    frames = torch.from_numpy(np.stack([moving_disk(index, size=(64, 96), seed=0)[0] for index in range(9)]))
    frames = frames.permute(0, 3, 1, 2)

    def segment(**options):
        return make_segmenter(network, key_stride=4, clustering=engine, **options).segment(frames, num_frames=9)

    chosen = segment(tau=50.0, clusters=(3, 30))
    assert 3 <= chosen.num_clusters <= 30
    plain = segment(tau=chosen.tau)
    np.testing.assert_array_equal(chosen.labels, plain.labels)
    assert segment(tau=1e-3, clusters=(3, 30)).tau == chosen.tau
    kept = segment(tau=chosen.tau, clusters=(plain.num_clusters, plain.num_clusters))
    assert kept.tau == plain.tau
    np.testing.assert_array_equal(kept.labels, plain.labels)
    assert not capsys.readouterr().err
    segment(clusters=(100000, 100001))
    assert "--clusters 100000 100001: no threshold found, " in capsys.readouterr().err
