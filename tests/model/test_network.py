import pytest
import torch

from model import clustering as plain
from model.attention import mean_attention
from model.backbone import build_backbone
from model.network import SpatioTemporalNetwork, build_network
from tests.conftest import TINY_BACKBONE
from tests.model.inputs import make_network
from utils.errors import UserError


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
    torch.testing.assert_close(mean_attention(network.queries(features), network.keys(features)), attn[0])


def test_attention_rows_are_those_of_the_formula(tiny_weights):
    network = make_network(tiny_weights)
    features = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
    queries, keys = network.queries(features), network.keys(features[:40])
    torch.testing.assert_close(mean_attention(queries, keys), plain.attention(queries, keys))


def test_stacked_blocks(tiny_weights):
    network = make_network(tiny_weights, with_cls=False, num_blocks=2)
    frames = torch.rand(1, 3, 3, 48, 80)
    _, attn = network(frames)
    features = network.refine(network.encode(frames[0]), [0, 1, 2], chunk=7).flatten(0, 1)
    torch.testing.assert_close(mean_attention(network.queries(features), network.keys(features)), attn[0])


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


def test_widths_that_do_not_go_together(tiny_weights):
    backbone = build_backbone(TINY_BACKBONE, weights=tiny_weights)
    with pytest.raises(UserError, match="--num_heads 7"):
        SpatioTemporalNetwork(backbone, num_heads=7)
    backbone.has_cls = False
    with pytest.raises(UserError, match="--no-with_cls"):
        SpatioTemporalNetwork(backbone)
