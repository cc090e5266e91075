"""Rank the clusters or objects of a video and choose proposals, without any annotation (docs/method.md, section 9)."""

import numpy as np

from utils.scoring.protocols import MAX_PROPOSALS

# Of the best objectness of a video, from which a label is foreground: of 0.3, 0.5 and 0.7 the best on the training
# videos of Sprites, and on dev-8, which was in view.
BEST_SHARE = 0.5


def by_size(labels: np.ndarray) -> np.ndarray:
    """Share of the video's tokens that each label has: (number of labels,) float64. labels: (T, h, w) int >= 0."""
    return np.bincount(labels.ravel()) / labels.size


def by_objectness(labels: np.ndarray) -> np.ndarray:
    """How much of an object each label is: (number of labels,) float64 in [0, 1].

    The square root of its share of the video, times 1 minus its border ratio: backgrounds run out of the picture and
    have 0. Labels of 0 rank behind all others, among themselves by size (see `rank`).

    labels: (T, h, w) int >= 0.
    """
    return np.clip(1 - border_ratios(labels), 0, 1) * np.sqrt(by_size(labels))


def choose(kind: str, labels: np.ndarray, scores: np.ndarray, *, limit: int | None = None) -> np.ndarray:
    """Which proposal each label of a video is in a kind of predictions (`utils.scoring.protocols`): as `rank` returns.

    labels (T, h, w) int >= 0; scores (number of labels,); limit: proposals at most, where the kind does not
    allow fewer; `foreground` has none to be limited.
    """
    if kind == "foreground":
        return foreground(labels)
    limits = [number for number in (limit, MAX_PROPOSALS if kind == "davis" else None) if number]
    return rank(labels, scores, max_proposals=min(limits, default=None))


def rank(labels: np.ndarray, scores: np.ndarray, *, max_proposals: int | None) -> np.ndarray:
    """Renumber labels into proposals, the one with the highest score first, ties by size, then by number.

    A label is one proposal in every frame, so identities are consistent over the video.

    Args:
        labels: (T, h, w) int label of every token, >= 0.
        scores: (number of labels,) float.
        max_proposals: keep that many, the rest becomes background; None keeps every label that a token has.

    Returns:
        (number of labels,) int32: the rank of each, 1 for the first; 0, background, for those not kept.
    """
    sizes = np.bincount(labels.ravel())
    order = np.lexsort((-sizes, -scores))
    order = order[sizes[order] > 0][:max_proposals]
    ids = np.zeros(len(sizes), dtype=np.int32)
    ids[order] = np.arange(1, len(order) + 1)
    return ids


def foreground(labels: np.ndarray) -> np.ndarray:
    """One foreground out of the labels of a video: those with at least half the objectness of the best.

    Where all run out of the picture, and none has any, it is what has the smallest border ratio, or all that share it.

    Args:
        labels: (T, h, w) int label of every token, >= 0.

    Returns:
        (number of labels,) int32: 1 foreground, 0 background.
    """
    scores = by_objectness(labels)
    if not scores.any():
        scores = -border_ratios(labels)
        return (scores == scores.max()).astype(np.int32)
    return (scores >= BEST_SHARE * scores.max()).astype(np.int32)


def describe(labels: np.ndarray, ids: np.ndarray, scores: np.ndarray) -> list[dict[str, float]]:
    """What is known of each proposal, by id: its score, share of the video's tokens, and frames it is seen in.

    labels (T, h, w) int >= 0; ids, scores: (number of labels,), as `rank` returns and takes.
    """
    shares = by_size(labels)
    frames = np.sum([np.bincount(frame.ravel(), minlength=len(ids)) > 0 for frame in labels], axis=0)
    return [
        {
            "id": int(ids[label]),
            "score": round(float(scores[label]), 4),
            "share": round(float(shares[label]), 4),
            "frames": int(frames[label]),
        }
        for label in sorted(np.flatnonzero(ids), key=lambda label: ids[label])
    ]


def border_ratios(labels: np.ndarray) -> np.ndarray:
    """Each cluster's share of the border tokens over its share of all: 1 for one laid out evenly, 0 off the border.

    labels: (T, h, w) int >= 0. Returns (number of clusters,) float64; inf for a number that no token has.
    """
    border = np.zeros(labels.shape[1:], dtype=bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    sizes = np.bincount(labels.ravel())
    at_border = np.bincount(labels[:, border].ravel(), minlength=len(sizes))
    return np.where(sizes > 0, at_border / np.maximum(sizes * border.mean(), 1e-9), np.inf)
