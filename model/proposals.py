"""Which clusters of a video are object proposals, ranked (METHOD.md 6)."""

import numpy as np

BORDER_RATIO = 0.5  # a cluster laid out evenly over the picture has 1


def rank_clusters(labels: np.ndarray, *, max_proposals: int | None) -> np.ndarray:
    """Renumber clusters into proposals by size, the largest first.

    The simple order for now: number of tokens over the whole video, ties by cluster number. A cluster is one
    proposal in every frame, so identities are consistent over the video.

    Args:
        labels: (T, h, w) int cluster of every token, >= 0.
        max_proposals: keep that many, the rest becomes background; None keeps every cluster.

    Returns:
        (number of clusters,) int32: the rank of each, 1 for the largest; 0, background, for those not kept.
    """
    sizes = np.bincount(labels.ravel())
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0][:max_proposals]
    ids = np.zeros(len(sizes), dtype=np.int32)
    ids[order] = np.arange(1, len(order) + 1)
    return ids


def foreground_clusters(labels: np.ndarray) -> np.ndarray:
    """One foreground out of the clusters of a video, without labels: those that keep away from the border.

    Backgrounds run out of the picture, objects mostly stay in it. A cluster is foreground when its share of the border
    tokens (over all frames) is at most `BORDER_RATIO` times its share of all tokens. Where none is, the cluster with
    the smallest such ratio alone is.

    Args:
        labels: (T, h, w) int cluster of every token, >= 0.

    Returns:
        (number of clusters,) int32: 1 foreground, 0 background.
    """
    border = np.zeros(labels.shape[1:], dtype=bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    sizes = np.bincount(labels.ravel())
    at_border = np.bincount(labels[:, border].ravel(), minlength=len(sizes))
    share = border.mean()
    ratios = np.where(sizes > 0, at_border / np.maximum(sizes * share, 1e-9), np.inf)
    return (ratios <= max(BORDER_RATIO, ratios.min())).astype(np.int32)
