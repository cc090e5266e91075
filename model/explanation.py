"""Collect what the clusters of a video were made from, so that a viewer can explain its masks."""

import numpy as np
import torch
from torch import Tensor

from model.attention import mean_attention
from model.network import SpatioTemporalNetwork
from utils.explanation import Explanation

AVERAGED_TOKENS = 128  # of each cluster, for its mean row of attention; more change it little and take longer
SCORES_AT_ONCE = 1 << 22  # in memory, 16 MB


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

    def read_queries(frame: int) -> tuple[np.ndarray, np.ndarray]:
        queries = network.queries(features[frame].to(device))
        return _join_heads(queries), sum_scores(queries, keys).cpu().numpy()

    return Explanation(
        grid=labels.shape[1:], num_heads=len(keys), key_frames=key_frames,
        keys=_join_heads(keys).reshape(len(key_frames), -1, features.shape[-1]),
        labels=labels, centres=centres.cpu().numpy(), tau=tau, clustering=clustering,
        read_queries=read_queries,
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
            centres[cluster] = mean_attention(queries, keys).mean(0)
    return centres


@torch.no_grad()
def sum_scores(queries: Tensor, keys: Tensor) -> Tensor:
    """Compute log sum exp(q k / sqrt(C/M)) over all keys: (M, L, C/M), (M, S, C/M) -> (L, M)."""
    heads, count, width = keys.shape
    rows = max(SCORES_AT_ONCE // (heads * count), 1)
    parts = [torch.logsumexp(part @ keys.mT / width**0.5, dim=2) for part in queries.split(rows, dim=1)]
    return torch.cat(parts, dim=1).T


def _join_heads(parts: Tensor) -> np.ndarray:
    """Concatenate heads: (M, L, C/M) -> (L, C)."""
    return parts.transpose(0, 1).flatten(1).cpu().numpy()
