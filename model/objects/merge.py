"""Merge similar clusters that touch into one object (docs/method.md, section 8)."""

from dataclasses import dataclass

import numpy as np
import torch

from model.objects.affinity import CentredFeatures, compute_cosines, sum_features


@dataclass(frozen=True)
class MergeLimits:
    """Limits from which two touching clusters are one object.

    Attributes:
        min_cosine: cosine of centred features, both of the clusters' means and across their common boundary, at least;
            the same for both, since a cluster that changes gradually can reach it by only one of them.
        min_contact: share of the shorter boundary that the two have in common, at least; less is a chance contact.
    """

    min_cosine: float = 0.75
    min_contact: float = 0.2


LIMITS = MergeLimits()


@torch.no_grad()
def merge_similar_clusters(labels: np.ndarray, centred: CentredFeatures) -> np.ndarray:
    """Merge similar clusters that touch, the most similar pair first, until none is left.

    The similarity of two clusters is the smaller of two cosines of centred features: that of their means, and the mean
    over neighbouring tokens across their boundary. The second tells an edge from a gradual change.

    labels (T, h, w) int >= 0 -> labels (T, h, w), with gaps in the numbers.
    """
    sums, (pairs, across, contact) = sum_features(labels, centred), _measure_contacts(labels, centred)
    number, cosine = np.arange(len(sums)), compute_cosines(sums, pairs)
    while len(pairs):
        boundary = np.bincount(pairs.ravel(), contact.repeat(2))
        similarity = np.minimum(cosine, across / contact)
        in_contact = contact >= LIMITS.min_contact * boundary[pairs].min(1)
        best = np.where(in_contact, similarity, -np.inf).argmax()
        if not in_contact[best] or similarity[best] < LIMITS.min_cosine:
            break
        kept, merged = pairs[best]
        number[number == merged] = kept
        sums[kept] += sums[merged]
        pairs, first, (across, contact) = _sum_by_pair(np.where(pairs == merged, kept, pairs), across, contact)
        cosine, changed = cosine[first], (pairs == kept).any(1)
        cosine[changed] = compute_cosines(sums, pairs[changed])
    return number[labels]


def _measure_contacts(labels: np.ndarray, centred: CentredFeatures) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measure the contacts between the clusters (T, h, w) of a video.

    Returns:
        pairs (E, 2): clusters that touch, as `_sum_by_pair` returns them. across (E,): sum of cosines over all
        neighbouring tokens of each pair. contact (E,): number of these.
    """
    pairs, across, contact = np.empty((0, 2), dtype=np.int64), np.empty(0), np.empty(0)
    for frame, tokens in enumerate(torch.from_numpy(labels).long()):
        features = centred[frame]
        for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
            cosines = (features[one] * features[other]).sum(-1).flatten().numpy()
            touching = torch.stack([tokens[one], tokens[other]], dim=-1).flatten(0, 1).numpy()
            touching, _, (cosine_sums, counts) = _sum_by_pair(touching, cosines, np.ones(len(touching)))
            # Added up at once: small arrays kept of every frame would pin the memory of the large ones between them.
            pairs, _, (across, contact) = _sum_by_pair(
                np.concatenate([pairs, touching]), np.append(across, cosine_sums), np.append(contact, counts)
            )
    return pairs, across, contact


def _sum_by_pair(pairs: np.ndarray, *values: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Sum values (E,) over equal pairs (E, 2), in either order; pairs of equal numbers are dropped.

    Returns:
        Sorted pairs (F, 2), the lower number first; an index (F,) at which each stood; sums (F,) of each of `values`.
    """
    lower, upper = pairs.min(1), pairs.max(1)
    places = np.flatnonzero(lower < upper)
    base = upper.max(initial=0) + 1
    keys, first, inverse = np.unique((lower * base + upper)[places], return_index=True, return_inverse=True)
    totals = [np.bincount(inverse, value[places], minlength=len(keys)) for value in values]
    return np.stack(np.divmod(keys, base), axis=1), places[first], totals
