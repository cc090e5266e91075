"""Which rows lie within tau of each other, mostly without their distances: bounds from a low-rank view of the rows.

D(p, r) = <p - r, log p - log r> only needs comparing with tau. With any mean row m, mean logarithm n and positive
weights w, it is <x_p - x_r, y_p - y_r> for x = (p - m) / w and y = (log p - n) w. An orthonormal basis V (S, k)
splits each product into the part inside V, k numbers a row, and the part x', y' outside, so

    D(p, r) = <x_p, y_p> + <x_r, y_r> - <x_p, y_r> - <x_r, y_p>,
    |<x_p, y_r> - <V'x_p, V'y_r>| <= |x_p'| |y_r'|    (Cauchy and Schwarz).

The terms of a row with itself are known exactly; the cross terms up to that bound. Only pairs whose bounds do not
decide get the exact value: the result is that of `model.clustering.neighbours` up to the rounding of float32.
`near_pairs` tells their share, a few in a hundred on attention of real videos.

w = sqrt(m): close to m, log p - log m is (p - m) / m, so that x and y are nearly the same vector and one basis serves
both.
"""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from model.clustering import inner, safe_log
from utils.parallel import each
from utils.scratch import Scratch

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
ROUNDING = 1e-4  # nats; what float32 sums over thousands of columns may be off by. Added to every bound
DENSE_SHARE = 0.06  # of open pairs in a block, from which on a matrix product is quicker than one pair after the other
SMALLEST_SHARE = 1e-4  # of the average column: weights w are cut there, for columns that no sample looks at


class Sketch(NamedTuple):
    """What rows over S columns are seen through.

    mean: (S,), a row, positive; mean_log: (S,); basis: (S, k), orthonormal columns, V above.
    """

    mean: Tensor
    mean_log: Tensor
    basis: Tensor


class View(NamedTuple):
    """Rows (L, S) seen through a sketch.

    centred_log: (L, S), log p - n; None in a summary that is kept. own: (L,), <x, y> of each row.
    rows, logs: (L, k), V'x and V'y. row_rest, log_rest: (L,), |x'| and |y'|.
    """

    centred_log: Tensor | None
    own: Tensor
    rows: Tensor
    logs: Tensor
    row_rest: Tensor
    log_rest: Tensor


def fit_sketch(rows: Tensor, *, rank: int) -> Sketch:
    """A sketch of at most `rank` directions for rows (n, S) like these: the leading ones of their y.

    What is left outside multiplies |x'| by |y'|. Attention has peaks, which make x large in directions of its own for
    nearly every row; y has few directions that matter, and a small |y'| makes the product small.
    """
    mean, logs = rows.mean(0).clamp_min_(SMALLEST_SHARE / rows.shape[1]), safe_log(rows)
    mean_log = logs.mean(0)
    y = logs.sub_(mean_log).mul_(mean.sqrt())
    # Singular vectors by way of the smaller Gram matrix; its small ones are only roughly orthogonal, hence the QR.
    vectors = torch.linalg.eigh(y @ y.T).eigenvectors[:, -min(rank, *y.shape) :]
    return Sketch(mean, mean_log, torch.linalg.qr(y.T @ vectors).Q)


def view_rows(rows: Tensor, sketch: Sketch, *, chunk: int = 256, scratch: Scratch | None = None) -> View:
    """Rows (L, S) through a sketch, `chunk` rows at a time. The view's logarithms live in `scratch`."""
    scratch = scratch or Scratch()
    scale = sketch.mean.sqrt()
    centred_log = scratch("logs", rows.shape, like=rows)

    def look(piece: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        part, logs = piece
        x, y = (scratch(name, part.shape, like=rows) for name in ("x", "y"))
        safe_log(part, out=logs).sub_(sketch.mean_log)
        torch.sub(part, sketch.mean, out=x).div_(scale)
        torch.mul(logs, scale, out=y)
        seen_x, seen_y = x @ sketch.basis, y @ sketch.basis
        return inner(x, y), seen_x, seen_y, _rest(x, seen_x), _rest(y, seen_y)

    parts = each(look, zip(rows.split(chunk), centred_log.split(chunk), strict=True), device=rows.device)
    return View(centred_log, *map(torch.cat, zip(*parts, strict=True)))


def near_pairs(rows: Tensor, view: View, *, tau: float, chunk: int = 256) -> tuple[Tensor, float]:
    """Which pairs of rows (L, S) lie within D <= tau of each other: (L, L) bool, the diagonal always true.

    Also the share of pairs whose distance had to be computed.
    """
    count = len(rows)
    near = torch.empty(count, count, dtype=torch.bool, device=rows.device)
    one = torch.ones_like(view.own)
    # D - tau up to what the basis leaves out, and the bound of that, as one matrix product each.
    left = torch.cat([view.rows, view.logs, torch.stack([tau - view.own, -one], 1)], 1).neg_()
    right = torch.cat([view.logs, view.rows, torch.stack([one, view.own], 1)], 1)
    left_rest = torch.stack([view.row_rest, view.log_rest, ROUNDING * one], 1)
    right_rest = torch.stack([view.log_rest, view.row_rest, one], 1)
    own = inner(rows, view.centred_log)
    scratch = Scratch()

    def decide(start: int) -> int:
        """Set near[start : start + chunk, start:]; returns how many distances were computed."""
        part, rest = slice(start, start + chunk), slice(start, None)
        shape = near[part, rest].shape
        excess, slack = (scratch(name, shape, like=rows) for name in ("excess", "slack"))
        torch.mm(left[part], right[rest].T, out=excess)
        torch.le(excess, 0, out=near[part, rest])
        torch.mm(left_rest[part], right_rest[rest].T, out=slack)
        unsure = (excess.abs_() <= slack).triu_(1)
        first, second = unsure.nonzero().T
        if len(first) > DENSE_SHARE * unsure.numel():
            torch.addmm(own[rest], rows[part], view.centred_log[rest].T, alpha=-1, out=excess)
            excess.addmm_(view.centred_log[part], rows[rest].T, alpha=-1).add_(own[part, None])
            near[part, rest] = excess <= tau
            return unsure.numel() - len(unsure) * (len(unsure) + 1) // 2
        second = second + start
        near[part][first, second] = _distances(rows, view, part, own, first, second) <= tau
        return len(first)

    def mirror(start: int) -> None:
        part, rest = slice(start, start + chunk), slice(start + chunk, None)
        near[rest, part] = near[part, rest].T
        block = near[part, part]
        block.copy_(block.triu().logical_or_(block.triu().T))

    starts = range(0, count, chunk)
    computed = sum(each(decide, starts, device=rows.device))
    each(mirror, starts, device=rows.device)
    return near.fill_diagonal_(True), 2 * computed / count**2


def nearest(view: View, centres: View) -> tuple[Tensor, Tensor]:
    """The centre (of K) that seems nearest to each row (of L): (L,) int64; and where the bounds do not prove it."""
    middle = centres.own - view.rows @ centres.logs.T - view.logs @ centres.rows.T
    slack = torch.outer(view.row_rest, centres.log_rest).addr_(view.log_rest, centres.row_rest).add_(ROUNDING)
    seems = middle.argmin(-1)
    possible = middle - slack <= (middle + slack).amin(-1, keepdim=True)
    return seems, possible.sum(-1) > 1


def _distances(rows: Tensor, view: View, part: slice, own: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """D of pairs of rows (n,): `first`, sorted, within `part`, and `second` of all. own: (L,), <p, log p - n>."""
    some, logs = rows[part], view.centred_log[part]
    starts = torch.zeros(len(some) + 1, dtype=torch.int64, device=rows.device)
    starts[1:] = torch.bincount(first, minlength=len(some)).cumsum(0)
    shape = (len(some), len(rows))
    wanted = torch.sparse_csr_tensor(starts, second, rows.new_zeros(len(first)), shape, check_invariants=False)
    cross = torch.sparse.sampled_addmm(wanted, some, view.centred_log.T, beta=0).values()
    cross = cross + torch.sparse.sampled_addmm(wanted, logs, rows.T, beta=0).values()
    return own[part][first] + own[second] - cross


def _rest(values: Tensor, seen: Tensor) -> Tensor:
    """Length (L,) of what of values (L, S) is outside the basis, given what is inside (L, k).

    At least a thousandth of the whole, so that bounds of long rows allow for more rounding than `ROUNDING`.
    """
    whole, inside = (torch.linalg.vector_norm(part, dim=-1) for part in (values, seen))
    return (whole - inside).clamp_min_(1e-6 * whole).mul_(whole + inside).sqrt_()
