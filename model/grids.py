"""Tokens twice as fine as a backbone's, from four looks at a frame, shifted by half a token against one another.

A frame moved by half a token has tokens half a token further on; those of four such grids, one between the others, are
one of twice as many rows and columns. The network is as it was, and its time four times as long; what counts in tokens
further on (windows, pooled keys, reach and sizes in `model.objects`) counts in the finer ones.
"""

import torch
from torch import Tensor

from model.network import SpatioTemporalNetwork

GRIDS = (1, 4)


def finer_features(network: SpatioTemporalNetwork, frames: Tensor) -> Tensor:
    """Features (B, 4*h*w, C) of single frames (B, 3, H, W), for inference, on a grid (2h, 2w) where usually (h, w)."""
    looks = [network.encode(shifted(frames, *by)) for by in shifts(network.backbone.patch_size)]
    return interleaved(looks, network.backbone.grid_size(*frames.shape[-2:]))


def shifts(patch_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Pixels down and to the right by which a frame is looked at further on, of the four grids, row by row.

    A quarter of a token to each side, so that the fine grid has the middle of the frame in its middle, but for less
    than a pixel where a token is no multiple of four of these.
    """
    down, right = ((-(size // 4), size // 2 - size // 4) for size in patch_size)
    return [(rows, columns) for rows in down for columns in right]


def shifted(frames: Tensor, down: int, right: int) -> Tensor:
    """Frames (B, 3, H, W) seen from so many pixels further down and to the right, or below 0 up and to the left.

    Their size stays. The pixel at (y, x) is that at (y + down, x + right); beyond the frame its border is repeated.
    """
    rows, columns = (
        torch.arange(size, device=frames.device).add_(by).clamp_(0, size - 1)
        for size, by in zip(frames.shape[-2:], (down, right), strict=True)
    )
    return frames[..., rows[:, None], columns]


def interleaved(features: list[Tensor], grid: tuple[int, int]) -> Tensor:
    """Features (B, h*w, C) of the four grids, in the order of `shifts`, as one of the grid (2h, 2w): (B, 4*h*w, C)."""
    maps = torch.stack(features).unflatten(0, (2, 2)).unflatten(3, grid)  # (2, 2, B, h, w, C)
    return maps.permute(2, 3, 0, 4, 1, 5).flatten(1, 4)
