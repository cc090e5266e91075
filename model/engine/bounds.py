"""Decide which rows lie within tau of each other, mostly without their distances (docs/method.md, section 11).

D(p, r) = <p - r, log p - log r> only has to be compared with tau. With any mean row m, mean logarithm n and positive
weights w it is <x_p - x_r, y_p - y_r> for x = (p - m) / w and y = (log p - n) w. The columns are cut into blocks b,
each with an orthonormal basis V_b of a few directions. The basis splits each vector into a part inside, a few numbers a
row, and a part x', y' outside, so that

    D(p, r) = <x_p, y_p> + <x_r, y_r> - <x_p, y_r> - <x_r, y_p>,
    |<x_p, y_r> - sum_b <V_b'x_p, V_b'y_r>| <= sum_b |x_p'| |y_r'|, lengths within b    (Cauchy-Schwarz).

The products of a row with itself are known exactly, the cross products up to that bound. Only pairs that the bounds
leave undecided get their distance computed. The result is that of `model.clustering.symmetric_kl` compared with tau, up
to the rounding of float32.

The weights are w = sqrt(m): close to m, log p - log m is (p - m) / m, so that x and y are nearly the same vector and
one basis serves both. Blocks are similar key tokens (`group_columns`). Tokens attend to similar key tokens in few ways,
so a few directions over the columns of a block hold most of their attention. Parts outside that lie in different blocks
do not multiply, so they add nothing to the bound.
"""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.engine.exact import ROUNDING, find_true, inner, k_means, safe_log
from model.scratch import Scratch
from utils.parallel import map_parallel

DENSE_SHARE = 0.06  # share of undecided pairs from which one matrix product is faster than pair by pair
SMALLEST_SHARE = 1e-4  # of the average column: smallest weight, for columns that no sampled row attends to
GROUP_COLUMNS, BLOCK_COLUMNS = 64, 512  # columns in a group and in a block, on average

# torch warns that CSR tensors are in beta when the first one of a process is made. It is made here, not where one is
# needed: that is in worker threads, where `catch_warnings` can leave the caller's filters changed.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], [], [], (1, 1), device="cpu", check_invariants=False)


class Projection(NamedTuple):
    """Bases of few directions for rows over S columns.

    mean: (S,), a positive row, m above. mean_log: (S,), n above. bases: V above, (S_b, k_b) orthonormal for each block
    of columns in turn. order: (k,), all directions by falling energy. block: (k,), the block of each in that order.
    """

    mean: Tensor
    mean_log: Tensor
    bases: list[Tensor]
    order: Tensor
    block: Tensor


class ProjectedRows(NamedTuple):
    """Rows (L, S) in a projection of k directions in B blocks; x and y as above.

    centred_log: (L, S), log p - n. log_product: (L,), <p, log p - n>. Both None in a truncated projection.
    self_product: (L,), <x, y> of each row.
    x_inside, y_inside: (L, k), V'x and V'y. x_outside, y_outside: (L, B), |x'| and |y'|.
    """

    centred_log: Tensor | None
    log_product: Tensor | None
    self_product: Tensor
    x_inside: Tensor
    y_inside: Tensor
    x_outside: Tensor
    y_outside: Tensor


def group_columns(keys: Tensor) -> tuple[Tensor, list[int], list[int]]:
    """Order key tokens (S, C) so that similar ones stand side by side.

    Returns:
        The order (S,) int64; the sizes of the groups of similar tokens, in this order; the sizes of the blocks of
        similar groups. A block has at most 2 `BLOCK_COLUMNS` columns unless it is a single group.
    """
    group, centres = k_means(keys, max(round(len(keys) / GROUP_COLUMNS), 1), rounds=3)
    block, _ = k_means(centres, max(round(len(keys) / BLOCK_COLUMNS), 1), rounds=3)
    by_block = block.argsort(stable=True)  # the groups
    sizes = group.bincount(minlength=len(centres))[by_block].tolist()
    blocks, last = [], None
    for size, number in zip(sizes, block[by_block].tolist(), strict=True):
        if number == last and blocks[-1] + size <= 2 * BLOCK_COLUMNS:
            blocks[-1] += size
        else:
            blocks.append(size)
        last = number
    order = by_block.argsort()[group].argsort(stable=True)
    return order, [size for size in sizes if size], [size for size in blocks if size]


def fit_projection(rows: Tensor, *, rank: int, blocks: list[int] | None = None) -> Projection:
    """Fit a projection to rows (n, S): the `rank` directions of largest energy of their y, over all blocks.

    The bound is a product of |x'| and |y'|. Attention has peaks, which make x large in a different direction for nearly
    every row; y has few directions of large energy, and a small |y'| makes the product small.

    blocks: number of columns of each block, in turn; None for a single block.
    """
    mean, logs = rows.mean(0).clamp_min_(SMALLEST_SHARE / rows.shape[1]), safe_log(rows)
    mean_log = logs.mean(0)
    parts = logs.sub_(mean_log).mul_(mean.sqrt()).split(blocks or [rows.shape[1]], dim=1)
    energies, vectors = zip(*map_parallel(_decompose, parts, device=rows.device), strict=True)
    block = torch.repeat_interleave(torch.tensor([len(energy) for energy in energies], device=rows.device))
    chosen = torch.cat(energies).argsort(descending=True, stable=True)[:rank]
    counts = block[chosen].bincount(minlength=len(parts)).tolist()
    # The directions of one block are in order of energy, as `chosen` lists them.
    wanted = [(y, found[:, :count]) for y, found, count in zip(parts, vectors, counts, strict=True)]
    bases = map_parallel(lambda part: _make_basis(*part), wanted, device=rows.device)
    return Projection(mean, mean_log, bases, block[chosen].argsort(stable=True).argsort(), block[chosen])


def _decompose(y: Tensor) -> tuple[Tensor, Tensor]:
    """Decompose y (n, S) into directions by falling energy.

    Returns:
        energies (r,) and eigenvectors (r, r) of the smaller Gram matrix, r = min(n, S). For n > S the eigenvectors are
        the directions; otherwise `_make_basis` makes directions of them.
    """
    gram = y.T @ y if len(y) > y.shape[1] else y @ y.T
    try:
        energies, vectors = torch.linalg.eigh(gram)
    except torch.linalg.LinAlgError:  # float32 fails on rows that are zero nearly everywhere
        energies, vectors = (part.to(gram.dtype) for part in torch.linalg.eigh(gram.double()))
    return energies.flip(0), vectors.flip(1)


def _make_basis(y: Tensor, vectors: Tensor) -> Tensor:
    """Make an orthonormal basis (S, k) of eigenvectors from `_decompose`; by QR, as weak ones are not orthogonal."""
    return torch.linalg.qr(vectors if len(y) > y.shape[1] else y.T @ vectors).Q


def project_rows(
    rows: Tensor, projection: Projection, *, chunk: int = 256, scratch: Scratch | None = None
) -> ProjectedRows:
    """Project rows (L, S), `chunk` rows of a block at a time so that they stay in the processor's cache.

    `centred_log` of the result lies in `scratch` and is overwritten by the next call with the same scratch.
    """
    scratch = scratch or Scratch()
    scale = projection.mean.sqrt()
    centred_log = scratch("second", rows.shape, like=rows)
    sizes = [len(basis) for basis in projection.bases]
    columns = list(zip(projection.mean.split(sizes), projection.mean_log.split(sizes), scale.split(sizes), strict=True))

    def project(chunk_and_logs: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        found = []
        self_product = torch.zeros_like(chunk_and_logs[0][:, 0])
        log_product = torch.zeros_like(self_product)
        blocks = zip(*(part.split(sizes, dim=1) for part in chunk_and_logs), columns, projection.bases, strict=True)
        for part, logs, (mean, mean_log, weight), basis in blocks:
            x, y = (scratch(name, part.shape, like=rows) for name in ("x", "y"))
            safe_log(part, out=logs).sub_(mean_log)
            torch.sub(part, mean, out=x).div_(weight)
            torch.mul(logs, weight, out=y)
            x_inside, y_inside = x @ basis, y @ basis
            found.append((x_inside, y_inside, _measure_outside(x, x_inside), _measure_outside(y, y_inside)))
            product = inner(x, y)
            self_product += product
            log_product += product.addmv_(logs, mean)
        x_inside, y_inside, x_outside, y_outside = zip(*found, strict=True)
        inside = (torch.cat(parts, 1).index_select(1, projection.order) for parts in (x_inside, y_inside))
        return log_product, self_product, *inside, torch.stack(x_outside, 1), torch.stack(y_outside, 1)

    parts = map_parallel(project, zip(rows.split(chunk), centred_log.split(chunk), strict=True), device=rows.device)
    return ProjectedRows(centred_log, *map(torch.cat, zip(*parts, strict=True)))


def truncate(projected: ProjectedRows, projection: Projection, *, rank: int) -> ProjectedRows:
    """Keep the first `rank` directions of projected rows; the lengths outside grow by the others."""
    of_block = F.one_hot(projection.block[rank:], len(projection.bases)).to(projected.self_product.dtype)
    outside = (
        outside.square().addmm_(inside[:, rank:].square(), of_block).sqrt_()
        for outside, inside in (
            (projected.x_outside, projected.x_inside),
            (projected.y_outside, projected.y_inside),
        )
    )
    inside = (inside[:, :rank].contiguous() for inside in (projected.x_inside, projected.y_inside))
    return ProjectedRows(None, None, projected.self_product, *inside, *outside)


def find_near_pairs(
    rows: Tensor, projected: ProjectedRows, projection: Projection, *, tau: float, coarse: int, chunk: int = 256
) -> tuple[Tensor, float]:
    """Find the pairs of rows (L, S) within D <= tau of each other.

    Every pair is first compared by the `coarse` leading directions. Pairs that these leave undecided are compared by
    all directions, and the rest by the distance itself: pair by pair, or a whole chunk in one matrix product if much is
    undecided.

    Args:
        projected: the rows in the projection, not truncated.

    Returns:
        near (L, L) bool, the diagonal always true; the share of pairs whose distance was computed.
    """
    count = len(rows)
    near = torch.empty(count, count, dtype=torch.bool, device=rows.device)
    factors = _factor_bounds(projected, truncate(projected, projection, rank=coarse), tau=tau, coarse=coarse)
    scratch = Scratch()

    def decide(start: int) -> int:
        """Set near[start : start + chunk, start:]; returns how many distances were computed."""
        part, rest = slice(start, start + chunk), slice(start, None)
        shape = near[part, rest].shape
        excess, slack, size = (scratch(name, shape, like=rows) for name in ("excess", "slack", "size"))
        coarse_excess, coarse_slack, more_excess, more_slack = ((left[part], right[rest]) for left, right in factors)
        torch.mm(coarse_excess[0], coarse_excess[1].T, out=excess)
        torch.le(excess, 0, out=near[part, rest])
        torch.mm(coarse_slack[0], coarse_slack[1].T, out=slack)
        undecided = torch.abs(excess, out=size) <= slack
        undecided[:, :chunk].triu_(1)
        if undecided.count_nonzero() <= DENSE_SHARE * undecided.numel():
            one, other = find_true(undecided)
            estimate = excess[one, other] - _multiply_pairs(*more_excess, one, other)
            near[part, rest][one, other] = estimate <= 0
            error = _multiply_pairs(*more_slack, one, other).add_(ROUNDING)
            still = (estimate.abs_() <= error).nonzero()[:, 0]
            one, other = one[still], other[still]
        else:  # for all pairs, since the bound of all directions lies within that of the leading ones
            excess.addmm_(more_excess[0], more_excess[1].T, alpha=-1)
            torch.le(excess, 0, out=near[part, rest])
            torch.mm(more_slack[0], more_slack[1].T, out=slack).add_(ROUNDING)
            undecided &= torch.abs(excess, out=size) <= slack
            one, other = find_true(undecided)
        if len(one) > DENSE_SHARE * undecided.numel():
            torch.addmm(projected.log_product[rest], rows[part], projected.centred_log[rest].T, alpha=-1, out=excess)
            excess.addmm_(projected.centred_log[part], rows[rest].T, alpha=-1).add_(projected.log_product[part, None])
            near[part, rest] = excess <= tau
            return undecided.numel() - len(undecided) * (len(undecided) + 1) // 2
        other, order = other.sort(stable=True)  # so that each of the many rows is fetched once
        one = one[order]
        cross = _multiply_pairs(projected.centred_log[rest], rows[part], other, one)
        cross += _multiply_pairs(rows[rest], projected.centred_log[part], other, one)
        distances = projected.log_product[part][one] + projected.log_product[rest][other] - cross
        near[part, rest][one, other] = distances <= tau
        return len(one)

    def mirror(start: int) -> None:
        part, rest = slice(start, start + chunk), slice(start + chunk, None)
        near[rest, part] = near[part, rest].T
        block = near[part, part]
        block.copy_(block.triu().logical_or_(block.triu().T))

    starts = range(0, count, chunk)
    computed = sum(map_parallel(decide, starts, device=rows.device))
    map_parallel(mirror, starts, device=rows.device)
    return near.fill_diagonal_(True), 2 * computed / count**2


def _factor_bounds(
    projected: ProjectedRows, first: ProjectedRows, *, tau: float, coarse: int
) -> list[tuple[Tensor, Tensor]]:
    """Factor the bounds on D of all pairs of rows (L, S) into products: pairs of (L, k), to multiply as left @ right.T.

    Args:
        first: the rows in the first `coarse` directions.

    Returns:
        D - tau by these directions, and the bound of its error; what the other directions take off D, and the bound of
        the error of all directions without `ROUNDING`.
    """
    own, one = projected.self_product[:, None], torch.ones_like(projected.self_product)[:, None]
    excess = torch.cat([first.x_inside, first.y_inside, tau - own, -one], 1).neg_()
    slack = torch.cat([first.x_outside, first.y_outside, ROUNDING * one], 1)
    x, y = projected.x_inside[:, coarse:], projected.y_inside[:, coarse:]
    return [
        (excess, torch.cat([first.y_inside, first.x_inside, one, own], 1)),
        (slack, torch.cat([first.y_outside, first.x_outside, one], 1)),
        (torch.cat([x, y], 1), torch.cat([y, x], 1)),
        (
            torch.cat([projected.x_outside, projected.y_outside], 1),
            torch.cat([projected.y_outside, projected.x_outside], 1),
        ),
    ]


def find_nearest_centres(rows: ProjectedRows, centres: ProjectedRows) -> tuple[Tensor, Tensor]:
    """Find the centre (of K) that seems nearest to each row (of L) by the projection.

    Returns:
        labels (L,) int64; undecided (L,) bool, rows for which the bounds allow another centre.
    """
    middle = centres.self_product - rows.x_inside @ centres.y_inside.T - rows.y_inside @ centres.x_inside.T
    slack = (rows.x_outside @ centres.y_outside.T).addmm_(rows.y_outside, centres.x_outside.T).add_(ROUNDING)
    labels = middle.argmin(-1)
    possible = middle - slack <= (middle + slack).amin(-1, keepdim=True)
    return labels, possible.sum(-1) > 1


def _multiply_pairs(rows: Tensor, others: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Compute inner products (n,) of pairs of rows (L, S) and others (K, S) by indices `one` (sorted), `other`."""
    if not len(one) or not rows.shape[1]:
        return rows.new_zeros(len(one))
    starts = torch.zeros(len(rows) + 1, dtype=torch.int64, device=rows.device)
    starts[1:] = torch.bincount(one, minlength=len(rows)).cumsum(0)
    shape = (len(rows), len(others))
    wanted = torch.sparse_csr_tensor(starts, other, rows.new_zeros(len(one)), shape, check_invariants=False)
    return torch.sparse.sampled_addmm(wanted, rows, others.T, beta=0).values()


def _measure_outside(values: Tensor, inside: Tensor) -> Tensor:
    """Measure the length (L,) of the part of values (L, S) outside the basis, given the part inside (L, k).

    At least about a thousandth of the whole, so that bounds of long rows allow for more rounding than `ROUNDING`.
    """
    whole, inside = (torch.linalg.vector_norm(part, dim=-1) for part in (values, inside))
    return (whole - inside).clamp_min_(1e-6 * whole).mul_(whole + inside).sqrt_()
