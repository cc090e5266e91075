"""Merge clusters that touch and look alike into one object (docs/method.md, section 8)."""

import numpy as np
import torch

from model.objects.affinity import CentredUnits

ALIKE = 0.75  # cosine of centred features, of two clusters' means and across their boundary, from which they are one

CONTACT = 0.2  # and the share of the smaller outline that they have in common, at least


@torch.no_grad()
def merge_alike(labels: np.ndarray, units: CentredUnits) -> np.ndarray:
    """Make one of clusters that touch and look alike, the most alike first, until none are.

    Two clusters are as much alike as the lesser of two cosines of features centred over the video: of their means, and
    of neighbouring tokens across their boundary, on average. The second tells an edge from a gradual change.

    labels (T, h, w) int >= 0 -> labels (T, h, w), some of the numbers left out.
    """
    sums, pairs, across, contact = _relations(labels, units)
    number, cosine = np.arange(len(sums)), _cosines(sums, pairs)
    while len(pairs):
        outline = np.bincount(pairs.ravel(), contact.repeat(2))
        alike = np.minimum(cosine, across / contact)
        joined_by_much = contact >= CONTACT * outline[pairs].min(1)
        best = np.where(joined_by_much, alike, -np.inf).argmax()
        if not joined_by_much[best] or alike[best] < ALIKE:
            break
        kept, joined = pairs[best]
        number[number == joined] = kept
        sums[kept] += sums[joined]
        pairs, first, (across, contact) = _gather(np.where(pairs == joined, kept, pairs), across, contact)
        cosine, changed = cosine[first], (pairs == kept).any(1)
        cosine[changed] = _cosines(sums, pairs[changed])
    return number[labels]


def _relations(labels: np.ndarray, units: CentredUnits) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of clusters: sums of centred unit features (K, C); the pairs (E, 2) of those that touch, as `_gather` gives them;
    over neighbouring tokens of each pair the sum of cosines (E,) and their number (E,)."""
    sums = torch.zeros(int(labels.max()) + 1, units.features.shape[-1], dtype=torch.float64)
    pairs, across, contact = np.empty((0, 2), dtype=np.int64), np.empty(0), np.empty(0)
    for frame, tokens in enumerate(torch.from_numpy(labels).long()):
        here = units[frame]
        sums.index_add_(0, tokens.flatten(), here.flatten(0, 1).double())
        for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
            cosines = (here[one] * here[other]).sum(-1).flatten().numpy()
            touching = torch.stack([tokens[one], tokens[other]], dim=-1).flatten(0, 1).numpy()
            touching, _, (sums_of_cosines, times) = _gather(touching, cosines, np.ones(len(touching)))
            # At once: small arrays kept of every frame would pin the memory of the large ones between them.
            pairs, _, (across, contact) = _gather(
                np.concatenate([pairs, touching]), np.append(across, sums_of_cosines), np.append(contact, times)
            )
    return sums.numpy(), pairs, across, contact


def _gather(pairs: np.ndarray, *values: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Every pair (E, 2) of two different numbers once, and the sums of its values (E,), whichever way round it stands.

    Returns:
        Sorted pairs (F, 2), the lower number first; an index (F,) at which each stood; sums (F,) of each of `values`.
    """
    lower, upper = pairs.min(1), pairs.max(1)
    places = np.flatnonzero(lower < upper)
    base = upper.max(initial=0) + 1
    keys, first, inverse = np.unique((lower * base + upper)[places], return_index=True, return_inverse=True)
    totals = [np.bincount(inverse, value[places], minlength=len(keys)) for value in values]
    return np.stack(np.divmod(keys, base), axis=1), places[first], totals


def _cosines(sums: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Cosines (E,) of pairs (E, 2) of rows of sums (K, C); 0 where one has no length."""
    one, other = sums[pairs[:, 0]], sums[pairs[:, 1]]
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(1) / np.maximum(lengths, 1e-12)
