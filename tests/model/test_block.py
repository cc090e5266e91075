import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.block import SpatioTemporalBlock


@pytest.fixture
def golden(shared):
    return {key: torch.from_numpy(value) for key, value in np.load(shared / "goldens/block.npz").items()}


def test_golden(golden):
    block = SpatioTemporalBlock(48).double().eval()
    block.load_state_dict({key[2:]: value for key, value in golden.items() if key.startswith("w:")}, strict=True)
    y, attn = block(golden["x"])
    torch.testing.assert_close(y, golden["y"], rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(attn, golden["attn"].mean(1), rtol=1e-6, atol=1e-12)


def test_parameter_count_of_the_paper():
    """About 1.8 M at C = 384 (docs/method.md, section 2)."""
    assert sum(p.numel() for p in SpatioTemporalBlock(384).parameters()) == 1_773_312


def test_identity_start_is_the_training_free_point():
    """q = k = s LayerNorm(x), per head softmax(q k / sqrt(C/M)), and the block returns x."""
    torch.manual_seed(0)
    block = SpatioTemporalBlock(48).double().eval()
    block.init_identity(temperature=3.0)
    x = torch.randn(1, 20, 48, dtype=torch.float64)
    y, attn = block(x)
    torch.testing.assert_close(y, x)
    normed = 3.0 * F.layer_norm(x[0], (48,))
    parts = normed.split(6, dim=-1)
    heads = torch.stack([torch.softmax(part @ part.T / 6**0.5, dim=-1) for part in parts])
    torch.testing.assert_close(attn[0], heads.mean(0))


def test_attending_to_a_context():
    torch.manual_seed(0)
    block = SpatioTemporalBlock(16, num_heads=4).eval()
    x = torch.randn(2, 10, 16)
    y, attn = block(x)
    some, some_attn = block(x[:, :3], context=x)
    torch.testing.assert_close(some, y[:, :3])
    torch.testing.assert_close(some_attn, attn[:, :3])


def test_attention_is_returned_before_dropout():
    torch.manual_seed(0)
    block = SpatioTemporalBlock(16, num_heads=4, attn_drop=0.9).train()
    _, attn = block(torch.randn(1, 30, 16))
    torch.testing.assert_close(attn.sum(-1), torch.ones(1, 30))
