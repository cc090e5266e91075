"""Estimate how sure a mean over sequences is: bootstrap over sequences (Efron 1979), plain and paired.

`scipy.stats.bootstrap` gives the same intervals; importing it takes longer than all else that a scored run does again.
"""

from typing import NamedTuple

import numpy as np

SAMPLES = 10_000
BATCH = 1_000  # samples in memory at once
LEVEL = 0.95


class Interval(NamedTuple):
    """A measure of all sequences, and the ends of its interval: the middle `LEVEL` of the bootstrap samples."""

    value: float
    low: float
    high: float


def bootstrap_interval(sums: np.ndarray, weights: np.ndarray) -> Interval:
    """Compute the percentile interval of sum(sums) / sum(weights), drawing sequences with replacement.

    Sequences are drawn and not objects, because objects of one sequence are not independent.

    Args:
        sums, weights: (sequences,) float, at least two, weights above 0: what each sequence adds to the numerator and
            the denominator of the mean, such as the sum of the J of its objects, and their number.
    """
    sums, weights, generator = np.asarray(sums), np.asarray(weights), np.random.default_rng(0)
    means = np.empty(SAMPLES)
    for start in range(0, SAMPLES, BATCH):
        drawn = generator.integers(len(sums), size=(min(BATCH, SAMPLES - start), len(sums)))
        means[start : start + BATCH] = sums[drawn].sum(axis=-1) / weights[drawn].sum(axis=-1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(sums.sum() / weights.sum()), float(low), float(high))


def bootstrap_difference(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> Interval:
    """Compute the interval of the mean of `second` minus that of `first`; each sample has the same sequences of both.

    Args:
        first, second: (sequences,) float, sums as in `bootstrap_interval`.
        weights: (sequences,) float, the weights of both.
    """
    return bootstrap_interval(np.subtract(second, first), weights)
