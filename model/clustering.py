"""Hierarchical clustering of attention distributions by symmetric Kullback-Leibler divergence (METHOD.md 5).

Pure functions on distributions: each row of a tensor (L, S) is a token's attention over S key tokens, sum 1.
`D(p, r) = KL(p||r) + KL(r||p)`. Logarithms are taken of values cut below at the smallest normal number of their
type, so an exact zero gives a large finite distance instead of a NaN (in float32 a smaller one than in float64).
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from utils.parallel import each
from utils.scratch import Scratch

GROUP = 64  # rows, roughly, whose neighbourhoods are summed together
STRIP = 128  # columns of them at once
PIECE = 512  # rows of neighbourhoods at once
LEFT_OF_BASE = 1e-3  # a sum that subtracting brings below this part of what it began with is made anew
CACHED_ROWS, DEVICE_ROWS = 64, 1024  # whose distances to a leader are computed at once, on a CPU and elsewhere
ROUNDING = 1e-4  # nats; what float32 sums over thousands of columns may be off by. Added to every bound


def safe_log(rows: Tensor, *, out: Tensor | None = None) -> Tensor:
    """log of rows (L, S), finite where a value is zero."""
    return torch.clamp_min(rows, torch.finfo(rows.dtype).tiny, out=out).log_()


def inner(rows: Tensor, others: Tensor) -> Tensor:
    """Inner product of each row (L, S) with the other one of the same index: (L,)."""
    return torch.linalg.vecdot(rows, others)


def places(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns (n,) of what is true in a mask (L, S) bool, row by row.

    On a CPU by numpy, which is several times as quick where little is true.
    """
    if mask.device.type != "cpu":
        return mask.nonzero(as_tuple=True)
    flat = torch.from_numpy(np.flatnonzero(mask.numpy()))
    row = flat.div(mask.shape[1], rounding_mode="floor")
    return row, flat.sub_(row, alpha=mask.shape[1])


def symmetric_kl(rows: Tensor, others: Tensor) -> Tensor:
    """D of every row (L, S) to every other row (K, S): (L, K), >= 0 up to rounding, in nats."""
    log_rows, log_others = safe_log(rows), safe_log(others)
    own, other_own = (rows * log_rows).sum(-1), (others * log_others).sum(-1)
    return own[:, None] + other_own - rows @ log_others.T - log_rows @ others.T


def neighbours(rows: Tensor, *, tau: float, chunk: int = 1024) -> Tensor:
    """Which pairs of rows (L, S) lie within D <= tau of each other: (L, L) bool, the diagonal always true.

    The two cross terms of a set with itself are one matrix product and its transpose, so it is computed once.
    """
    log_rows = safe_log(rows)
    own = inner(rows, log_rows)
    cross = rows @ log_rows.T
    near = torch.empty(cross.shape, dtype=torch.bool, device=rows.device)
    for start in range(0, len(rows), chunk):
        part = slice(start, start + chunk)
        near[part] = own[part, None] + own - cross[part] - cross[:, part].T <= tau
    return near.fill_diagonal_(True)


def smooth(rows: Tensor, near: Tensor, *, scratch: Scratch | None = None) -> Tensor:
    """Every row (L, S) replaced by the mean of its neighbours' rows (near: (L, L) bool, symmetric, diagonal true).

    A row sums to 1, so the mean is the sum normalised. On a CPU rows are grouped by alike neighbourhoods; what most of
    a group have in common is summed once, and each row adds and subtracts the neighbours where it differs: some tens
    instead of hundreds. Where subtracting would leave few correct digits, the row's own neighbours are summed instead.

    The logarithms of a view of the rows that was made in the same `scratch` are overwritten.
    """
    scratch = scratch or Scratch()
    bits = scratch("bits", near.shape, like=rows).copy_(near)
    counts = bits.sum(-1, keepdim=True)
    smoothed = scratch("second", rows.shape, like=rows)
    if rows.device.type != "cpu":
        return torch.mm(bits, rows, out=smoothed).div_(counts)
    group, majority = _group_alike(bits, size=GROUP)

    def differ(part: slice) -> tuple[Tensor, ...]:
        row, other = places(near[part] ^ majority[group[part]])
        return row + part.start, other, bits[part][row, other].mul_(2).sub_(1)

    pieces = [slice(start, start + PIECE) for start in range(0, len(rows), PIECE)]
    row, other, signs = map(torch.cat, zip(*each(differ, pieces, device=rows.device), strict=True))
    offsets = torch.searchsorted(row, torch.arange(len(rows)))
    weights = majority.to(rows.dtype)

    def fill(part: slice) -> None:
        """A strip of columns, narrow enough to stay in the processor's cache."""
        strip, left = (scratch(name, rows[:, part].shape, like=rows) for name in ("strip", "left"))
        strip.copy_(rows[:, part])
        base = (weights @ strip)[group]
        sums = F.embedding_bag(other, strip, offsets, mode="sum", per_sample_weights=signs).add_(base)
        lost = (torch.sub(sums, base, alpha=LEFT_OF_BASE, out=left).amin(-1) < 0).nonzero()[:, 0]
        if len(lost):
            sums[lost] = bits[lost] @ strip
        torch.div(sums, counts, out=smoothed[:, part])

    each(fill, [slice(at, at + STRIP) for at in range(0, rows.shape[1], STRIP)], device=rows.device)
    return smoothed


def _group_alike(bits: Tensor, *, size: int, rounds: int = 2, every: int = 8) -> tuple[Tensor, Tensor]:
    """Rows of bits (L, L), values 0 or 1, in groups of about `size` that are close to one another: k-means.

    Returns:
        The group of each row (L,), and what more than half of each group's rows have set (number of groups, L) bool.
        `every` so many columns are looked at for the grouping.
    """
    count = len(bits)
    number = max(count // size, 1)
    some = bits[:, ::every].contiguous()
    centres = some[torch.arange(number, device=bits.device) * count // number]
    for last in [False] * (rounds - 1) + [True]:
        group = (centres.square().sum(-1) - 2 * some @ centres.T).argmin(-1)
        starts = torch.bincount(group, minlength=number).cumsum(0).roll(1)
        starts[0] = 0
        centres = F.embedding_bag(group.argsort(), bits if last else some, starts, mode="mean")
    return group, centres > 0.5


def greedy_leaders(rows: Tensor, *, tau: float, kinds: list[int] | None = None) -> list[Tensor]:
    """Greedy leader pass in row order over rows (L, S): the members of each cluster, as row indices, rising.

    The first row not yet absorbed leads and absorbs every unabsorbed row within D <= tau of it. Summing columns can
    only lower D (log sum inequality), so that rows that lie too far by sums over few kinds of columns are passed over.

    kinds: how many columns there are of each, one kind after the other; None for a single one, which bounds nothing.
    """
    kinds = kinds or [rows.shape[1]]
    sums = torch.stack(each(lambda part: part.sum(-1), rows.split(kinds, 1), device=rows.device), 1)
    # As `safe_log` cuts every column below, so the sum of a kind that a row does not attend to.
    log_sums = sums.add(
        torch.tensor(kinds, device=rows.device).clamp_(min=1), alpha=torch.finfo(rows.dtype).tiny
    ).log_()
    own = inner(sums, log_sums)
    free = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    clusters, scratch = [], Scratch()
    while len(left := free.nonzero()[:, 0]):
        first = left[0]
        least = own + own[first] - sums @ log_sums[first] - log_sums @ sums[first]
        possible = free & (least <= tau + ROUNDING)
        possible[first] = True
        which = possible.nonzero()[:, 0]
        near = _distances(rows, which, rows[first], scratch=scratch) <= tau
        near[0] = True
        clusters.append(which[near])
        free[clusters[-1]] = False
    return clusters


def _distances(rows: Tensor, which: Tensor, row: Tensor, *, scratch: Scratch) -> Tensor:
    """D of some rows, those of (L, S) that `which` (n,) numbers, to one row (S,): (n,), 0 to itself."""
    log_row, found = safe_log(row), []
    for index in which.split(CACHED_ROWS if rows.device.type == "cpu" else DEVICE_ROWS):
        part, logs = (scratch(name, (len(index), len(row)), like=rows) for name in ("rows", "logs"))
        torch.index_select(rows, 0, index, out=part)
        safe_log(part, out=logs).sub_(log_row)
        found.append(part.sub_(row).mul_(logs).sum(-1))
    return torch.cat(found)


def cluster_means(rows: Tensor, clusters: list[Tensor]) -> Tensor:
    """Mean of the rows (L, S) of every cluster, which are given by their indices: (K, S)."""
    starts = torch.tensor([0, *map(len, clusters[:-1])], device=rows.device).cumsum(0)
    return F.embedding_bag(torch.cat(clusters), rows, starts, mode="mean")


def window_centres(
    rows: Tensor, near: Tensor, *, tau: float, kinds: list[int] | None = None, scratch: Scratch | None = None
) -> Tensor:
    """Stage 1 on one window's rows (L, S), given which are neighbours (near: (L, L) bool, of `neighbours` or of
    `model.sketch.near_pairs`): smooth by neighbourhood, then one greedy leader pass. Centres (K, S)."""
    smoothed = smooth(rows, near, scratch=scratch)
    return cluster_means(smoothed, greedy_leaders(smoothed, tau=tau, kinds=kinds))


def merge_centres(centres: Tensor, *, tau: float, kinds: list[int] | None = None) -> Tensor:
    """Stage 2 over the centres (K, S) of all windows: greedy leader passes until their number no longer falls."""
    while True:
        merged = cluster_means(centres, greedy_leaders(centres, tau=tau, kinds=kinds))
        if len(merged) == len(centres):
            return merged
        centres = merged


def assign(rows: Tensor, centres: Tensor) -> Tensor:
    """Index of the nearest centre (K, S) of every row (L, S): (L,) int64.

    By D without the row's own entropy, which is the same for every centre.
    """
    log_rows, log_centres = safe_log(rows), safe_log(centres)
    return (inner(centres, log_centres) - rows @ log_centres.T - log_rows @ centres.T).argmin(-1)


def hierarchical_clustering(rows: Tensor, *, window: int, tau: float) -> Tensor:
    """Labels (L,) int64 of rows (L, S) held in memory at once; `window` rows (three frames' worth) per stage-1 step.

    Every distance is computed. `model.stream` gives the same labels for videos whose rows do not fit, and sooner.
    """
    centres = [window_centres(part, neighbours(part, tau=tau), tau=tau) for part in rows.split(window)]
    return assign(rows, merge_centres(torch.cat(centres), tau=tau))
