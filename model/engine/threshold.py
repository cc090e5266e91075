"""Search the threshold tau that gives a video a wanted number of clusters (docs/method.md, section 5)."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

# Smallest and largest number of clusters of a video for which its tau is kept. tau = 1 gave 5 to 21 clusters where its
# masks were good (dev-8 and Sprites, two backbones); half of it gave 37 to 166, twice it 1 or 2.
CLUSTER_RANGE = (5, 21)


@dataclass(frozen=True)
class SearchLimits:
    """Limits of the search for a threshold.

    Attributes:
        steepness: power of tau with which the number of clusters is assumed to fall; a wrong one costs trials.
        usual_tau: nats; the threshold that is tried first, since it suits most videos.
        min_tau: nats; smaller distances are rounding.
        max_trials: each trial clusters the whole video.
        inner_least, inner_most: factors on the wanted numbers; results at their edges are hardly better than those
            just outside, so the search goes on until a number lies well within.
    """

    steepness: float = 2.2
    usual_tau: float = 1.0
    min_tau: float = 1e-3
    max_trials: int = 8
    inner_least: float = 1.25
    inner_most: float = 1.5


LIMITS = SearchLimits()


@dataclass(frozen=True)
class Trial:
    """Clustering of a video at one threshold.

    Attributes:
        tau: threshold, in nats.
        num_clusters: number of clusters, 1 or more.
        fits: False if the memory budget was exceeded, so that the clustering was given up.
        centres: (K, S), if they are not kept elsewhere.
    """

    tau: float
    num_clusters: int
    fits: bool = True
    centres: Tensor | None = None


def cluster_at_wanted_number(
    cluster_at: Callable[[float], Trial], *, start: float, wanted: tuple[int, int] | None
) -> Trial:
    """Cluster a video at `start`, or at another threshold if `start` gives an unwanted number of clusters.

    A trial that does not fit the memory budget counts as too many clusters.

    Args:
        cluster_at: clusters the video at a threshold in nats; replaces the clusters of the call before.
        wanted: smallest and largest number of clusters; None keeps `start`.

    Returns:
        The latest trial, which is the one chosen.
    """
    if wanted is None:
        return cluster_at(start)
    least, most = wanted
    cluster_latest = functools.lru_cache(maxsize=1)(cluster_at)  # does not cluster at the same tau twice in a row

    def count(tau: float) -> int:
        trial = cluster_latest(tau)
        return trial.num_clusters if trial.fits else max(trial.num_clusters, most + 1)

    return cluster_latest(search_tau(count, start=start, least=least, most=most))


def search_tau(count: Callable[[float], int], *, start: float, least: int, most: int) -> float:
    """Search a threshold with `least` to `most` clusters.

    `start` is returned if it has as many, else the usual threshold if that has. Otherwise a number well within the
    limits is searched. Each trial is where a power law leads from the trial before, or the geometric mean of the
    thresholds known to be too low and too high.

    Args:
        count: number of clusters, 1 or more, at a threshold; called once for each.

    Returns:
        The threshold; if no trial is well within, the one nearest to the middle; if none is within, `start`.
    """
    at_start = count(start)
    if least <= at_start <= most:
        return start
    inner = math.ceil(LIMITS.inner_least * least), int(most / LIMITS.inner_most)
    inner = inner if inner[0] <= inner[1] else (least, most)
    middle = math.sqrt(inner[0] * inner[1])
    tau, low, high, within = LIMITS.usual_tau, 0.0, math.inf, []
    for trial in range(LIMITS.max_trials):
        number = count(tau) if tau != start else at_start
        if inner[0] <= number <= inner[1] or (trial == 0 and least <= number <= most):
            return tau
        if least <= number <= most:
            within.append((abs(math.log(number / middle)), tau))
        if number > inner[1]:
            low = tau
        else:
            high = tau
        tau *= (number / middle) ** (1 / LIMITS.steepness)
        if not low < tau < high:
            tau = math.sqrt(low * high)
        if tau < LIMITS.min_tau:
            break
    return min(within)[1] if within else start
