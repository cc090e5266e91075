"""Measure the distances between tokens of a window, and the thresholds that follow from their quantiles."""

import torch
from torch import Tensor

from model.engine.exact import symmetric_kl
from model.network import SpatioTemporalNetwork

# About the share that tau = 1 cuts on train_clips at s = 4.75, with ten to twelve clusters a clip (docs/results.md).
SHARE = 0.16

QUANTILES = (0.05, SHARE, 0.5)

LEAST = 1e-4  # nats: smaller distances, as of a block that has learned nothing, are rounding

WINDOW, MAX_WINDOWS, TOKENS = 3, 8, 384  # frames in a window, windows looked at, tokens taken of each


@torch.no_grad()
def window_distances(network: SpatioTemporalNetwork, features: Tensor, key_frames: list[int]) -> Tensor:
    """D between tokens of the same window, of a sample of a video's windows and of their tokens: (n,) in nats.

    Args:
        features: (T, N, C), as the last block sees them.
        key_frames: those that attention is paid to.
    """
    device = next(network.parameters()).device
    keys = network.keys(features[key_frames].flatten(0, 1).to(device))
    windows = features.split(WINDOW)
    chosen = torch.linspace(0, len(windows) - 1, min(len(windows), MAX_WINDOWS)).round().int().tolist()
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in chosen:
        tokens = windows[index].flatten(0, 1)
        tokens = tokens[torch.randperm(len(tokens), generator=generator)[:TOKENS]].to(device)
        rows = network.attention_rows(network.queries(tokens), keys)
        first, second = torch.triu_indices(len(rows), len(rows), offset=1, device=device)
        found.append(symmetric_kl(rows, rows)[first, second])
    return torch.cat(found)


def quantiles(distances: Tensor, shares: tuple[float, ...] = QUANTILES) -> list[float]:
    """The distances that so large shares of `distances` (n,) do not exceed; at least LEAST."""
    ordered = distances.sort().values
    return [max(ordered[min(int(share * len(ordered)), len(ordered) - 1)].item(), LEAST) for share in shares]
