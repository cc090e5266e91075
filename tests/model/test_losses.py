import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.losses import attention_entropy, motion_loss, semantic_loss


def slow_losses(attn, tokens, sample, *, num_positives, num_negatives, motion_positives, motion_negatives):
    """docs/method.md, section 3 word by word: full sorts and one query at a time, in float64."""
    batch, frames, count, _ = tokens.shape
    positive, negative, motion = [], [], []
    for b in range(batch):
        for t in range(frames):
            weights, per_query = [], []
            for i in sample.tolist():
                q = t * count + i
                for s in range(frames):
                    order = attn[b, q, s * count : (s + 1) * count].argsort(descending=True)
                    cosine = F.cosine_similarity(tokens[b, t, i][None], tokens[b, s], dim=-1)
                    positive.append((0.9 - cosine[order[:num_positives]]).relu())
                    negative.append((cosine[order[-num_negatives:]] - 0.1).relu())
                pattern = (attn[b, q] / attn[b, q].sum()).detach()
                order = attn[b, q, t * count : (t + 1) * count].argsort(descending=True)
                similarity = []
                for k in order.tolist():
                    row = attn[b, t * count + k]
                    similarity.append((pattern * (row / row.sum() + 1e-10).log()).sum())
                pairs = [
                    (n - p + 1).relu() for p in similarity[:motion_positives] for n in similarity[-motion_negatives:]
                ]
                per_query.append(torch.stack(pairs))
                weights.append((pattern * (pattern + 1e-10).log()).sum())
            weights = torch.stack(weights).softmax(0)
            motion.append((weights[:, None] * torch.stack(per_query)).sum(0))
    semantic = torch.cat(positive).mean() + torch.cat(negative).mean()
    return semantic, torch.cat(motion).mean()


@pytest.mark.parametrize("case", ["a", "b"])
def test_golden_values_and_gradients(shared, case):
    golden = np.load(shared / "goldens/losses.npz")
    attn = torch.from_numpy(golden[f"{case}_attn"]).double().requires_grad_()
    tokens = torch.from_numpy(golden[f"{case}_tokens"]).double().requires_grad_()
    sample = torch.from_numpy(golden[f"{case}_sample"])
    semantic = semantic_loss(attn, tokens, sample)
    motion = motion_loss(attn, sample, num_frames=3)
    (semantic + motion).backward()
    assert semantic.item() == pytest.approx(float(golden[f"{case}_semantic"]), rel=1e-6)
    assert motion.item() == pytest.approx(float(golden[f"{case}_motion"]), rel=1e-6)
    assert attn.grad.norm().item() == pytest.approx(float(golden[f"{case}_grad_attn_norm"]), rel=1e-6)
    assert tokens.grad.norm().item() == pytest.approx(float(golden[f"{case}_grad_tokens_norm"]), rel=1e-6)
    corner = golden[f"{case}_grad_tokens_head"]
    np.testing.assert_allclose(tokens.grad[:, :, : corner.shape[2]].numpy(), corner, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_agrees_with_the_slow_reference(frames):
    generator = torch.Generator().manual_seed(frames)
    count = 20
    attn = torch.randn(2, frames * count, frames * count + 2, generator=generator, dtype=torch.float64)
    attn = (2 * attn).softmax(-1)[..., :-2].contiguous().requires_grad_()  # rows sum to less than 1
    tokens = torch.randn(2, frames, count, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    sample = torch.tensor([3, 11, 17])
    slow = slow_losses(attn, tokens, sample, num_positives=4, num_negatives=9, motion_positives=3, motion_negatives=5)
    slow_gradients = torch.autograd.grad(sum(slow), (attn, tokens))
    fast = (
        semantic_loss(attn, tokens, sample, num_positives=4, num_negatives=9),
        motion_loss(attn, sample, num_frames=frames, num_positives=3, num_negatives=5),
    )
    gradients = torch.autograd.grad(sum(fast), (attn, tokens))
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradients, slow_gradients, rtol=1e-9, atol=1e-12)


def test_counts_are_cut_to_small_frames():
    """24 tokens a frame: fewer than the 30 positives and 200 negatives."""
    attn = torch.rand(1, 48, 48).softmax(-1).requires_grad_()
    tokens = torch.randn(1, 2, 24, 8, requires_grad=True)
    loss = semantic_loss(attn, tokens, torch.tensor([0, 5])) + motion_loss(attn, torch.tensor([0, 5]), num_frames=2)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(attn.grad).all()


def test_rows_that_vanished_stay_finite():
    """A query that attends to CLS tokens alone leaves a row of zeros."""
    attn = torch.zeros(1, 20, 20, requires_grad=True)
    loss = motion_loss(attn, torch.tensor([0]), num_frames=2)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(attn.grad).all()


def test_entropy_of_uniform_attention():
    attn = torch.full((1, 30, 30), 0.9 / 30)
    assert attention_entropy(attn, torch.tensor([1, 2]), num_frames=3).item() == pytest.approx(math.log(30), rel=1e-5)
