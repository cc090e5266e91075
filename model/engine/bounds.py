"""Which rows lie within tau of each other, mostly without their distances: bounds from a low-rank view of the rows.

D(p, r) = <p - r, log p - log r> only needs comparing with tau. With any mean row m, mean logarithm n and positive
weights w, it is <x_p - x_r, y_p - y_r> for x = (p - m) / w and y = (log p - n) w. The columns are cut into blocks b,
each with an orthonormal basis V_b of a few directions, which splits each product into the part inside, a few numbers a
row, and the part x', y' outside, so

    D(p, r) = <x_p, y_p> + <x_r, y_r> - <x_p, y_r> - <x_r, y_p>,
    |<x_p, y_r> - sum_b <V_b'x_p, V_b'y_r>| <= sum_b |x_p'| |y_r'|, lengths within b    (Cauchy and Schwarz).

The terms of a row with itself are known exactly; the cross terms up to that bound. Only pairs whose bounds do not
decide get the exact value: the result is that of `model.engine.exact.neighbours` up to the rounding of float32.
`near_pairs` tells their share.

w = sqrt(m): close to m, log p - log m is (p - m) / m, so that x and y are nearly the same vector and one basis serves
both. Blocks are key tokens that look alike (`group_columns`): a token attends to those in few ways, so that few
directions do, each over a block's columns only; and two rows that the bases miss in different blocks owe each other
nothing.
"""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.engine.exact import ROUNDING, inner, k_means, places, safe_log
from model.engine.scratch import Scratch
from utils.parallel import map_parallel

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
DENSE_SHARE = 0.06  # of open pairs in a part, from which on a matrix product is quicker than one pair after the other
SMALLEST_SHARE = 1e-4  # of the average column: weights w are cut there, for columns that no sample looks at
KIND, BLOCK = 64, 512  # columns, on average


class Sketch(NamedTuple):
    """What rows over S columns are seen through.

    mean: (S,), a row, positive; mean_log: (S,). bases: of each block of columns, one after the other, (S_b, k_b)
    orthonormal, V above. order: (k,), all directions, those that matter most first; block: (k,), whose each is.
    """

    mean: Tensor
    mean_log: Tensor
    bases: list[Tensor]
    order: Tensor
    block: Tensor


class View(NamedTuple):
    """Rows (L, S) seen through a sketch of k directions in B blocks.

    centred_log: (L, S), log p - n, and own_log: (L,), <p, log p - n>; None in a summary. own: (L,), <x, y> of each row.
    rows, logs: (L, k), V'x and V'y. row_rest, log_rest: (L, B), |x'| and |y'|.
    """

    centred_log: Tensor | None
    own_log: Tensor | None
    own: Tensor
    rows: Tensor
    logs: Tensor
    row_rest: Tensor
    log_rest: Tensor


def group_columns(keys: Tensor) -> tuple[Tensor, list[int], list[int]]:
    """Key tokens (S, C) in an order where those alike stand side by side.

    Returns:
        The order (S,) int64; how many there are of each kind, in this order; and in each block of alike kinds, which is
        no larger than 2 BLOCK unless it is of one kind.
    """
    kind, centres = k_means(keys, max(round(len(keys) / KIND), 1), rounds=3)
    block, _ = k_means(centres, max(round(len(keys) / BLOCK), 1), rounds=3)
    by_block = block.argsort(stable=True)  # the kinds
    sizes = kind.bincount(minlength=len(centres))[by_block].tolist()
    blocks, last = [], None
    for size, of in zip(sizes, block[by_block].tolist(), strict=True):
        if of == last and blocks[-1] + size <= 2 * BLOCK:
            blocks[-1] += size
        else:
            blocks.append(size)
        last = of
    order = by_block.argsort()[kind].argsort(stable=True)
    return order, [size for size in sizes if size], [size for size in blocks if size]


def fit_sketch(rows: Tensor, *, rank: int, blocks: list[int] | None = None) -> Sketch:
    """A sketch of at most `rank` directions for rows (n, S) like these: the leading ones of their y in all blocks.

    What is left outside multiplies |x'| by |y'|. Attention has peaks, which make x large in directions of its own for
    nearly every row; y has few directions that matter, and a small |y'| makes the product small.

    blocks: how many columns each has, in their order; None for a single one.
    """
    mean, logs = rows.mean(0).clamp_min_(SMALLEST_SHARE / rows.shape[1]), safe_log(rows)
    mean_log = logs.mean(0)
    parts = logs.sub_(mean_log).mul_(mean.sqrt()).split(blocks or [rows.shape[1]], dim=1)
    energies, vectors = zip(*map_parallel(_directions, parts, device=rows.device), strict=True)
    block = torch.repeat_interleave(torch.tensor([len(energy) for energy in energies], device=rows.device))
    chosen = torch.cat(energies).argsort(descending=True, stable=True)[:rank]
    counts = block[chosen].bincount(minlength=len(parts)).tolist()
    # Those of a block come in the order of their energies, as `chosen` has them.
    wanted = [(y, found[:, :count]) for y, found, count in zip(parts, vectors, counts, strict=True)]
    bases = map_parallel(lambda part: _basis(*part), wanted, device=rows.device)
    return Sketch(mean, mean_log, bases, block[chosen].argsort(stable=True).argsort(), block[chosen])


def _directions(y: Tensor) -> tuple[Tensor, Tensor]:
    """Energies (r,) of y (n, S) along its directions, falling, and eigenvectors (r, r) of the smaller Gram matrix,
    r = min(n, S): for n > S the directions themselves, else what `_basis` makes them of."""
    gram = y.T @ y if len(y) > y.shape[1] else y @ y.T
    try:
        energies, vectors = torch.linalg.eigh(gram)
    except torch.linalg.LinAlgError:  # in float32, of rows that are zero nearly everywhere
        energies, vectors = (part.to(gram.dtype) for part in torch.linalg.eigh(gram.double()))
    return energies.flip(0), vectors.flip(1)


def _basis(y: Tensor, vectors: Tensor) -> Tensor:
    """Orthonormal (S, k) from vectors of `_directions`; small ones are only roughly orthogonal, hence the QR."""
    return torch.linalg.qr(vectors if len(y) > y.shape[1] else y.T @ vectors).Q


def view_rows(rows: Tensor, sketch: Sketch, *, chunk: int = 256, scratch: Scratch | None = None) -> View:
    """Rows (L, S) through a sketch, `chunk` rows of a block at a time, which stay in the processor's cache. The view's
    logarithms live in `scratch`."""
    scratch = scratch or Scratch()
    scale = sketch.mean.sqrt()
    centred_log = scratch("second", rows.shape, like=rows)
    sizes = [len(basis) for basis in sketch.bases]
    columns = list(zip(sketch.mean.split(sizes), sketch.mean_log.split(sizes), scale.split(sizes), strict=True))

    def look(piece: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        found = []
        own, own_log = torch.zeros_like(piece[0][:, 0]), torch.zeros_like(piece[0][:, 0])
        blocks = zip(*(part.split(sizes, dim=1) for part in piece), columns, sketch.bases, strict=True)
        for part, logs, (mean, mean_log, weight), basis in blocks:
            x, y = (scratch(name, part.shape, like=rows) for name in ("x", "y"))
            safe_log(part, out=logs).sub_(mean_log)
            torch.sub(part, mean, out=x).div_(weight)
            torch.mul(logs, weight, out=y)
            seen_x, seen_y = x @ basis, y @ basis
            found.append((seen_x, seen_y, _rest(x, seen_x), _rest(y, seen_y)))
            here = inner(x, y)
            own += here
            own_log += here.addmv_(logs, mean)
        seen_x, seen_y, rest_x, rest_y = zip(*found, strict=True)
        seen = (torch.cat(parts, 1).index_select(1, sketch.order) for parts in (seen_x, seen_y))
        return own_log, own, *seen, torch.stack(rest_x, 1), torch.stack(rest_y, 1)

    parts = map_parallel(look, zip(rows.split(chunk), centred_log.split(chunk), strict=True), device=rows.device)
    return View(centred_log, *map(torch.cat, zip(*parts, strict=True)))


def summary(view: View, sketch: Sketch, *, rank: int) -> View:
    """What the first `rank` directions show of a view, with bounds as much wider."""
    of_block = F.one_hot(sketch.block[rank:], len(sketch.bases)).to(view.own.dtype)
    rests = (
        rest.square().addmm_(seen[:, rank:].square(), of_block).sqrt_()
        for rest, seen in ((view.row_rest, view.rows), (view.log_rest, view.logs))
    )
    seen = (seen[:, :rank].contiguous() for seen in (view.rows, view.logs))
    return View(None, None, view.own, *seen, *rests)


def near_pairs(
    rows: Tensor, view: View, sketch: Sketch, *, tau: float, coarse: int, chunk: int = 256
) -> tuple[Tensor, float]:
    """Which pairs of rows (L, S) lie within D <= tau of each other: (L, L) bool, the diagonal always true.

    Also the share of pairs whose distance had to be computed. view: of the rows, through the sketch; its `coarse`
    leading directions are asked about every pair, then the others, then the distance itself, each about what is left
    open: one pair after the other, or about a whole chunk in one matrix product where that is much.
    """
    count, first = len(rows), summary(view, sketch, rank=coarse)
    near = torch.empty(count, count, dtype=torch.bool, device=rows.device)
    one = torch.ones_like(view.own)
    # D - tau up to what the directions leave out, and the bound of that, as one matrix product each.
    left = torch.cat([first.rows, first.logs, torch.stack([tau - view.own, -one], 1)], 1).neg_()
    right = torch.cat([first.logs, first.rows, torch.stack([one, view.own], 1)], 1)
    left_rest = torch.cat([first.row_rest, first.log_rest, ROUNDING * one[:, None]], 1)
    right_rest = torch.cat([first.log_rest, first.row_rest, one[:, None]], 1)
    more = torch.cat([view.rows[:, coarse:], view.logs[:, coarse:]], 1)
    more_other = torch.cat([view.logs[:, coarse:], view.rows[:, coarse:]], 1)
    rests, rests_other = torch.cat([view.row_rest, view.log_rest], 1), torch.cat([view.log_rest, view.row_rest], 1)
    scratch = Scratch()

    def decide(start: int) -> int:
        """Set near[start : start + chunk, start:]; returns how many distances were computed."""
        part, rest = slice(start, start + chunk), slice(start, None)
        shape = near[part, rest].shape
        excess, slack, size = (scratch(name, shape, like=rows) for name in ("excess", "slack", "size"))
        torch.mm(left[part], right[rest].T, out=excess)
        torch.le(excess, 0, out=near[part, rest])
        torch.mm(left_rest[part], right_rest[rest].T, out=slack)
        unsure = torch.abs(excess, out=size) <= slack
        unsure[:, :chunk].triu_(1)
        if unsure.count_nonzero() <= DENSE_SHARE * unsure.numel():
            one, other = places(unsure)
            seen = excess[one, other] - _products(more[part], more_other[rest], one, other)
            near[part, rest][one, other] = seen <= 0
            left_open = seen.abs_() <= _products(rests[part], rests_other[rest], one, other).add_(ROUNDING)
            one, other = one[left_open], other[left_open]
        else:  # of all, as what all directions allow lies within what the leading ones do
            excess.addmm_(more[part], more_other[rest].T, alpha=-1)
            torch.le(excess, 0, out=near[part, rest])
            torch.mm(rests[part], rests_other[rest].T, out=slack).add_(ROUNDING)
            unsure &= torch.abs(excess, out=size) <= slack
            one, other = places(unsure)
        if len(one) > DENSE_SHARE * unsure.numel():
            torch.addmm(view.own_log[rest], rows[part], view.centred_log[rest].T, alpha=-1, out=excess)
            excess.addmm_(view.centred_log[part], rows[rest].T, alpha=-1).add_(view.own_log[part, None])
            near[part, rest] = excess <= tau
            return unsure.numel() - len(unsure) * (len(unsure) + 1) // 2
        other, order = other.sort(stable=True)  # so that each of the many rows is fetched once
        one = one[order]
        cross = _products(view.centred_log[rest], rows[part], other, one)
        cross += _products(rows[rest], view.centred_log[part], other, one)
        near[part, rest][one, other] = view.own_log[part][one] + view.own_log[rest][other] - cross <= tau
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


def nearest(view: View, centres: View) -> tuple[Tensor, Tensor]:
    """The centre (of K) that seems nearest to each row (of L): (L,) int64; and where the bounds do not prove it."""
    middle = centres.own - view.rows @ centres.logs.T - view.logs @ centres.rows.T
    slack = (view.row_rest @ centres.log_rest.T).addmm_(view.log_rest, centres.row_rest.T).add_(ROUNDING)
    seems = middle.argmin(-1)
    possible = middle - slack <= (middle + slack).amin(-1, keepdim=True)
    return seems, possible.sum(-1) > 1


def _products(rows: Tensor, others: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Inner products (n,) of pairs of rows (L, S) and others (K, S), by their numbers: `one`, sorted, and `other`."""
    if not len(one) or not rows.shape[1]:
        return rows.new_zeros(len(one))
    starts = torch.zeros(len(rows) + 1, dtype=torch.int64, device=rows.device)
    starts[1:] = torch.bincount(one, minlength=len(rows)).cumsum(0)
    shape = (len(rows), len(others))
    wanted = torch.sparse_csr_tensor(starts, other, rows.new_zeros(len(one)), shape, check_invariants=False)
    return torch.sparse.sampled_addmm(wanted, rows, others.T, beta=0).values()


def _rest(values: Tensor, seen: Tensor) -> Tensor:
    """Length (L,) of what of values (L, S) is outside the basis, given what is inside (L, k).

    At least about a thousandth of the whole, so that bounds of long rows allow for more rounding than `ROUNDING`.
    """
    whole, inside = (torch.linalg.vector_norm(part, dim=-1) for part in (values, seen))
    return (whole - inside).clamp_min_(1e-6 * whole).mul_(whole + inside).sqrt_()
