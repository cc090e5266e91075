"""Label map of a video to object proposals, ranked and at the size of the annotation (METHOD.md 6)."""

import numpy as np
import torch
from torch.nn import functional as F


def rank_clusters(labels: np.ndarray, *, max_proposals: int | None) -> np.ndarray:
    """Renumber clusters into proposals by size, the largest first.

    The simple order for now: number of tokens over the whole video, ties by cluster number. A cluster is one
    proposal in every frame, so identities are consistent over the video.

    Args:
        labels: (T, h, w) int cluster of every token, >= 0.
        max_proposals: keep that many, the rest becomes background; None keeps every cluster.

    Returns:
        (T, h, w) int32: 1..K by rank, 0 background.
    """
    sizes = np.bincount(labels.ravel())
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0][:max_proposals]
    ids = np.zeros(len(sizes), dtype=np.int32)
    ids[order] = np.arange(1, len(order) + 1)
    return ids[labels]


def upsample_labels(labels: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Nearest upsampling of one frame's label map (h, w) int32 to (height, width) int32."""
    resized = F.interpolate(torch.from_numpy(labels)[None, None].double(), size=(height, width), mode="nearest")
    return resized[0, 0].to(torch.int32).numpy()
