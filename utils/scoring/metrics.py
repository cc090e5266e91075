"""Compute J (region similarity) and F (boundary F-measure) of label maps with NumPy and OpenCV.

Definitions: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation"
(CVPR 2016), section 5, as used by DAVIS-2017-Unsupervised (docs/method.md, section 6).

`frame_scores` scores every proposal of a frame with every object at once: areas and overlaps come from one joint
histogram, boundaries from one pass over each label map, and distances are computed only near the boundaries of objects.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike

from utils.scoring.annotations import VOID

BOUND = 0.008
_WORD = 64


def tolerance_radius(shape: tuple[int, int], bound: float = BOUND) -> int:
    """Compute the largest distance in pixels at which boundaries match in an image of `shape` (H, W).

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
    """Compute J and F of every object with every proposal of one frame, each (objects, proposals) float64 in [0, 1].

    Pixels that are void (255) in the ground truth are set to background in both maps first.

    Args:
        gt_labels, proposal_labels: (H, W) integer label maps. Column `p` of the result is proposal label `p + 1`; a
            label that does not occur is an empty mask.

    Raises:
        ValueError: the shapes differ, or a proposal label lies outside 0..`num_proposals`.
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
    """Statistics of a measure over the frames of an object, as DAVIS reports them."""

    mean: float
    recall: float
    decay: float


def statistics(values: np.ndarray, *, eight_bit: bool = False) -> Statistics:
    """Compute mean, recall (share of frames above 0.5) and decay of `values`, (frames,) float in [0, 1].

    Decay is the mean of the first quarter of the frames minus that of the last. Neighbouring quarters share their
    border frame, as in the official toolkit. Frames that are NaN are left out.

    Args:
        eight_bit: store the borders of quarters as 8-bit integers, as the toolkit does, to compare with its tables.
            This is wrong past 256 frames; a quarter may then be empty and the decay NaN.

    Raises:
        ValueError: there is no frame.
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
    """Choose the narrowest type for labels up to `largest`; narrow types are several times faster."""
    return np.uint8 if largest <= 255 else np.uint16 if largest <= 65535 else np.int32


def _object_index(gt_labels: np.ndarray, object_ids: np.ndarray) -> np.ndarray:
    """Renumber a label map (H, W): `k + 1` where the k-th object is, 0 on background and void."""
    highest = max(int(gt_labels.max(initial=0)), int(object_ids.max(initial=0)))
    table = np.zeros(1 + highest, dtype=_small_type(len(object_ids)))
    table[object_ids] = np.arange(1, len(object_ids) + 1)
    table[VOID : VOID + 1] = 0
    return renumber(gt_labels, table)


def renumber(labels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Look up every label of a map (H, W) int >= 0 in a table (labels,) of a narrow type."""
    if np.array_equal(table, np.arange(len(table))):
        return labels.astype(table.dtype)
    if not labels.size or len(table) > 256 or table.dtype == np.int32:
        return table.take(labels)
    return cv2.LUT(labels.astype(np.uint8), np.pad(table, (0, 256 - len(table))))


def _joint_iou(gt: np.ndarray, proposals: np.ndarray, num_objects: int, num_proposals: int) -> np.ndarray:
    """Compute J (objects, proposals) from the joint histogram of two label maps (H, W)."""
    counts = count_pairs(gt, proposals, num_objects + 1, num_proposals + 1)
    intersection = counts[1:, 1:]
    union = counts[1:].sum(axis=1)[:, None] + counts[:, 1:].sum(axis=0)[None] - intersection
    return np.where(union == 0, 1.0, intersection / np.maximum(union, 1))


def count_pairs(first: np.ndarray, second: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Count the pixels of each pair of labels of two maps (H, W), below `rows` and `columns`: (rows, columns) int64.

    Runs of pixels are counted and not pixels, because label maps have few runs.
    """
    kind = np.min_scalar_type(rows * columns)
    joint = first.astype(kind)
    joint *= kind.type(columns)
    joint += second.astype(kind, copy=False)
    joint = joint.ravel()
    starts = find_runs(joint)
    counts = np.bincount(joint[starts], np.diff(starts, append=joint.size), rows * columns)
    return counts.astype(np.int64).reshape(rows, columns)


def find_runs(labels: np.ndarray) -> np.ndarray:
    """Find where runs of one label begin in flat labels (n,): positions, rising; none if n is 0."""
    return np.flatnonzero(np.append(np.ones(min(labels.size, 1), bool), labels[1:] != labels[:-1]))


class _Boundaries(NamedTuple):
    """Boundary pixels of all masks of a label map: each (y, x) is on the boundary of its `label`."""

    y: np.ndarray
    x: np.ndarray
    label: np.ndarray

    def where(self, keep: np.ndarray) -> "_Boundaries":
        return _Boundaries(self.y[keep], self.x[keep], self.label[keep])


def _padded(labels: np.ndarray) -> np.ndarray:
    """Repeat the last row and column: (H, W) -> (H + 1, W + 1)."""
    return cv2.copyMakeBorder(np.ascontiguousarray(labels), 0, 1, 0, 1, cv2.BORDER_REPLICATE)


def _mixed_quads(padded: np.ndarray) -> np.ndarray:
    """Find pixels whose label differs from that of the right, lower or lower-right neighbour, (H, W) bool."""
    own = padded[:-1, :-1]
    mixed = own != padded[:-1, 1:]
    mixed |= own != padded[1:, :-1]
    mixed |= own != padded[1:, 1:]
    return mixed


def _boundaries(labels: np.ndarray) -> _Boundaries:
    """Find the boundaries of all labels above 0 of a label map (H, W); each pixel is listed once per label.

    A pixel is on the boundary of a label if its 2 x 2 quad (itself, right, lower and lower-right neighbour) holds that
    label and another one. The image's last row and column are repeated.
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
    """Compute F (objects, proposals) of two label maps (H, W); boundaries match up to `radius` pixels apart."""
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
    """Compute F from matched boundary pixels: `found` of a proposal's `n_fg`, `covered` of an object's `n_gt`."""
    precision = np.where(np.equal(n_fg, 0), 1.0, found / np.maximum(n_fg, 1))
    recall = np.where(np.equal(n_gt, 0), 1.0, covered / np.maximum(n_gt, 1))
    total = precision + recall
    return np.where(total == 0, 0.0, 2 * precision * recall / np.where(total == 0, 1, total))


def _matches(own: _Boundaries, others: _Boundaries, num_proposals: int, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Match the boundary of one object with those of all proposals; return pixels found and covered, (proposals,) int.

    Works on a canvas around the object's boundary with a margin of `radius`. Only proposals with a boundary pixel
    within `radius` of the object can cover any of it, so the second step tests only those.
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
    """Count the pixels of `own` that have a boundary pixel of each proposal within `radius`, (proposals,) int.

    Handles 64 proposals at a time, one bit each: the bitwise or over the disk around a pixel of `own` tells which
    proposals have a boundary pixel there.
    """
    covered = np.zeros(num_proposals, dtype=np.int64)
    slot = np.full(num_proposals + 1, -1)
    slot[labels] = np.arange(len(labels))
    slots, at, target = slot[others.label], others.y * shape[1] + others.x, own.y * shape[1] + own.x
    for start in range(0, len(labels), _WORD):
        batch = labels[start : start + _WORD]
        chosen = (slots >= start) & (slots < start + _WORD)
        kind = np.min_scalar_type(2 ** len(batch) - 1)  # narrow words take less time
        bits = np.zeros(shape[0] * shape[1], dtype=kind)
        np.bitwise_or.at(bits, at[chosen], kind.type(1) << (slots[chosen] - start).astype(kind))
        reached = _or_over_disk(bits, target, radius, shape[1])
        covered[batch - 1] = _count_bits(reached)[: len(batch)]
    return covered


def _or_over_disk(bits: np.ndarray, at: np.ndarray, radius: int, width: int) -> np.ndarray:
    """Compute the bitwise or of `bits`, a flat canvas `width` pixels wide, over the disk around each `at`: (n,).

    Each row of the disk x² + y² <= radius² is one run of pixels. Two overlapping runs whose length is a power of two
    cover it, so two look-ups a row are enough.
    """
    runs = [bits]
    while 2 ** len(runs) <= 2 * radius + 1:
        half, step = runs[-1], 2 ** (len(runs) - 1)
        runs.append(half[:-step] | half[step:])
    reached = np.zeros(len(at), dtype=bits.dtype)
    for y in range(-radius, radius + 1):
        reach = math.isqrt(radius**2 - y**2)
        power = (2 * reach + 1).bit_length() - 1
        first = at + (y * width - reach)
        reached |= runs[power][first]
        reached |= runs[power][first + (2 * reach + 1 - 2**power)]
    return reached


def _count_bits(words: np.ndarray) -> np.ndarray:
    """Count for each of 64 bits in how many of the `words` (n,), unsigned, it is set: (64,) int."""
    as_bytes = words.astype("<u8").view(np.uint8).reshape(-1, 8)
    return np.unpackbits(as_bytes, axis=1, bitorder="little").sum(axis=0, dtype=np.int64)


def _within(mask: np.ndarray, radius: int) -> np.ndarray:
    """Dilate an (H, W) bool mask with the disk x² + y² <= radius²."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.uint8)
    return cv2.dilate(mask.view(np.uint8), disk) > 0
