"""Cluster attention distributions by symmetric Kullback-Leibler divergence (docs/method.md, section 5).

Pure functions on distributions: each row of a tensor (L, S) is a token's attention over S key tokens, sum 1.
`D(p, r) = KL(p||r) + KL(r||p)`. Logarithms are taken of values cut below at the smallest normal number of their
type, so an exact zero gives a large finite distance instead of a NaN (in float32 a smaller one than in float64).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.engine.scratch import Scratch
from utils.parallel import map_parallel, use_one_core

LEAF, GROUP = 12, 256  # rows, on average, whose neighbourhoods are made from one, and from one for these together
SEEN, DIRECTIONS = 8, 32  # neighbourhoods are compared at random, in one of so many places and in so many directions
STRIP = 96  # columns of them at once
PIECE = 512  # rows of neighbourhoods at once
LEFT_OF_BASE = 0.03  # a sum that subtracting brings below this part of what it began with, in one step, is made anew
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


def smooth(rows: Tensor, near: Tensor, *, scratch: Scratch | None = None) -> Tensor:
    """Every row (L, S) replaced by the mean of its neighbours' rows (near: (L, L) bool, symmetric, diagonal true).

    A row sums to 1, so the mean is the sum normalised. On a CPU neighbourhoods form a tree: what most of a large group
    of alike ones have in common is summed once, small groups add and subtract where what most of them have differs from
    that, and each row where it differs from its small group: some tens of rows instead of hundreds. Where subtracting
    would leave few correct digits, the neighbours themselves are summed instead.

    The logarithms of a view of the rows that was made in the same `scratch` are overwritten.
    """
    scratch = scratch or Scratch()
    bits = scratch("bits", near.shape, like=rows).copy_(near)
    counts = bits.sum(-1, keepdim=True)
    smoothed = scratch("second", rows.shape, like=rows)
    if rows.device.type != "cpu":
        return torch.mm(bits, rows, out=smoothed).div_(counts)
    leaf, leaves, group, groups = _tree(bits)
    of_rows, of_leaves = _differences(near, leaves, leaf), _differences(leaves, groups, group)
    leaves, groups = leaves.to(rows.dtype), groups.to(rows.dtype)

    def fill(part: slice) -> None:
        """A strip of columns, narrow enough to stay in the processor's cache."""
        strip = scratch("strip", rows[:, part].shape, like=rows).copy_(rows[:, part])
        sums = _sums((groups @ strip)[group], strip, of_leaves, whole=leaves)
        sums = _sums(sums[leaf], strip, of_rows, whole=bits)
        torch.div(sums, counts, out=smoothed[:, part])

    map_parallel(fill, [slice(at, at + STRIP) for at in range(0, rows.shape[1], STRIP)], device=rows.device)
    return smoothed


class _Differences(NamedTuple):
    """Where sets differ from those they are made from, one set after the other: the places (n,), 1 for what is added
    there and -1 for what is taken away (n,), and where each set's begin (number of sets,)."""

    places: Tensor
    signs: Tensor
    starts: Tensor


def _differences(sets: Tensor, others: Tensor, which: Tensor) -> _Differences:
    """Of sets (n, L) bool from those of `others` (m, L) bool that `which` (n,) names."""

    def look(part: slice) -> tuple[Tensor, ...]:
        row, place = places(sets[part] ^ others[which[part]])
        return row + part.start, place, sets[part][row, place].float().mul_(2).sub_(1)

    pieces = [slice(start, start + PIECE) for start in range(0, len(sets), PIECE)]
    row, place, signs = map(torch.cat, zip(*map_parallel(look, pieces, device=sets.device), strict=True))
    return _Differences(place, signs, torch.searchsorted(row, torch.arange(len(sets))))


def _sums(begin: Tensor, strip: Tensor, differ: _Differences, *, whole: Tensor) -> Tensor:
    """Sums (n, c) of the rows of `strip` (L, c) in each of n sets, of those `begin` (n, c), which are overwritten, of
    the sets that they differ from.

    whole: (n, L), the sets as 0 and 1, for those that little is left of.
    """
    signs = differ.signs.to(strip.dtype)
    sums = F.embedding_bag(differ.places, strip, differ.starts, mode="sum", per_sample_weights=signs).add_(begin)
    lost = (torch.sub(sums, begin, alpha=LEFT_OF_BASE, out=begin).amin(-1) < 0).nonzero()[:, 0]
    if len(lost):
        sums[lost] = whole[lost] @ strip
    return sums


def _tree(bits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Neighbourhoods, the rows of bits (L, L), values 0 or 1, in small groups of alike ones and these in large ones.

    Returns:
        The small group of each row (L,), and what more than half of each group's rows have set (n, L) bool; the large
        group of each small one (n,), and likewise (m, L) bool.
    """
    generator = torch.Generator().manual_seed(0)
    seen = torch.randperm(len(bits), generator=generator)[: -(-len(bits) // SEEN)].sort().values
    directions = torch.randn(len(seen), DIRECTIONS, generator=generator).to(bits)
    points = bits[:, seen] @ directions
    leaf, means = k_means(points, max(len(bits) // LEAF, 1), rounds=2)
    group, centres = k_means(means, max(len(bits) // GROUP, 1), rounds=3)
    leaves, sizes = _majorities(bits, torch.ones_like(bits[:, 0]), leaf, len(means))
    groups, _ = _majorities(leaves.to(bits.dtype), sizes, group, len(centres))
    return leaf, leaves, group, groups


def _majorities(sets: Tensor, sizes: Tensor, group: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """What more than half of the sets (n, L), values 0 or 1, in each of `count` groups have, each set counted as many
    times as its size (n,) says: (count, L) bool. And what those of a group count together, (count,)."""
    order, starts = _in_groups(group, count)
    sums = F.embedding_bag(order, sets, starts, mode="sum", per_sample_weights=sizes[order])
    totals = torch.zeros_like(sums[:, 0]).index_add_(0, group, sizes)
    return sums > totals[:, None] / 2, totals


def k_means(points: Tensor, count: int, *, rounds: int) -> tuple[Tensor, Tensor]:
    """Which of `count` groups each point (n, C) is in, (n,) int64, and the means of these (count, C); some are empty.

    The start is points spread evenly over all, and everything is summed in a fixed order, so that it repeats.
    """
    means = points[torch.linspace(0, len(points) - 1, count, device=points.device).round().long()]
    for _ in range(rounds):
        group = (means.square().sum(-1) - 2 * points @ means.T).argmin(-1)
        order, starts = _in_groups(group, count)
        means = F.embedding_bag(order, points, starts, mode="mean")
    return group, means


def _in_groups(group: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The members of each of `count` groups, one group after the other (n,), and where each group's begin (count,)."""
    starts = group.bincount(minlength=count).cumsum(0).roll(1)
    starts[0] = 0
    return group.argsort(stable=True), starts


def greedy_leaders(rows: Tensor, *, tau: float, kinds: list[int] | None = None) -> list[Tensor]:
    """Greedy leader pass in row order over rows (L, S): the members of each cluster, as row indices, rising.

    The first row not yet absorbed leads and absorbs every unabsorbed row within D <= tau of it. Summing columns can
    only lower D (log sum inequality), so that rows that lie too far by sums over few kinds of columns are passed over.

    kinds: how many columns there are of each, one kind after the other; None for a single one, which bounds nothing.
    """
    kinds = kinds or [rows.shape[1]]
    sums = torch.stack(map_parallel(lambda part: part.sum(-1), rows.split(kinds, 1), device=rows.device), 1)
    # As `safe_log` cuts every column below, so the sum of a kind that a row does not attend to.
    log_sums = sums.add(
        torch.tensor(kinds, device=rows.device).clamp_(min=1), alpha=torch.finfo(rows.dtype).tiny
    ).log_()
    own = inner(sums, log_sums)
    free = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    clusters, scratch = [], Scratch()
    with use_one_core(rows.device):
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
    """Stage 1 on one window's rows (L, S), given which are neighbours (near: (L, L) bool, see
    `model.engine.bounds.near_pairs`): smooth by neighbourhood, then one greedy leader pass. Centres (K, S)."""
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
