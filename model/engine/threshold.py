"""A threshold for the clustering from what is at hand, without labels: from distances, or from what it cuts.

Distances of attention distributions grow as attention sharpens, with training or with `--temperature`, and a fixed tau
then cuts ever more clusters. What stays about the same is the share of a window's pairs of tokens that belong together:
tau is the distance that SHARE of these pairs do not exceed. How many clusters that gives differs from video to video;
where their number matters, `tau_for` looks for the tau that gives it.
"""

import math
from collections.abc import Callable

STEEP = 2.2  # power of tau that the number of clusters is taken to fall with; where it does not, trials are lost
USUAL, LEAST_TAU, TRIALS = 1.0, 1e-3, 8  # nats, where the search begins and ends, and what it tries at most
# Of a video, at least and at most; beyond that its tau is taken to be wrong. So many there were where a tau did (dev-8
# and Sprites, two backbones, tau = 1); at half of it 37 to 166, at twice it 1 or 2.
CLUSTERS = (5, 21)


def tau_for(count: Callable[[float], int], *, start: float, least: int, most: int) -> float:
    """A threshold at which there are `least` to `most` clusters: `start` if it is one, else the usual one if that is.

    Else one is looked for from there that gives a number well within, as thresholds at the edges are hardly better than
    those just beyond. Each trial is where a power law leads from the one before, or the geometric middle of the
    thresholds known to be too low and too high. If none does, it is the one within that came nearest, and `start` if
    there is none either.

    Args:
        count: number of clusters, 1 or more, at a threshold; asked once for each.
    """
    at_start = count(start)
    if least <= at_start <= most:
        return start
    inner = math.ceil(1.25 * least), int(most / 1.5)
    inner = inner if inner[0] <= inner[1] else (least, most)
    wanted = math.sqrt(inner[0] * inner[1])
    tau, low, high, within = USUAL, 0.0, math.inf, []
    for trial in range(TRIALS):
        number = count(tau) if tau != start else at_start
        if inner[0] <= number <= inner[1] or (trial == 0 and least <= number <= most):
            return tau
        if least <= number <= most:
            within.append((abs(math.log(number / wanted)), tau))
        if number > inner[1]:
            low = tau
        else:
            high = tau
        tau *= (number / wanted) ** (1 / STEEP)
        if not low < tau < high:
            tau = math.sqrt(low * high)
        if tau < LEAST_TAU:
            break
    return min(within)[1] if within else start
