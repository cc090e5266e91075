"""Follow connected components of a cluster through a video and split those that part (docs/method.md, section 8)."""

from collections.abc import Iterator

import numpy as np
import torch
from scipy import ndimage

from model.objects.affinity import CentredUnits, Neighbourhood

REACH = 4  # tokens that something moves at most from frame to frame

NEXT = Neighbourhood(reach=REACH, place=2.0, looks=0.05)  # where a token may have been, and how much that place counts

VOTERS = 3  # of each track, the best ones: as many of a small one as of a large one beside it

SMALLEST = 4  # tokens of a piece that can be an object

SHARE = 0.15  # of the piece it parts from, at least, counts as parting

APART = 0.1  # of the frames that both are in they must be apart, and in at least

APART_FRAMES = 3  # so many

LIFE = 0.1  # of the video's frames that an object is in, at least

NEVER = np.iinfo(np.int32).max  # absence of two that are in a frame together


@torch.no_grad()
def split_apart(labels: np.ndarray, units: CentredUnits, *, which: np.ndarray) -> np.ndarray:
    """Give pieces of a cluster that live apart from one another labels of their own.

    Pieces are followed through the video, also while they touch; those that are seldom apart stay one, and those never
    seen at the same time are one object that returns. Pieces that are short-lived or tiny stay with the largest.

    Args:
        labels: (T, h, w) int >= 0.
        which: the clusters to split.

    Returns:
        (T, h, w) int64; the largest object of a cluster keeps its number, the others have new ones.
    """
    result = labels.astype(np.int64)
    new = int(labels.max()) + 1
    for cluster in which:
        mask = labels == cluster
        if all(ndimage.label(inside)[1] < 2 for inside in mask):
            continue
        tracks = join_absent(follow_pieces(mask, units))
        for track in _objects(tracks)[1:]:
            result[tracks == track] = new
            new += 1
    return result


def _objects(tracks: np.ndarray) -> list[int]:
    """The tracks (T, h, w) that can be objects, by size, the largest, whatever it is, first; 0 is none."""
    sizes, whole = np.bincount(tracks.ravel()), lasting(tracks)
    sizes[0] = 0
    order = np.argsort(-sizes, kind="stable")
    return [int(track) for place, track in enumerate(order) if sizes[track] and (place == 0 or whole[track])]


def lasting(labels: np.ndarray) -> np.ndarray:
    """Which labels (T, h, w) int >= 0 live long and are large enough to be objects: (number of labels,) bool."""
    seen = np.stack([np.bincount(frame.ravel(), minlength=labels.max() + 1) for frame in labels])
    sizes, frames = seen.sum(0), (seen > 0).sum(0)
    return (frames >= max(APART_FRAMES, LIFE * len(labels))) & (sizes >= SMALLEST * frames)


def follow_pieces(mask: np.ndarray, units: CentredUnits) -> np.ndarray:
    """Tracks of the pieces of a mask (T, h, w) bool: (T, h, w) int64, 1 and up in it and 0 outside.

    Tokens take the track of tokens of the frame before that are near and look alike. A piece far from all tracks
    begins one, and a track that falls into pieces is divided: the smaller ones become tracks of their own, children of
    it. Children that are hardly ever apart from it again are taken back; of the others it is found out where they were
    before.
    """
    tracks = np.zeros(mask.shape, dtype=np.int64)
    family = _Family()
    for frame, inside in enumerate(mask):
        pieces, count = ndimage.label(inside)
        if frame:
            tracks[frame] = _vote(tracks[frame - 1], inside, units, there=frame - 1, here=frame)
        _complete(tracks[frame], pieces, count, family)
        _divide(tracks[frame], pieces, count, family)
        family.look(tracks[frame], pieces)
    tracks = family.settled()[tracks]
    for frame in range(len(tracks) - 2, -1, -1):
        _hand_back(tracks, frame, family, units)
    return tracks


class _Family:
    """Which track parted from which, and how often the two were apart since. Tracks are numbered from 1."""

    def __init__(self):
        self.parents = [0]  # by track; 0 where it began by itself
        self.frames, self.apart = [0], [0]

    def begin(self, parent: int = 0) -> int:
        for values, value in ((self.parents, parent), (self.frames, 0), (self.apart, 0)):
            values.append(value)
        return len(self.parents) - 1

    def ancestors(self, track: int) -> Iterator[int]:
        while track := self.parents[track]:
            yield track

    def look(self, now: np.ndarray, pieces: np.ndarray) -> None:
        """Count a frame for each track (h, w) that is in it together with an ancestor: the nearest one in it."""
        inside = now > 0
        pairs = np.unique(np.stack([now[inside], pieces[inside]]), axis=1)
        held = {int(track): set(pairs[1, pairs[0] == track].tolist()) for track in np.unique(pairs[0])}
        for track, its_pieces in held.items():
            parent = next((other for other in self.ancestors(track) if other in held), None)
            if parent is not None:
                self.frames[track] += 1
                self.apart[track] += its_pieces.isdisjoint(held[parent])

    def settled(self) -> np.ndarray:
        """What each track is once children that were seldom apart are taken back; they are no parents any more."""
        becomes = list(range(len(self.parents)))
        for track in range(1, len(self.parents)):  # parents have smaller numbers than their children
            if self.parents[track] and self.apart[track] < max(APART_FRAMES, APART * self.frames[track]):
                becomes[track] = becomes[self.parents[track]]
        self.parents = [becomes[parent] for parent in self.parents]
        return np.array(becomes)


def _vote(tracks: np.ndarray, inside: np.ndarray, units: CentredUnits, *, there: int, here: int) -> np.ndarray:
    """The track of each token `inside` (h, w) frame `here`, by those (h, w) of frame `there`, one before or after.

    The tokens of a track within REACH vote for it, by how near they are and how much they look alike. 0 where none is.
    """
    known = np.unique(tracks[tracks > 0])
    if len(known) < 2 or not inside.any():
        return np.where(inside, _nearest(tracks, reach=REACH), 0)
    near, weight = NEXT.weights(units, here=here, asking=inside, there=there, known=tracks > 0)
    owners = np.concatenate([[0], tracks[tracks > 0]])[near]
    votes = [_sum_of_largest(np.where(owners == track, weight, 0), VOTERS) for track in known]
    result = np.zeros_like(tracks)
    result[inside] = np.where(np.any(votes, axis=0), known[np.argmax(votes, axis=0)], 0)
    return result


def _sum_of_largest(values: np.ndarray, count: int) -> np.ndarray:
    """Sum of the `count` largest values of each row (n, k): (n,)."""
    return np.partition(values, -count, axis=1)[:, -count:].sum(1)


def _complete(now: np.ndarray, pieces: np.ndarray, count: int, family: _Family) -> None:
    """Give every token in `pieces` (h, w), numbered 1 to `count`, a track: the nearest in its piece, or a new one."""
    for piece in range(1, count + 1):
        inside = pieces == piece
        if not now[inside].any():
            now[inside] = family.begin()
        elif not now[inside].all():
            now[inside] = _nearest(np.where(inside, now, 0))[inside]


def _divide(now: np.ndarray, pieces: np.ndarray, count: int, family: _Family) -> None:
    """Where a track (h, w) is in several pieces, let all but the largest of them be children of it, if large enough."""
    for track in np.unique(now[now > 0]):
        sizes = np.bincount(pieces[now == track], minlength=count + 1)
        largest = sizes.argmax()
        for piece in np.flatnonzero(sizes >= max(SMALLEST, SHARE * sizes[largest])):
            if piece != largest:
                now[(pieces == piece) & (now == track)] = family.begin(int(track))


def _hand_back(tracks: np.ndarray, frame: int, family: _Family, units: CentredUnits) -> None:
    """Divide each track of a frame among itself and its children, by where they are in the next; tracks (T, h, w)."""
    now, after = tracks[frame], tracks[frame + 1]
    later = np.unique(after[after > 0]).tolist()
    for track in np.unique(now[now > 0]).tolist():
        if children := [other for other in later if track in family.ancestors(other)]:
            known = np.where(np.isin(after, [track, *children]), after, 0)
            found = _vote(known, now == track, units, there=frame + 1, here=frame)
            now[found > 0] = found[found > 0]


def _nearest(values: np.ndarray, *, reach: float = np.inf) -> np.ndarray:
    """The nearest value above 0 at every place of (h, w), 0 where none is within `reach`."""
    if not values.any():
        return np.zeros_like(values)
    distance, (row, column) = ndimage.distance_transform_edt(values == 0, return_indices=True)
    return np.where(distance <= reach, values[row, column], 0)


def join_absent(tracks: np.ndarray) -> np.ndarray:
    """Tracks (T, h, w) that are never in a frame together become one, those with the shortest absence first."""
    seen = np.stack([np.bincount(frame.ravel(), minlength=tracks.max() + 1) > 0 for frame in tracks], axis=1)
    present = np.flatnonzero(seen.any(1))
    present = present[present > 0]
    becomes = np.arange(len(seen))
    absence = _absences(seen[present])
    while absence.size:
        one, other = np.unravel_index(absence.argmin(), absence.shape)  # one < other: symmetric, the first is found
        if absence[one, other] == NEVER:
            break
        becomes[becomes == present[other]] = present[one]
        apart = np.maximum(absence[one], absence[other]) < NEVER
        absence[one] = absence[:, one] = np.where(apart, np.minimum(absence[one], absence[other]), NEVER)
        absence[other] = absence[:, other] = NEVER
    return becomes[tracks]


def _absences(seen: np.ndarray) -> np.ndarray:
    """Frames from where one track is seen to where another is, at least: seen (K, T) bool -> (K, K) int32, symmetric.

    `NEVER` where both are in a frame together, as each is with itself.
    """
    track, frame = np.nonzero(seen)  # of all tracks one after the other
    starts = np.searchsorted(track, np.arange(len(seen)))
    absence = np.empty((len(seen), len(seen)), dtype=np.int32)
    for row, frames in zip(absence, np.split(frame, starts)[1:], strict=True):
        here = np.arange(seen.shape[1])
        later = frames[np.searchsorted(frames, here).clip(max=len(frames) - 1)]
        earlier = frames[(np.searchsorted(frames, here, side="right") - 1).clip(min=0)]
        distance = np.minimum(abs(later - here), abs(here - earlier))
        row[:] = np.minimum.reduceat(distance[frame], starts)
    absence[absence == 0] = NEVER
    return absence
