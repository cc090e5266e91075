"""Hierarchical clustering of attention distributions by symmetric Kullback-Leibler divergence (METHOD.md 5).

Pure functions on distributions: each row of a tensor (L, S) is a token's attention over S key tokens, sum 1.
`D(p, r) = KL(p||r) + KL(r||p)`. Logarithms are taken of values cut below at the smallest normal number of their
type, so an exact zero gives a large finite distance instead of a NaN.
"""

import numpy as np
import torch
from torch import Tensor


def safe_log(rows: Tensor) -> Tensor:
    """log of rows (L, S), finite where a value is zero."""
    return rows.clamp_min(torch.finfo(rows.dtype).tiny).log_()


def symmetric_kl(rows: Tensor, others: Tensor, *, log_others: Tensor | None = None) -> Tensor:
    """D of every row (L, S) to every other row (K, S): (L, K), >= 0 up to rounding, in nats."""
    log_rows = safe_log(rows)
    log_others = safe_log(others) if log_others is None else log_others
    own, other_own = (rows * log_rows).sum(-1), (others * log_others).sum(-1)
    return own[:, None] + other_own - rows @ log_others.T - log_rows @ others.T


def neighbours(rows: Tensor, *, tau: float, chunk: int) -> Tensor:
    """Which pairs of rows (L, S) lie within D <= tau of each other: (L, L) bool, the diagonal always true.

    The two cross terms of a set with itself are one matrix product and its transpose, so it is computed once.
    """
    log_rows = safe_log(rows)
    own = (rows * log_rows).sum(-1)
    cross = rows @ log_rows.T
    near = torch.empty(cross.shape, dtype=torch.bool, device=rows.device)
    for start in range(0, len(rows), chunk):
        part = slice(start, start + chunk)
        near[part] = own[part, None] + own - cross[part] - cross[:, part].T <= tau
    return near.fill_diagonal_(True)


def smooth(rows: Tensor, near: Tensor, *, chunk: int) -> Tensor:
    """Every row (L, S) replaced by the sum of its neighbours' rows (near: (L, L) bool), normalised to sum 1."""
    summed = torch.empty_like(rows)
    for part, out in zip(near.split(chunk), summed.split(chunk), strict=True):
        torch.mm(part.to(rows.dtype), rows, out=out)
    return summed.div_(summed.sum(-1, keepdim=True))


def greedy_leaders(rows: Tensor, *, tau: float, batch: int = 64) -> list[np.ndarray]:
    """Greedy leader pass in row order over rows (L, S): the members of each cluster, as row indices.

    The first row not yet absorbed leads and absorbs every unabsorbed row within D <= tau of it. Distances are needed
    from leaders only, and only to rows still free: the next `batch` free rows are looked at together, with one transfer
    to the host.
    """
    log_rows = safe_log(rows)
    free = np.arange(len(rows))
    clusters = []
    while len(free):
        rest = torch.from_numpy(free).to(rows.device)
        others, log_others = (rows, log_rows) if len(free) == len(rows) else (rows[rest], log_rows[rest])
        distances = symmetric_kl(others[:batch], others, log_others=log_others)
        near = (distances <= tau).cpu().numpy()
        taken = np.zeros(len(free), dtype=bool)
        for candidate, row in enumerate(near):
            if not taken[candidate]:
                members = row & ~taken
                members[candidate] = True
                taken |= members
                clusters.append(free[members])
        free = free[~taken]
    return clusters


def cluster_means(rows: Tensor, clusters: list[np.ndarray]) -> Tensor:
    """Mean row of every cluster: (K, S)."""
    return torch.stack([rows[torch.from_numpy(members).to(rows.device)].mean(0) for members in clusters])


def window_centres(rows: Tensor, *, tau: float, chunk: int = 1024) -> Tensor:
    """Stage 1 on one window's rows (L, S): smooth by neighbourhood, then one greedy leader pass. Centres (K, S)."""
    smoothed = smooth(rows, neighbours(rows, tau=tau, chunk=chunk), chunk=chunk)
    return cluster_means(smoothed, greedy_leaders(smoothed, tau=tau))


def merge_centres(centres: Tensor, *, tau: float) -> Tensor:
    """Stage 2 over the centres (K, S) of all windows: greedy leader passes until their number no longer falls."""
    while True:
        merged = cluster_means(centres, greedy_leaders(centres, tau=tau))
        if len(merged) == len(centres):
            return merged
        centres = merged


def assign(rows: Tensor, centres: Tensor, *, log_centres: Tensor | None = None) -> Tensor:
    """Index of the nearest centre (K, S) of every row (L, S): (L,) int64."""
    return symmetric_kl(rows, centres, log_others=log_centres).argmin(-1)


def hierarchical_clustering(rows: Tensor, *, window: int, tau: float) -> Tensor:
    """Labels (L,) int64 of rows (L, S) held in memory at once; `window` rows (three frames' worth) per stage-1 step.

    The segmenter does the same for videos whose rows do not fit, window by window.
    """
    centres = torch.cat([window_centres(part, tau=tau) for part in rows.split(window)])
    return assign(rows, merge_centres(centres, tau=tau))
