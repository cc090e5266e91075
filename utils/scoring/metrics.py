"""J (region similarity) and F (boundary F-measure) of masks and label maps, in numpy and OpenCV.

Definitions: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation"
(CVPR 2016), section 5, as used by DAVIS-2017-Unsupervised (docs/method.md, section 6).

`frame_scores` scores every proposal of a frame against every object at once, and costs about as much as two or
three single pairs: areas and overlaps come from one joint histogram, boundaries from one pass over each label map,
and distances are looked at only near the objects' boundaries.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike

VOID = 255
BOUND = 0.008
_WORD = 64


def tolerance_radius(shape: tuple[int, int], bound: float = BOUND) -> int:
    """How far apart, in pixels, two boundaries of an image of `shape` (H, W) may be and still match.

    `bound` below 1 is a share of the image's diagonal, rounded up; from 1 on it is the number of pixels.
    """
    return int(bound) if bound >= 1 else int(np.ceil(bound * np.hypot(*shape)))


def frame_scores(
    gt_labels: np.ndarray,
    proposal_labels: np.ndarray,
    object_ids: list[int] | range | np.ndarray,
    num_proposals: int,
    *,
    bound: float = BOUND,
) -> tuple[np.ndarray, np.ndarray]:
    """J and F of every object with every proposal of one frame, each (objects, proposals) float64 in [0, 1].

    `gt_labels` and `proposal_labels` are (H, W) integer label maps. Column `p` of the answer is label
    `p + 1`; a label that does not occur is an empty mask. Pixels that are void (255) in the ground truth are
    background in both maps before anything is computed. Raises `ValueError` on shapes that differ and on
    proposal labels outside 0..`num_proposals`.
    """
    if gt_labels.shape != proposal_labels.shape:
        raise ValueError(f"ground truth is {gt_labels.shape}, proposals are {proposal_labels.shape}")
    if proposal_labels.size and not 0 <= proposal_labels.min() <= proposal_labels.max() <= num_proposals:
        raise ValueError(f"proposal labels must lie in 0..{num_proposals}")
    void = gt_labels == VOID
    gt = _object_index(gt_labels, np.asarray(object_ids, dtype=np.int64))
    proposals = proposal_labels.astype(_small_type(num_proposals))
    if void.any():
        proposals[void] = 0
    j = _joint_iou(gt, proposals, len(object_ids), num_proposals)
    f = _joint_f(gt, proposals, len(object_ids), num_proposals, tolerance_radius(gt.shape, bound))
    return j, f


class Statistics(NamedTuple):
    """What DAVIS reports of a measure over the frames of an object."""

    mean: float
    recall: float
    decay: float


def statistics(values: np.ndarray, *, eight_bit: bool = False) -> Statistics:
    """Mean, recall (share of frames above 0.5) and decay of per-frame `values`, (frames,) float in [0, 1].

    Decay is the mean of the first quarter of the frames minus that of the last; neighbouring quarters share
    their border frame, as in the official toolkit. The toolkit keeps the borders as 8-bit integers, which is
    wrong past 256 frames; `eight_bit` repeats that, to compare with its tables (a quarter may then be empty, and the
    decay NaN). Frames that are NaN are left out. Raises `ValueError`
    when there is no frame.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise ValueError("statistics need at least one frame")
    borders = (np.round(np.linspace(1, len(values), 5) + 1e-10) - 1).astype(int)
    if eight_bit:
        borders %= 256
    first, last = values[borders[0] : borders[1] + 1], values[borders[3] : borders[4] + 1]
    recall = np.where(np.isnan(values), np.nan, values > 0.5)
    return Statistics(_mean(values), _mean(recall), _mean(first) - _mean(last))


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _small_type(largest: int) -> type[np.generic]:
    """The narrowest type for labels up to `largest`: passes over bytes are several times faster."""
    return np.uint8 if largest <= 255 else np.uint16 if largest <= 65535 else np.int32


def _object_index(gt_labels: np.ndarray, object_ids: np.ndarray) -> np.ndarray:
    """Label map (H, W) that is `k + 1` where the k-th object is, and 0 on background and void."""
    highest = max(int(gt_labels.max(initial=0)), int(object_ids.max(initial=0)), VOID)
    table = np.zeros(1 + highest, dtype=_small_type(len(object_ids)))
    table[object_ids] = np.arange(1, len(object_ids) + 1)
    table[VOID] = 0
    if highest <= 255 and table.dtype == np.uint8:
        return cv2.LUT(gt_labels.astype(np.uint8), table)
    return table[gt_labels]


def _joint_iou(gt: np.ndarray, proposals: np.ndarray, num_objects: int, num_proposals: int) -> np.ndarray:
    """J (objects, proposals) from the joint histogram of the two label maps (H, W)."""
    columns = num_proposals + 1
    joint = gt.astype(np.intp)
    joint *= columns
    joint += proposals
    counts = np.bincount(joint.ravel(), minlength=(num_objects + 1) * columns).reshape(-1, columns)
    intersection = counts[1:, 1:]
    union = counts[1:].sum(axis=1)[:, None] + counts[:, 1:].sum(axis=0)[None] - intersection
    return np.where(union == 0, 1.0, intersection / np.maximum(union, 1))


class _Boundaries(NamedTuple):
    """Boundary pixels of all masks of a label map: each (y, x) is on the boundary of its `label`."""

    y: np.ndarray
    x: np.ndarray
    label: np.ndarray

    def where(self, keep: np.ndarray) -> "_Boundaries":
        return _Boundaries(self.y[keep], self.x[keep], self.label[keep])


def _padded(labels: np.ndarray) -> np.ndarray:
    """(H, W) -> (H + 1, W + 1): the last row and column once more."""
    return cv2.copyMakeBorder(np.ascontiguousarray(labels), 0, 1, 0, 1, cv2.BORDER_REPLICATE)


def _mixed_quads(padded: np.ndarray) -> np.ndarray:
    """Where a pixel, its right, lower and lower-right neighbour are not all of one label, (H, W) bool."""
    own = padded[:-1, :-1]
    mixed = own != padded[:-1, 1:]
    mixed |= own != padded[1:, :-1]
    mixed |= own != padded[1:, 1:]
    return mixed


def _boundaries(labels: np.ndarray) -> _Boundaries:
    """Boundaries of every label above 0 of a label map (H, W), each pixel once per label.

    A pixel is on the boundary of its label when its right, lower or lower-right neighbour has another one; the image's
    last row and column are replicated. A 2 x 2 quad of one label is nobody's boundary; any other is on the boundary of
    each label in it.
    """
    padded = _padded(labels)
    y, x = np.divmod(np.flatnonzero(_mixed_quads(padded)), labels.shape[1])
    width = padded.shape[1]
    corners = [padded.ravel()[y * width + x + step] for step in (0, 1, width, width + 1)]
    found = []
    for k, corner in enumerate(corners):
        keep = corner > 0
        for earlier in corners[:k]:
            keep &= corner != earlier
        found.append(_Boundaries(y[keep], x[keep], corner[keep].astype(np.intp)))
    return _Boundaries(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _joint_f(gt: np.ndarray, proposals: np.ndarray, num_objects: int, num_proposals: int, radius: int) -> np.ndarray:
    """F (objects, proposals) of two label maps (H, W), with matches up to `radius` pixels apart."""
    gt_bounds, fg_bounds = _boundaries(gt), _boundaries(proposals)
    found = np.zeros((num_objects, num_proposals), dtype=np.int64)
    covered = np.zeros_like(found)
    for k in range(num_objects):
        own = gt_bounds.where(gt_bounds.label == k + 1)
        if len(own.label):
            found[k], covered[k] = _matches(own, fg_bounds, num_proposals, radius)
    n_gt = np.bincount(gt_bounds.label, minlength=num_objects + 1)[1:, None]
    n_fg = np.bincount(fg_bounds.label, minlength=num_proposals + 1)[None, 1:]
    return _f_measure(found, covered, n_gt=n_gt, n_fg=n_fg)


def _f_measure(found: ArrayLike, covered: ArrayLike, *, n_gt: ArrayLike, n_fg: ArrayLike) -> np.ndarray:
    """F from the boundary pixels matched: `found` of a proposal's `n_fg`, `covered` of an object's `n_gt`."""
    precision = np.where(np.equal(n_fg, 0), 1.0, found / np.maximum(n_fg, 1))
    recall = np.where(np.equal(n_gt, 0), 1.0, covered / np.maximum(n_gt, 1))
    total = precision + recall
    return np.where(total == 0, 0.0, 2 * precision * recall / np.where(total == 0, 1, total))


def _matches(own: _Boundaries, others: _Boundaries, num_proposals: int, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Match one object's boundary with all proposals': pixels found, pixels covered, each (proposals,) int.

    All work happens on a canvas that fits the object's boundary with `radius` to spare on every side. Only
    proposals with a pixel in reach of the object can cover any of it, so only those are looked at again.
    """
    top, left = own.y.min() - radius, own.x.min() - radius
    canvas = np.zeros((own.y.max() - top + radius + 1, own.x.max() - left + radius + 1), dtype=bool)
    own = own._replace(y=own.y - top, x=own.x - left)
    others = others._replace(y=others.y - top, x=others.x - left)
    canvas[own.y, own.x] = True
    inside = (others.y >= 0) & (others.y < canvas.shape[0]) & (others.x >= 0) & (others.x < canvas.shape[1])
    others = others.where(inside)
    others = others.where(_within(canvas, radius)[others.y, others.x])
    found = np.bincount(others.label, minlength=num_proposals + 1)[1:]
    return found, _covered(own, others, np.flatnonzero(found) + 1, num_proposals, canvas.shape, radius)


def _covered(
    own: _Boundaries,
    others: _Boundaries,
    labels: np.ndarray,
    num_proposals: int,
    shape: tuple[int, int],
    radius: int,
) -> np.ndarray:
    """How many pixels of `own` have a boundary pixel of each proposal in reach, (proposals,) int.

    64 proposals at a time, one bit each: the bits of the canvas pixels in the disk around a pixel of `own`,
    or-ed together, say which proposals reach it.
    """
    covered = np.zeros(num_proposals, dtype=np.int64)
    slot = np.full(num_proposals + 1, -1)
    slot[labels] = np.arange(len(labels))
    slots, at, target = slot[others.label], others.y * shape[1] + others.x, own.y * shape[1] + own.x
    for start in range(0, len(labels), _WORD):
        batch = labels[start : start + _WORD]
        chosen = (slots >= start) & (slots < start + _WORD)
        bits = np.zeros(shape[0] * shape[1], dtype=np.uint64)
        np.bitwise_or.at(bits, at[chosen], np.uint64(1) << (slots[chosen] - start).astype(np.uint64))
        reached = _or_over_disk(bits, target, radius, shape[1])
        covered[batch - 1] = _count_bits(reached)[: len(batch)]
    return covered


def _or_over_disk(bits: np.ndarray, at: np.ndarray, radius: int, width: int) -> np.ndarray:
    """Bitwise or of `bits`, a flat canvas `width` pixels wide, over the disk around each `at`, (n,) uint64.

    The disk x² + y² <= radius² is one run of pixels per row, and two runs of the longest power of two that
    fits in it cover a run of any length, so two look-ups a row are enough.
    """
    runs = [bits]
    while 2 ** len(runs) <= 2 * radius + 1:
        half, step = runs[-1], 2 ** (len(runs) - 1)
        runs.append(half[:-step] | half[step:])
    reached = np.zeros(len(at), dtype=np.uint64)
    for y in range(-radius, radius + 1):
        reach = math.isqrt(radius**2 - y**2)
        power = (2 * reach + 1).bit_length() - 1
        first = at + (y * width - reach)
        reached |= runs[power][first]
        reached |= runs[power][first + (2 * reach + 1 - 2**power)]
    return reached


def _count_bits(words: np.ndarray) -> np.ndarray:
    """For each of the 64 bits, in how many of the `words` (n,) uint64 it is set, (64,) int."""
    as_bytes = words.astype("<u8").view(np.uint8).reshape(-1, 8)
    return np.unpackbits(as_bytes, axis=1, bitorder="little").sum(axis=0, dtype=np.int64)


def _within(mask: np.ndarray, radius: int) -> np.ndarray:
    """Dilation of an (H, W) bool mask with the disk x² + y² <= radius², (H, W) bool."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.uint8)
    return cv2.dilate(mask.view(np.uint8), disk) > 0
