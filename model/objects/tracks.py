"""Follow connected components of a cluster in time and split tracks that separate (docs/method.md, section 8)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from model.objects.affinity import CentredFeatures, Neighbourhood
from model.objects.components import Components, find_nearest, label_components
from model.objects.scale import count_at_least_one, scale_area, scale_length


@dataclass(frozen=True)
class TrackLimits:
    """Limits by which components are followed and tracks become objects.

    Those in tokens hold for the grid of `model.objects.scale`; `scale_to` gives those of another.

    Attributes:
        reach: tokens; the largest movement from one frame to the next.
        distance_scale, similarity_scale: tokens and difference of cosines, of the `Neighbourhood` that weighs votes.
        voters: tokens; best votes that count for each track, so that a small track has as many as a large one.
        min_component_size: tokens; smaller components are noise of the clustering, and no objects of their own.
        min_part_share: share of a track's largest component that another component of it needs to become a track.
        min_separate_share: share of the frames with both a track and its parent in which they are separate, at least;
            less is one object that breaks for a moment.
        min_separate_frames: frames; the same as a number, for short videos, and the least that an object is seen in.
        moving_frame_weight: what a frame counts in which two touch but move apart, beside 1 where they do not touch: a
            leg that swings now and then is no object. 0.4 and 1 are equal on the training videos of Sprites; 0.4 is
            better on dev-8.
        min_lifetime: share of the video's frames that an object is seen in, at least.
    """

    reach: int = 4
    distance_scale: float = 2.0
    similarity_scale: float = 0.05
    voters: int = 3
    min_component_size: int = 4
    min_part_share: float = 0.15
    min_separate_share: float = 0.1
    min_separate_frames: int = 3
    moving_frame_weight: float = 0.4
    min_lifetime: float = 0.1

    def scale_to(self, grid: tuple[int, int]) -> "TrackLimits":
        """Return the limits for a grid (h, w)."""
        return replace(
            self, reach=count_at_least_one(scale_length(self.reach, grid)),
            distance_scale=scale_length(self.distance_scale, grid),
            voters=count_at_least_one(scale_area(self.voters, grid)),
            min_component_size=count_at_least_one(scale_area(self.min_component_size, grid)),
        )  # fmt: skip

    @cached_property
    def neighbourhood(self) -> Neighbourhood:
        return Neighbourhood(
            reach=self.reach, distance_scale=self.distance_scale, similarity_scale=self.similarity_scale
        )


LIMITS = TrackLimits()
NEVER = np.iinfo(np.int32).max  # gap between two tracks that are in one frame together and so can never be one


@torch.no_grad()
def split_tracks(
    labels: np.ndarray, centred: CentredFeatures, *, clusters: np.ndarray, boundaries: np.ndarray | None = None,
    limits: TrackLimits = LIMITS,
) -> np.ndarray:  # fmt: skip
    """Split clusters whose components separate or move apart: give each of their tracks a label of its own.

    Components are followed through the video, also while they touch. Tracks that are seldom separate stay one, and
    tracks that are never in the same frame are one object that returns. Short-lived and tiny tracks stay with the
    largest track of their cluster.

    Args:
        labels: (T, h, w) int >= 0.
        clusters: the labels to split.
        boundaries: (T, h, w) bool, tokens that move apart from a neighbour (`model.objects.motion`); None for none.

    Returns:
        (T, h, w) int64; the largest track of a cluster keeps the cluster's label, the others get new ones.
    """
    result = labels.astype(np.int64)
    new = int(labels.max()) + 1
    for cluster in clusters:
        frames = label_frames(labels == cluster, boundaries, limits)
        if all(frame.count < 2 for frame in frames):
            continue
        tracks = join_successive_tracks(follow_components(frames, centred, limits))
        for track in _select_objects(tracks, limits)[1:]:
            result[tracks == track] = new
            new += 1
    return result


def _select_objects(tracks: np.ndarray, limits: TrackLimits) -> list[int]:
    """List the tracks (T, h, w) that can be objects, by falling size; the largest always can, and 0 is no track."""
    sizes, persistent = np.bincount(tracks.ravel()), find_persistent_labels(tracks, limits)
    sizes[0] = 0
    order = np.argsort(-sizes, kind="stable")
    return [int(track) for place, track in enumerate(order) if sizes[track] and (place == 0 or persistent[track])]


def find_persistent_labels(labels: np.ndarray, limits: TrackLimits = LIMITS) -> np.ndarray:
    """Find the labels (T, h, w) int >= 0 that live long enough and are large enough to be objects.

    Returns:
        (number of labels,) bool.
    """
    counts = np.stack([np.bincount(frame.ravel(), minlength=labels.max() + 1) for frame in labels])
    sizes, frames = counts.sum(0), (counts > 0).sum(0)
    lasting = frames >= max(limits.min_separate_frames, limits.min_lifetime * len(labels))
    return lasting & (sizes >= limits.min_component_size * frames)


def label_frames(
    mask: np.ndarray, boundaries: np.ndarray | None = None, limits: TrackLimits = LIMITS
) -> list[Components]:
    """Label the components of each frame of a mask (T, h, w) bool; boundaries as for `split_tracks`."""
    return [
        label_components(inside, edges, min_size=limits.min_component_size, min_share=limits.min_part_share)
        for inside, edges in zip(mask, [None] * len(mask) if boundaries is None else boundaries, strict=True)
    ]


def follow_components(frames: list[Components], centred: CentredFeatures, limits: TrackLimits = LIMITS) -> np.ndarray:
    """Follow the components of T frames: tracks (T, h, w) int64, from 1; 0 outside the components.

    Each token takes the track of near and similar tokens of the frame before. A component out of reach of all tracks
    starts a new one. A track in several components is divided: the smaller components become tracks of their own,
    children of it. Children that are seldom separate from their parent afterwards are merged back into it. The other
    children are followed backwards in time, to the frames before the separation.
    """
    tracks = np.zeros((len(frames), *frames[0].divided.shape), dtype=np.int64)
    tree = _TrackTree(limits)
    for frame, components in enumerate(frames):
        if frame:
            tracks[frame] = vote_for_tracks(
                tracks[frame - 1], components.divided > 0, centred, track_frame=frame - 1, token_frame=frame,
                limits=limits,
            )  # fmt: skip
        _fill_components(tracks[frame], components.divided, components.count, tree)
        _divide_tracks(tracks[frame], components.divided, components.count, tree, limits)
        tree.count_frame(tracks[frame], components)
    tracks = tree.merge_inseparable_tracks()[tracks]
    for frame in range(len(tracks) - 2, -1, -1):
        _extend_children_back(tracks, frame, tree, centred, limits)
    return tracks


class _TrackTree:
    """Remember the parent of each track and count the frames in which the two are separate; tracks count from 1."""

    def __init__(self, limits: TrackLimits):
        self.limits = limits
        self.parents = [0]  # by track; 0 where it has none
        self.common_frames, self.separate_frames = [0], [0.0]

    def start_track(self, parent: int = 0) -> int:
        """Add a track and return its number."""
        for values, value in ((self.parents, parent), (self.common_frames, 0), (self.separate_frames, 0.0)):
            values.append(value)
        return len(self.parents) - 1

    def ancestors(self, track: int) -> Iterator[int]:
        while track := self.parents[track]:
            yield track

    def count_frame(self, tracks: np.ndarray, components: Components) -> None:
        """Count a frame for each track (h, w) in it, 0 for none, by comparing it with its nearest ancestor there."""
        parts, whole = (_list_components(tracks, numbers) for numbers in (components.divided, components.connected))
        for track in parts:
            parent = next((other for other in self.ancestors(track) if other in parts), None)
            if parent is None:
                continue
            self.common_frames[track] += 1
            if whole[track].isdisjoint(whole[parent]):
                self.separate_frames[track] += 1
            elif parts[track].isdisjoint(parts[parent]):
                self.separate_frames[track] += self.limits.moving_frame_weight

    def merge_inseparable_tracks(self) -> np.ndarray:
        """Merge tracks that are seldom separate from their parent into it; returns the new number of each track.

        `ancestors` follows the merged tree from then on.
        """
        merged = list(range(len(self.parents)))
        for track in range(1, len(self.parents)):  # parents have smaller numbers than their children
            required = max(self.limits.min_separate_frames, self.limits.min_separate_share * self.common_frames[track])
            if self.parents[track] and self.separate_frames[track] < required:
                merged[track] = merged[self.parents[track]]
        self.parents = [merged[parent] for parent in self.parents]
        return np.array(merged)


def _list_components(tracks: np.ndarray, components: np.ndarray) -> dict[int, set[int]]:
    """List the components (h, w) in which each track (h, w) > 0 of a frame lies."""
    inside, base = tracks > 0, int(components.max()) + 1
    found: dict[int, set[int]] = {}
    for pair in np.unique(tracks[inside] * base + components[inside]).tolist():
        found.setdefault(pair // base, set()).add(pair % base)
    return found


def vote_for_tracks(
    tracks: np.ndarray, inside: np.ndarray, centred: CentredFeatures, *, track_frame: int, token_frame: int,
    limits: TrackLimits = LIMITS,
) -> np.ndarray:  # fmt: skip
    """Give tokens of one frame the tracks of near and similar tokens of the frame before or after.

    Each track's votes are the largest `voters` weights of its tokens within reach, added up.

    Args:
        tracks: (h, w) int of frame `track_frame`; 0 for none.
        inside: (h, w) bool of frame `token_frame`, the tokens that take a track.

    Returns:
        (h, w) int; 0 outside, and where no track is within reach.
    """
    known = np.unique(tracks[tracks > 0])
    if len(known) < 2 or not inside.any():
        return np.where(inside, find_nearest(tracks, reach=limits.reach), 0)
    neighbours, weights = limits.neighbourhood.compute_weights(
        centred, frame=token_frame, tokens=inside, other_frame=track_frame, others=tracks > 0
    )
    owners = np.concatenate([[0], tracks[tracks > 0]])[neighbours]
    votes = [_sum_largest(np.where(owners == track, weights, 0), limits.voters) for track in known]
    result = np.zeros_like(tracks)
    result[inside] = np.where(np.any(votes, axis=0), known[np.argmax(votes, axis=0)], 0)
    return result


def _sum_largest(values: np.ndarray, count: int) -> np.ndarray:
    """Sum the `count` largest values of each row (n, k): (n,)."""
    return np.partition(values, -count, axis=1)[:, -count:].sum(1)


def _fill_components(tracks: np.ndarray, components: np.ndarray, count: int, tree: _TrackTree) -> None:
    """Give every token of the components (h, w) 1 to `count` a track: the nearest within its component, or a new one.

    tracks: (h, w), changed in place.
    """
    for component in range(1, count + 1):
        inside = components == component
        if not tracks[inside].any():
            tracks[inside] = tree.start_track()
        elif not tracks[inside].all():
            tracks[inside] = find_nearest(np.where(inside, tracks, 0))[inside]


def _divide_tracks(
    tracks: np.ndarray, components: np.ndarray, count: int, tree: _TrackTree, limits: TrackLimits
) -> None:
    """Divide tracks (h, w) that lie in several components: all but the largest become children, if large enough.

    tracks: changed in place.
    """
    for track in np.unique(tracks[tracks > 0]):
        sizes = np.bincount(components[tracks == track], minlength=count + 1)
        largest = sizes.argmax()
        required = max(limits.min_component_size, limits.min_part_share * sizes[largest])
        for component in np.flatnonzero(sizes >= required):
            if component != largest:
                tracks[(components == component) & (tracks == track)] = tree.start_track(int(track))


def _extend_children_back(
    tracks: np.ndarray, frame: int, tree: _TrackTree, centred: CentredFeatures, limits: TrackLimits
) -> None:
    """Divide each track of a frame among itself and its children in the next frame; tracks (T, h, w), in place."""
    now, after = tracks[frame], tracks[frame + 1]
    later = np.unique(after[after > 0]).tolist()
    for track in np.unique(now[now > 0]).tolist():
        if children := [other for other in later if track in tree.ancestors(other)]:
            candidates = np.where(np.isin(after, [track, *children]), after, 0)
            found = vote_for_tracks(
                candidates, now == track, centred, track_frame=frame + 1, token_frame=frame, limits=limits
            )
            now[found > 0] = found[found > 0]


def join_successive_tracks(tracks: np.ndarray) -> np.ndarray:
    """Join tracks (T, h, w) that are never in the same frame, those with the shortest gap in time first."""
    seen = np.stack([np.bincount(frame.ravel(), minlength=tracks.max() + 1) > 0 for frame in tracks], axis=1)
    present = np.flatnonzero(seen.any(1))
    present = present[present > 0]
    joined = np.arange(len(seen))
    gaps = _measure_gaps(seen[present])
    while gaps.size:
        one, other = np.unravel_index(gaps.argmin(), gaps.shape)  # one < other: symmetric, the first is found
        if gaps[one, other] == NEVER:
            break
        joined[joined == present[other]] = present[one]
        compatible = np.maximum(gaps[one], gaps[other]) < NEVER
        gaps[one] = gaps[:, one] = np.where(compatible, np.minimum(gaps[one], gaps[other]), NEVER)
        gaps[other] = gaps[:, other] = NEVER
    return joined[tracks]


def _measure_gaps(seen: np.ndarray) -> np.ndarray:
    """Measure the smallest number of frames between the appearances of two tracks: seen (K, T) bool -> (K, K) int32.

    Symmetric. `NEVER` where both are in a frame together, as each track is with itself.
    """
    track, frame = np.nonzero(seen)  # of all tracks one after the other
    starts = np.searchsorted(track, np.arange(len(seen)))
    gaps = np.empty((len(seen), len(seen)), dtype=np.int32)
    for row, frames in zip(gaps, np.split(frame, starts)[1:], strict=True):
        times = np.arange(seen.shape[1])
        later = frames[np.searchsorted(frames, times).clip(max=len(frames) - 1)]
        earlier = frames[(np.searchsorted(frames, times, side="right") - 1).clip(min=0)]
        distance = np.minimum(abs(later - times), abs(times - earlier))
        row[:] = np.minimum.reduceat(distance[frame], starts)
    gaps[gaps == 0] = NEVER
    return gaps
