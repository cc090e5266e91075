"""What does not hang on the threshold: of the labels that a video has at several thresholds, the most stable ones.

The greedy passes of METHOD.md 5 depend on the order of rows, so that an object that is whole at one threshold can be
one with what is behind it at the next. What is there at nearly all of them is no accident of one. (Regions that stay
the same over many thresholds are an old idea: Matas, Chum, Urban, Pajdla, BMVC 2002; there of an image's brightness.)

    stream.restart(*around(tau, 5))                     # `model.stream`: clusters at each
    labels, source = most_stable(maps)                  # of the clusters
    objects, unsure = stable_objects(maps, features)    # of the objects made of them at each
"""

from itertools import combinations
from typing import Any

import numpy as np
from torch import Tensor

from model.objects import find_objects, lasting, merge_alike
from model.outlines import give_away
from model.units import CentredUnits

# From the lowest threshold to the highest, in powers of 2: half of one to each side. Closer together they are too much
# alike; of twice as wide ones the highest make one of nearly everything.
OCTAVES = 1.0
# Of a label's tokens, that more stable labels leave it at least, for it to be one of the result. Of 0.5, 0.7, 0.8, 0.9
# and 0.95 none was better in all of dev-8 (two backbones, two engines) and the training videos of Sprites.
WHOLE = 0.8
DIGITS = 9  # of stabilities, so that equal ones are equal whatever the order in which they were averaged


def around(tau: float, count: int) -> list[float]:
    """So many thresholds, an odd number, evenly on a logarithmic scale, the lowest first, `tau` in their middle."""
    if count < 1 or count % 2 == 0:
        raise ValueError(f"{count} thresholds: no odd number")
    if count == 1:
        return [tau]
    return [tau * 2 ** (OCTAVES * (place / (count - 1) - 0.5)) for place in range(count)]


def stability(maps: list[np.ndarray]) -> list[np.ndarray]:
    """How stable each label of each map is: of maps (T, h, w) int >= 0, for each (number of its labels,) in [0, 1].

    The IoU, over the whole video, with the label of another map that it has the best one with, averaged over the other
    maps. 0 for a number that no token has; of a single map 1 for all others.
    """
    if len(maps) == 1:
        return [(np.bincount(maps[0].ravel()) > 0).astype(float)]
    sums = [np.zeros(int(labels.max()) + 1) for labels in maps]
    for one, other in combinations(range(len(maps)), 2):
        for which, best in zip((one, other), _best_ious(maps[one], maps[other]), strict=True):
            sums[which] += best
    return [(total / (len(maps) - 1)).round(DIGITS) for total in sums]


def most_stable(maps: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One map of the most stable labels of several.

    Labels of all maps, the most stable first, take their tokens, as long as WHOLE of them are not taken yet. What none
    takes of a label of the middle map is one by itself.

    Args:
        maps: (T, h, w) int >= 0 each, an odd number of them.

    Returns:
        labels (T, h, w) int32, 0 to their number - 1, none left out.
        source (T, h, w) int16: the index of the map whose label took each token, -1 where none did.
    """
    middle = len(maps) // 2
    scores = stability(maps)
    tokens = [_Tokens(labels) for labels in maps]
    which = np.repeat(np.arange(len(maps)), [len(its) for its in scores])
    label = np.concatenate([np.arange(len(its)) for its in scores])
    # Of equally stable ones first those of the middle map, so that maps that are alike give that one.
    order = np.lexsort((label, which, abs(which - middle), -np.concatenate(scores)))
    labels = np.full(maps[middle].size, -1, dtype=np.int32)
    source = np.full(maps[middle].size, -1, dtype=np.int16)
    count = 0
    for place in order:
        mine = tokens[which[place]][label[place]]
        free = mine[labels[mine] < 0]
        if len(free) and len(free) >= WHOLE * len(mine):
            labels[free], source[free] = count, which[place]
            count += 1
    for number in range(len(scores[middle])):
        mine = tokens[middle][number]
        left = mine[labels[mine] < 0]
        if len(left):
            labels[left] = count
            count += 1
    return labels.reshape(maps[middle].shape), source.reshape(maps[middle].shape)


def stable_objects(
    maps: list[np.ndarray], features: Tensor, *, max_objects: int | None = None, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """`find_objects` of clusters at several thresholds, and of these the most stable ones.

    What none of them takes and is too small or too short-lived to be an object is given to what is around it, as
    outlines are. Where there are more than `max_objects` then, those that touch are merged again.

    Args:
        maps: (T, h, w) int >= 0 each, an odd number of them.
        features: (T, h*w, C) what the last block sees, in memory or mapped from disk; read a frame at a time.
        max_objects, options: as `find_objects` takes them.

    Returns:
        As `find_objects` does. What is given away is unsure too.
    """
    units = CentredUnits(features, maps[0].shape[1:])
    made = [find_objects(labels, units, max_objects=max_objects, **options) for labels in maps]
    if len(made) == 1:
        return made[0]
    labels, source = most_stable([objects for objects, _ in made])
    unsure = np.zeros(labels.shape, dtype=bool)
    for which, (_, doubt) in enumerate(made):
        unsure |= doubt & (source == which)
    crumbs = ~lasting(labels)
    crumbs[labels[source >= 0]] = False
    objects = give_away(labels, crumbs, units)
    unsure |= objects != labels
    if max_objects and len(np.unique(objects)) > max_objects:
        objects = merge_alike(objects, units, most=max_objects)
    return np.unique(objects, return_inverse=True)[1].reshape(labels.shape).astype(np.int32), unsure


def _best_ious(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best IoU of each label of one map with any of another of the same shape, and the other way round.

    (K,), (L,) float64, 0 where there are none. As only pairs that meet are looked at, memory grows with tokens alone.
    """
    sizes, other_sizes = np.bincount(one.ravel()), np.bincount(other.ravel())
    pairs = one.ravel().astype(np.int64) * len(other_sizes) + other.ravel()
    if len(sizes) * len(other_sizes) <= len(pairs):  # counted, which is quicker than sorted
        counts = np.bincount(pairs)
        pairs = np.flatnonzero(counts)
        counts = counts[pairs]
    else:
        pairs, counts = np.unique(pairs, return_counts=True)
    label, other_label = np.divmod(pairs, len(other_sizes))
    iou = counts / (sizes[label] + other_sizes[other_label] - counts)
    best, other_best = np.zeros(len(sizes)), np.zeros(len(other_sizes))
    np.maximum.at(best, label, iou)
    np.maximum.at(other_best, other_label, iou)
    return best, other_best


class _Tokens:
    """The tokens of each label of a map, by their places in the flat map, rising."""

    def __init__(self, labels: np.ndarray):
        flat = labels.ravel()
        self.order = np.argsort(flat, kind="stable")
        self.ends = np.append(0, np.bincount(flat).cumsum())

    def __getitem__(self, label: int) -> np.ndarray:
        return self.order[self.ends[label] : self.ends[label + 1]]
