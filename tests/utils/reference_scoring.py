"""An independent, slow scorer for the tests: the DAVIS toolkit's way, written from docs/method.md, section 6.

Every (object, proposal) pair of every frame is scored on its own: masks cut out of the label maps, both
boundaries drawn anew, both dilated over the whole image. It shares no code with `utils.scoring.metrics` or
`utils.scoring.score`, and exists to be compared with, for agreement and for time.
"""

import itertools

import cv2
import numpy as np


def region_similarity(gt: np.ndarray, mask: np.ndarray, void: np.ndarray) -> float:
    """J of two (H, W) bool masks outside `void`."""
    union = np.logical_and(np.logical_or(gt, mask), ~void).sum()
    return float(np.logical_and(np.logical_and(gt, mask), ~void).sum() / union) if union > 0 else 1.0


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """Boundary pixels, (H, W) bool, one neighbour at a time."""
    boundary = np.zeros(mask.shape, dtype=bool)
    boundary[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    boundary[:-1, :] |= mask[:-1, :] != mask[1:, :]
    boundary[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return boundary


def disk(radius: int) -> np.ndarray:
    """Structuring element x² + y² <= radius², uint8."""
    axis = np.arange(-radius, radius + 1)
    return (axis[:, None] ** 2 + axis[None] ** 2 <= radius**2).astype(np.uint8)


def boundary_f(gt: np.ndarray, mask: np.ndarray, void: np.ndarray, bound: float = 0.008) -> float:
    """F of two (H, W) bool masks outside `void`, by dilating both boundaries."""
    element = disk(int(bound) if bound >= 1 else int(np.ceil(bound * np.linalg.norm(gt.shape))))
    gt_boundary, fg_boundary = boundary_map(gt & ~void), boundary_map(mask & ~void)
    gt_wide = cv2.dilate(gt_boundary.astype(np.uint8), element) > 0
    fg_wide = cv2.dilate(fg_boundary.astype(np.uint8), element) > 0
    n_gt, n_fg = gt_boundary.sum(), fg_boundary.sum()
    if n_fg == 0 or n_gt == 0:
        precision, recall = float(n_fg == 0), float(n_gt == 0)
    else:
        precision = float((fg_boundary & gt_wide).sum() / n_fg)
        recall = float((gt_boundary & fg_wide).sum() / n_gt)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def frame_scores(
    gt_labels: np.ndarray, proposal_labels: np.ndarray, object_ids: list[int], num_proposals: int
) -> tuple[np.ndarray, np.ndarray]:
    """J and F of every pair of one frame, each (objects, proposals) float64."""
    j = np.zeros((len(object_ids), num_proposals))
    f = np.zeros_like(j)
    void = gt_labels == 255
    for row, object_id in enumerate(object_ids):
        for column in range(num_proposals):
            gt, mask = gt_labels == object_id, proposal_labels == column + 1
            j[row, column] = region_similarity(gt, mask, void)
            f[row, column] = boundary_f(gt, mask, void)
    return j, f


def best_assignment(values: np.ndarray) -> tuple[int, ...]:
    """The proposal of each object that maximises the sum of `values` (objects, proposals), by trying all."""
    objects, proposals = values.shape
    choices = itertools.permutations(range(proposals), objects)
    return max(choices, key=lambda choice: sum(values[k, p] for k, p in enumerate(choice)))


def matched_scores(j: np.ndarray, f: np.ndarray, protocol: str) -> tuple[np.ndarray, np.ndarray]:
    """J and F of the matched proposals, each (frames, objects), from tables (frames, objects, proposals)."""
    rows = np.arange(j.shape[1])
    quality = (j + f) / 2
    if protocol == "davis":
        choice = best_assignment(quality.mean(axis=0))
        return j[:, rows, choice], f[:, rows, choice]
    choices = [best_assignment(frame) for frame in quality]
    return (
        np.stack([frame[rows, choice] for frame, choice in zip(j, choices, strict=True)]),
        np.stack([frame[rows, choice] for frame, choice in zip(f, choices, strict=True)]),
    )
