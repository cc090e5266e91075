"""Normalise the features of a video and weigh neighbouring tokens by distance and feature similarity."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


class CentredFeatures:
    """Centre features over their video and scale them to length 1, a frame at a time.

    `centred[t]` is (h, w, C) float32.

    Args:
        features: (T, h*w, C), in memory or mapped from disk.
        grid: (h, w).
    """

    def __init__(self, features: Tensor, grid: tuple[int, int]):
        self.features, self.grid = features, grid
        self.mean = torch.stack([frame.mean(0, dtype=torch.float64) for frame in features]).mean(0).float()

    def __getitem__(self, frame: int) -> Tensor:
        return self._centre(self.features[frame]).unflatten(0, self.grid)

    def select(self, frame: int, mask: np.ndarray) -> Tensor:
        """Return the features (n, C) of the n tokens in a mask (h, w) bool, row by row."""
        return self._centre(self.features[frame][torch.from_numpy(mask).flatten()])

    def _centre(self, features: Tensor) -> Tensor:
        return F.normalize(features.float() - self.mean, dim=-1).cpu()


class Neighbourhood:
    """Weigh the tokens within `reach` of a token: less with distance, more with feature similarity.

    weight = exp((cosine - 1) / similarity_scale - distance² / (2 distance_scale²))

    Args:
        reach: largest distance of a neighbour, in tokens.
        distance_scale: distance, in tokens, at which the weight falls to exp(-1/2).
        similarity_scale: difference of the cosine from 1 at which the weight falls to exp(-1).
    """

    def __init__(self, *, reach: int, distance_scale: float, similarity_scale: float):
        self.reach, self.distance_scale, self.similarity_scale = reach, distance_scale, similarity_scale
        offsets = np.indices((2 * reach + 1, 2 * reach + 1)).reshape(2, -1) - reach
        self.offsets = offsets[:, (offsets**2).sum(0) <= reach**2]  # (2, k): rows down, columns to the right
        self.distance_penalty = (self.offsets**2).sum(0) / (2 * distance_scale**2)

    def compute_weights(
        self, centred: CentredFeatures, *, frame: int, tokens: np.ndarray, other_frame: int, others: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find and weigh, for n tokens of a frame, their neighbours among some tokens of another or the same frame.

        Args:
            tokens: (h, w) bool, the n tokens of `frame`.
            others: (h, w) bool, the tokens of `other_frame` that can be neighbours.

        Returns:
            neighbours (n, k) int: number of each neighbour within `others`, counted row by row from 1; 0 for none.
            weights (n, k) float64, meaningless where the number is 0.
        """
        rows, columns = np.nonzero(tokens)
        places = rows[:, None] + self.reach + self.offsets[0], columns[:, None] + self.reach + self.offsets[1]
        neighbours = np.pad(_number_tokens(others), self.reach)[places]
        cosines = _compute_token_cosines(centred.select(frame, tokens), centred.select(other_frame, others), neighbours)
        return neighbours, np.exp((cosines - 1) / self.similarity_scale - self.distance_penalty)


def _number_tokens(mask: np.ndarray) -> np.ndarray:
    """Number the tokens in a mask (h, w) bool from 1, row by row; 0 outside."""
    return np.where(mask, mask.cumsum().reshape(mask.shape), 0)


def _compute_token_cosines(features: Tensor, others: Tensor, neighbours: np.ndarray, *, chunk: int = 256) -> np.ndarray:
    """Compute the cosines (n, k) of features (n, C) with their neighbours among others (m, C), all of length 1.

    neighbours: (n, k), numbers of rows of `others` from 1; 0 for none, where the result is 0.

    Both are ordered row by row over the grid, so the neighbours of a chunk are close together in `others`. One matrix
    product of that range is faster than picking rows one by one, and its memory does not grow with n * m.
    """
    index = torch.from_numpy(neighbours) - 1
    cosines = torch.zeros(index.shape)
    for part, target, own in zip(index.split(chunk), cosines.split(chunk), features.split(chunk), strict=True):
        if (part >= 0).any():
            first = int(part[part >= 0].min())
            products = own @ others[first : int(part.max()) + 1].T
            target.copy_(products.take_along_dim((part - first).clamp_(min=0), dim=1)).mul_(part >= 0)
    return cosines.numpy()


def sum_features(labels: np.ndarray, centred: CentredFeatures) -> np.ndarray:
    """Sum the centred features of the tokens of each label: labels (T, h, w) int >= 0 -> (K, C) float64."""
    sums = torch.zeros(int(labels.max()) + 1, centred.features.shape[-1], dtype=torch.float64)
    for frame, tokens in enumerate(torch.from_numpy(labels).long()):
        sums.index_add_(0, tokens.flatten(), centred[frame].flatten(0, 1).double())
    return sums.numpy()


def compute_cosines(sums: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Compute the cosines (E,) of pairs (E, 2) of rows of sums (K, C); 0 where a row has no length."""
    one, other = sums[pairs[:, 0]], sums[pairs[:, 1]]
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(1) / np.maximum(lengths, 1e-12)
