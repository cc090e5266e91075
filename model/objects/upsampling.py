"""Upsample the labels of tokens to the pixels of their frame (docs/method.md, section 10).

`nearest` gives blocks of pixels, as the released implementation does. `guided` finds where between two tokens an edge
runs: each label's membership, 1 or 0 at each token, is filtered with the frame as the guide, and every pixel takes the
label with the largest membership.

The guided filter (He, Sun, Tang, TPAMI 2013) makes a membership q a linear function of colour near each place,
q = a . I + b, by ridge regression in a square window. It is fitted at a low resolution and applied at a higher one
(He, Sun, arXiv 1505.00996).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from utils.parallel import map_parallel, prefetch


@dataclass(frozen=True)
class UpsamplingLimits:
    """Constants of the guided filter.

    Attributes:
        pixels_per_token: resolution of the fit along each side, enough to place an edge within a token.
        radius: of the window, in pixels of the fit: a token and a third to each side.
        ridge: added to the variances of colour, which is in [0, 1]; steps in colour below 0.01 are no edges.
        downscale: the fit is applied at a resolution this many times lower than the frame's, for speed.
        boundary_membership: membership of a boundary token in its label. Of 0, 0.15, 0.3 and 0.6 the middle two did
            best on dev-8, by half a point of J&F, and no worse than the others on the training videos of Sprites.
        labels_at_once: labels fitted together, so that memory does not grow with their number.
        frames_at_once: frames upsampled in parallel on a CPU; more take more memory.
    """

    pixels_per_token: int = 6
    radius: int = 8
    ridge: float = 1e-4
    downscale: int = 2
    boundary_membership: float = 0.3
    labels_at_once: int = 4
    frames_at_once: int = 8


LIMITS = UpsamplingLimits()


def nearest(labels: Tensor, frame: Tensor, boundary_tokens: Tensor | None = None) -> Tensor:
    """Upsample labels (h, w) int of tokens to the size of their frame (3, H, W), in blocks: (H, W) int32.

    boundary_tokens: taken as `guided` takes it, without effect.
    """
    resized = F.interpolate(labels[None, None].double(), size=frame.shape[-2:], mode="nearest")
    return resized[0, 0].to(torch.int32)


def guided(labels: Tensor, frame: Tensor, boundary_tokens: Tensor | None = None) -> Tensor:
    """Upsample labels (h, w) int >= 0 of tokens to their frame (3, H, W) uint8 RGB, along its edges: (H, W) int32.

    Only labels of this frame appear in the result, and their numbers do not matter.

    boundary_tokens: (h, w) bool, tokens that show parts of two things (`model.objects.boundary`); their membership is
        `boundary_membership`. None for none.
    """
    kept, indices = labels.unique(return_inverse=True)
    if len(kept) == 1:
        return kept.to(torch.int32).expand(frame.shape[-2:]).contiguous()
    members = F.one_hot(indices, len(kept)).permute(2, 0, 1).float()
    if boundary_tokens is not None:
        members[:, boundary_tokens] *= LIMITS.boundary_membership
    height, width = frame.shape[-2:]
    image = frame[None].float() / 255
    coarse_size = tuple(LIMITS.pixels_per_token * side for side in labels.shape)
    coarse = F.interpolate(image, size=coarse_size, mode="area")[0]
    fine_size = (max(height // LIMITS.downscale, 1), max(width // LIMITS.downscale, 1))
    fine = F.interpolate(image, size=fine_size, mode="area")[0]
    best = torch.full(fine.shape[-2:], -torch.inf, device=frame.device)
    found = torch.zeros(fine.shape[-2:], dtype=torch.int64, device=frame.device)
    at_once = LIMITS.labels_at_once
    for first, some in zip(range(0, len(kept), at_once), members.split(at_once), strict=True):
        slopes, offsets = fit_linear(_resize(some, coarse), coarse, radius=LIMITS.radius, ridge=LIMITS.ridge)
        for index, (slope, offset) in enumerate(zip(slopes, offsets, strict=True), start=first):
            linear = _resize(torch.cat([slope, offset[None]]), fine)
            value = (linear[:3] * fine).sum(0) + linear[3]
            found[value > best] = index
            best = torch.maximum(best, value)
    return nearest(kept[found], frame)


def _resize(values: Tensor, like: Tensor) -> Tensor:
    """Resize values (K, h, w) to the height and width of `like`, bilinearly."""
    return F.interpolate(values[None], size=like.shape[-2:], mode="bilinear", align_corners=False)[0]


UPSAMPLING = {"guided": guided, "nearest": nearest}


def upsample_labels(
    labels: np.ndarray, frames: Iterable[Tensor], boundary_tokens: np.ndarray | None = None, *, how: str,
    device: torch.device,
) -> Iterator[np.ndarray]:  # fmt: skip
    """Upsample the labels of a video's tokens and yield them frame by frame, (H, W) int32; in parallel on a CPU.

    Args:
        labels: (T, h, w) int >= 0.
        frames: T tensors (3, H, W) uint8 RGB.
        boundary_tokens: (T, h, w) bool, see `guided`; None for none.
        how: a key of `UPSAMPLING`.
    """
    boundary_tokens = np.zeros(labels.shape, dtype=bool) if boundary_tokens is None else boundary_tokens

    def upsample(part: tuple[np.ndarray, np.ndarray, Tensor]) -> np.ndarray:
        tokens, boundary = (torch.from_numpy(array).to(device) for array in part[:2])
        return UPSAMPLING[how](tokens.long(), part[2].to(device), boundary).cpu().numpy()

    parts = zip(labels, boundary_tokens, prefetch(frames, ahead=LIMITS.frames_at_once), strict=True)
    while some := list(islice(parts, LIMITS.frames_at_once)):
        yield from map_parallel(upsample, some, device=device)


def fit_linear(targets: Tensor, guide: Tensor, *, radius: int, ridge: float) -> tuple[Tensor, Tensor]:
    """Fit targets (K, H, W) as linear functions of the guide (3, H, W): slopes (K, 3, H, W) and offsets (K, H, W).

    Least squares in the square window around each pixel, cut at the border, with `ridge` on the squared slopes; then
    the mean over all windows that contain the pixel.
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
    """Solve (A + ridge I) x = right for x (K, 3, H, W), with a symmetric 3 x 3 matrix A at each pixel.

    upper: (6, H, W), entries of the positive semidefinite A in the order of UPPER. right: (K, 3, H, W).
    """
    a, b, c, d, e, f = upper.double()  # float32 loses the determinants of nearly grey windows
    a, d, f = a + ridge, d + ridge, f + ridge
    inverse = torch.stack([d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b])
    inverse = (inverse / (a * inverse[0] + b * inverse[1] + c * inverse[2])).to(right.dtype)
    rows = ((0, 1, 2), (1, 3, 4), (2, 4, 5))
    return torch.stack([sum(inverse[place] * right[:, j] for j, place in enumerate(row)) for row in rows], dim=1)


def box_mean(values: Tensor, radius: int) -> Tensor:
    """Average values over the square of 2 radius + 1 pixels around each pixel, cut at the border: (..., H, W)."""
    for dim in (-2, -1):
        size = values.shape[dim]
        sums = values.cumsum(dim)
        before = torch.zeros_like(sums.narrow(dim, 0, 1)).expand(_resized(sums, dim, radius + 1))
        after = sums.narrow(dim, size - 1, 1).expand(_resized(sums, dim, radius))
        sums = torch.cat([before, sums, after], dim)  # entry i is the sum of all values up to i - radius - 1
        place = torch.arange(size, device=values.device)
        count = (place + radius + 1).clamp_max(size) - (place - radius).clamp_min(0)
        values = sums.narrow(dim, 2 * radius + 1, size) - sums.narrow(dim, 0, size)
        values *= count.to(values.dtype).reciprocal().view((-1, 1) if dim == -2 else (-1,))
    return values


def _resized(values: Tensor, dim: int, size: int) -> list[int]:
    shape = list(values.shape)
    shape[dim] = size
    return shape
