"""Clusters of tokens to whole objects: outlines go, what looks alike and touches becomes one, what lies apart two.

Clusters follow what tokens attend to, so one object may be several clusters (a body and a neck), several objects of
a kind are one cluster, and some clusters are but outlines of others. All are mended from what is at hand, the features
that the last block attends with (with one block the backbone's keys) and where the tokens are:

    units = CentredUnits(features, grid)
    labels = give_away(labels, find_outlines(labels), units)
    labels = merge_alike(labels, units)         # by features inside and across the boundary
    labels = drop_flicker(labels)               # over time
    labels = split_apart(labels, units, which)  # pieces are followed from frame to frame by features and place

The limits were chosen on the training videos of Sprites with the embedded backbone, those of following pieces also with
dev-8 in view; they are cosines, shares and tokens, so nothing in them is of one data set.
"""

import numpy as np

from model.objects.affinity import CentredUnits
from model.objects.boundary import find_outlines, give_away
from model.objects.merge import merge_alike
from model.objects.ranking import border_ratios
from model.objects.tracks import split_apart

INSIDE = 1.0  # clusters whose border share is less than so many times an even one are split; others are background


def find_objects(
    labels: np.ndarray, units: CentredUnits, *, outlines: bool = True, merge: bool = True, split: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of objects from labels of clusters, of a whole video.

    Args:
        labels: (T, h, w) int cluster of every token, >= 0.
        units: of the video's tokens, made a frame at a time, on the grid of labels.
        outlines, merge, split: whether to give away outlines, and to do either of the others. Flicker is dropped in any
            case. In fewer than `APART_FRAMES` frames nothing is split.

    Returns:
        (T, h, w) int32, 0 to the number of objects - 1, none left out. What is background is among them.
        (T, h, w) bool, the tokens given away: what they show is part of two things, see `objects.upsampling`.

    Raises:
        ValueError: units are of another grid.
    """
    if tuple(units.grid) != labels.shape[1:]:
        raise ValueError(f"labels are on a grid {labels.shape[1:]}, units on {tuple(units.grid)}")
    unsure = np.zeros(labels.shape, dtype=bool)
    if outlines:
        given = give_away(labels, find_outlines(labels), units)
        unsure, labels = given != labels, given
    if merge:
        labels = merge_alike(labels, units)
    labels = drop_flicker(labels)
    if split:
        labels = split_apart(labels, units, which=np.flatnonzero(border_ratios(labels) < INSIDE))
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32), unsure


# ------------------------------------------------------------------ one object in several clusters


def drop_flicker(labels: np.ndarray) -> np.ndarray:
    """A token whose neighbours in time agree with one another takes their label: (T, h, w) -> the same."""
    steady = labels.copy()
    same = labels[:-2] == labels[2:]
    steady[1:-1][same] = labels[2:][same]
    return steady


# ------------------------------------------------------------------ several objects in one cluster
