"""Compute the self-supervised losses from output tokens and attention (docs/method.md, sections 3 and 13).

A query (t, i) is token i of frame t. In the paper's two losses, the tokens of a frame that a query attends to most are
its positives, the tokens that it attends to least its negatives. The object loss takes both from objects that were
found before.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

LOG_EPS = 1e-10


def semantic_loss(
    attn: Tensor,
    tokens: Tensor,
    sample: Tensor,
    *,
    num_positives: int = 30,
    num_negatives: int = 200,
    positive_margin: float = 0.9,
    negative_margin: float = 0.1,
) -> Tensor:
    """Compute the semantic consistency loss: a query's output token should resemble its positives, not its negatives.

    Args:
        attn: (B, T*N, T*N) attention averaged over heads, rows sum to <= 1.
        tokens: (B, T, N, C) output tokens of the block.
        sample: (n,) int64 token positions in [0, N), the queries of every frame.
        num_positives, num_negatives: per query and frame; cut to N where a frame has fewer tokens.

    Returns:
        Scalar >= 0: mean(relu(0.9 - cos(z_q, z_pos))) + mean(relu(cos(z_q, z_neg) - 0.1)) over all pairs of frames.
    """
    batch, frames, count, _ = tokens.shape
    rows = _query_rows(attn, sample, frames, count).detach().unflatten(-1, (frames, count))  # (B, T, n, T, N)
    unit = F.normalize(tokens, dim=-1)
    cosine = unit[:, :, sample].flatten(1, 2) @ unit.flatten(1, 2).transpose(1, 2)  # (B, T*n, T*N)
    cosine = cosine.view(batch, frames, len(sample), frames, count)
    positives = cosine.gather(-1, rows.topk(min(num_positives, count)).indices)
    negatives = cosine.gather(-1, rows.topk(min(num_negatives, count), largest=False).indices)
    return (positive_margin - positives).relu().mean() + (negatives - negative_margin).relu().mean()


def motion_loss(
    attn: Tensor,
    sample: Tensor,
    *,
    num_frames: int,
    num_positives: int = 10,
    num_negatives: int = 50,
    margin: float = 1.0,
) -> Tensor:
    """Compute the motion consistency loss: tokens that attend to each other in a frame share their motion pattern.

    The motion pattern a of a token is its row of the attention, normalised to sum 1. Similarity to a query is
    sim(q, k) = sum_c a_q[c] log(a_k[c] + 1e-10) with a_q detached; every (positive, negative) pair of a query gives
    relu(sim_neg - sim_pos + 1). Queries of a frame are weighted by the softmax of sum_c a_q log a_q, so that those
    of low entropy weigh more.

    Args:
        attn: (B, T*N, T*N) attention averaged over heads, rows sum to <= 1.
        sample: (n,) int64 token positions in [0, N), the queries of every frame.
        num_frames: T.
        num_positives, num_negatives: per query, within its own frame; cut to N.

    Returns:
        Scalar >= 0.
    """
    batch, total, _ = attn.shape
    count = total // num_frames
    frame_rows = attn.view(batch, num_frames, count, total)
    queries = frame_rows[:, :, sample].detach()  # (B, T, n, T*N)
    own = queries.view(batch, num_frames, len(sample), num_frames, count)
    own = torch.stack([own[:, t, :, t] for t in range(num_frames)], dim=1)  # to the own frame: (B, T, n, N)
    positives = own.topk(min(num_positives, count)).indices
    negatives = own.topk(min(num_negatives, count), largest=False).indices
    chosen = torch.cat([positives, negatives], dim=-1)  # (B, T, n, P + Q)

    patterns = _patterns(queries)
    first = count * torch.arange(batch * num_frames, device=attn.device).view(batch, num_frames, 1, 1)
    rows = (first + chosen).flatten()  # over all clips; index_select has a faster gradient than indexing
    others = attn.reshape(-1, total).index_select(0, rows).view(*chosen.shape, total)  # (B, T, n, P + Q, T*N)
    log_others = (_patterns(others) + LOG_EPS).log()
    similarity = torch.einsum("btnc,btnkc->btnk", patterns, log_others)
    to_positive, to_negative = similarity.split([positives.shape[-1], negatives.shape[-1]], dim=-1)
    pairs = (to_negative[..., None, :] - to_positive[..., :, None] + margin).relu()  # (B, T, n, P, Q)

    negative_entropy = (patterns * (patterns + LOG_EPS).log()).sum(-1)
    weights = negative_entropy.softmax(dim=-1)  # (B, T, n)
    return (weights[..., None, None] * pairs).sum(2).mean()


def object_loss(attn: Tensor, same: Tensor, different: Tensor) -> Tensor:
    """Compute the object loss: a query should attend to tokens of its own object rather than to those of others.

    Args:
        attn: (n, S) attention of n queries averaged over heads, rows sum to <= 1.
        same, different: (n, S) bool, tokens of the query's own object and of others. Tokens that are neither are left
            out, and so are queries that lack one of the two.

    Returns:
        Scalar >= 0: the mean of -log(a_same / (a_same + a_different)), where a_same and a_different are the sums of a
        query's attention over the two sets. 0 without queries.
    """
    usable = same.any(-1) & different.any(-1)
    own = torch.where(same, attn, 0).sum(-1)[usable] + LOG_EPS
    other = torch.where(different, attn, 0).sum(-1)[usable]
    return torch.log1p(other / own).sum() / usable.sum().clamp_min(1)


def attention_entropy(attn: Tensor, sample: Tensor, *, num_frames: int) -> Tensor:
    """Average the entropy in nats of the sampled tokens' attention, normalised to sum 1; log(T*N) if uniform."""
    rows = _query_rows(attn, sample, num_frames, attn.shape[1] // num_frames).detach()
    patterns = _patterns(rows)
    return -(patterns * (patterns + LOG_EPS).log()).sum(-1).mean()


def _query_rows(attn: Tensor, sample: Tensor, frames: int, count: int) -> Tensor:
    """Select the rows of the queries: (B, T*N, T*N) -> (B, T, n, T*N)."""
    return attn.view(attn.shape[0], frames, count, -1)[:, :, sample]


def _patterns(rows: Tensor) -> Tensor:
    """Normalise rows (..., T*N) to sum 1."""
    return rows / rows.sum(-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
