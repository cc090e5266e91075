"""Hold what the clusters of a video were made from, as `model.explanation` makes it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Explanation:
    """Queries, keys and centres of a video (docs/method.md, sections 4 and 5).

    With them the attention row of any token and its distance to every centre can be computed by `model.clustering`.

    Attributes:
        grid: (h, w), the token grid; N = h * w.
        num_heads: heads M of the last block, each with C/M neighbouring channels of queries and keys.
        key_frames: the F key frames.
        keys: (F, N, C) float32, keys of the last block, heads concatenated.
        labels: (T, h, w) int, the cluster of every token.
        centres: (K, F*N) float32, the centre of every cluster, a distribution over the tokens of all key frames.
        tau: threshold that the clusters were made with, in nats.
        clustering: how they were made, one of `utils.flags.choices.CLUSTERINGS`.
        read_queries: computes the queries (N, C) float32 of a frame, given its number, from the features that it holds,
            and (N, M) float32, for each head the logarithm of the sum over all key tokens of exp(q k / sqrt(C/M)). So
            an entry of a row can be computed without the others.
    """

    grid: tuple[int, int]
    num_heads: int
    key_frames: list[int]
    keys: np.ndarray
    labels: np.ndarray
    centres: np.ndarray
    tau: float
    clustering: str
    read_queries: Callable[[int], tuple[np.ndarray, np.ndarray]]
