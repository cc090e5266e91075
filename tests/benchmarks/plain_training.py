"""Sections 1 to 3 of docs/method.md implemented directly, without optimisation, for `tests.benchmarks.training`.

One frame at a time through the backbone, whose attention is written out; every row of attention sorted in full; pools
of tokens gathered anew for every pair of frames.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.network import SpatioTemporalNetwork


def write_out(network: SpatioTemporalNetwork) -> None:
    """Turn off fused attention, and compute all tokens of the last layer's output."""
    network.backbone.cls_alone = False
    for block in network.backbone.vit.blocks:
        block.attn.fused_attn = False


def forward(network: SpatioTemporalNetwork, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `SpatioTemporalNetwork.forward` of one block without dropout."""
    batch, num_frames = frames.shape[:2]
    embedded = torch.cat([network.embed(frames[:, t : t + 1]) for t in range(num_frames)], dim=1)
    count = embedded.shape[2]
    x, (block,) = embedded.flatten(1, 2), network.blocks
    normed = block.norm1(x)
    q, k, v = block.attn.qkv(normed).unflatten(-1, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    attn = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
    x = x + block.attn.proj((attn @ v).transpose(1, 2).flatten(2))
    x = x + block.mlp(block.norm2(x))
    patch = torch.arange(num_frames * count, device=x.device) % count >= int(network.with_cls)
    return x[:, patch].view(batch, num_frames, -1, x.shape[-1]), attn.mean(1)[:, patch][:, :, patch]


def semantic_loss(attn: Tensor, tokens: Tensor, sample: Tensor) -> Tensor:
    """Compute `model.losses.semantic_loss` with its default settings."""
    batch, frames, count, dim = tokens.shape
    attn = attn.view(batch, frames, count, frames, count)
    positive, negative = [], []
    for t in range(frames):
        for s in range(frames):
            order = attn[:, t, :, s].argsort(dim=-1, descending=True)[:, sample]  # (B, n, N)
            pool = tokens[:, s, None].expand(-1, len(sample), -1, -1)
            query = tokens[:, t, sample, None]
            for places, found in ((order[..., :30], positive), (order[..., -200:], negative)):
                chosen = pool.gather(2, places[..., None].expand(-1, -1, -1, dim))
                found.append(F.cosine_similarity(query, chosen, dim=-1))
    return (0.9 - torch.stack(positive)).relu().mean() + (torch.stack(negative) - 0.1).relu().mean()


def motion_loss(attn: Tensor, sample: Tensor, *, num_frames: int) -> Tensor:
    """Compute `model.losses.motion_loss` with its default settings."""
    batch, total, _ = attn.shape
    count = total // num_frames
    patterns = (attn / attn.sum(-1, keepdim=True)).view(batch, num_frames, count, total)
    losses = []
    for t in range(num_frames):
        own = attn.view(batch, num_frames, count, num_frames, count)[:, t, :, t]
        order = own.argsort(dim=-1, descending=True)[:, sample]
        pool = patterns[:, t, None].expand(-1, len(sample), -1, -1)
        query = patterns[:, t, sample].detach()
        sims = []
        for places in (order[..., :10], order[..., -50:]):
            chosen = pool.gather(2, places[..., None].expand(-1, -1, -1, total))
            sims.append((query[:, :, None] * (chosen + 1e-10).log()).sum(-1))
        pairs = (sims[1][..., None, :] - sims[0][..., :, None] + 1).relu()
        weights = (query * (query + 1e-10).log()).sum(-1).softmax(-1)
        losses.append((weights[..., None, None] * pairs).sum(1))
    return torch.stack(losses).mean()
