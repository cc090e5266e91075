"""Compute the stages of the clustering with less arithmetic, and the same labels (docs/method.md, sections 5 and 11).

Pure functions on distributions: each row of a tensor (L, S) is a token's attention over S key tokens, sum 1. The
distance D is `model.clustering.symmetric_kl`, in nats. Logarithms are taken of values clipped at the smallest normal
number of their type, so an exact zero gives a large finite distance instead of a NaN (in float32 a smaller one than in
float64).
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.scratch import Scratch
from utils.parallel import map_parallel, use_one_core

SMALL_GROUP, LARGE_GROUP = 12, 256  # rows in a small and in a large group of similar neighbourhoods, on average
# Neighbourhoods are compared at one in SAMPLE_STRIDE random columns, projected onto RANDOM_DIRECTIONS directions.
SAMPLE_STRIDE, RANDOM_DIRECTIONS = 8, 32
COLUMNS_AT_ONCE = 96  # of the rows, in smoothing, so that a strip stays in the processor's cache
ROWS_AT_ONCE = 512  # of neighbourhoods that are compared at once
# A sum that subtracting leaves below this share of its start has lost digits, and is computed anew.
LOST_SHARE = 0.03
CACHED_ROWS, DEVICE_ROWS = 64, 1024  # rows whose distances to a leader are computed at once, on a CPU and elsewhere
ROUNDING = 1e-4  # nats; error of float32 sums over thousands of columns, added to every bound


def safe_log(rows: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Take the logarithm of rows (L, S), finite where a value is zero."""
    return torch.clamp_min(rows, torch.finfo(rows.dtype).tiny, out=out).log_()


def inner(rows: Tensor, others: Tensor) -> Tensor:
    """Compute the inner product of each row (L, S) with the other row of the same index: (L,)."""
    return torch.linalg.vecdot(rows, others)


def find_true(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Find the rows and columns (n,) of what is true in a mask (L, S) bool, row by row.

    On a CPU numpy does it, which is several times faster if little is true.
    """
    if mask.device.type != "cpu":
        return mask.nonzero(as_tuple=True)
    flat = torch.from_numpy(np.flatnonzero(mask.numpy()))
    row = flat.div(mask.shape[1], rounding_mode="floor")
    return row, flat.sub_(row, alpha=mask.shape[1])


# ------------------------------------------------------------------ stage 1 (a)


def smooth(rows: Tensor, near: Tensor, *, scratch: Scratch | None = None) -> Tensor:
    """Replace every row (L, S) by the mean of its neighbours (near: (L, L) bool, symmetric, diagonal true).

    A row sums to 1, so this mean is the normalised sum of docs/method.md.

    On a CPU neighbourhoods are grouped in a tree. What most neighbourhoods of a large group have in common is summed
    once; a small group adds and subtracts where it differs from its large group, and each row where it differs from its
    small group. That is some tens of rows instead of hundreds. If subtracting would leave few correct digits, the
    neighbours themselves are summed instead.

    The result lies in `scratch`, in place of `centred_log` of rows that were projected with the same scratch.
    """
    scratch = scratch or Scratch()
    bits = scratch("bits", near.shape, like=rows).copy_(near)
    counts = bits.sum(-1, keepdim=True)
    smoothed = scratch("second", rows.shape, like=rows)
    if rows.device.type != "cpu":
        return torch.mm(bits, rows, out=smoothed).div_(counts)
    small_group, small_sets, large_group, large_sets = group_neighbourhoods(bits)
    of_rows = _find_differences(near, small_sets, small_group)
    of_groups = _find_differences(small_sets, large_sets, large_group)
    small_sets, large_sets = small_sets.to(rows.dtype), large_sets.to(rows.dtype)

    def smooth_columns(columns: slice) -> None:
        strip = scratch("strip", rows[:, columns].shape, like=rows).copy_(rows[:, columns])
        sums = _correct_sums((large_sets @ strip)[large_group], strip, of_groups, sets=small_sets)
        sums = _correct_sums(sums[small_group], strip, of_rows, sets=bits)
        torch.div(sums, counts, out=smoothed[:, columns])

    strips = [slice(at, at + COLUMNS_AT_ONCE) for at in range(0, rows.shape[1], COLUMNS_AT_ONCE)]
    map_parallel(smooth_columns, strips, device=rows.device)
    return smoothed


class _Differences(NamedTuple):
    """Differences of n sets of rows from other sets, one set after the other.

    places: (d,), rows that are added or removed. signs: (d,), 1 for added, -1 for removed. starts: (n,), where the
    differences of each set begin.
    """

    places: Tensor
    signs: Tensor
    starts: Tensor


def _find_differences(sets: Tensor, others: Tensor, which: Tensor) -> _Differences:
    """Find the differences of sets (n, L) bool from the sets of `others` (m, L) bool with the indices `which` (n,)."""

    def compare(part: slice) -> tuple[Tensor, ...]:
        row, place = find_true(sets[part] ^ others[which[part]])
        return row + part.start, place, sets[part][row, place].float().mul_(2).sub_(1)

    parts = [slice(start, start + ROWS_AT_ONCE) for start in range(0, len(sets), ROWS_AT_ONCE)]
    row, place, signs = map(torch.cat, zip(*map_parallel(compare, parts, device=sets.device), strict=True))
    return _Differences(place, signs, torch.searchsorted(row, torch.arange(len(sets))))


def _correct_sums(start: Tensor, strip: Tensor, differences: _Differences, *, sets: Tensor) -> Tensor:
    """Sum the rows of `strip` (L, c) in each of n sets, from the sums of other sets and the differences from these.

    Args:
        start: (n, c), sums of the other sets; overwritten.
        sets: (n, L), 0 and 1; summed directly for the sets that would lose too many digits.

    Returns:
        (n, c).
    """
    signs = differences.signs.to(strip.dtype)
    sums = F.embedding_bag(differences.places, strip, differences.starts, mode="sum", per_sample_weights=signs)
    sums = sums.add_(start)
    lost = (torch.sub(sums, start, alpha=LOST_SHARE, out=start).amin(-1) < 0).nonzero()[:, 0]
    if len(lost):
        sums[lost] = sets[lost] @ strip
    return sums


def group_neighbourhoods(bits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Group similar neighbourhoods, the rows of bits (L, L), 0 or 1, in small groups, and these in large groups.

    Returns:
        The small group of each row (L,) and what more than half of the rows of each small group contain (n, L) bool;
        the large group of each small group (n,), and the same for large groups (m, L) bool.
    """
    generator = torch.Generator().manual_seed(0)
    sampled = torch.randperm(len(bits), generator=generator)[: -(-len(bits) // SAMPLE_STRIDE)].sort().values
    directions = torch.randn(len(sampled), RANDOM_DIRECTIONS, generator=generator).to(bits)
    points = bits[:, sampled] @ directions
    small_group, means = k_means(points, max(len(bits) // SMALL_GROUP, 1), rounds=2)
    large_group, centres = k_means(means, max(len(bits) // LARGE_GROUP, 1), rounds=3)
    small_sets, sizes = _find_majorities(bits, torch.ones_like(bits[:, 0]), small_group, len(means))
    large_sets, _ = _find_majorities(small_sets.to(bits.dtype), sizes, large_group, len(centres))
    return small_group, small_sets, large_group, large_sets


def _find_majorities(sets: Tensor, weights: Tensor, group: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find what sets with more than half of the weight of their group contain.

    Args:
        sets: (n, L), 0 or 1. weights: (n,). group: (n,), the group of each set, below `count`.

    Returns:
        (count, L) bool, and the weight of each group (count,).
    """
    order, starts = _sort_by_group(group, count)
    sums = F.embedding_bag(order, sets, starts, mode="sum", per_sample_weights=weights[order])
    totals = torch.zeros_like(sums[:, 0]).index_add_(0, group, weights)
    return sums > totals[:, None] / 2, totals


def k_means(points: Tensor, count: int, *, rounds: int) -> tuple[Tensor, Tensor]:
    """Group points (n, C) by k-means: the group of each point (n,) int64 and the means of the groups (count, C).

    Groups can be empty. The first means are points at even steps, and sums have a fixed order, so the result repeats.
    """
    means = points[torch.linspace(0, len(points) - 1, count, device=points.device).round().long()]
    for _ in range(rounds):
        group = (means.square().sum(-1) - 2 * points @ means.T).argmin(-1)
        order, starts = _sort_by_group(group, count)
        means = F.embedding_bag(order, points, starts, mode="mean")
    return group, means


def _sort_by_group(group: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sort members by their group: the order (n,), and where each of `count` groups begins in it (count,)."""
    starts = group.bincount(minlength=count).cumsum(0).roll(1)
    starts[0] = 0
    return group.argsort(stable=True), starts


# ------------------------------------------------------------------ stage 1 (b), stage 2 and assignment


def greedy_leaders(rows: Tensor, *, tau: float, column_groups: list[int] | None = None) -> tuple[Tensor, ...]:
    """Make one greedy leader pass over one or more rows (L, S): the members of each cluster, as rising row indices.

    The first row that is not absorbed yet leads and absorbs every row, not absorbed yet, within D <= tau of it. Summing
    columns can only lower D (log-sum inequality), so rows that are too far by their sums over few groups of columns are
    skipped.

    column_groups: sizes of groups of similar columns, in turn; None for a single group, which skips nothing.
    """
    sizes = column_groups or [rows.shape[1]]
    sums = torch.stack(map_parallel(lambda part: part.sum(-1), rows.split(sizes, 1), device=rows.device), 1)
    # `safe_log` clips every column, so a sum over a group that a row does not attend to is clipped as often.
    log_sums = sums.add(
        torch.tensor(sizes, device=rows.device).clamp_(min=1), alpha=torch.finfo(rows.dtype).tiny
    ).log_()
    own = inner(sums, log_sums)
    free = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    cluster, scratch = torch.zeros(len(rows), dtype=torch.int64, device=rows.device), Scratch()
    with use_one_core(rows.device):
        for number in itertools.count():
            leader = free.byte().argmax(0, keepdim=True)  # a tensor, since a GPU would have to wait for a number
            bounds = own + own[leader] - sums @ log_sums[leader][0] - log_sums @ sums[leader][0]
            bounds[leader] = -torch.inf
            candidates = (free & (bounds <= tau + ROUNDING)).nonzero()[:, 0]  # the only wait for a GPU in this loop
            if not len(candidates):
                break
            near = _measure_distances(rows, candidates, rows[leader][0], scratch=scratch) <= tau
            near[0] = True  # the leader
            cluster[candidates] += near * number
            free[candidates] = ~near
    return cluster.argsort(stable=True).split(cluster.bincount().tolist())


def _measure_distances(rows: Tensor, which: Tensor, row: Tensor, *, scratch: Scratch) -> Tensor:
    """Compute D of the rows (L, S) with the indices `which` (n,) to one row (S,): (n,); 0 to itself."""
    log_row, found = safe_log(row), []
    for index in which.split(CACHED_ROWS if rows.device.type == "cpu" else DEVICE_ROWS):
        part, logs = (scratch(name, (len(index), len(row)), like=rows) for name in ("rows", "logs"))
        torch.index_select(rows, 0, index, out=part)
        safe_log(part, out=logs).sub_(log_row)
        found.append(part.sub_(row).mul_(logs).sum(-1))
    return torch.cat(found)


def average_clusters(rows: Tensor, clusters: Sequence[Tensor]) -> Tensor:
    """Average the rows (L, S) of every cluster, given by row indices: centres (K, S)."""
    starts = torch.tensor([0, *map(len, clusters[:-1])], device=rows.device).cumsum(0)
    return F.embedding_bag(torch.cat(clusters), rows, starts, mode="mean")


def find_window_centres(
    rows: Tensor, near: Tensor, *, tau: float, column_groups: list[int] | None = None, scratch: Scratch | None = None
) -> Tensor:
    """Run stage 1 on the rows (L, S) of one window: smooth, then make one greedy leader pass. Centres (K, S).

    near: (L, L) bool, the pairs of rows within tau, see `model.engine.bounds.find_near_pairs`.
    """
    smoothed = smooth(rows, near, scratch=scratch)
    return average_clusters(smoothed, greedy_leaders(smoothed, tau=tau, column_groups=column_groups))


def merge_centres(centres: Tensor, *, tau: float, column_groups: list[int] | None = None) -> Tensor:
    """Run stage 2 on the centres (K, S) of all windows: greedy leader passes until their number no longer falls."""
    while True:
        merged = average_clusters(centres, greedy_leaders(centres, tau=tau, column_groups=column_groups))
        if len(merged) == len(centres):
            return merged
        centres = merged


def assign(rows: Tensor, centres: Tensor) -> Tensor:
    """Assign every row (L, S) to its nearest centre (K, S): indices (L,) int64.

    The row's own entropy is left out of D, since it is the same for every centre.
    """
    log_rows, log_centres = safe_log(rows), safe_log(centres)
    return (inner(centres, log_centres) - rows @ log_centres.T - log_rows @ centres.T).argmin(-1)
