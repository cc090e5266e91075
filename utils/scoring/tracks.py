"""Compute class-agnostic video AP and AR of tubes (masks through time), and count identity switches.

    sequences = []
    for video in videos:
        table = TubeTable()
        for gt, labels in video:                      # two (H, W) label maps, one frame in memory at a time
            table.add(count_shared_pixels(gt, labels))
        sequences.append(table.tracks())
    evaluate_tracks(sequences)

AP and AR are those of YouTube-VIS (Yang, Fan and Xu, "Video Instance Segmentation", ICCV 2019) and of its evaluation
code, with all categories taken as one (`useCats = 0`, as VideoCutLER does): COCO's, with the IoU of whole tubes
in place of that of masks, and the area ranges below. Identity switches are the mismatches of CLEAR MOT (Bernardin and
Stiefelhagen, "Evaluating Multiple Object Tracking Performance", 2008).
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from utils.scoring.slots import EMPTY, Contingency, add_tables

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
MAX_DETS = (1, 10, 100)
# Mean pixels of a tube in the frames where it is seen. YouTube-VIS moved COCO's limits of 32² and 96².
AREA_RANGES = {
    "AP": (0, 1e10),
    "AP_small": (0, 128**2),
    "AP_medium": (128**2, 256**2),
    "AP_large": (256**2, 1e10),
}
MIN_OVERLAP = 0.5  # of an object and the proposal that it is matched with, to count identity switches
_RECALLS = np.linspace(0, 1, 101)


class Tracks(NamedTuple):
    """Tubes of one sequence: `iou` (objects, proposals), `scores` (proposals,), and mean areas in pixels."""

    iou: np.ndarray
    scores: np.ndarray
    object_areas: np.ndarray
    proposal_areas: np.ndarray


class TubeTable:
    """Collect the overlaps of all objects' and proposals' tubes frame by frame, in memory of objects x proposals.

    Objects and proposals count from 1; 0 is background in both label maps. Void is left out of tubes and areas. A
    tube exists if it is seen outside void in some frame.
    """

    def __init__(self):
        self._total = EMPTY
        self._object_frames: Counter[int] = Counter()
        self._proposal_frames: Counter[int] = Counter()

    def add(self, frame: Contingency) -> None:
        """Add the next frame: the `count_shared_pixels` of its two label maps."""
        self._total = add_tables(self._total, frame)
        self._object_frames.update(frame.objects.tolist())
        self._proposal_frames.update(frame.segments.tolist())

    def tracks(self) -> Tracks:
        """Return the sequence for `evaluate_tracks`, objects and proposals by ascending id.

        Ids of proposals are ranks: id i has the score 1 / i.
        """
        objects, proposals, counts = self._total
        return Tracks(
            iou=self._total.iou()[:, proposals > 0],
            scores=1 / proposals[proposals > 0],
            object_areas=_mean_areas(objects, counts.sum(axis=1), self._object_frames),
            proposal_areas=_mean_areas(proposals, counts.sum(axis=0), self._proposal_frames),
        )


def _mean_areas(ids: np.ndarray, pixels: np.ndarray, frames: Counter[int]) -> np.ndarray:
    """Compute the mean area of each id above 0 over the frames in which it occurs."""
    seen = np.array([frames[i] for i in ids[ids > 0].tolist()], dtype=np.int64)
    return pixels[ids > 0] / seen


def evaluate_tracks(
    sequences: Sequence[Tracks], *, thresholds: Sequence[float] = THRESHOLDS, max_dets: Sequence[int] = MAX_DETS
) -> dict[str, float]:
    """Compute AP, AP50, AP75, AP_small, AP_medium, AP_large and AR@k for each k of `max_dets`, over a dataset.

    In each sequence the `max(max_dets)` best proposals, best first, each take the free object of highest IoU at or
    above the threshold. AP: precision at 101 recalls, made non-increasing, averaged over these and the IoU
    `thresholds`. AR@k: recall with the k best proposals of every sequence, averaged over `thresholds`. Proposals of
    equal score keep their order: of ids within a sequence, of `sequences` among these; so where scores are only ranks,
    AP depends a little on the order of sequences. Proposals in sequences without objects are false positives.

    In an area range, objects outside it are neither counted nor missed, and proposals that match one of them, or
    match none and lie outside it themselves, are ignored. A value is NaN where there is no object, and AP50 or AP75
    where `thresholds` lacks it. Raises `ValueError` without sequences.
    """
    if not sequences:
        raise ValueError("there are no sequences to evaluate")
    thresholds, most = np.asarray(thresholds, dtype=np.float64), max(max_dets)
    results = {}
    for name, limits in AREA_RANGES.items():
        matches = [_match(sequence, thresholds, limits, most) for sequence in sequences]
        precision, _ = _curves(matches, most)
        results[name] = float(precision.mean())
        if name == "AP":
            for percent in (50, 75):
                at = np.isclose(thresholds, percent / 100)
                results[f"AP{percent}"] = float(precision[at].mean()) if at.any() else float("nan")
            recalls = {f"AR@{k}": float(_curves(matches, k)[1].mean()) for k in sorted(max_dets)}
    return results | recalls


class _Matches(NamedTuple):
    """Proposals of a sequence, best first: `scores` (D,); `true` and `ignored` are (thresholds, D) bool."""

    scores: np.ndarray
    true: np.ndarray
    ignored: np.ndarray
    num_objects: int


def _match(tracks: Tracks, thresholds: np.ndarray, limits: tuple[float, float], most: int) -> _Matches:
    """Match proposals with objects greedily, at all thresholds at once."""
    order = np.argsort(-tracks.scores, kind="stable")[:most]
    outside = _outside(tracks.object_areas, limits)
    iou = tracks.iou[:, order].T
    # As in COCO's code: an IoU of 1 must pass a threshold of 1 whatever the rounding.
    enough = iou[:, None] >= np.minimum(thresholds, 1 - 1e-10)[:, None]
    free = np.ones((len(thresholds), len(outside)), dtype=bool)
    found = np.zeros((len(thresholds), len(order)), dtype=bool)
    ignored = np.repeat(_outside(tracks.proposal_areas[order], limits)[None], len(thresholds), axis=0)
    for d in np.flatnonzero(enough.any(axis=(1, 2))):
        candidates = enough[d] & free
        counted = candidates & ~outside
        candidates = np.where(counted.any(axis=1, keepdims=True), counted, candidates)
        hit = candidates.any(axis=1)
        # Of equal IoUs COCO takes the last, hence the search from the end.
        best = len(outside) - 1 - np.where(candidates, iou[d], -1)[:, ::-1].argmax(axis=1)
        free[hit, best[hit]] = False
        found[hit, d] = True
        ignored[hit, d] = outside[best[hit]]
    return _Matches(tracks.scores[order], found & ~ignored, ignored, int(np.count_nonzero(~outside)))


def _outside(areas: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return (areas < limits[0]) | (areas > limits[1])


def _curves(matches: Sequence[_Matches], most: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute precision (thresholds, 101) and highest recall (thresholds,) of the `most` best proposals a sequence."""
    scores = np.concatenate([m.scores[:most] for m in matches])
    order = np.argsort(-scores, kind="stable")
    true = np.concatenate([m.true[:, :most] for m in matches], axis=1)[:, order]
    false = ~true & ~np.concatenate([m.ignored[:, :most] for m in matches], axis=1)[:, order]
    num_objects = sum(m.num_objects for m in matches)
    if not num_objects:
        return np.full((len(true), len(_RECALLS)), np.nan), np.full(len(true), np.nan)
    hits, misses = true.cumsum(axis=1), false.cumsum(axis=1)
    recall, precision = hits / num_objects, hits / np.maximum(hits + misses, 1)
    # The best precision at this recall or a higher one; none beyond the last proposal.
    precision = np.maximum.accumulate(np.pad(precision, ((0, 0), (0, 1)))[:, ::-1], axis=1)[:, ::-1]
    at = np.array([np.searchsorted(row, _RECALLS) for row in recall])
    return np.take_along_axis(precision, at, axis=1), recall.max(axis=1, initial=0)


class IdentitySwitches(NamedTuple):
    """Numbers of switches, and of frames in which an object is visible, over all objects."""

    switches: int
    visible: int


def identity_switches(
    assignment: Sequence[Sequence[int | None]], visible: np.ndarray, overlap: np.ndarray
) -> IdentitySwitches:
    """Count how often objects change their proposal, given an assignment made anew in every frame.

    An object is matched in a frame if it is visible there and its proposal overlaps enough. A switch is a matched frame
    with another proposal than the object's last matched frame, however long ago that was. CLEAR MOT also keeps the
    match of the frame before while it is above the threshold, even if the assignment prefers another proposal; here
    that counts as a switch.

    Args:
        assignment: a proposal or None for each object of each frame, as that of `paper`.
        visible: (frames, objects) bool, where objects are visible.
        overlap: (frames, objects) in [0, 1]; at least `MIN_OVERLAP` in a match. Hungarian matching also assigns
            proposals because nothing better was left.

    Raises:
        ValueError: the shapes differ.
    """
    visible = np.asarray(visible, dtype=bool)
    matched = visible & (np.asarray(overlap) >= MIN_OVERLAP)
    if len(assignment) != len(visible) or any(len(frame) != visible.shape[1] for frame in assignment):
        raise ValueError(f"assignment is not one of {visible.shape[1]} objects in each of {len(visible)} frames")
    switches = 0
    for k in range(visible.shape[1]):
        proposals = [frame[k] for frame, counts in zip(assignment, matched[:, k], strict=True) if counts]
        proposals = [proposal for proposal in proposals if proposal is not None]
        switches += sum(a != b for a, b in itertools.pairwise(proposals))
    return IdentitySwitches(switches, int(np.count_nonzero(visible)))
