"""Upsample the labels of tokens to the pixels of their frame (docs/method.md, section 10).

`nearest` gives blocks of pixels, as the released implementation does. `guided` finds where between two tokens an edge
runs: each label's membership, 1 or 0 at each token, is filtered with the frame as the guide, and every pixel takes the
label with the largest membership.

The guided filter (He, Sun, Tang, TPAMI 2013) makes a membership q a linear function of colour near each place,
q = a . I + b, by ridge regression in a square window. It is fitted at a low resolution and applied at a higher one
(He, Sun, arXiv 1505.00996).
"""

from collections.abc import Iterable, Iterator, Sequence
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
        frames_at_once: frames upsampled in parallel on a CPU; more take more memory.
    """

    pixels_per_token: int = 6
    radius: int = 8
    ridge: float = 1e-4
    downscale: int = 2
    boundary_membership: float = 0.3
    frames_at_once: int = 8


LIMITS = UpsamplingLimits()
Part = tuple[slice, slice]  # rows and columns of a frame
EVERYWHERE = (slice(None), slice(None))


def nearest(labels: Tensor, frame: Tensor, boundary_tokens: Tensor | None = None) -> Tensor:
    """Upsample labels (h, w) int of tokens to the size of their frame (3, H, W), in blocks: (H, W) int32.

    boundary_tokens: taken as `guided` takes it, without effect.
    """
    rows, columns = (
        F.interpolate(torch.arange(old, device=frame.device)[None, None].double(), size=new, mode="nearest")[0, 0]
        for old, new in zip(labels.shape, frame.shape[-2:], strict=True)
    )
    return labels.to(frame.device, torch.int32).index_select(0, rows.int()).index_select(1, columns.int())


def guided(labels: Tensor, frame: Tensor, boundary_tokens: Tensor | None = None) -> Tensor:
    """Upsample labels (h, w) int >= 0 of tokens to their frame (3, H, W) uint8 RGB, along its edges: (H, W) int32.

    Labels are on the CPU, frame and result on any device, so that a GPU is waited for once a frame.
    Only labels of this frame appear in the result, and their numbers do not matter.

    boundary_tokens: (h, w) bool, tokens that show parts of two things (`model.objects.boundary`); their membership is
        `boundary_membership`. None for none.
    """
    kept, indices = labels.unique(return_inverse=True)
    if len(kept) == 1:
        return kept.to(frame.device, torch.int32).expand(frame.shape[-2:]).contiguous()
    members = F.one_hot(indices, len(kept)).permute(2, 0, 1).float()
    if boundary_tokens is not None:
        members[:, boundary_tokens] *= LIMITS.boundary_membership
    height, width = frame.shape[-2:]
    image = frame.contiguous()[None].float()
    coarse = _shrink(image, tuple(LIMITS.pixels_per_token * side for side in labels.shape))
    fine = _shrink(image, (max(height // LIMITS.downscale, 1), max(width // LIMITS.downscale, 1)))
    guide = Guide(coarse, radius=LIMITS.radius, ridge=LIMITS.ridge)
    return nearest(kept.to(frame.device)[_find_largest(members, guide, fine)], frame)


def _find_largest(members: Tensor, guide: "Guide", fine: Tensor) -> Tensor:
    """Find the label with the largest filtered membership at each pixel of a frame; of equal ones the first.

    Far from its tokens the filtered membership of a label is exactly 0, so only a part of the frame is computed.

    Args:
        members: (K, h, w), the membership of each token, on the CPU.
        fine: (3, H, W), the colours that the fit is applied to.

    Returns:
        (H, W) int64 in [0, K).
    """
    best = torch.full(fine.shape[-2:], -torch.inf, device=fine.device)
    found = torch.zeros(fine.shape[-2:], dtype=torch.int64, device=fine.device)
    sizes = list(zip(members.shape[-2:], guide.colours.shape[-2:], fine.shape[-2:], strict=True))
    to_guide = [make_resize_matrix(tokens, coarse, like=fine) for tokens, coarse, _ in sizes]
    # The mean over the windows of the fit and the resizing of its coefficients, in one matrix a side.
    to_fine = [
        make_resize_matrix(coarse, size, like=fine) @ means
        for (_, coarse, size), means in zip(sizes, guide.means, strict=True)
    ]
    parts = [_find_reach(mask, guide) for mask in (members > 0).numpy()]
    fine_parts = [_enlarge(part, guide.colours, fine) for part in parts]
    for index, (member, part, fine_part) in enumerate(zip(members.to(fine.device), parts, fine_parts, strict=True)):
        target = multiply_sides(member[:, None], [side[rows] for side, rows in zip(to_guide, part, strict=True)])[:, 0]
        spread = [side[new][:, old] for side, new, old in zip(to_fine, fine_part, part, strict=True)]
        *slopes, value = multiply_sides(fit_linear(target, guide, part=part), spread).unbind(1)
        for slope, colour in zip(slopes, fine, strict=True):
            value.addcmul_(slope, colour[fine_part])
        found[fine_part].masked_fill_(value > best[fine_part], index)
        torch.maximum(best[fine_part], value, out=best[fine_part])
    _compare_with_zeros(best, found, fine_parts)
    return found


def _find_reach(mask: np.ndarray, guide: "Guide") -> Part:
    """Find the part of a guide outside of which the fit to the tokens in a mask (h, w) is 0; at least one token.

    Bilinear resizing takes a token half a token further, each of two windows a radius.
    """
    spread = -(-LIMITS.pixels_per_token // 2) + 2 * guide.radius
    part = []
    for axis in (1, 0):
        places = np.flatnonzero(mask.any(axis)) * LIMITS.pixels_per_token
        part.append(slice(max(places[0] - spread, 0), places[-1] + LIMITS.pixels_per_token + spread))
    return tuple(part)


def _enlarge(part: Part, coarse: Tensor, fine: Tensor) -> Part:
    """Find the part of `fine` (..., H, W) outside of which bilinear resizing of a part of `coarse` (..., h, w) is 0."""
    enlarged = []
    for side, old, new in zip(part, coarse.shape[-2:], fine.shape[-2:], strict=True):
        start, stop, _ = side.indices(old)
        enlarged.append(slice(max((start - 1) * new // old - 1, 0), -(-(stop + 1) * new // old) + 1))
    return tuple(enlarged)


def _compare_with_zeros(best: Tensor, found: Tensor, parts: list[Part]) -> None:
    """Consider the labels outside of their parts, where their value is 0; `found` is changed in place.

    Values are positive nearly everywhere, so that there is nearly nothing to do.
    """
    low = best <= 0
    if not low.any():
        return
    for index in reversed(range(len(parts))):  # the first of equal labels is written last
        outside = low.clone()
        outside[parts[index]] = False
        found[outside & ((best < 0) | (found > index))] = index


def _shrink(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize an image (1, 3, H, W) to `size`, averaging areas: (3, h, w)."""
    if image.shape[-2:] == (2 * size[0], 2 * size[1]):  # the same sums, several times faster
        upper, lower = image[0, :, ::2], image[0, :, 1::2]
        return upper[..., ::2].add(upper[..., 1::2]).add_(lower[..., ::2]).add_(lower[..., 1::2]).div_(4 * 255)
    return F.interpolate(image, size=size, mode="area")[0].div_(255)


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
        tokens, boundary = map(torch.from_numpy, part[:2])
        return UPSAMPLING[how](tokens.long(), part[2].to(device), boundary).cpu().numpy()

    parts = zip(labels, boundary_tokens, prefetch(frames, ahead=LIMITS.frames_at_once), strict=True)
    while some := list(islice(parts, LIMITS.frames_at_once)):
        yield from map_parallel(upsample, some, device=device)


class Guide:
    """Colours of a frame, and what fits to them have in common.

    Args:
        colours: (3, H, W).
        radius, ridge: see `UpsamplingLimits`.

    Attributes:
        means: matrices (H, H) and (W, W) that average rows and columns over windows, see `make_mean_matrix`.
        mean: (3, H, W), of the window around each pixel.
        inverse: (6, H, W), entries in the order of UPPER of the inverse of the window's ridged covariance.
    """

    def __init__(self, colours: Tensor, *, radius: int, ridge: float):
        self.colours, self.radius = colours, radius
        self.means = [make_mean_matrix(size, radius, like=colours) for size in colours.shape[-2:]]
        self.mean = self._average(colours)
        pairs = torch.stack([colours[i] * colours[j] for i, j in UPPER])
        products = torch.stack([self.mean[i] * self.mean[j] for i, j in UPPER])
        self.inverse = invert_symmetric(self._average(pairs) - products, ridge=ridge).to(colours.dtype)

    def _average(self, values: Tensor) -> Tensor:
        """Average values (K, H, W) over the window around each pixel, cut at the border."""
        return multiply_sides(values.transpose(0, 1).contiguous(), self.means).transpose(0, 1)


def fit_linear(target: Tensor, guide: Guide, *, part: Part = EVERYWHERE) -> Tensor:
    """Fit a target (H, W) as a linear function of the guide's colours in the window around each pixel.

    Least squares in square windows, cut at the border, with a ridge on the squared slopes.

    part: of the guide that the target lies in. Two windows along each of its sides that is no border of the frame the
        target must be 0, as it is taken to be outside.

    Returns:
        (H, 4, W): the three slopes and the offset of each window.
    """
    mean_guide, colours, inverse = (
        values[(slice(None), *part)] for values in (guide.mean, guide.colours, guide.inverse)
    )
    means = [matrix[side, side] for matrix, side in zip(guide.means, part, strict=True)]
    products = torch.stack([target, *(target * colours)], dim=1)
    mean_target, *mean_products = multiply_sides(products, means).unbind(1)
    slopes = multiply_symmetric(inverse, torch.stack(mean_products) - mean_target * mean_guide)
    return torch.stack([*slopes, mean_target - (slopes * mean_guide).sum(0)], dim=1)


UPPER = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


def invert_symmetric(upper: Tensor, *, ridge: float) -> Tensor:
    """Invert A + ridge I for a symmetric positive semidefinite 3 x 3 matrix A at each pixel: (6, H, W) float64.

    upper: (6, H, W), entries of A in the order of UPPER, as those of the result.
    """
    a, b, c, d, e, f = upper.double()  # float32 loses the determinants of nearly grey windows
    a, d, f = a + ridge, d + ridge, f + ridge
    inverse = torch.stack([d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b])
    return inverse / (a * inverse[0] + b * inverse[1] + c * inverse[2])


def multiply_symmetric(upper: Tensor, vectors: Tensor) -> Tensor:
    """Multiply vectors (3, H, W) by the symmetric matrix of each pixel, upper (6, H, W) in the order of UPPER."""
    rows = ((0, 1, 2), (1, 3, 4), (2, 4, 5))
    return torch.stack([sum(upper[place] * vectors[j] for j, place in enumerate(row)) for row in rows])


def make_mean_matrix(size: int, radius: int, *, like: Tensor) -> Tensor:
    """Make the matrix (size, size) that averages over 2 radius + 1 places around each, cut at the ends."""
    place = torch.arange(size, device=like.device)
    near = ((place[:, None] - place).abs() <= radius).to(like.dtype)
    return near / near.sum(1, keepdim=True)


def make_resize_matrix(old: int, new: int, *, like: Tensor) -> Tensor:
    """Make the matrix (new, old) that resizes a side bilinearly."""
    one_each = torch.eye(old, dtype=like.dtype, device=like.device)
    return F.interpolate(one_each[None], size=new, mode="linear", align_corners=False)[0].T


def multiply_sides(values: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiply each of K maps (h, K, w) by a matrix (H, h) of the rows and one (W, w) of the columns: (H, K, W).

    These matrices are banded. Whole products, two in all, are faster than sums over windows and resizing.
    """
    rows, columns = matrices
    wide = values.flatten(0, 1) @ columns.T
    return (rows @ wide.view(len(values), -1)).unflatten(1, (values.shape[1], len(columns)))
