"""Estimate how sure a mean over sequences is: bootstrap over sequences (Efron 1979), plain and paired."""

from typing import NamedTuple

import numpy as np

SAMPLES = 10_000
LEVEL = 0.95


class Interval(NamedTuple):
    """A measure of all sequences, and the ends of its interval: the middle `LEVEL` of the bootstrap samples."""

    value: float
    low: float
    high: float


def bootstrap_interval(sums: np.ndarray, weights: np.ndarray, *, samples: int = SAMPLES, seed: int = 0) -> Interval:
    """Compute the percentile interval of sum(sums) / sum(weights), drawing sequences with replacement.

    Sequences are drawn and not objects, because objects of one sequence are not independent.

    Args:
        sums, weights: (sequences,) float, at least two, weights above 0: what each sequence adds to the numerator and
            the denominator of the mean, such as the sum of the J of its objects, and their number.
    """
    from scipy.stats import bootstrap  # takes half a second, and scoring processes do without

    found = bootstrap(
        (sums, weights), _divide_sums, paired=True, n_resamples=samples, confidence_level=LEVEL, method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Interval(float(_divide_sums(sums, weights)), float(found.low), float(found.high))


def bootstrap_difference(
    first: np.ndarray, second: np.ndarray, weights: np.ndarray, *, samples: int = SAMPLES, seed: int = 0
) -> Interval:
    """Compute the interval of the mean of `second` minus that of `first`; each sample has the same sequences of both.

    Args:
        first, second: (sequences,) float, sums as in `bootstrap_interval`.
        weights: (sequences,) float, the weights of both.
    """
    return bootstrap_interval(np.subtract(second, first), weights, samples=samples, seed=seed)


def _divide_sums(sums: np.ndarray, weights: np.ndarray, axis: int = -1) -> np.ndarray:
    return sums.sum(axis=axis) / weights.sum(axis=axis)
