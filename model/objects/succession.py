"""Join labels that follow each other on one object (docs/method.md, section 8)."""

from dataclasses import dataclass

import numpy as np
import torch

from model.objects.affinity import CentredFeatures, Neighbourhood, compute_cosines, sum_features


@dataclass(frozen=True)
class SuccessionLimits:
    """Limits by which a label continues what another one was.

    They were chosen with dev-8 and with all splits of Sprites in view; in Sprites hardly a label follows another. None
    depends on the grid or the frame rate. In a long video an edge that drifts can reach `min_flow` by itself; the other
    two limits still hold there.

    Attributes:
        min_flow: tokens that must pass from one label to the other in all, by the smaller mean size of the two in the
            frames that show them. Less joins objects of one kind that cross.
        max_difference: largest difference of the cosine of their mean features from 1, for labels that are never in
            the same frame.
        overlap_weight: what overlap in time takes from `max_difference`. With 0.8, labels that overlap by more than
            0.625 are never joined; less joins dogs that run side by side.
    """

    min_flow: float = 0.9
    max_difference: float = 0.5
    overlap_weight: float = 0.8


LIMITS = SuccessionLimits()


@torch.no_grad()
def join_successors(
    labels: np.ndarray, centred: CentredFeatures, neighbourhood: Neighbourhood, limits: SuccessionLimits = LIMITS
) -> np.ndarray:
    """Join labels that follow each other on one object, such as the two views of a dog that turns around.

    When an object changes its looks, its tokens go from one cluster to another within some frames. Two labels are
    joined if

        the tokens that pass from one to the other (`count_transitions`), less those that pass back, are at least
        `min_flow` of the smaller of their mean numbers of tokens in a frame, and
        1 - cosine <= `max_difference` - `overlap_weight` overlap,

    where cosine is that of their mean features, and overlap is the sum over frames of the smaller number of tokens,
    divided by the smaller sum of tokens. It is 1 for a small label beside a large one that is there all the time. The
    pair for which the two sides of the second condition differ most is joined first, and measured as one label then.

    Args:
        labels: (T, h, w) int >= 0.
        centred: features of the same tokens.
        neighbourhood: finds the token of the frame before that a token was.

    Returns:
        (T, h, w), with gaps in the numbers.
    """
    flow = count_transitions(labels, centred, neighbourhood)
    sums = sum_features(labels, centred)
    counts = np.stack([np.bincount(frame.ravel(), minlength=len(sums)) for frame in labels], axis=1).astype(float)
    number = np.arange(len(sums))
    margins = np.stack([_measure_margins(label, flow, sums, counts, limits) for label in number])
    while margins.max() >= 0:
        kept, joined = sorted(np.unravel_index(margins.argmax(), margins.shape))
        number[number == joined] = kept
        for array in (flow, flow.T, sums, counts):
            array[kept] += array[joined]
            array[joined] = 0
        margins[joined] = margins[:, joined] = -np.inf
        margins[kept] = margins[:, kept] = _measure_margins(kept, flow, sums, counts, limits)
    return number[labels]


def _measure_margins(
    label: int, flow: np.ndarray, sums: np.ndarray, counts: np.ndarray, limits: SuccessionLimits
) -> np.ndarray:
    """Measure by how much a label and each other one are similar enough to be joined: (K,), -inf where too few pass.

    flow (K, K) as from `count_transitions`, sums (K, C) of features, counts (K, T) of tokens; 0 for labels not in use.
    """
    total = counts.sum(1)
    sizes = total / np.maximum((counts > 0).sum(1), 1)
    passed = abs(flow[label] - flow[:, label])
    others = np.flatnonzero((passed >= limits.min_flow * np.minimum(sizes, sizes[label])) & (total > 0))
    margins = np.full(len(total), -np.inf)
    if total[label]:
        others = others[others != label]
        overlaps = np.minimum(counts[others], counts[label]).sum(1) / np.minimum(total[others], total[label])
        cosines = compute_cosines(sums, np.stack([np.full_like(others, label), others], axis=1))
        margins[others] = limits.max_difference - limits.overlap_weight * overlaps - (1 - cosines)
    return margins


def count_transitions(labels: np.ndarray, centred: CentredFeatures, neighbourhood: Neighbourhood) -> np.ndarray:
    """Count the tokens that pass from each label (rows) to each other (columns) between neighbouring frames: (K, K).

    Only tokens whose place had another label one frame before are looked at. Such a token comes from the token of that
    frame, within the reach of `neighbourhood`, that has the largest weight.

    labels: (T, h, w) int >= 0.
    """
    size = int(labels.max()) + 1
    counts = np.zeros((size, size))
    everywhere = np.ones(labels.shape[1:], dtype=bool)
    for frame in range(1, len(labels)):
        before, changed = labels[frame - 1], labels[frame] != labels[frame - 1]
        if changed.any():
            neighbours, weights = neighbourhood.compute_weights(
                centred, frame=frame, tokens=changed, other_frame=frame - 1, others=everywhere
            )
            best = np.where(neighbours > 0, weights, -1).argmax(1)
            origins = before.ravel()[np.take_along_axis(neighbours, best[:, None], 1)[:, 0] - 1]
            np.add.at(counts, (origins, labels[frame][changed]), 1)
    return counts
