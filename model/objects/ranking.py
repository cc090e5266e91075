"""Rank the clusters or objects of a video and choose proposals, without any annotation (docs/method.md, section 9)."""

import numpy as np

from utils.scoring.protocols import MAX_PROPOSALS

# Share of a video's best objectness from which a label is foreground. Of 0.3, 0.5 and 0.7 the best on the training
# videos of Sprites; dev-8 was in view.
FOREGROUND_SHARE = 0.5


def by_size(labels: np.ndarray) -> np.ndarray:
    """Compute each label's share of the video's tokens: labels (T, h, w) int >= 0 -> (number of labels,) float64."""
    return np.bincount(labels.ravel()) / labels.size


def by_objectness(labels: np.ndarray) -> np.ndarray:
    """Compute the objectness of each label: labels (T, h, w) int >= 0 -> (number of labels,) float64 in [0, 1].

    The square root of a label's share of the video, times 1 minus its border ratio. Backgrounds reach the border all
    around and have objectness 0; labels of objectness 0 rank last, among themselves by size (see `rank`).
    """
    return np.clip(1 - compute_border_ratios(labels), 0, 1) * np.sqrt(by_size(labels))


def choose(kind: str, labels: np.ndarray, scores: np.ndarray, *, limit: int | None = None) -> np.ndarray:
    """Choose the proposals of a video for one kind of predictions (`utils.scoring.protocols`).

    Args:
        kind: name of the kind of predictions.
        labels: (T, h, w) int >= 0.
        scores: (number of labels,).
        limit: largest number of proposals, unless the kind allows fewer; without effect on `foreground`.

    Returns:
        (number of labels,) int32, the number of each label's proposal, as `rank` returns.
    """
    if kind == "foreground":
        return foreground(labels)
    limits = [number for number in (limit, MAX_PROPOSALS if kind == "davis" else None) if number]
    return rank(labels, scores, max_proposals=min(limits, default=None))


def rank(labels: np.ndarray, scores: np.ndarray, *, max_proposals: int | None) -> np.ndarray:
    """Rank labels by score, ties by size and then by number.

    A label is the same proposal in every frame, so identities are consistent over the video.

    Args:
        labels: (T, h, w) int >= 0, label of every token.
        scores: (number of labels,) float.
        max_proposals: number of labels that are kept; None keeps every label that some token has.

    Returns:
        (number of labels,) int32: the rank of each label, from 1; 0, background, for labels that are not kept.
    """
    sizes = np.bincount(labels.ravel())
    order = np.lexsort((-sizes, -scores))
    order = order[sizes[order] > 0][:max_proposals]
    ids = np.zeros(len(sizes), dtype=np.int32)
    ids[order] = np.arange(1, len(order) + 1)
    return ids


def foreground(labels: np.ndarray) -> np.ndarray:
    """Select the labels of a video with at least half of the best objectness as its foreground.

    If no label has any objectness, the foreground is the label with the smallest border ratio, or all that share it.

    Args:
        labels: (T, h, w) int >= 0, label of every token.

    Returns:
        (number of labels,) int32: 1 foreground, 0 background.
    """
    scores = by_objectness(labels)
    if not scores.any():
        scores = -compute_border_ratios(labels)
        return (scores == scores.max()).astype(np.int32)
    return (scores >= FOREGROUND_SHARE * scores.max()).astype(np.int32)


def describe(labels: np.ndarray, ids: np.ndarray, scores: np.ndarray) -> list[dict[str, float]]:
    """Describe each proposal, in order of ids: its score, share of the video's tokens, and number of frames.

    Args:
        labels: (T, h, w) int >= 0.
        ids: (number of labels,), as `rank` returns.
        scores: (number of labels,), as `rank` takes.
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


def compute_border_ratios(labels: np.ndarray) -> np.ndarray:
    """Divide each label's share of the tokens at the frame's border by its share of all tokens.

    The ratio is 0 for a label off the border and 1 for a label spread evenly.

    labels: (T, h, w) int >= 0. Returns (number of labels,) float64; inf for a number that no token has.
    """
    border = np.zeros(labels.shape[1:], dtype=bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    sizes = np.bincount(labels.ravel())
    at_border = np.bincount(labels[:, border].ravel(), minlength=len(sizes))
    return np.where(sizes > 0, at_border / np.maximum(sizes * border.mean(), 1e-9), np.inf)
