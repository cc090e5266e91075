"""Which rows lie within tau of each other, mostly without their distances: bounds from a low-rank view of the rows.

D(p, r) = <p - r, log p - log r> only needs comparing with tau. With any mean row m, mean logarithm n and positive
weights w, it is <x_p - x_r, y_p - y_r> for x = (p - m) / w and y = (log p - n) w. An orthonormal basis V (S, k)
splits each product into the part inside V, k numbers a row, and the part x', y' outside, so

    D(p, r) = <x_p, y_p> + <x_r, y_r> - <x_p, y_r> - <x_r, y_p>,
    |<x_p, y_r> - <V'x_p, V'y_r>| <= |x_p'| |y_r'|    (Cauchy and Schwarz).

The terms of a row with itself are known exactly; the cross terms up to that bound. Only pairs whose bounds do not
decide, about one in a hundred on attention of real videos, get the exact value: the result is that of
`model.clustering.neighbours` up to the rounding of float32.

w = sqrt(m): close to m, log p - log m is (p - m) / m, so that x and y are nearly the same vector and one basis serves
both.
"""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from utils.scratch import Scratch

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
ROUNDING = 1e-4  # nats; what float32 sums over thousands of columns may be off by. Added to every bound
SMALLEST_SHARE = 1e-4  # of the average column: weights w are cut there, for columns that no sample looks at


class Sketch(NamedTuple):
    """What rows over S columns are seen through.

    mean: (S,), a row, positive; mean_log: (S,); basis: (S, k), orthonormal columns, as a basis of x and y above.
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
    """A sketch of at most `rank` directions for rows (n, S) like these, the leading ones of their x and y together."""
    mean, logs = rows.mean(0), rows.clamp_min(torch.finfo(rows.dtype).tiny).log_()
    mean_log = logs.mean(0)
    mean.clamp_min_(SMALLEST_SHARE / len(mean))
    scale = mean.sqrt()
    both = torch.cat([(rows - mean) / scale, logs.sub_(mean_log).mul_(scale)])
    # Singular vectors by way of the smaller Gram matrix; its small ones are only roughly orthogonal, hence the QR.
    vectors = torch.linalg.eigh(both @ both.T).eigenvectors[:, -min(rank, *both.shape) :]
    return Sketch(mean, mean_log, torch.linalg.qr(both.T @ vectors).Q)


def view_rows(rows: Tensor, sketch: Sketch, *, chunk: int = 256, scratch: Scratch | None = None) -> View:
    """Rows (L, S) through a sketch, `chunk` rows at a time. The view's logarithms live in `scratch`."""
    scratch = scratch or Scratch()
    scale = sketch.mean.sqrt()
    centred_log = scratch("logs", rows.shape, like=rows)
    smallest = torch.finfo(rows.dtype).tiny
    parts = []
    for part, logs in zip(rows.split(chunk), centred_log.split(chunk), strict=True):
        x, y = (scratch(name, part.shape, like=rows) for name in ("x", "y"))
        torch.clamp_min(part, smallest, out=logs).log_().sub_(sketch.mean_log)
        torch.sub(part, sketch.mean, out=x).div_(scale)
        torch.mul(logs, scale, out=y)
        own = torch.bmm(x[:, None], y[:, :, None])[:, 0, 0]
        seen_x, seen_y = x @ sketch.basis, y @ sketch.basis
        parts.append((own, seen_x, seen_y, _rest(x, seen_x), _rest(y, seen_y)))
    return View(centred_log, *map(torch.cat, zip(*parts, strict=True)))


def near_pairs(rows: Tensor, view: View, *, tau: float, verify: bool = True, chunk: int = 512) -> tuple[Tensor, float]:
    """Which pairs of rows (L, S) lie within D <= tau of each other: (L, L) bool, the diagonal always true.

    Also the share of pairs whose distance had to be computed.
    """
    count = len(rows)
    near = torch.empty(count, count, dtype=torch.bool, device=rows.device)
    left, right = torch.cat([view.rows, view.logs], 1), torch.cat([view.logs, view.rows], 1)
    pairs = []
    for start in range(0, count, chunk):
        part, rest = slice(start, start + chunk), slice(start, None)
        distance = torch.addmm(view.own[rest], left[part], right[rest].T, alpha=-1).add_(view.own[part, None])
        excess = distance.sub_(tau)
        near[part, rest] = excess <= 0
        slack = torch.outer(view.row_rest[part], view.log_rest[rest])
        slack.addr_(view.log_rest[part], view.row_rest[rest])
        unsure = (excess.abs_() <= slack.add_(ROUNDING)).triu_(1)
        pairs.append(unsure.nonzero() + start)
    first, second = torch.cat(pairs).T
    near[first, second] = _distances(rows, view, first, second) <= tau
    lower = torch.ones(chunk, chunk, dtype=torch.bool, device=rows.device).tril_(-1)
    for start in range(0, count, chunk):
        part, rest = slice(start, start + chunk), slice(start + chunk, None)
        near[rest, part] = near[part, rest].T
        block = near[part, part]
        near[part, part] = torch.where(lower[: len(block), : len(block)], block.T, block)
    return near.fill_diagonal_(True), 2 * len(first) / count**2


def nearest(view: View, centres: View) -> tuple[Tensor, Tensor]:
    """The centre (of K) that seems nearest to each row (of L): (L,) int64; and where the bounds do not prove it."""
    middle = centres.own - view.rows @ centres.logs.T - view.logs @ centres.rows.T
    slack = torch.outer(view.row_rest, centres.log_rest).addr_(view.log_rest, centres.row_rest).add_(ROUNDING)
    seems = middle.argmin(-1)
    possible = middle - slack <= (middle + slack).amin(-1, keepdim=True)
    return seems, possible.sum(-1) > 1


def _distances(rows: Tensor, view: View, first: Tensor, second: Tensor) -> Tensor:
    """D of the pairs (first, second), sorted by first: (n,)."""
    count = len(rows)
    starts = torch.zeros(count + 1, dtype=torch.int64, device=rows.device)
    starts[1:] = torch.bincount(first, minlength=count).cumsum(0)
    wanted = torch.sparse_csr_tensor(starts, second, rows.new_zeros(len(first)), (count, count), check_invariants=False)
    cross = torch.sparse.sampled_addmm(wanted, rows, view.centred_log.T, beta=0).values()
    cross = cross + torch.sparse.sampled_addmm(wanted, view.centred_log, rows.T, beta=0).values()
    own = torch.bmm(rows[:, None], view.centred_log[:, :, None])[:, 0, 0]
    return own[first] + own[second] - cross


def _rest(values: Tensor, seen: Tensor) -> Tensor:
    """Length (L,) of what of values (L, S) is outside the basis, given what is inside (L, k); at least its rounding."""
    whole, inside = (torch.linalg.vector_norm(part, dim=-1) for part in (values, seen))
    return (whole - inside).clamp_min_(1e-6 * whole).mul_(whole + inside).sqrt_()
