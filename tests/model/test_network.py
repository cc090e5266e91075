import tempfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.loading import load_videos
from data.videos import read_resized_frames
from model import clustering as plain
from model.backbone import build_backbone
from model.engine.budget import FLOAT_BYTES, LIMITS, MemoryBudget, SpareMemory
from model.engine.exact import assign, find_window_centres, merge_centres
from model.engine.threshold import Trial, cluster_at_wanted_number
from model.engine.windows import ENGINES, Engine, WindowClusterer, pool_tokens, select_diagonals
from model.network import SpatioTemporalNetwork, build_network
from model.segmenter import Segmenter, SegmenterSettings, key_frame_indices
from tests.benchmarks.inference import agreement
from tests.conftest import TINY_BACKBONE, moving_disk
from utils.errors import UserError
from utils.parallel import prefetch


def make_network(tiny_weights, **options):
    torch.manual_seed(3)
    backbone = build_backbone(TINY_BACKBONE, weights=tiny_weights)
    return SpatioTemporalNetwork(backbone, **options).eval()


def make_segmenter(network, **settings):
    return Segmenter(network, SegmenterSettings(**settings))


def video(num_frames, size=(48, 80), seed=0):
    generator = torch.Generator().manual_seed(seed)
    still = torch.rand(3, *size, generator=generator)
    return [(still + 0.1 * index).clamp(max=1) for index in range(num_frames)]


def test_training_path_drops_cls_rows_and_columns(tiny_weights):
    network = make_network(tiny_weights, with_cls=True)
    frames = torch.rand(2, 3, 3, 48, 80)
    tokens, attn = network(frames)
    keys, cls = network.backbone(frames.flatten(0, 1), with_cls=True)
    x = torch.cat([cls[:, None], keys], 1).view(2, 3 * 16, 64)  # by hand: 3 frames of CLS + 15 tokens
    y, whole = network.blocks[0](x)
    patch = torch.tensor([i for i in range(48) if i % 16])
    torch.testing.assert_close(tokens, y[:, patch].view(2, 3, 15, 64))
    torch.testing.assert_close(attn, whole[:, patch][:, :, patch])
    assert (attn.sum(-1) < 1).all()


def test_inference_attention_is_training_attention_without_cls(tiny_weights):
    """One token path: with every frame a key frame both give the same rows."""
    network = make_network(tiny_weights, with_cls=False)
    frames = torch.rand(1, 3, 3, 48, 80)
    _, attn = network(frames)
    features = network.encode(frames[0]).flatten(0, 1)
    torch.testing.assert_close(network.attention_rows(network.queries(features), network.keys(features)), attn[0])


def test_attention_rows_are_those_of_the_formula(tiny_weights):
    network = make_network(tiny_weights)
    features = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
    queries, keys = network.queries(features), network.keys(features[:40])
    torch.testing.assert_close(network.attention_rows(queries, keys), plain.attention(queries, keys))


def test_stacked_blocks(tiny_weights):
    network = make_network(tiny_weights, with_cls=False, num_blocks=2)
    frames = torch.rand(1, 3, 3, 48, 80)
    _, attn = network(frames)
    features = network.refine(network.encode(frames[0]), [0, 1, 2], chunk=7).flatten(0, 1)
    torch.testing.assert_close(network.attention_rows(network.queries(features), network.keys(features)), attn[0])


def test_gradient_reaches_the_blocks_only(tiny_weights):
    network = make_network(tiny_weights).train()
    tokens, attn = network(torch.rand(1, 2, 3, 48, 80))
    (tokens.sum() + attn.square().sum()).backward()
    assert all(p.grad is None for p in network.backbone.parameters())
    assert all(p.grad is not None for p in network.blocks.parameters())


@pytest.fixture
def reference_checkpoint(tiny_weights):
    """Structure of the reference implementation's file: encoder and block in one (docs/method.md, section 2)."""
    network = make_network(tiny_weights)
    state = {f"encoder.{k}": v + 0.5 for k, v in network.backbone.vit.state_dict().items()}
    state |= {f"temporal_transformer.{k}": v for k, v in network.blocks.state_dict().items()}
    return {"model_state_dict": state, "iteration": 1000, "loss": 0.5}, network


def test_reference_checkpoint(reference_checkpoint, tiny_weights):
    content, original = reference_checkpoint
    network = build_network(backbone=TINY_BACKBONE, dino_path=tiny_weights, checkpoint=content, source="ref.pth")
    torch.testing.assert_close(network.blocks.state_dict(), original.blocks.state_dict())
    loaded = network.backbone.vit.state_dict()
    torch.testing.assert_close(loaded["norm.bias"], original.backbone.vit.state_dict()["norm.bias"] + 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("temporal_transformer.0.mlp.fc2.bias"), r"1 missing: 0\.mlp\.fc2\.bias"),
        (lambda s: s.pop("encoder.norm.bias"), r"1 missing: norm\.bias"),
        (lambda s: s.update({"temporal_transformer.1.norm1.weight": torch.ones(64)}), "give --num_t 2"),
        (lambda s: s.update({"temporal_transformer.0.norm1.weight": torch.ones(384)}), "width 384"),
        (lambda s: s.update({"decoder.weight": torch.ones(1)}), r"decoder\.weight"),
    ],
)
def test_reference_checkpoint_that_does_not_fit(reference_checkpoint, change, message):
    content, _ = reference_checkpoint
    change(content["model_state_dict"])
    with pytest.raises(UserError, match=message):
        build_network(backbone=TINY_BACKBONE, checkpoint=content, source="ref.pth")


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
    rows = network.attention_rows(network.queries(features.flatten(0, 1)), keys)
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
    stream = segmenter.open(torch.stack(first[:1]))
    for _ in range(2):
        assert stream.step(torch.stack(first)).tolist() == expected.labels.tolist()
        assert stream.num_clusters == expected.num_clusters
    assert stream.step(torch.stack(later)).max() < stream.num_clusters
    with pytest.raises(UserError, match="--num_t 2: frames as they come need a network of one block"):
        make_segmenter(make_network(tiny_weights, num_blocks=2)).open(torch.stack(first[:1]))


def bytes_without_spare(network, features, *, num_key_frames, **settings):
    """Bytes that features (T, N, C) on a grid of 3 x 5 and the clustering of one window take."""
    segmenter = make_segmenter(network, memory_gb=1, **settings)
    spare = segmenter.budget.compute_spare(
        features, grid=(3, 5), num_key_frames=num_key_frames, engine=ENGINES["exact"], device=segmenter.device
    )
    return 1e9 - spare.total


def smallest_budget(network, frames, options):
    """Bisect for the smallest --memory_gb that is accepted, to 1 kB."""
    refused = bytes_without_spare(network, (12, 15, 64), num_key_frames=6, **options) / 1e9
    accepted = 2 * refused
    while accepted - refused > 1e-6:
        middle = (accepted + refused) / 2
        try:
            make_segmenter(network, memory_gb=middle, **options).segment(frames, num_frames=len(frames))
            accepted = middle
        except UserError:
            refused = middle
    return accepted


@pytest.mark.parametrize(
    ("directions", "most", "kept"),
    [(1000, 512, [32] * 4), (1000, 25, [25] * 4), (18, 512, [18] * 4), (5, 512, [10, 10, 0, 0])],
)
def test_summaries_are_as_good_as_fits(tiny_weights, monkeypatch, directions, most, kept):
    """All directions of the projection, or the most allowed, or what leaves room for all windows, at least 10 here."""
    limits = replace(LIMITS, min_summary_rank=10, max_summary_rank=most)
    monkeypatch.setattr("model.engine.budget.LIMITS", limits)
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=3.0)
    options = {"key_stride": 2, "tau": 1e3}  # one cluster, so that centres take next to nothing
    ample = make_segmenter(network, memory_gb=1, **options)
    features, grid = ample.encode(video(12), num_frames=12)
    needed = bytes_without_spare(network, features.shape, num_key_frames=6, **options)
    ranks, merge = [], WindowClusterer.merge

    def look(self):
        merge(self)
        ranks[:] = [summary.x_inside.shape[1] if summary else 0 for summary in self.summaries]

    monkeypatch.setattr(WindowClusterer, "merge", look)
    # Half of what is to spare is for summaries of 180 tokens, floats of 4 bytes.
    spare = (2 * directions + 3.5) * 180 * 4 * 2
    make_segmenter(network, memory_gb=(needed + spare) / 1e9, **options).cluster(features, grid)
    assert ranks == kept


@pytest.mark.parametrize("clustering", ["exact", "fast"])
@pytest.mark.parametrize("keep", [18, 1, 0])
def test_less_of_a_summary_gives_the_same_labels(tiny_weights, monkeypatch, keep, clustering):
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=3.0)
    segmenter = make_segmenter(network, key_stride=2, tau=0.05, clustering=clustering)
    features, grid = segmenter.encode(video(12), num_frames=12)
    expected = segmenter.cluster(features, grid).labels
    add, attend, attended = WindowClusterer.add_window, WindowClusterer._attend, []
    monkeypatch.setattr(WindowClusterer, "add_window", lambda self, window, **_: add(self, window, summary_rank=keep))
    monkeypatch.setattr(
        WindowClusterer, "_attend", lambda self, tokens: attended.append(len(tokens)) or attend(self, tokens)
    )
    assert (segmenter.cluster(features, grid).labels == expected).all()
    # Some tokens were not proved, and made anew, but where all directions were kept of few columns.
    assert sum(attended) > 180 or (clustering, keep) == ("fast", 18)


def test_memory_budget(tiny_weights, monkeypatch, tmp_path):
    """Summaries that do not fit are made again, features that do not fit go to disk, with the same labels; a budget
    below one window is refused."""
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=3.0)
    frames = video(12)
    options = {"key_stride": 2, "tau": 0.05}
    expected = make_segmenter(network, memory_gb=1, **options).segment(frames, num_frames=12).labels.tolist()
    needed = smallest_budget(network, frames, options)
    attended = []
    attend = WindowClusterer._attend
    monkeypatch.setattr(WindowClusterer, "_attend", lambda self, x: attended.append(len(x)) or attend(self, x))
    assert make_segmenter(network, memory_gb=1, **options).segment(frames, num_frames=12).labels.tolist() == expected
    assert attended.count(45) == 4  # once a window
    attended.clear()
    tight = make_segmenter(network, memory_gb=needed * 1.01, **options)
    assert tight.segment(frames, num_frames=12).labels.tolist() == expected
    attended.clear()
    with monkeypatch.context() as patch:
        patch.setattr(WindowClusterer, "count_summary_floats", lambda self, rank: 10**9)
        assert tight.segment(frames, num_frames=12).labels.tolist() == expected
    assert attended.count(45) == 8  # and once more
    with pytest.raises(UserError, match=r"--tau 1e-09: \d+ clusters in the first \d of 4 windows, more than fit"):
        make_segmenter(network, memory_gb=needed, key_stride=2, tau=1e-9).segment(frames, num_frames=12)
    with pytest.raises(UserError, match=r"--memory_gb 0\.0001: 12 frames of 15 tokens and 6 key frames need"):
        make_segmenter(network, key_stride=2, memory_gb=0.0001).segment(frames, num_frames=12)


@pytest.mark.parametrize(("room", "merged"), [(2, [3]), (1, [2, 3])])
def test_centres_that_outgrow_the_budget_are_merged_early(tiny_weights, monkeypatch, room, merged):
    """One centre in each of three windows, and room for so many."""
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=3.0)
    windows, merge = [], WindowClusterer.merge
    monkeypatch.setattr(WindowClusterer, "merge", lambda self: windows.append(len(self.summaries)) or merge(self))
    monkeypatch.setattr(
        MemoryBudget,
        "compute_spare",
        lambda *args, num_key_frames, **options: SpareMemory(room * 2 * 5 * FLOAT_BYTES * num_key_frames * 15),
    )
    segmenter = make_segmenter(network, key_stride=4, tau=1e3)
    segmenter.cluster(*segmenter.encode(video(9), num_frames=9))
    assert windows == merged


def test_features_beyond_the_budget_go_to_disk(tiny_weights, monkeypatch, tmp_path):
    network = make_network(tiny_weights)
    opened, spill = [], tmp_path / "not/there/yet"
    temporary_file = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: opened.append(dir) or temporary_file(dir=dir))
    for memory_gb, spilled in ((1e-4, []), (9e-5, [spill])):  # 12 * 15 * 64 * 4 bytes fit half of the former
        segmenter = make_segmenter(network, memory_gb=memory_gb, spill_path=spill)
        features, _ = segmenter.encode(video(12), num_frames=12)
        assert opened == spilled
        torch.testing.assert_close(features, network.encode(torch.stack(video(12))))
    assert not list(spill.iterdir())  # unlinked already: nothing stays behind whatever happens


def test_objects_of_a_very_long_video_have_to_fit(tiny_weights):
    """Its features go to disk, but there has to be room for 110 bytes for each of its tokens."""
    segmenter = make_segmenter(make_network(tiny_weights), memory_gb=1.0, objects={})
    segmenter.budget.check_objects((10**5, 15, 64))
    with pytest.raises(UserError, match=r"--memory_gb 1: objects of 1000000 frames of 15 tokens need 1\.7; raise it, "):
        segmenter.budget.check_objects((10**6, 15, 64))
    frames = (frame for frame in video(2))
    with pytest.raises(UserError, match="objects of 1000000 frames"):  # told at the first frames
        segmenter.segment(frames, num_frames=10**6)


def test_features_that_are_not_finite_are_refused(tiny_weights, tmp_path):
    network = make_network(tiny_weights)
    network.backbone.vit.patch_embed.proj.weight.data[0] = float("inf")
    segmenter = make_segmenter(network, feature_cache=tmp_path)
    with pytest.raises(UserError, match="its features of a frame are not finite; check its weights"):
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
    rows = network.attention_rows(network.queries(features.flatten(0, 1)), keys)
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
    with pytest.raises(UserError, match="--memory_gb 1e-05: --clustering plain .*give --clustering exact"):
        segment("plain", memory_gb=1e-5)
    with pytest.raises(UserError, match="--clustering plain: needs the whole video"):
        make_segmenter(network, clustering="plain").open(torch.stack(frames[:1]))


def test_what_fast_is():
    """As the page of results has it."""
    assert ENGINES["fast"] == Engine(ranks=(128, 128), key_pool=3, shrinkage=0.77, row_stride=3)


def test_every_place_is_looked_at_once_in_so_many_frames():
    assert select_diagonals(0, 1, (2, 4), 2).tolist() == [0, 2, 5, 7]
    assert select_diagonals(1, 1, (2, 4), 2).tolist() == [1, 3, 4, 6]
    looked = select_diagonals(2, 3, (4, 7), 3)
    assert (looked % 28).sort().values.tolist() == list(range(28))
    assert looked.tolist() == sorted(looked.tolist())
    assert select_diagonals(0, 3, (1, 1), 2).tolist() == [0, 2]


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_fast_looks_at_every_place_of_single_frames_too(tiny_weights, monkeypatch, at_once):
    """Counted on from one step to the next, and anew with another threshold."""
    looked = []
    monkeypatch.setattr(
        "model.engine.windows.select_diagonals", lambda *args: looked.append(args[:2]) or select_diagonals(*args)
    )
    stream = make_segmenter(make_network(tiny_weights), clustering="fast").open(torch.stack(video(1)))
    for frames in torch.stack(video(6)).split(at_once):
        stream.step(frames)
    assert looked == [(first, at_once) for first in range(0, 6, at_once)]
    stream.clusterer.reset(1.0)
    stream.step(torch.stack(video(1)))
    assert looked[-1] == (0, 1)


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


def test_widths_that_do_not_go_together(tiny_weights):
    backbone = build_backbone(TINY_BACKBONE, weights=tiny_weights)
    with pytest.raises(UserError, match="--num_heads 7"):
        SpatioTemporalNetwork(backbone, num_heads=7)
    backbone.has_cls = False
    with pytest.raises(UserError, match="--no-with_cls"):
        SpatioTemporalNetwork(backbone)


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


@pytest.mark.parametrize("threshold", [2.0, 1e9])
def test_what_does_not_fit_is_too_many_clusters(threshold):
    """However few were found until the clustering was given up; the trial returned is the latest."""
    trials = []

    def cluster_at(tau):
        trials.append(Trial(tau, 10, fits=tau > threshold))
        return trials[-1]

    trial = cluster_at_wanted_number(cluster_at, start=0.5, wanted=(4, 30))
    assert trial is trials[-1]
    fits, tau = trial.fits, trial.tau
    assert (fits, tau > threshold, tau == 0.5) == ((True, True, False) if threshold == 2.0 else (False, False, True))
