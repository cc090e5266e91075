"""Attention and hierarchical clustering as the formulas of docs/method.md, sections 4 and 5, state them.

Selectable as `--clustering plain`, and the definition that all fast paths are tested against: `model.attention` and
`model.engine`. As in the released implementation, every distance of a window is computed twice, all rows of attention
are kept, and the greedy pass takes one row at a time. Works for any floating-point type.
"""

import torch
from torch import Tensor

WINDOW = 3  # frames in a window of stage 1


def attention(queries: Tensor, keys: Tensor) -> Tensor:
    """Compute attention rows (L, S) of queries (M, L, d), keys (M, S, d): mean over heads of softmax(q k / sqrt(d))."""
    scores = [(q @ k.T / q.shape[-1] ** 0.5).softmax(-1) for q, k in zip(queries, keys, strict=True)]
    return torch.stack(scores).mean(0)


def symmetric_kl(rows: Tensor, others: Tensor) -> Tensor:
    """Compute D(p, r) = KL(p||r) + KL(r||p) in nats of rows (L, S) to others (K, S): (L, K)."""
    log_rows, log_others = (x.clamp_min(torch.finfo(x.dtype).tiny).log() for x in (rows, others))
    forward = (rows * log_rows).sum(-1, keepdim=True) - rows @ log_others.T
    backward = (others * log_others).sum(-1) - log_rows @ others.T
    return forward + backward


def smooth(rows: Tensor, tau: float) -> Tensor:
    """Run stage 1 (a): replace each row (L, S) by the normalised sum of the rows within tau of it, itself included."""
    near = symmetric_kl(rows, rows) <= tau
    near.fill_diagonal_(True)
    summed = near.to(rows.dtype) @ rows
    return summed / summed.sum(-1, keepdim=True)


def greedy_leaders(rows: Tensor, tau: float) -> Tensor:
    """Run stage 1 (b), or one pass of stage 2: centres (K, S) of the greedy leader pass over rows (L, S) in order."""
    near = symmetric_kl(rows, rows) <= tau
    free = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    centres = []
    for index in range(len(rows)):
        if free[index]:
            absorbed = near[index] & free
            absorbed[index] = True
            centres.append(rows[absorbed].mean(0))
            free &= ~absorbed
    return torch.stack(centres)


def merge_centres(centres: Tensor, tau: float) -> Tensor:
    """Run stage 2: greedy leader passes until the number of centres (K, S) no longer falls."""
    while len(merged := greedy_leaders(centres, tau)) < len(centres):
        centres = merged
    return merged


def assign(rows: Tensor, centres: Tensor) -> Tensor:
    """Assign each row (L, S) to its nearest centre (K, S): indices (L,) int64."""
    return symmetric_kl(rows, centres).argmin(-1)


def cluster(rows: Tensor, *, window: int, tau: float) -> Tensor:
    """Label all rows (L, S) of a video, `window` of them in each stage-1 step: (L,) int64."""
    centres = torch.cat([greedy_leaders(smooth(part, tau), tau) for part in rows.split(window)])
    merged = merge_centres(centres, tau)
    return torch.cat([assign(part, merged) for part in rows.split(window)])
