import pytest
import torch

from model.backbone import build_backbone
from model.clustering import hierarchical_clustering
from model.network import SpatioTemporalNetwork, build_network
from model.segmenter import Segmenter, key_frame_indices
from tests.conftest import TINY_BACKBONE
from utils.errors import UserError


def make_network(tiny_weights, **options):
    torch.manual_seed(3)
    backbone = build_backbone(TINY_BACKBONE, weights=tiny_weights)
    return SpatioTemporalNetwork(backbone, **options).eval()


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
    y, heads = network.blocks[0](x)
    patch = torch.tensor([i for i in range(48) if i % 16])
    torch.testing.assert_close(tokens, y[:, patch].view(2, 3, 15, 64))
    torch.testing.assert_close(attn, heads.mean(1)[:, patch][:, :, patch])
    assert (attn.sum(-1) < 1).all()


def test_inference_attention_is_training_attention_without_cls(tiny_weights):
    """One token path: with every frame a key frame both give the same rows."""
    network = make_network(tiny_weights, with_cls=False)
    frames = torch.rand(1, 3, 3, 48, 80)
    _, attn = network(frames)
    queries, keys = network.queries_and_keys(network.encode(frames[0]), [0, 1, 2])
    torch.testing.assert_close(network.attention_rows(queries, keys), attn[0])


def test_stacked_blocks(tiny_weights):
    network = make_network(tiny_weights, with_cls=False, num_blocks=2)
    frames = torch.rand(1, 3, 3, 48, 80)
    _, attn = network(frames)
    features = network.refine(network.encode(frames[0]), [0, 1, 2], chunk=7)
    torch.testing.assert_close(network.attention_rows(*network.queries_and_keys(features, [0, 1, 2])), attn[0])


def test_gradient_reaches_the_blocks_only(tiny_weights):
    network = make_network(tiny_weights).train()
    tokens, attn = network(torch.rand(1, 2, 3, 48, 80))
    (tokens.sum() + attn.square().sum()).backward()
    assert all(p.grad is None for p in network.backbone.parameters())
    assert all(p.grad is not None for p in network.blocks.parameters())


@pytest.fixture
def reference_checkpoint(tiny_weights):
    """Structure of the reference implementation's file: encoder and block in one (METHOD.md 2)."""
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
        (lambda s: s.pop("temporal_transformer.0.mlp.fc2.bias"), "does not fit the block exactly"),
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


@pytest.mark.parametrize("num_frames", [1, 2, 4, 9])
def test_segmenter_is_the_clustering_of_all_rows(tiny_weights, num_frames):
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=3.0)
    frames = video(num_frames)
    found = Segmenter(network, key_stride=2, tau=0.05, chunk=8).segment(frames, num_frames=num_frames)
    features = network.encode(torch.stack(frames))
    rows = network.attention_rows(*network.queries_and_keys(features, key_frame_indices(num_frames, 2)))
    expected = hierarchical_clustering(rows, window=45, tau=0.05)
    assert found.labels.shape == (num_frames, 3, 5)
    assert found.labels.max() < found.num_clusters
    assert found.num_clusters > 1
    assert found.labels.ravel().tolist() == expected.tolist()


def smallest_budget(network, frames, options):
    """Bisect for the smallest --memory_gb that is accepted."""
    refused, accepted = 1e-6, 1.0
    while accepted - refused > 1e-9:
        middle = (accepted + refused) / 2
        try:
            Segmenter(network, memory_gb=middle, **options).segment(frames, num_frames=len(frames))
            accepted = middle
        except UserError:
            refused = middle
    return accepted


def test_memory_budget(tiny_weights, monkeypatch):
    """Rows that do not fit are made again, with the same labels; a budget below one window is refused."""
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=3.0)
    frames = video(12)
    options = {"key_stride": 2, "tau": 0.05, "chunk": 16}
    expected = Segmenter(network, memory_gb=1, **options).segment(frames, num_frames=12).labels.tolist()
    one_window = 45 * 90 * 4 / 1e9  # rows of three frames over six key frames, 4 bytes each
    needed = smallest_budget(network, frames, options)
    for windows in (0, 1, 3):
        budget = needed + (windows + 0.5) * one_window
        tight = Segmenter(network, memory_gb=budget, **options)
        made = []
        monkeypatch.setattr(tight, "_rows", lambda *a, make=tight._rows, made=made: made.append(1) or make(*a))
        assert tight.segment(frames, num_frames=12).labels.tolist() == expected
        # Four windows, each made twice unless it was kept; the centres take room too.
        assert 8 - windows <= len(made) <= 8 - windows + 1
    with pytest.raises(UserError, match=r"--tau 1e-09: \d+ clusters in the first \d of 4 windows, more than fit"):
        Segmenter(network, memory_gb=needed, key_stride=2, tau=1e-9, chunk=16).segment(frames, num_frames=12)
    with pytest.raises(UserError, match=r"--memory_gb 0\.0001: 12 frames of 15 tokens and 6 key frames need"):
        Segmenter(network, key_stride=2, memory_gb=0.0001).segment(frames, num_frames=12)


def test_widths_that_do_not_go_together(tiny_weights):
    backbone = build_backbone(TINY_BACKBONE, weights=tiny_weights)
    with pytest.raises(UserError, match="--num_heads 7"):
        SpatioTemporalNetwork(backbone, num_heads=7)
    backbone.has_cls = False
    with pytest.raises(UserError, match="--no-with_cls"):
        SpatioTemporalNetwork(backbone)
