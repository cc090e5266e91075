"""Compute attention averaged over heads, in memory that does not grow with the number of heads.

mixed, mean = attend(q, k, v, drop=0.4)     # in training, with gradients
mean = mean_attention(q[0], k[0])           # in inference

Losses and clustering need the attention itself, but only its mean over heads. Here a head's softmax is computed a few
rows at a time, so that they stay in the processor's cache. The usual graph of training keeps every head's softmax, its
dropout and the gradients of both; here they are computed again for the gradient, the dropout from one seed.
`model.clustering.attention` is the formula.
"""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.scratch import Scratch
from utils.parallel import map_parallel

LOG2_E = math.log2(math.e)  # powers of 2 take torch a fraction of the time of powers of e
# Rows of one head's attention that are computed at once: on a CPU; on a GPU over the key frames of a video; on a GPU
# over a training clip, whose rows are few and short, so that all of them are.
CACHED_ROWS, DEVICE_ROWS, TRAINING_DEVICE_ROWS = 128, 1024, 1 << 20


def mean_attention(queries: Tensor, keys: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Compute attention averaged over heads, without gradients: (M, L, d), (M, S, d) -> (L, S), rows sum to 1.

    out: (L, S) that is filled and returned; None for a new tensor.
    """
    heads, length, dim = queries.shape
    if out is None:
        out = torch.empty(length, keys.shape[1], dtype=queries.dtype, device=queries.device)
    scratch, scale = Scratch(), dim**-0.5 * LOG2_E
    keys = keys.mT.contiguous().mT  # the layout with the fastest products of a few rows

    def fill(piece: tuple[Tensor, Tensor]) -> None:
        part, total = piece
        scores = scratch("scores", total.shape, like=total)
        total.zero_()
        for q, k in zip(part, keys, strict=True):
            torch.matmul(q * scale, k.T, out=scores)
            scores.sub_(scores.amax(-1, keepdim=True)).exp2_()
            total.addcmul_(scores, scores.sum(-1, keepdim=True).mul_(heads).reciprocal_())

    rows = CACHED_ROWS if out.device.type == "cpu" else DEVICE_ROWS
    map_parallel(fill, zip(queries.split(rows, dim=1), out.split(rows), strict=True), device=out.device)
    return out


def attend(q: Tensor, k: Tensor, v: Tensor, *, drop: float = 0.0) -> tuple[Tensor, Tensor]:
    """Mix values by softmax(q k^T / sqrt(d)) and return the attention, too.

    Args:
        q: (B, M, L, d). k, v: (B, M, S, d). M heads.
        drop: share of the attention that is set to 0 before the values are mixed, the rest scaled up; to 1 in 65536,
            drawn from torch's generator.

    Returns:
        mixed (B, M, L, d) of the dtype of v, and the attention averaged over heads (B, L, S), without dropout, rows
        summing to 1, of float32 or float64. Both carry gradients of first order.
    """
    seed = torch.randint(2**62, ()).item() if drop > 0 else None
    return _Attend.apply(q, k, v, drop, seed)


class Dropout:
    """Draw which entries of the attention are kept, the same ones each time for the same rows.

    Args:
        drop: share of the entries that are dropped.
        seed: of one call of `attend`; None drops nothing, and `keep` must not be called then.
        shape: (B, M, L) of the attention's rows.
    """

    def __init__(self, drop: float, *, seed: int | None, shape: tuple[int, int, int], device: torch.device):
        self.scale = 1 / (1 - drop)
        self.least = round(drop * 65536) - 32768  # of 16 random bits
        self.seed, self.shape, self.device = seed, shape, device

    def keep(self, b: int, m: int, first: int, size: tuple[int, int]) -> Tensor:
        """Draw the entries that are kept, `size` bool, in rows from `first` on of clip b and head m."""
        number = (b * self.shape[1] + m) * self.shape[2] + first
        generator = torch.Generator(self.device).manual_seed((self.seed + number) % 2**63)
        words = torch.empty(-(-size[0] * size[1] // 4), dtype=torch.int64, device=self.device)
        words.random_(-(2**63), None, generator=generator)
        return (words.view(torch.int16)[: size[0] * size[1]] >= self.least).view(size)


class _Attend(torch.autograd.Function):
    """Compute `attend`."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, drop: float, seed: int | None) -> tuple[Tensor, Tensor]:
        batch, heads, length, dim = q.shape
        scale, exact = LOG2_E * dim**-0.5, torch.promote_types(q.dtype, torch.float32)
        mixed = torch.empty(q.shape[:3] + v.shape[3:], dtype=v.dtype, device=q.device)
        mean = torch.empty(batch, length, k.shape[2], dtype=exact, device=q.device)
        log2_sums = torch.empty(q.shape[:3], dtype=exact, device=q.device)
        dropout = Dropout(drop, seed=seed, shape=(batch, heads, length), device=q.device)

        def fill(piece: tuple[int, slice]) -> None:
            b, rows = piece
            mean[b, rows] = 0
            for m in range(heads):
                weights = (q[b, m, rows] * scale @ k[b, m].mT).to(exact)
                largest = weights.amax(-1, keepdim=True)
                weights.sub_(largest).exp2_()
                sums = weights.sum(-1, keepdim=True)
                log2_sums[b, m, rows] = largest.add_(sums.log2())[:, 0]
                inverse = sums.reciprocal_()
                mean[b, rows].addcmul_(weights, inverse, value=1 / heads)
                if seed is not None:
                    weights *= dropout.keep(b, m, rows.start, weights.shape)
                mixed[b, m, rows] = (weights.to(v.dtype) @ v[b, m]) * (inverse * dropout.scale)

        rows = CACHED_ROWS if q.device.type == "cpu" else TRAINING_DEVICE_ROWS
        map_parallel(
            fill, [(b, slice(at, at + rows)) for b in range(batch) for at in range(0, length, rows)], device=q.device
        )
        ctx.save_for_backward(q, k, v, log2_sums)
        ctx.dropout = dropout
        return mixed, mean

    @staticmethod
    @once_differentiable
    def backward(ctx, to_mixed: Tensor, to_mean: Tensor) -> tuple[Tensor | None, ...]:
        """With P the attention of a head, K what is kept of it, over 1 - drop, g and h the gradients of mixed and mean:
        dP = (g v^T) K + h / M; dS = P (dP - rowsum(P dP)); dq = dS k, dk = dS^T q, both scaled; dv = (P K)^T g.
        """
        q, k, v, log2_sums = ctx.saved_tensors
        batch, heads, length, dim = q.shape
        scale, exact, dropout = dim**-0.5, log2_sums.dtype, ctx.dropout
        to_q, to_k, to_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        size = CACHED_ROWS if q.device.type == "cpu" else TRAINING_DEVICE_ROWS

        def fill(piece: tuple[int, int]) -> None:
            b, m = piece
            sum_k, sum_v = (torch.zeros(x.shape[2:], dtype=exact, device=x.device) for x in (k, v))
            for at in range(0, length, size):
                rows = slice(at, at + size)
                weights = (q[b, m, rows] * (scale * LOG2_E) @ k[b, m].mT).to(exact)
                weights.sub_(log2_sums[b, m, rows, None]).exp2_()
                slope = (to_mixed[b, m, rows] @ v[b, m].mT).to(exact)
                dropped = weights
                if dropout.seed is not None:
                    kept = dropout.keep(b, m, at, weights.shape).to(exact).mul_(dropout.scale)
                    dropped = weights * kept
                    slope *= kept
                sum_v += dropped.to(v.dtype).mT @ to_mixed[b, m, rows]
                slope.add_(to_mean[b, rows], alpha=1 / heads).mul_(weights)
                slope.addcmul_(weights, slope.sum(-1, keepdim=True), value=-1)
                slope = slope.to(q.dtype)
                to_q[b, m, rows] = slope @ k[b, m] * scale
                sum_k += slope.mT @ q[b, m, rows]
            to_k[b, m], to_v[b, m] = sum_k * scale, sum_v

        map_parallel(fill, [(b, m) for b in range(batch) for m in range(heads)], device=q.device)
        return to_q, to_k, to_v, None, None
