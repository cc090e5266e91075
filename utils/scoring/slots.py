"""Compute ARI, FG-ARI, mBO and Hungarian mIoU of segments and objects from counts of shared pixels.

    table = SlotTable()
    for gt, prediction in frames:                       # two (H, W) label maps, one frame in memory at a time
        table.add(count_shared_pixels(gt, prediction))
    table.scores()

All measures come from one joint histogram per frame, so a long video takes little memory. Conventions:

- Ground truth 0 is background, objects count from 1. Void (255) is left out of everything, areas too.
- Prediction 0 is a segment like any other: in these benchmarks a prediction has no background.
- "FG" and IoU look at objects only. A segment's area still includes what of it lies on the background.
- A frame, clip or video without a visible object has no FG-ARI, mBO or mIoU (NaN) and is left out of means.

Definitions and what differs between the papers:

- ARI: Hubert and Arabie, "Comparing partitions" (1985), as `sklearn.metrics.adjusted_rand_score`. FG-ARI leaves the
  background's pixels out: multi_object_datasets, then SAVi (Kipf et al., ICLR 2022), which count an example without
  objects as 1 where it is left out here (VideoSAUR does so on YouTube-VIS). Where one object is visible FG-ARI is
  1 or 0: 1 if a single segment covers it.
- mBO: the best IoU of each object, averaged over objects; a segment may be the best for several.
- VideoSAUR (Zadaianchuk et al., NeurIPS 2023) calls "video" what spans a clip: whole videos of 24 frames for MOVi,
  6 consecutive frames for YouTube-VIS, incomplete last clips dropped. IoU is that of the masks through the clip. Its
  released configurations report ARI and mBO; its metric can match by the Hungarian method too: `miou_clip` here.
- SOLV (Aydemir et al., NeurIPS 2023) averages IoU over the frames in which object or segment occur, matches once per
  video on that (`miou_video`), averages over the objects of all videos (`POOLS`), and takes
  FG-ARI per frame after all unmatched segments became one (`fg_ari_matched`). It knows only the objects of the first
  frame (`first_frame_objects=True`).
"""

from collections import Counter
from typing import NamedTuple

import numpy as np

from utils.scoring.annotations import VOID
from utils.scoring.metrics import count_pairs

CLIP_FRAMES = 6
_DENSE_CELLS = 2**20


class Contingency(NamedTuple):
    """Table of the numbers of pixels that objects and segments share, in one frame or several.

    `objects` (G,) and `segments` (P,) are the sorted ids that occur outside void, background 0 among them;
    `counts` is (G, P).
    """

    objects: np.ndarray
    segments: np.ndarray
    counts: np.ndarray

    def foreground(self) -> "Contingency":
        """Return the part without background; segments that touch no object are left out."""
        counts = self.counts[self.objects > 0]
        touched = counts.any(axis=0)
        return Contingency(self.objects[self.objects > 0], self.segments[touched], counts[:, touched])

    def iou(self) -> np.ndarray:
        """Compute the IoU of every object above 0 with every segment, (objects, P) float64 in [0, 1]."""
        shared = self.counts[self.objects > 0]
        return shared / (shared.sum(axis=1)[:, None] + self.counts.sum(axis=0) - shared)


def find_best_pairs(iou: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair rows with columns, each at most once, so that the sum of `iou` is largest; return the indices of both."""
    from scipy.optimize import linear_sum_assignment  # takes half a second, and saved scores do without

    return linear_sum_assignment(iou, maximize=True)


EMPTY = Contingency(np.empty(0, np.intp), np.empty(0, np.intp), np.empty((0, 0), np.int64))


def count_shared_pixels(gt: np.ndarray, prediction: np.ndarray) -> Contingency:
    """Count the pixels of each pair of labels of two (H, W) integer label maps, any ids from 0, void left out.

    Raises `ValueError` on shapes that differ and on negative labels.
    """
    if gt.shape != prediction.shape:
        raise ValueError(f"ground truth is {gt.shape}, prediction is {prediction.shape}")
    if min(gt.min(initial=0), prediction.min(initial=0)) < 0:
        raise ValueError("labels must not be negative")
    rows, columns = (int(labels.max(initial=0)) + 1 for labels in (gt, prediction))
    objects, segments = np.arange(rows), np.arange(columns)
    if rows * columns > _DENSE_CELLS:  # a few high ids: count only those that occur
        (objects, gt), (segments, prediction) = _numbered(gt), _numbered(prediction)
    counts = count_pairs(gt, prediction, len(objects), len(segments))
    counts[objects == VOID] = 0
    present, used = counts.any(axis=1), counts.any(axis=0)
    return Contingency(objects[present], segments[used], counts[present][:, used])


def add_tables(first: Contingency, second: Contingency) -> Contingency:
    """Add two tables: counts of the same pair of ids are summed."""
    objects = np.union1d(first.objects, second.objects)
    segments = np.union1d(first.segments, second.segments)
    counts = np.zeros((len(objects), len(segments)), np.result_type(first.counts, second.counts))
    for table in (first, second):
        at = np.searchsorted(objects, table.objects), np.searchsorted(segments, table.segments)
        counts[np.ix_(*at)] += table.counts
    return Contingency(objects, segments, counts)


def adjusted_rand_index(counts: np.ndarray) -> float:
    """Compute the ARI in [-1, 1] of two partitions from their table of shared pixels `counts`, (G, P) integers.

    It is 1 if they agree on every pair of pixels, and about 0 by chance. Whole numbers are used up to the last
    division. A table without pixels has an ARI of 1, as in scikit-learn.
    """
    total = int(counts.sum())
    # Squares of the counts of a long video do not fit in 64 bits; Python's integers do.
    exact = counts.astype(np.int64 if total < 2**31 else object)
    together, in_gt, in_prediction = (
        int((sums**2).sum()) if sums.size else 0 for sums in (exact, exact.sum(axis=1), exact.sum(axis=0))
    )
    both, only_gt, only_prediction = together - total, in_gt - together, in_prediction - together
    neither = total**2 - in_gt - in_prediction + together
    if not only_gt and not only_prediction:
        return 1.0
    chance = (both + only_gt) * (only_gt + neither) + (both + only_prediction) * (only_prediction + neither)
    return 2 * (both * neither - only_gt * only_prediction) / chance


class Agreement(NamedTuple):
    """Scores of one table. `ari` is NaN without pixels, the others are NaN without objects."""

    ari: float
    fg_ari: float
    mbo: float
    miou: float


def measure_agreement(table: Contingency) -> Agreement:
    """Compute ARI, FG-ARI, and the means over objects of the best IoU (mBO) and of the matched IoU (mIoU)."""
    ari = adjusted_rand_index(table.counts) if table.counts.size else np.nan
    iou = table.iou()
    if not len(iou):
        return Agreement(ari, np.nan, np.nan, np.nan)
    fg_ari = adjusted_rand_index(table.foreground().counts)
    return Agreement(ari, fg_ari, float(iou.max(axis=1).mean()), match_and_average(iou))


def match_and_average(iou: np.ndarray) -> float:
    """Match segments with objects one to one, maximising `iou` (objects, segments); return the mean over objects.

    An object without a segment counts 0.
    """
    return float(iou[find_best_pairs(iou)].sum() / len(iou))


class SlotScores(NamedTuple):
    """Scores of one sequence: `_frame` and `_clip` are means over its frames or clips, `_video` pools all pixels.

    `miou_video` and `fg_ari_matched` are SOLV's. The last four are numbers: frames with pixels outside void, frames
    and whole clips with objects, objects.
    """

    fg_ari_video: float
    fg_ari_clip: float
    fg_ari_frame: float
    fg_ari_matched: float
    ari_video: float
    ari_frame: float
    mbo_video: float
    mbo_clip: float
    mbo_frame: float
    miou_video: float
    miou_clip: float
    miou_frame: float
    frames: int
    object_frames: int
    clips: int
    objects: int


# What has the same weight in the mean over a dataset in VideoSAUR's and SOLV's code. Other scores: sequences.
POOLS = {
    "ari_frame": "frames",
    "fg_ari_frame": "object_frames",
    "mbo_frame": "object_frames",
    "miou_frame": "object_frames",
    "fg_ari_clip": "clips",
    "mbo_clip": "clips",
    "miou_clip": "clips",
    "miou_video": "objects",
}


class SlotTable:
    """Collect the counts for the `SlotScores` of one sequence, frame by frame.

    Memory grows with each frame by four numbers and, for `fg_ari_matched`, by the frame's counts on objects.

    Args:
        clip_frames: length of the clips; frames after the last whole clip are in none.
        first_frame_objects: objects that are not in the first frame are background (SOLV).
    """

    def __init__(self, *, clip_frames: int = CLIP_FRAMES, first_frame_objects: bool = False):
        self.clip_frames = clip_frames
        self.first_frame_objects = first_frame_objects
        self._known_objects: np.ndarray | None = None
        self._num_frames = 0
        self._video = self._clip = EMPTY
        self._by_frame: list[Agreement] = []
        self._by_clip: list[Agreement] = []
        self._overlap = _FrameMeans()

    def add(self, frame: Contingency) -> None:
        """Add the next frame: the `count_shared_pixels` of its two label maps."""
        if self.first_frame_objects:
            if self._known_objects is None:
                self._known_objects = frame.objects
            frame = _with_objects(frame, self._known_objects)
        self._num_frames += 1
        self._by_frame.append(measure_agreement(frame))
        self._overlap.add(frame)
        self._video = add_tables(self._video, frame)
        self._clip = add_tables(self._clip, frame)
        if self._num_frames % self.clip_frames == 0:
            self._by_clip.append(measure_agreement(self._clip))
            self._clip = EMPTY

    def scores(self) -> SlotScores:
        """Compute the scores of the frames so far; all NaN before the first."""
        video = measure_agreement(self._video)
        frames = self._by_frame
        clips = self._by_clip
        miou_video, fg_ari_matched = self._overlap.scores()
        return SlotScores(
            fg_ari_video=video.fg_ari,
            fg_ari_clip=_mean([clip.fg_ari for clip in clips]),
            fg_ari_frame=_mean([frame.fg_ari for frame in frames]),
            fg_ari_matched=fg_ari_matched,
            ari_video=video.ari,
            ari_frame=_mean([frame.ari for frame in frames]),
            mbo_video=video.mbo,
            mbo_clip=_mean([clip.mbo for clip in clips]),
            mbo_frame=_mean([frame.mbo for frame in frames]),
            miou_video=miou_video,
            miou_clip=_mean([clip.miou for clip in clips]),
            miou_frame=_mean([frame.miou for frame in frames]),
            frames=_number([frame.ari for frame in frames]),
            object_frames=_number([frame.mbo for frame in frames]),
            clips=_number([clip.mbo for clip in clips]),
            objects=int(np.count_nonzero(self._video.objects)),
        )


class _FrameMeans:
    """SOLV's scores: one assignment on the IoU averaged over frames, then FG-ARI of each frame given it."""

    def __init__(self):
        self._iou = self._together = EMPTY
        self._object_frames: Counter[int] = Counter()
        self._segment_frames: Counter[int] = Counter()
        self._foregrounds: list[Contingency] = []

    def add(self, frame: Contingency) -> None:
        objects, iou = frame.objects[frame.objects > 0], frame.iou()
        self._iou = add_tables(self._iou, Contingency(objects, frame.segments, iou))
        self._together = add_tables(self._together, Contingency(objects, frame.segments, np.ones(iou.shape, np.int64)))
        self._object_frames.update(objects.tolist())
        self._segment_frames.update(frame.segments.tolist())
        if len(objects):
            foreground = frame.foreground()
            self._foregrounds.append(foreground._replace(counts=foreground.counts.astype(np.int32)))

    def scores(self) -> tuple[float, float]:
        """Compute mIoU, and FG-ARI after matching."""
        if not self._foregrounds:
            return float("nan"), float("nan")
        iou, segments = self._mean_iou(), self._iou.segments
        matched = np.sort(segments[find_best_pairs(iou)[1]])
        return match_and_average(iou), _mean([_ari_of(matched, frame) for frame in self._foregrounds])

    def _mean_iou(self) -> np.ndarray:
        """Average the IoU (objects, segments) over the frames in which the object or the segment occurs."""
        in_frames = [self._object_frames[i] for i in self._iou.objects.tolist()]
        segment_frames = [self._segment_frames[i] for i in self._iou.segments.tolist()]
        return self._iou.counts / (np.add.outer(in_frames, segment_frames) - self._together.counts)


def _ari_of(matched: np.ndarray, frame: Contingency) -> float:
    """Compute the ARI of a frame with all segments but the `matched` ones merged into one."""
    keep = np.isin(frame.segments, matched)
    rest = frame.counts[:, ~keep].sum(axis=1, keepdims=True)
    return adjusted_rand_index(np.hstack([frame.counts[:, keep], rest]))


def _with_objects(table: Contingency, ids: np.ndarray) -> Contingency:
    """Turn all objects that are not among `ids` into background."""
    other = ~np.isin(table.objects, np.append(ids, 0))
    background = Contingency(np.zeros(1, np.intp), table.segments, table.counts[other].sum(axis=0)[None])
    rest = Contingency(table.objects[~other], table.segments, table.counts[~other])
    return add_tables(background, rest) if other.any() else table


def _numbered(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted ids of a label map, and the map with each id replaced by its index among them."""
    ids = np.flatnonzero(np.bincount(labels.ravel()))
    places = np.zeros(int(ids.max(initial=0)) + 1, dtype=np.intp)
    places[ids] = np.arange(len(ids))
    return ids, places.take(labels)


def _number(values: list[float]) -> int:
    return int(np.count_nonzero(~np.isnan(values)))


def _mean(values: list[float]) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    known = np.array(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")
