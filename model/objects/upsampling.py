"""Upsample the labels of tokens to the pixels of their frame (docs/method.md, section 10).

`nearest` gives blocks of pixels, as the released implementation does. `guided` finds where between two tokens an edge
runs: each label's membership, 1 or 0 at each token, is filtered with the frame as the guide, and every pixel takes the
label with the largest membership.

The guided filter (He, Sun, Tang, TPAMI 2013) makes a membership q a linear function of colour near each place,
q = a . I + b, by ridge regression in a square window. It is fitted at a low resolution and applied at a higher one
(He, Sun, arXiv 1505.00996).
"""

import functools
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
        rows_at_once: rows of a banded matrix in a product on a CPU; more multiply more zeros, fewer are slower.
        frames_at_once: frames upsampled in parallel on a CPU; more take more memory.
    """

    pixels_per_token: int = 6
    radius: int = 8
    ridge: float = 1e-4
    downscale: int = 2
    boundary_membership: float = 0.3
    rows_at_once: int = 48
    frames_at_once: int = 8


LIMITS = UpsamplingLimits()
Part = tuple[slice, slice]  # rows and columns of a frame


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
    kind = {"dtype": fine.dtype, "device": fine.device}
    tokens = tuple(slice(0, size) for size in members.shape[-2:])
    to_guide = [resize_side(*sizes, **kind) for sizes in zip(members.shape[-2:], guide.colours.shape[-2:], strict=True)]
    to_fine = [
        resize_side(*sizes, radius=guide.radius, **kind)
        for sizes in zip(guide.colours.shape[-2:], fine.shape[-2:], strict=True)
    ]
    parts = [_find_reach(mask, guide) for mask in (members > 0).numpy()]
    fine_parts = [_enlarge(part, guide.colours, fine) for part in parts]
    for index, (member, part, fine_part) in enumerate(zip(members.to(fine.device), parts, fine_parts, strict=True)):
        target = multiply_sides(member[:, None], to_guide, tokens, part)[:, 0]
        *slopes, value = multiply_sides(fit_linear(target, guide, part=part), to_fine, part, fine_part).unbind(1)
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
        stop = int(places[-1]) + LIMITS.pixels_per_token + spread
        size = guide.colours.shape[1 + len(part)]
        part.append(slice(max(int(places[0]) - spread, 0), min(stop, size)))
    return tuple(part)


def _enlarge(part: Part, coarse: Tensor, fine: Tensor) -> Part:
    """Find the part of `fine` (..., H, W) outside of which a part of `coarse` (..., h, w), resized, is 0.

    The part holds the windows of the mean too, see `_find_reach`.
    """
    enlarged = []
    for side, old, new in zip(part, coarse.shape[-2:], fine.shape[-2:], strict=True):
        start, stop = (side.start - 1) * new // old - 1, -(-(side.stop + 1) * new // old) + 1
        enlarged.append(slice(max(start, 0), min(stop, new)))
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
        means: matrices (H, H) and (W, W) that average rows and columns over windows.
        everywhere: the part that is the whole guide.
        mean: (3, H, W), of the window around each pixel.
        inverse: (6, H, W), entries in the order of UPPER of the inverse of the window's ridged covariance.
    """

    def __init__(self, colours: Tensor, *, radius: int, ridge: float):
        self.colours, self.radius = colours, radius
        kind = {"dtype": colours.dtype, "device": colours.device}
        self.means = [average_windows(size, radius, **kind) for size in colours.shape[-2:]]
        self.everywhere = tuple(slice(0, size) for size in colours.shape[-2:])
        self.mean = self._average(colours)
        pairs = torch.stack([colours[i] * colours[j] for i, j in UPPER])
        products = torch.stack([self.mean[i] * self.mean[j] for i, j in UPPER])
        self.inverse = invert_symmetric(self._average(pairs) - products, ridge=ridge).to(colours.dtype)

    def _average(self, values: Tensor) -> Tensor:
        """Average values (K, H, W) over the window around each pixel, cut at the border."""
        values = values.transpose(0, 1).contiguous()
        return multiply_sides(values, self.means, self.everywhere, self.everywhere).transpose(0, 1)


def fit_linear(target: Tensor, guide: Guide, *, part: Part | None = None) -> Tensor:
    """Fit a target (H, W) as a linear function of the guide's colours in the window around each pixel.

    Least squares in square windows, cut at the border, with a ridge on the squared slopes.

    part: of the guide that the target lies in. Within a window of its sides that are no border of the frame the target
        must be 0, as it is taken to be outside. None for the whole guide.

    Returns:
        (H, 4, W): the three slopes and the offset of each window. A row of all four lies together in memory, since
        `multiply_sides` then needs two products instead of eight.
    """
    part = part or guide.everywhere
    mean_guide, colours, inverse = (
        values[(slice(None), *part)] for values in (guide.mean, guide.colours, guide.inverse)
    )
    products = torch.stack([target, *(target * colours)], dim=1)
    mean_target, *mean_products = multiply_sides(products, guide.means, part, part).unbind(1)
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


class BandedMatrix:
    """A matrix whose rows are 0 but for a band, and products with parts of it.

    Args:
        matrix: (H, h) on the CPU; the columns at which the band of a row begins and ends rise from row to row.
        dtype, device: of what it multiplies.
    """

    def __init__(self, matrix: Tensor, *, dtype: torch.dtype, device: torch.device):
        self.matrix = matrix.to(device, dtype)
        columns = torch.arange(matrix.shape[1])
        self.first = torch.where(matrix != 0, columns, matrix.shape[1]).amin(1).tolist()
        self.last = torch.where(matrix != 0, columns, -1).amax(1).tolist()
        # On a GPU in one product, which presumably takes less time than to start several; not measured.
        self.rows_at_once = LIMITS.rows_at_once if device.type == "cpu" else len(matrix)

    def split(self, old: slice, new: slice) -> Iterator[tuple[Tensor, slice]]:
        """Split the rows `new` into blocks whose bands in the columns `old` are short.

        Yields:
            The matrix of a block over its band, and the place of this band, counted from the start of `old`.
        """
        for start in range(new.start, new.stop, self.rows_at_once):
            stop = min(start + self.rows_at_once, new.stop)
            first, last = max(self.first[start], old.start), min(self.last[stop - 1] + 1, old.stop)
            last = max(first, last)  # equal where no column of the band lies in `old`
            yield self.matrix[start:stop, first:last], slice(first - old.start, last - old.start)


@functools.lru_cache(maxsize=64)
def average_windows(size: int, radius: int, *, dtype: torch.dtype, device: torch.device) -> BandedMatrix:
    """Make the matrix (size, size) that averages over 2 radius + 1 places around each, cut at the ends."""
    return BandedMatrix(_make_mean_matrix(size, radius), dtype=dtype, device=device)


@functools.lru_cache(maxsize=64)
def resize_side(old: int, new: int, *, radius: int = 0, dtype: torch.dtype, device: torch.device) -> BandedMatrix:
    """Make the matrix (new, old) that averages as `average_windows` does, and resizes the result bilinearly."""
    resized = F.interpolate(torch.eye(old).double()[None], size=new, mode="linear", align_corners=False)[0].T
    return BandedMatrix(resized @ _make_mean_matrix(old, radius), dtype=dtype, device=device)


def _make_mean_matrix(size: int, radius: int) -> Tensor:
    place = torch.arange(size)
    near = ((place[:, None] - place).abs() <= radius).double()
    return near / near.sum(1, keepdim=True)


def multiply_sides(values: Tensor, matrices: Sequence[BandedMatrix], old: Part, new: Part) -> Tensor:
    """Multiply maps (h, K, w) by a matrix of the rows and one of the columns: (H, K, W).

    Args:
        values: K maps, the part `old` of maps that are 0 elsewhere.
        new: the part of the result that is wanted.
    """
    (of_rows, of_columns), maps = matrices, values.flatten(0, 1)
    wide = [maps[:, band] @ block.T for block, band in of_columns.split(old[1], new[1])]
    wide = torch.cat(wide, 1).view(len(values), -1)
    high = torch.cat([block @ wide[band] for block, band in of_rows.split(old[0], new[0])])
    return high.unflatten(1, (values.shape[1], -1))
