"""What does not hang on the threshold: of the labels that a video has at several thresholds, the most stable ones.

The greedy passes of METHOD.md 5 depend on the order of rows, so that an object that is whole at one threshold can be
one with what is behind it at the next. What is there at nearly all of them is no accident of one. (Regions that stay
the same over many thresholds are an old idea: Matas, Chum, Urban, Pajdla, BMVC 2002; there of an image's brightness.)

    stream.restart(*around(tau, 5))         # `model.stream`: clusters at each
    labels, source = most_stable(maps)      # of the clusters, or of the objects made of them, at each
"""

import numpy as np

OCTAVES = 1.0  # from the lowest threshold to the highest, in powers of 2: half of one to each side
# Of a label's tokens, that more stable labels leave it at least, for it to be one of the result. Of 0.5, 0.7, 0.8, 0.9
# and 0.95 none was better in all of dev-8 (two backbones, two engines) and the training videos of Sprites.
WHOLE = 0.8
MOST = 0.5  # of a label's tokens, that are in one of the result, for what is left of it to join that one


def around(tau: float, count: int) -> list[float]:
    """So many thresholds, an odd number, evenly on a logarithmic scale, the lowest first, `tau` in their middle."""
    if count < 1 or count % 2 == 0:
        raise ValueError(f"{count} thresholds: no odd number")
    steps = np.linspace(-OCTAVES / 2, OCTAVES / 2, count) if count > 1 else [0.0]
    return [float(tau * 2**step) for step in steps]


def stability(maps: list[np.ndarray]) -> list[np.ndarray]:
    """How stable each label of each map is: of maps (T, h, w) int >= 0, for each (number of its labels,) in [0, 1].

    The IoU, over the whole video, with the label of another map that it has the best one with, averaged over the other
    maps. 0 for a number that no token has; of a single map 1 for all others.
    """
    found = []
    for which, one in enumerate(maps):
        best = [_iou(one, other).max(1) for place, other in enumerate(maps) if place != which]
        found.append(np.mean(best or [np.bincount(one.ravel()) > 0], axis=0))
    return found


def most_stable(maps: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One map of the most stable labels of several.

    Labels of all maps, the most stable first, take their tokens, as long as WHOLE of them are not taken yet. Tokens
    that nothing takes have the label of the middle map: they join that of the result which most of its tokens (MOST)
    are in, or are one by themselves.

    Args:
        maps: (T, h, w) int >= 0 each, an odd number of them.

    Returns:
        labels (T, h, w) int32, 0 to their number - 1, none left out.
        source (T, h, w) int8: the index of the map that each token has its label from.
    """
    middle = len(maps) // 2
    scores = stability(maps)
    tokens = [_tokens_of(labels) for labels in maps]
    # Of equally stable ones first those of the middle map, so that maps that are alike give that one.
    candidates = [(which, label) for which in _from(middle, len(maps)) for label in range(len(scores[which]))]
    candidates.sort(key=lambda candidate: -scores[candidate[0]][candidate[1]])
    result = np.full(maps[middle].size, -1, dtype=np.int64)
    source = np.full(maps[middle].size, middle, dtype=np.int8)
    count = 0
    for which, label in candidates:
        mine = tokens[which][label]
        free = mine[result[mine] < 0]
        if len(free) and len(free) >= WHOLE * len(mine):
            result[free], source[free] = count, which
            count += 1
    left = result < 0
    if left.any():
        result[left] = _joined(maps[middle].ravel(), result, count)[maps[middle].ravel()[left]]
    labels = np.unique(result, return_inverse=True)[1].astype(np.int32)
    return labels.reshape(maps[middle].shape), source.reshape(maps[middle].shape)


def _iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU of the labels of one map with those of another of the same shape: (K, L) float64, 0 where neither has any."""
    table = _overlap(one.ravel(), other.ravel(), (int(one.max()) + 1, int(other.max()) + 1))
    return table / np.maximum(table.sum(1)[:, None] + table.sum(0) - table, 1)


def _overlap(one: np.ndarray, other: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """How many places each pair of numbers has in two arrays (n,) of them: `shape`, int64."""
    return np.bincount(one * np.int64(shape[1]) + other, minlength=shape[0] * shape[1]).reshape(shape)


def _tokens_of(labels: np.ndarray) -> list[np.ndarray]:
    """The tokens of each label, by their places in the flat map, rising."""
    flat = labels.ravel()
    return np.split(np.argsort(flat, kind="stable"), np.bincount(flat).cumsum()[:-1])


def _from(middle: int, count: int) -> list[int]:
    """0 to count - 1, from the middle outwards."""
    return sorted(range(count), key=lambda place: abs(place - middle))


def _joined(labels: np.ndarray, result: np.ndarray, count: int) -> np.ndarray:
    """Which label of the result (n,), -1 for none so far, tokens of each of `labels` (n,) join: (number of labels,).

    From `count` on it is one of their own.
    """
    sizes = np.bincount(labels)
    taken = _overlap(labels, result + 1, (len(sizes), count + 1))[:, 1:]
    own = count + np.arange(len(sizes))
    return np.where(taken.max(1) > MOST * sizes, taken.argmax(1), own)
