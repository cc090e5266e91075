"""Muon, the optimizer that takes orthogonalised steps (Jordan et al. 2024), in float32 for CPUs."""

import math

import torch
from torch import Tensor


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices to (n, r, c), roughly: Newton-Schulz iterations in float32."""
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalised(matrices.transpose(1, 2), steps).transpose(1, 2)
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised (Jordan et al. 2024), for the matrices inside the blocks.

    Updates are scaled to the size of AdamW's (0.2 rms times the learning rate); q, k and v count as three
    matrices. torch.optim.Muon works in bfloat16, which is very slow on most CPUs.
    """

    def __init__(self, params, *, lr: float, weight_decay: float, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"])
                square = p.shape[0] == 3 * p.shape[1]
                parts = zip(p.chunk(3), update.chunk(3), strict=True) if square else [(p, update)]
                for part, of_part in parts:
                    by_shape.setdefault(tuple(part.shape), []).append((part, of_part))
            for (rows, columns), pairs in by_shape.items():
                updates = orthogonalised(torch.stack([update for _, update in pairs]))
                size = 0.2 * math.sqrt(max(rows, columns)) * group["lr"]
                for (part, _), update in zip(pairs, updates, strict=True):
                    part.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=size)
