"""Features of a video's tokens as unit vectors, and those of tokens near one another compared."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


class CentredUnits:
    """Features of a video, centred over it and of length 1, made frame by frame: units[t] is (h, w, C) float32.

    Args:
        features: (T, h*w, C), in memory or mapped from disk.
        grid: (h, w).
    """

    def __init__(self, features: Tensor, grid: tuple[int, int]):
        self.features, self.grid = features, grid
        self.mean = torch.stack([frame.mean(0, dtype=torch.float64) for frame in features]).mean(0).float()

    def __getitem__(self, frame: int) -> Tensor:
        return self._unit(self.features[frame]).unflatten(0, self.grid)

    def at(self, frame: int, mask: np.ndarray) -> Tensor:
        """Those of the tokens in a mask (h, w) bool, in its order: (n, C)."""
        return self._unit(self.features[frame][torch.from_numpy(mask).flatten()])

    def _unit(self, features: Tensor) -> Tensor:
        return F.normalize(features.float() - self.mean, dim=-1).cpu()


class Neighbourhood:
    """The places within `reach` tokens of each, and how much one there counts: less with distance, and unlike looks.

    weight = exp((cosine - 1) / looks - distance² / (2 place²))

    Args:
        reach, place: in tokens; a neighbour counts as exp(-1/2) of one here at a distance of `place`.
        looks: of 1 - cosine.
    """

    def __init__(self, *, reach: int, place: float, looks: float):
        self.reach, self.place, self.looks = reach, place, looks
        steps = np.indices((2 * reach + 1, 2 * reach + 1)).reshape(2, -1) - reach
        self.steps = steps[:, (steps**2).sum(0) <= reach**2]  # (2, k): down and to the right
        self.fall = (self.steps**2).sum(0) / (2 * place**2)

    def weights(
        self, units: CentredUnits, *, here: int, asking: np.ndarray, there: int, known: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """For each token of frame `here` in the mask `asking` the tokens of frame `there` in the mask `known` near it.

        asking, known: (h, w) bool. Returns near (n, k) int, numbers from 1 of tokens in `known`, in its order, 0 for
        none, whose weight means nothing; weights (n, k) float64.
        """
        rows, columns = np.nonzero(asking)
        places = rows[:, None] + self.reach + self.steps[0], columns[:, None] + self.reach + self.steps[1]
        near = np.pad(_numbered(known), self.reach)[places]
        cosine = _cosines_of_near(units.at(here, asking), units.at(there, known), near)
        return near, np.exp((cosine - 1) / self.looks - self.fall)


def _numbered(mask: np.ndarray) -> np.ndarray:
    """The tokens in a mask (h, w) bool numbered from 1 in its order, 0 outside."""
    return np.where(mask, mask.cumsum().reshape(mask.shape), 0)


def _cosines_of_near(units: Tensor, others: Tensor, near: np.ndarray, *, chunk: int = 256) -> np.ndarray:
    """Inner products (n, k) of units (n, C) with those of others (m, C) that near (n, k) names, from 1; 0 for 0.

    Both are in the order of the grid, so that the neighbours of a chunk stand close together: a matrix product of those
    is quicker than rows picked one by one, and does not grow with n * m.
    """
    index = torch.from_numpy(near) - 1
    found = torch.zeros(index.shape)
    for part, into, own in zip(index.split(chunk), found.split(chunk), units.split(chunk), strict=True):
        if (part >= 0).any():
            first = int(part[part >= 0].min())
            products = own @ others[first : int(part.max()) + 1].T
            into.copy_(products.take_along_dim((part - first).clamp_(min=0), dim=1)).mul_(part >= 0)
    return found.numpy()
