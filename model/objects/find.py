"""Turn the clusters of a video into objects (docs/method.md, section 8).

Clusters follow what tokens attend to. One object is often several clusters (a body and a neck), several objects of one
kind are one cluster, an object that turns around goes from one cluster to another, and some clusters are only the
boundary between two things. Six steps make objects of them, from the features of the last block (with one block, the
backbone's keys) and the positions of tokens alone:

    centred = CentredFeatures(features, grid)
    is_boundary = find_boundary_clusters(labels)
    labels = reassign_boundary_tokens(labels, is_boundary, centred)
    labels = merge_similar_clusters(labels, centred)
    labels = remove_flicker(labels)
    labels = split_tracks(labels, centred, clusters=foreground_clusters, boundaries=motion.boundaries)
    labels = join_successors(labels, centred, tracks.LIMITS.neighbourhood)

What the limits were chosen on stands in docs/method.md, section 8. They are cosines and shares; lengths and areas,
which scale with the grid; and a least number of frames, below which nothing is told from noise.
"""

import numpy as np

from model.objects import boundary, tracks
from model.objects.affinity import CentredFeatures
from model.objects.boundary import find_boundary_clusters, reassign_boundary_tokens
from model.objects.merge import merge_similar_clusters
from model.objects.motion import Motion
from model.objects.ranking import BACKGROUND_BORDER_RATIO, compute_border_ratios
from model.objects.succession import join_successors
from model.objects.tracks import split_tracks


def find_objects(
    labels: np.ndarray, centred: CentredFeatures, *, motion: Motion | None = None, reassign: bool = True,
    merge: bool = True, split: bool = True, join: bool = True,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Turn the clusters of a whole video into objects.

    Args:
        labels: (T, h, w) int >= 0, the cluster of every token.
        centred: features of the same tokens.
        motion: how the same tokens move, so that `split` also splits parts that move apart; None if it is not known.
        reassign: reassign the tokens of boundary clusters.
        merge: merge clusters that touch and look alike.
        split: give tracks that separate or move apart labels of their own.
        join: join labels that follow each other on one object.

    Returns:
        objects (T, h, w) int32, numbered from 0 without gaps; the background is among them.
        boundary_tokens (T, h, w) bool: tokens that were reassigned. They show parts of two things, so that
        `model.objects.upsampling` trusts them less.

    Raises:
        ValueError: the features are on another grid than the labels.
    """
    if tuple(centred.grid) != labels.shape[1:]:
        raise ValueError(f"labels are on a grid {labels.shape[1:]}, features on {tuple(centred.grid)}")
    boundary_tokens = np.zeros(labels.shape, dtype=bool)
    if reassign:
        limits = boundary.LIMITS.scale_to(centred.grid)
        reassigned = reassign_boundary_tokens(labels, find_boundary_clusters(labels, limits), centred, limits)
        boundary_tokens, labels = reassigned != labels, reassigned
    if merge:
        labels = merge_similar_clusters(labels, centred)
    labels = remove_flicker(labels)
    track_limits = tracks.LIMITS.scale_to(centred.grid)
    if split:
        foreground = np.flatnonzero(compute_border_ratios(labels) < BACKGROUND_BORDER_RATIO)
        boundaries = None if motion is None else motion.boundaries
        labels = split_tracks(labels, centred, clusters=foreground, boundaries=boundaries, limits=track_limits)
    if join:
        labels = join_successors(labels, centred, track_limits.neighbourhood)
    objects = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)
    return objects, boundary_tokens


def remove_flicker(labels: np.ndarray) -> np.ndarray:
    """Give each token whose labels one frame before and one frame after agree that label: (T, h, w) -> (T, h, w)."""
    steady = labels.copy()
    same = labels[:-2] == labels[2:]
    steady[1:-1][same] = labels[2:][same]
    return steady
