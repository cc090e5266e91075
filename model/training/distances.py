"""Measure the distances between tokens of a window, and the thresholds that follow from their quantiles."""

import torch
from torch import Tensor

from model.attention import mean_attention
from model.clustering import WINDOW, symmetric_kl
from model.network import SpatioTemporalNetwork

# Share of a window's pairs of tokens within the automatic threshold. Distances grow as attention sharpens, but this
# share hardly changes. tau = 1 has about this share on train_clips at s = 4.75, with ten to twelve clusters a clip
# (docs/results.md).
SHARE = 0.16

QUANTILES = (0.05, SHARE, 0.5)

MIN_DISTANCE = 1e-4  # nats; smaller distances, as of a block that has learned nothing, are rounding

MAX_WINDOWS, MAX_TOKENS = 8, 384  # windows of a video and tokens of a window that distances are sampled from


@torch.no_grad()
def window_distances(network: SpatioTemporalNetwork, features: Tensor, key_frames: list[int]) -> Tensor:
    """Measure distances between tokens of the same window, for a sample of windows and tokens: (n,) in nats.

    Args:
        features: (T, N, C) of a video, as the last block sees them.
        key_frames: indices of the key frames.
    """
    device = next(network.parameters()).device
    keys = network.keys(features[key_frames].flatten(0, 1).to(device))
    windows = features.split(WINDOW)
    chosen = torch.linspace(0, len(windows) - 1, min(len(windows), MAX_WINDOWS)).round().int().tolist()
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in chosen:
        tokens = windows[index].flatten(0, 1)
        tokens = tokens[torch.randperm(len(tokens), generator=generator)[:MAX_TOKENS]].to(device)
        rows = mean_attention(network.queries(tokens), keys)
        first, second = torch.triu_indices(len(rows), len(rows), offset=1, device=device)
        found.append(symmetric_kl(rows, rows)[first, second])
    return torch.cat(found)


def quantiles(distances: Tensor, shares: tuple[float, ...] = QUANTILES) -> list[float]:
    """Compute the quantiles of distances (n,), each at least MIN_DISTANCE."""
    ordered = distances.sort().values
    return [max(ordered[min(int(share * len(ordered)), len(ordered) - 1)].item(), MIN_DISTANCE) for share in shares]
