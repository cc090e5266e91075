"""Hierarchical clustering of attention distributions by symmetric Kullback-Leibler divergence (METHOD.md 5).

Pure functions on distributions: each row of a tensor (L, S) is a token's attention over S key tokens, sum 1.
`D(p, r) = KL(p||r) + KL(r||p)`. Logarithms are taken of values cut below at the smallest normal number of their
type, so an exact zero gives a large finite distance instead of a NaN (in float32 a smaller one than in float64).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from utils.parallel import each
from utils.scratch import Scratch

GROUP = 64  # rows, roughly, whose neighbourhoods are summed together
STRIP = 256  # columns of them at once, a multiple of FORESIGHT
PIECE = 512  # rows of neighbourhoods at once
LEFT_OF_BASE = 1e-3  # a sum that subtracting brings below this part of what it began with is made anew
FORESIGHT = 8  # who leads is foreseen from one in so many columns,
MANY = 4096  # where there are so many
AT_ONCE, AT_ONCE_ELSEWHERE = 32, 64  # leaders whose distances are computed together, on a CPU and elsewhere


def safe_log(rows: Tensor, *, out: Tensor | None = None) -> Tensor:
    """log of rows (L, S), finite where a value is zero."""
    return torch.clamp_min(rows, torch.finfo(rows.dtype).tiny, out=out).log_()


def inner(rows: Tensor, others: Tensor) -> Tensor:
    """Inner product of each row (L, S) with the other one of the same index: (L,)."""
    return torch.bmm(rows[:, None], others[:, :, None])[:, 0, 0]


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


def smooth(
    rows: Tensor, near: Tensor, *, scratch: Scratch | None = None, seen: Callable[[slice, Tensor], None] | None = None
) -> Tensor:
    """Every row (L, S) replaced by the mean of its neighbours' rows (near: (L, L) bool, symmetric, diagonal true).

    A row sums to 1, so the mean is the sum normalised. On a CPU rows are grouped by alike neighbourhoods; what most of
    a group have in common is summed once, and each row adds and subtracts the neighbours where it differs: some tens
    instead of hundreds. Where subtracting would leave few correct digits, the row's own neighbours are summed instead.

    seen: called with the place (a slice of STRIP columns or fewer) and the values (L, n) of each strip of the result
        once it is done. On a CPU that is while it is in the cache, from several threads in any order, and the values
        are valid during the call only.
    """
    scratch = scratch or Scratch()
    bits = scratch("bits", near.shape, like=rows).copy_(near)
    counts = bits.sum(-1, keepdim=True)
    smoothed = scratch("smoothed", rows.shape, like=rows)
    columns = rows.shape[1]
    strips = [slice(start, min(start + STRIP, columns)) for start in range(0, columns, STRIP)]
    if rows.device.type != "cpu":
        torch.mm(bits, rows, out=smoothed).div_(counts)
        for part in strips if seen else ():
            seen(part, smoothed[:, part])
        return smoothed
    group, majority = _group_alike(bits, size=GROUP)

    def differ(part: slice) -> tuple[Tensor, ...]:
        row, other = (near[part] ^ majority[group[part]]).nonzero().T
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
        smoothed[:, part] = sums.div_(counts)
        if seen:
            seen(part, sums)

    each(fill, strips, device=rows.device)
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


def greedy_leaders(
    rows: Tensor, *, tau: float, likely: np.ndarray | None = None, logs: Tensor | None = None, own: Tensor | None = None
) -> list[np.ndarray]:
    """Greedy leader pass in row order over rows (L, S): the members of each cluster, as row indices.

    The first row not yet absorbed leads and absorbs every unabsorbed row within D <= tau of it. Distances are needed
    from leaders only; those of a few rows that will probably lead are computed together, with one transfer to the host.

    Args:
        likely: (L, L) bool, which rows probably absorb which. It saves distances and does not change the result. What
            is found is entered in it.
        logs, own: (L, S), `safe_log` of the rows, and (L,), `inner` of rows and these, where they are known.
    """
    logs = safe_log(rows) if logs is None else logs
    own = inner(rows, logs) if own is None else own
    batch = AT_ONCE if rows.device.type == "cpu" else AT_ONCE_ELSEWHERE
    free = np.ones(len(rows), dtype=bool)
    clusters, known = [], {}
    while free.any():
        first = int(free.argmax())
        if first not in known:
            known = {row: near for row, near in known.items() if free[row]}
            candidates = [row for row in _next_leaders(free, likely, batch) if row not in known]
            pick = torch.tensor(candidates, device=rows.device)
            distances = torch.addmm(own[:, None], logs, rows[pick].T, alpha=-1)
            distances.addmm_(rows, logs[pick].T, alpha=-1).add_(own[pick])
            near = (distances <= tau).T.contiguous().cpu().numpy()
            known.update(zip(candidates, near, strict=True))
            if likely is not None:
                likely[candidates] = near
        near = known.pop(first)
        near[first] = True
        clusters.append(np.flatnonzero(near & free))
        free &= ~near
    return clusters


def _next_leaders(free: np.ndarray, likely: np.ndarray | None, batch: int) -> list[int]:
    """The first of the free rows (L,) and those after it that will probably lead: at most `batch` indices, sorted."""
    if likely is None:
        return np.flatnonzero(free)[:batch].tolist()
    left, leaders = free.copy(), []
    while len(leaders) < batch and left.any():
        leaders.append(int(left.argmax()))
        left[leaders[-1]] = False
        left &= ~likely[leaders[-1]]
    return leaders


def cluster_means(rows: Tensor, clusters: list[np.ndarray]) -> Tensor:
    """Mean of the rows (L, S) of every cluster, which are given by their indices: (K, S)."""
    members = torch.from_numpy(np.concatenate(clusters)).to(rows.device)
    starts = torch.tensor([0, *map(len, clusters[:-1])], device=rows.device).cumsum(0)
    return F.embedding_bag(members, rows, starts, mode="mean")


def window_centres(rows: Tensor, near: Tensor, *, tau: float, scratch: Scratch | None = None) -> Tensor:
    """Stage 1 on one window's rows (L, S), given which are neighbours (near: (L, L) bool, of `neighbours` or of
    `model.sketch.near_pairs`): smooth by neighbourhood, then one greedy leader pass. Centres (K, S).

    The logarithms of a view of the rows that was made in the same `scratch` are overwritten.
    """
    scratch = scratch or Scratch()
    count, columns = rows.shape
    logs = scratch("logs", rows.shape, like=rows)
    foresee = columns >= MANY
    if foresee:
        some = scratch("some", (count, -(-columns // FORESIGHT)), like=rows)
    # Made beforehand, as small tensors kept of every strip would pin the memory of the large ones between them.
    own = scratch("own", (-(-columns // STRIP), count), like=rows).zero_()

    def seen(part: slice, strip: Tensor) -> None:
        log_strip = safe_log(strip, out=scratch("log strip", strip.shape, like=rows))
        logs[:, part] = log_strip
        own[part.start // STRIP] = inner(strip, log_strip)
        if foresee:
            some[:, part.start // FORESIGHT : -(-part.stop // FORESIGHT)] = strip[:, ::FORESIGHT]

    smoothed = smooth(rows, near, scratch=scratch, seen=seen)
    likely = near.cpu().numpy().copy()
    if foresee:  # for what it enters in `likely`
        greedy_leaders(some, tau=tau * some.shape[1] / columns, likely=likely)
    leaders = greedy_leaders(smoothed, tau=tau, likely=likely, logs=logs, own=own.sum(0))
    return cluster_means(smoothed, leaders)


def merge_centres(centres: Tensor, *, tau: float) -> Tensor:
    """Stage 2 over the centres (K, S) of all windows: greedy leader passes until their number no longer falls."""
    while True:
        merged = cluster_means(centres, greedy_leaders(centres, tau=tau))
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
