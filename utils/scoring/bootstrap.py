"""How sure a mean over sequences is: bootstrap over sequences (Efron 1979), plain and paired."""

from typing import NamedTuple

import numpy as np

SAMPLES = 10_000
LEVEL = 0.95


class Interval(NamedTuple):
    """value: of all sequences; low, high: the middle `LEVEL` of the bootstrap samples."""

    value: float
    low: float
    high: float


def interval(sums: np.ndarray, weights: np.ndarray, *, samples: int = SAMPLES, seed: int = 0) -> Interval:
    """Interval of sum(sums) / sum(weights), sequences drawn with replacement.

    Args:
        sums, weights: (sequences,) float, weights above 0: what each sequence adds to the numerator and the
            denominator of the mean, such as the J of its objects summed, and their number. Sequences are drawn, not
            objects: those of one sequence are not independent.
    """
    drawn = _draw(len(sums), samples, seed)
    return _interval(_ratio(sums, weights), _ratio(sums[drawn], weights[drawn]))


def paired_interval(
    first: np.ndarray, second: np.ndarray, weights: np.ndarray, *, samples: int = SAMPLES, seed: int = 0
) -> Interval:
    """Interval of the mean of `second` minus that of `first`, both with the same sequences in every sample.

    Args:
        first, second: (sequences,) float, sums as in `interval`. weights: (sequences,) float, of both.
    """
    return interval(np.subtract(second, first), weights, samples=samples, seed=seed)


def _draw(count: int, samples: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, (samples, count))


def _ratio(sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return sums.sum(axis=-1) / weights.sum(axis=-1)


def _interval(value: float, drawn: np.ndarray) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))
