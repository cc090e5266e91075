"""Attention and hierarchical clustering exactly as the formulas of docs/method.md, sections 4 and 5, state them.

Selectable as `--clustering plain`, and what the fast engines of `model.engine` are tested against. As in the
released implementation, every distance of a window is computed twice, all rows of attention are kept, and the greedy
pass takes one row at a time. Works for any floating-point type.
"""

import torch
from torch import Tensor

from model.network import SpatioTemporalNetwork


def attention(network: SpatioTemporalNetwork, features: Tensor, key_features: Tensor) -> Tensor:
    """Rows (n*N, S) of frames' features (n, N, C), those of key frames being (F, N, C): softmax(q k / sqrt(d)) over
    all key tokens, mean over heads."""
    queries, keys = network.queries(features.flatten(0, 1)), network.keys(key_features.flatten(0, 1))
    scores = [(q @ k.T / q.shape[-1] ** 0.5).softmax(-1) for q, k in zip(queries, keys, strict=True)]
    return torch.stack(scores).mean(0)


def divergence(rows: Tensor, others: Tensor) -> Tensor:
    """D(p, r) = KL(p||r) + KL(r||p) of rows (L, S) to others (K, S): (L, K)."""
    log_rows, log_others = (x.clamp_min(torch.finfo(x.dtype).tiny).log() for x in (rows, others))
    forward = (rows * log_rows).sum(-1, keepdim=True) - rows @ log_others.T
    backward = (others * log_others).sum(-1) - log_rows @ others.T
    return forward + backward


def smooth(rows: Tensor, tau: float) -> Tensor:
    """Stage 1 (a): each row becomes the sum of the rows within tau of it, itself included, normalised."""
    near = divergence(rows, rows) <= tau
    near.fill_diagonal_(True)
    summed = near.to(rows.dtype) @ rows
    return summed / summed.sum(-1, keepdim=True)


def leaders(rows: Tensor, tau: float) -> Tensor:
    """Stage 1 (b), and one pass of stage 2: centres (K, S) of the greedy leader pass in row order."""
    near = divergence(rows, rows) <= tau
    free = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    centres = []
    for index in range(len(rows)):
        if free[index]:
            absorbed = near[index] & free
            absorbed[index] = True
            centres.append(rows[absorbed].mean(0))
            free &= ~absorbed
    return torch.stack(centres)


def merge(centres: Tensor, tau: float) -> Tensor:
    """Stage 2: leader passes until the number of centres (K, S) no longer falls."""
    while len(merged := leaders(centres, tau)) < len(centres):
        centres = merged
    return merged


def cluster(rows: Tensor, *, window: int, tau: float) -> Tensor:
    """Labels (L,) int64 of all rows (L, S) of a video, `window` of them in each stage-1 step."""
    centres = torch.cat([leaders(smooth(part, tau), tau) for part in rows.split(window)])
    merged = merge(centres, tau)
    return torch.cat([divergence(part, merged).argmin(-1) for part in rows.split(window)])
