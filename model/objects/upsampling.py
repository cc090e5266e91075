"""Cluster labels of tokens to the pixels of the frame they came from.

`nearest` gives the reference's blocks. `guided` lets the frame decide where between two tokens an edge runs: each
cluster's membership, one or zero at each token, is filtered with the frame as the guide and every pixel goes to the
largest. A token that shows a part of two things has less of a say.

The guided filter (He, Sun, Tang, TPAMI 2013) makes a membership q a linear function of colour near each place,
q = a . I + b, by ridge regression in a square window; it is fitted at a low resolution and applied at a higher one
(He, Sun, arXiv 1505.00996).
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from utils.parallel import map_parallel, prefetch

CELL = 6  # pixels a token takes along each side where coefficients are fitted
RADIUS = 8  # of the window, in these pixels: a token and a third to each side
RIDGE = 1e-4  # added to the variances of colour, which is in [0, 1]: steps below 0.01 are no edges
AT_ONCE = 4  # labels that coefficients are fitted for together, so that memory does not grow with them
# Membership of a token that shows a part of two things. Of 0, 0.15, 0.3 and 0.6 the middle two did best on dev-8, by
# half a point of J&F, and no worse than others on the training videos of Sprites.
UNSURE = 0.3
FRAMES_AT_ONCE = 8  # on a CPU, shared out over as many cores at most; more take more memory
HALF = 2  # coefficients are applied at a resolution so many times lower than the frame's


def nearest(labels: Tensor, frame: Tensor, unsure: Tensor | None = None) -> Tensor:
    """Labels (h, w) int of tokens to the size of their frame (3, H, W), blocks: (H, W) int32.

    unsure: taken as `guided` takes it, and of no effect.
    """
    resized = F.interpolate(labels[None, None].double(), size=frame.shape[-2:], mode="nearest")
    return resized[0, 0].to(torch.int32)


def guided(labels: Tensor, frame: Tensor, unsure: Tensor | None = None) -> Tensor:
    """Labels (h, w) int >= 0 of tokens to the pixels of their frame (3, H, W) uint8 RGB: (H, W) int32.

    unsure: (h, w) bool, tokens whose membership counts `UNSURE`, see `model.objects.boundary`; None for none.
    Only labels of this frame are given, and which ones they are does not matter.
    """
    kept, indices = labels.unique(return_inverse=True)
    if len(kept) == 1:
        return kept.to(torch.int32).expand(frame.shape[-2:]).contiguous()
    members = F.one_hot(indices, len(kept)).permute(2, 0, 1).float()
    if unsure is not None:
        members[:, unsure] *= UNSURE
    height, width = frame.shape[-2:]
    image = frame[None].float() / 255
    coarse = F.interpolate(image, size=(CELL * labels.shape[0], CELL * labels.shape[1]), mode="area")[0]
    size = (max(height // HALF, 1), max(width // HALF, 1))
    fine = F.interpolate(image, size=size, mode="area")[0]
    # Some memberships at a time, so that what is worked on stays small however many labels a frame has.
    best = torch.full(fine.shape[-2:], -torch.inf, device=frame.device)
    found = torch.zeros(fine.shape[-2:], dtype=torch.int64, device=frame.device)
    for first, some in zip(range(0, len(kept), AT_ONCE), members.split(AT_ONCE), strict=True):
        slopes, offsets = fit_linear(_resize(some, coarse), coarse, radius=RADIUS, ridge=RIDGE)
        for index, (slope, offset) in enumerate(zip(slopes, offsets, strict=True), start=first):
            linear = _resize(torch.cat([slope, offset[None]]), fine)
            value = (linear[:3] * fine).sum(0) + linear[3]
            found[value > best] = index
            best = torch.maximum(best, value)
    return nearest(kept[found], frame)


def _resize(values: Tensor, like: Tensor) -> Tensor:
    """Values (K, h, w) at the height and width of `like`, bilinear."""
    return F.interpolate(values[None], size=like.shape[-2:], mode="bilinear", align_corners=False)[0]


UPSAMPLING = {"guided": guided, "nearest": nearest}


def at_pixels(
    labels: np.ndarray, frames: Iterable[Tensor], unsure: np.ndarray | None = None, *, how: str, device: torch.device
) -> Iterator[np.ndarray]:
    """Yield labels of tokens at the pixels of each frame in order, (H, W) int32; on a CPU frames side by side.

    Args:
        labels: (T, h, w) int >= 0.
        frames: T tensors (3, H, W) uint8 RGB.
        unsure: (T, h, w) bool, see `guided`; None for none.
        how: a key of `UPSAMPLING`.
    """
    unsure = np.zeros(labels.shape, dtype=bool) if unsure is None else unsure

    def upsample(piece: tuple[np.ndarray, np.ndarray, Tensor]) -> np.ndarray:
        tokens, doubt = (torch.from_numpy(part).to(device) for part in piece[:2])
        return UPSAMPLING[how](tokens.long(), piece[2].to(device), doubt).cpu().numpy()

    pieces = zip(labels, unsure, prefetch(frames, ahead=FRAMES_AT_ONCE), strict=True)
    while some := list(islice(pieces, FRAMES_AT_ONCE)):
        yield from map_parallel(upsample, some, device=device)


def fit_linear(targets: Tensor, guide: Tensor, *, radius: int, ridge: float) -> tuple[Tensor, Tensor]:
    """Slopes (K, 3, H, W) and offsets (K, H, W) with which the guide (3, H, W) gives the targets (K, H, W).

    Least squares in the square window around each pixel, cut at the border, with `ridge` on the squared slopes; then
    the mean over all windows that a pixel is in.
    """
    mean_guide, mean_targets = box_mean(guide, radius), box_mean(targets, radius)
    pairs = torch.stack([guide[i] * guide[j] for i, j in UPPER])
    covariance = box_mean(pairs, radius) - torch.stack([mean_guide[i] * mean_guide[j] for i, j in UPPER])
    products = (targets[:, None] * guide).flatten(0, 1)
    cross = box_mean(products, radius).unflatten(0, (-1, 3)) - mean_targets[:, None] * mean_guide
    slopes = solve_symmetric(covariance, cross, ridge=ridge)
    offsets = mean_targets - (slopes * mean_guide).sum(1)
    return box_mean(slopes, radius), box_mean(offsets, radius)


UPPER = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


def solve_symmetric(upper: Tensor, right: Tensor, *, ridge: float) -> Tensor:
    """x with (A + ridge I) x = right, for 3 x 3 matrices A given by their upper triangles.

    upper: (6, H, W), entries in the order of UPPER, of positive semidefinite matrices. right: (K, 3, H, W).
    """
    a, b, c, d, e, f = upper.double()  # determinants of nearly grey windows need the digits
    a, d, f = a + ridge, d + ridge, f + ridge
    inverse = torch.stack([d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b])
    inverse = (inverse / (a * inverse[0] + b * inverse[1] + c * inverse[2])).to(right.dtype)
    rows = ((0, 1, 2), (1, 3, 4), (2, 4, 5))
    return torch.stack([sum(inverse[place] * right[:, j] for j, place in enumerate(row)) for row in rows], dim=1)


def box_mean(values: Tensor, radius: int) -> Tensor:
    """Mean over the square of 2 radius + 1 pixels around each, cut at the border: (..., H, W) -> the same."""
    for dim in (-2, -1):
        size = values.shape[dim]
        sums = values.cumsum(dim)
        before = torch.zeros_like(sums.narrow(dim, 0, 1)).expand(_resized(sums, dim, radius + 1))
        after = sums.narrow(dim, size - 1, 1).expand(_resized(sums, dim, radius))
        sums = torch.cat([before, sums, after], dim)  # place i is the sum of all up to i - radius - 1
        place = torch.arange(size, device=values.device)
        count = (place + radius + 1).clamp_max(size) - (place - radius).clamp_min(0)
        values = sums.narrow(dim, 2 * radius + 1, size) - sums.narrow(dim, 0, size)
        values *= count.to(values.dtype).reciprocal().view((-1, 1) if dim == -2 else (-1,))
    return values


def _resized(values: Tensor, dim: int, size: int) -> list[int]:
    shape = list(values.shape)
    shape[dim] = size
    return shape
