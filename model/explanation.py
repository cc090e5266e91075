"""Collect what the clusters of a video were made from, so that a viewer can explain its masks."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.network import SpatioTemporalNetwork

AVERAGED_TOKENS = 128  # of each cluster, for its mean row of attention; more change it little and take longer


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
        clustering: how they were made, one of `CLUSTERINGS`.
        read_queries: computes the queries (N, C) float32 of a frame, given its number, from the features that it holds.
    """

    grid: tuple[int, int]
    num_heads: int
    key_frames: list[int]
    keys: np.ndarray
    labels: np.ndarray
    centres: np.ndarray
    tau: float
    clustering: str
    read_queries: Callable[[int], np.ndarray]


@torch.no_grad()
def explain(
    network: SpatioTemporalNetwork, features: Tensor, *, key_frames: list[int], labels: np.ndarray,
    num_clusters: int, centres: Tensor | None, tau: float, clustering: str,
) -> Explanation:  # fmt: skip
    """Collect the `Explanation` of a video from its features (T, N, C) as the last block sees them.

    Args:
        centres: (K, F*N); None if the clusters were found over other columns than the key tokens. Then a centre is the
            mean row of tokens of its cluster.
    """
    device = network.blocks[-1].norm1.weight.device
    keys = network.keys(features[key_frames].flatten(0, 1).to(device))
    if centres is None:
        centres = average_rows(network, features, keys, labels, num_clusters)
    return Explanation(
        grid=labels.shape[1:], num_heads=len(keys), key_frames=key_frames,
        keys=_join_heads(keys).reshape(len(key_frames), -1, features.shape[-1]),
        labels=labels, centres=centres.cpu().numpy(), tau=tau, clustering=clustering,
        read_queries=lambda frame: _join_heads(network.queries(features[frame].to(device))),
    )  # fmt: skip


def average_rows(
    network: SpatioTemporalNetwork, features: Tensor, keys: Tensor, labels: np.ndarray, num_clusters: int
) -> Tensor:
    """Average the attention rows of each cluster, over at most `AVERAGED_TOKENS` of its tokens, evenly spread: (K, S).

    The row of a cluster without tokens is zero.
    """
    tokens, flat = features.flatten(0, 1), torch.from_numpy(labels.reshape(-1))
    centres = torch.zeros(num_clusters, keys.shape[1], device=keys.device)
    for cluster in range(num_clusters):
        members = (flat == cluster).nonzero()[:, 0]
        chosen = members[:: -(-len(members) // AVERAGED_TOKENS) or 1]
        if len(chosen):
            queries = network.queries(tokens[chosen].to(keys.device))
            centres[cluster] = network.attention_rows(queries, keys).mean(0)
    return centres


def _join_heads(parts: Tensor) -> np.ndarray:
    """Concatenate heads: (M, L, C/M) -> (L, C)."""
    return parts.transpose(0, 1).flatten(1).cpu().numpy()
