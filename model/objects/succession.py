"""Join labels that follow each other on one object (docs/method.md, section 8)."""

from dataclasses import dataclass

import numpy as np
import torch

from model.objects.affinity import CentredFeatures, Neighbourhood, compute_cosines


@dataclass(frozen=True)
class SuccessionLimits:
    """Limits by which a label continues what another one was.

    They were chosen with dev-8 and the splits of Sprites in view; on the training videos of Sprites hardly a label
    follows another. Neither depends on the grid or the frame rate.

    Attributes:
        min_flow: share of the smaller label's tokens in a frame that must pass to the other label in all. 0.5 to 0.9
            differ by half a point of J on dev-8; with 0.7 and less, objects of a crowd of one kind are joined.
        max_difference: largest difference of the cosine of their mean features from 1, for labels that are never in
            the same frame.
        overlap_weight: what overlap in time takes from `max_difference`. With 0.4, dogs that run side by side were
            joined; with 0.8, labels that overlap by more than 0.625 never are.
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

    An object that changes its looks is taken over by another cluster, within some frames. Two labels are joined if

        the tokens that pass from one to the other, less those that pass back, are at least `min_flow` of the smaller
        label's mean number of tokens in a frame, and
        1 - cosine <= `max_difference` - `overlap_weight` overlap,

    where cosine is that of their mean features, and overlap the share of the smaller one's tokens that are there at the
    same time: the sum over frames of the smaller number of tokens, by the smaller sum. It is 1 for a small label beside
    a large one that is there all the time. The pair with most to spare in the second condition is joined first.

    Args:
        labels: (T, h, w) int >= 0.
        centred: features of the same tokens.
        neighbourhood: by which a token finds the one that it was in the frame before.

    Returns:
        (T, h, w), with gaps in the numbers.
    """
    flow = count_transitions(labels, centred, neighbourhood)
    sums = _sum_features(labels, centred)
    counts = np.stack([np.bincount(frame.ravel(), minlength=len(sums)) for frame in labels]).astype(float)
    number = np.arange(len(sums))
    while True:
        sizes = counts.sum(0) / np.maximum((counts > 0).sum(0), 1)
        is_enough = abs(flow - flow.T) >= limits.min_flow * np.minimum.outer(sizes, sizes)
        pairs = np.argwhere(np.triu(is_enough & (np.minimum.outer(sizes, sizes) > 0), 1))
        allowed = limits.max_difference - limits.overlap_weight * _measure_overlaps(counts, pairs)
        margins = allowed - (1 - compute_cosines(sums, pairs))
        if margins.max(initial=-1) < 0:
            return number[labels]
        kept, joined = pairs[margins.argmax()]
        number[number == joined] = kept
        sums[kept] += sums[joined]
        counts[:, kept] += counts[:, joined]
        counts[:, joined] = 0  # marks it as gone
        flow[kept] += flow[joined]
        flow[:, kept] += flow[:, joined]


def count_transitions(labels: np.ndarray, centred: CentredFeatures, neighbourhood: Neighbourhood) -> np.ndarray:
    """Count the tokens (K, K) that pass from one label of K to another between neighbouring frames.

    A token whose place had another label one frame before comes from the nearest and most similar token of that frame.

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


def _sum_features(labels: np.ndarray, centred: CentredFeatures) -> np.ndarray:
    """Sum the centred features of each label: (K, C)."""
    sums = torch.zeros(int(labels.max()) + 1, centred.features.shape[-1], dtype=torch.float64)
    for frame, tokens in enumerate(torch.from_numpy(labels).long()):
        sums.index_add_(0, tokens.flatten(), centred[frame].flatten(0, 1).double())
    return sums.numpy()


def _measure_overlaps(counts: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Measure the overlap in time (E,) of pairs (E, 2) of labels from their tokens in each frame (T, K)."""
    shared = [np.minimum(counts[:, one], counts[:, other]).sum() for one, other in pairs]
    return np.array(shared) / counts.sum(0)[pairs].min(1)
