"""Judges: what each protocol makes of a sequence, frame by frame.

A judge is given the ground truth and the prediction of one frame after the other and keeps tables only, so that memory
does not grow with the frames' size times their number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from scipy.optimize import linear_sum_assignment

from utils.errors import UserError
from utils.scoring.metrics import VOID, frame_scores, statistics
from utils.scoring.protocols import MAX_PROPOSALS
from utils.scoring.sequence import ForegroundScores, Identity, SequenceScores, SlotSequence, TrackSequence
from utils.scoring.slots import CLIP_FRAMES, SlotTable, count_shared_pixels
from utils.scoring.tracks import TubeTable, identity_switches


class Evaluator(Protocol):
    """Scores a sequence under one or several protocols; sees all its frames `passes` times."""

    passes: int

    def add(self, gt: np.ndarray, labels: np.ndarray, *, source: str, number: int) -> None:
        """The next frame's (H, W) int32 label maps: ground truth with 255 as void, and prediction.

        `source` names the prediction's file for messages; `number` counts the passes from 0.
        """
        ...

    def results(self, sequence: str) -> dict[str, SequenceScores]:
        """Protocol -> scores, once all frames were seen. Raises `UserError` where nothing can be scored."""
        ...


class Options(NamedTuple):
    """How protocols vary in the literature.

    toolkit_exact: decay with the DAVIS toolkit's 8-bit frame indices, wrong past 256 frames; under `foreground` and
        `oracle` without the first and last frame, as the toolkit of DAVIS-2016.
    clip_frames: length of the clips of `slots`; VideoSAUR's is 6 on YouTube-VIS, None makes the sequence one clip.
    first_frame_objects: under `slots`, objects that are not in the first frame are background, as in SOLV.
    """

    toolkit_exact: bool = False
    clip_frames: int | None = CLIP_FRAMES
    first_frame_objects: bool = False


DEFAULT_OPTIONS = Options()


def make_evaluators(protocols: Sequence[str], options: Options = DEFAULT_OPTIONS) -> list[Evaluator]:
    """The judges for some of `PROTOCOLS`; those that share tables are one."""
    made: list[Evaluator] = []
    if matched := [name for name in protocols if name in ("davis", "paper")]:
        made.append(MatchingEvaluator(matched, toolkit_exact=options.toolkit_exact))
    if "foreground" in protocols:
        made.append(ForegroundEvaluator(toolkit_exact=options.toolkit_exact))
    if "oracle" in protocols:
        made.append(OracleEvaluator(toolkit_exact=options.toolkit_exact))
    if "slots" in protocols:
        made.append(SlotsEvaluator(options))
    if "tracks" in protocols:
        made.append(TracksEvaluator())
    return made


# ------------------------------------------------------------------ davis and paper


@dataclass(frozen=True)
class _Frame:
    """J and F of one frame, (objects + 1, proposals + 1): those that occur in it, and last an empty mask.

    So a frame need not know which other objects and proposals its sequence has: there, they are empty masks.
    """

    objects: np.ndarray
    proposals: np.ndarray
    j: np.ndarray
    f: np.ndarray

    def table(self, num_objects: int, proposals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """J and F of objects 1..`num_objects` with `proposals` (n,), each (objects, n), all given by id."""
        rows = _find_positions(self.objects, np.arange(1, num_objects + 1))
        columns = _find_positions(self.proposals, proposals)
        return self.j[rows[:, None], columns], self.f[rows[:, None], columns]


def _find_positions(present: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Where each of `ids` stands among the sorted `present`; `len(present)` for those that do not."""
    at = np.searchsorted(present, ids)
    return np.where(np.append(present, -1)[at] == ids, at, len(present))


class _Matched(NamedTuple):
    """J and F (frames, objects) of the matched proposals, and which these are."""

    j: np.ndarray
    f: np.ndarray
    assignment: tuple


class MatchingEvaluator:
    """`davis` and `paper`: every proposal against every object, then Hungarian assignments.

    The objects are ids 1 to the highest in the ground truth, void aside, and the proposals ids 1 to the highest in the
    results; an id that never occurs is an empty mask. (The DAVIS toolkit looks for the highest id in the first frame
    only; in DAVIS that is the same.)
    """

    passes = 1

    def __init__(self, protocols: Sequence[str], *, toolkit_exact: bool = False):
        self.protocols = protocols
        self.toolkit_exact = toolkit_exact
        self.limit = MAX_PROPOSALS if "davis" in protocols else None
        self.frames: list[_Frame] = []
        self.num_objects = 0
        self.used: set[int] = set()

    def add(self, gt: np.ndarray, labels: np.ndarray, *, source: str, number: int) -> None:
        ids = list_ids(labels)
        if self.limit is not None and ids.tolist() == [VOID]:
            raise UserError(f"{source}: holds only 0 and {VOID}: binary masks? use --protocol foreground, or number "
                            "proposals from 1")  # fmt: skip
        if self.limit is not None and len(ids) and ids[-1] > self.limit:
            raise UserError(
                f"{source}: has proposal ids up to {ids[-1]}, davis allows {self.limit}; write fewer proposals, "
                "numbered from 1, or score with --protocol paper"
            )
        self.used.update(ids.tolist())
        self.frames.append(_score_frame(gt, labels, ids))
        self.num_objects = max(self.num_objects, int(self.frames[-1].objects.max(initial=0)))

    def results(self, sequence: str) -> dict[str, SequenceScores]:
        if not self.num_objects:
            nothing = SequenceScores(sequence, len(self.frames), len(self.used), (), (), ())
            return dict.fromkeys(self.protocols, nothing)
        match = {"davis": self._match_sequence, "paper": self._match_frames}
        matched = {name: match[name]() for name in self.protocols}
        scores = {
            name: _summarise(sequence, self.used, *found, toolkit_exact=self.toolkit_exact)
            for name, found in matched.items()
        }
        present = {int(id_) for frame in self.frames for id_ in frame.objects}
        absent = tuple(sorted(set(range(1, self.num_objects + 1)) - present))
        scores = {name: replace(found, absent=absent) for name, found in scores.items()}
        if "davis" in scores:
            per_frame = matched.get("paper") or self._match_frames()
            scores["davis"] = replace(scores["davis"], identity=self._identity(matched["davis"], per_frame))
        return scores

    def _identity(self, once: "_Matched", per_frame: "_Matched") -> Identity:
        visible = np.zeros(once.j.shape, dtype=bool)
        for row, frame in zip(visible, self.frames, strict=True):
            row[frame.objects - 1] = True
        switches = identity_switches(per_frame.assignment, visible, overlap=per_frame.j)
        gap = (per_frame.j.mean() + per_frame.f.mean() - once.j.mean() - once.f.mean()) / 2
        return Identity(max(float(gap), 0.0), switches.switches, switches.visible)

    @property
    def _highest_id(self) -> int:
        return max(self.used, default=0)

    @property
    def _num_candidates(self) -> int:
        """Number of proposals to match: padded with empty ones where there are fewer than objects."""
        return max(self._highest_id, self.num_objects)

    def _name(self, proposal: int) -> int | None:
        """0-based index of a proposal, None for one that was only added to have enough."""
        return int(proposal) if proposal < self._highest_id else None

    def _match_sequence(self) -> _Matched:
        """`davis`: matched once, on (J + F) / 2 averaged over frames."""
        ids = np.arange(1, self._num_candidates + 1)
        tables = [frame.table(self.num_objects, ids) for frame in self.frames]
        j, f = (np.stack(parts) for parts in zip(*tables, strict=True))
        chosen = _assign_proposals((j.mean(axis=0) + f.mean(axis=0)) / 2)
        rows = np.arange(self.num_objects)
        return _Matched(j[:, rows, chosen], f[:, rows, chosen], tuple(self._name(p) for p in chosen))

    def _match_frames(self) -> _Matched:
        """`paper`: matched anew in every frame.

        Proposals that do not occur in a frame are all the same empty mask there, so no more of them are looked at
        than there are objects.
        """
        rows, matched_j, matched_f, assignment = np.arange(self.num_objects), [], [], []
        for frame in self.frames:
            ids = self._candidates(frame)
            j, f = frame.table(self.num_objects, ids)
            chosen = _assign_proposals((j + f) / 2)
            matched_j.append(j[rows, chosen])
            matched_f.append(f[rows, chosen])
            assignment.append(tuple(self._name(p) for p in ids[chosen] - 1))
        return _Matched(np.stack(matched_j), np.stack(matched_f), tuple(assignment))

    def _candidates(self, frame: _Frame) -> np.ndarray:
        """Ids present in `frame` and the first few absent ones, sorted."""
        first = np.arange(1, min(self._num_candidates, len(frame.proposals) + self.num_objects) + 1)
        absent = np.setdiff1d(first, frame.proposals, assume_unique=True)[: self.num_objects]
        return np.union1d(frame.proposals, absent)


def list_ids(labels: np.ndarray) -> np.ndarray:
    """Ids above 0 that occur in a label map, sorted."""
    return np.flatnonzero(np.bincount(labels.ravel())[1:]) + 1


def _score_frame(gt: np.ndarray, labels: np.ndarray, ids: np.ndarray) -> _Frame:
    """Score what occurs in the frame; `ids` are those of `labels`. High ids cost no more than low ones."""
    compact = np.zeros(int(ids.max(initial=0)) + 1, dtype=np.uint16)
    compact[ids] = np.arange(1, len(ids) + 1)
    objects = list_ids(gt)
    absent = int(objects.max(initial=0)) + 1
    objects = objects[objects != VOID]
    j, f = frame_scores(gt, compact.take(labels), [*objects, absent], len(ids) + 1)
    return _Frame(objects, ids, j, f)


def _assign_proposals(quality: np.ndarray) -> np.ndarray:
    """Proposal of each object, (objects,), maximising the summed `quality` (objects, proposals)."""
    proposals, objects = linear_sum_assignment(-quality.T)
    return proposals[np.argsort(objects)]


def _summarise(
    sequence: str,
    used: set[int],
    j: np.ndarray,
    f: np.ndarray,
    assignment: tuple,
    *,
    toolkit_exact: bool,
    kind: type[SequenceScores] = SequenceScores,
) -> SequenceScores:
    return kind(
        sequence=sequence,
        frames=len(j),
        proposals=len(used),
        j=tuple(statistics(values, eight_bit=toolkit_exact) for values in j.T),
        f=tuple(statistics(values, eight_bit=toolkit_exact) for values in f.T),
        assignment=assignment,
    )


# ------------------------------------------------------------------ one foreground


def merge_objects(gt: np.ndarray) -> np.ndarray:
    """(H, W) label map with every object as 1; 255 stays void."""
    return np.where(gt == VOID, VOID, gt > 0).astype(np.int32)


class ForegroundEvaluator:
    """`foreground`: all ids of the results as one mask, against all objects as one."""

    passes = 1

    def __init__(self, *, toolkit_exact: bool = False):
        self.toolkit_exact = toolkit_exact
        self.j: list[float] = []
        self.f: list[float] = []
        self.used: set[int] = set()
        self.any_object = False

    def add(self, gt: np.ndarray, labels: np.ndarray, *, source: str, number: int) -> None:
        self.used.update(list_ids(labels).tolist())
        self._add_mask(merge_objects(gt), labels > 0)

    def _add_mask(self, merged: np.ndarray, mask: np.ndarray) -> None:
        self.any_object |= bool((merged == 1).any())
        j, f = frame_scores(merged, mask.astype(np.int32), [1], 1)
        self.j.append(j.item())
        self.f.append(f.item())

    def results(self, sequence: str) -> dict[str, SequenceScores]:
        return {"foreground": self._summary(sequence, ())}

    def _summary(self, sequence: str, assignment: tuple) -> SequenceScores:
        if not self.any_object:
            return ForegroundScores(sequence, len(self.j), len(self.used), (), (), ())
        # The toolkit of DAVIS-2016 leaves out the first and the last frame.
        part = slice(1, -1) if self.toolkit_exact and len(self.j) > 2 else slice(None)
        j, f = np.array(self.j)[part, None], np.array(self.f)[part, None]
        exact = self.toolkit_exact
        return _summarise(sequence, self.used, j, f, assignment, toolkit_exact=exact, kind=ForegroundScores)


class OracleEvaluator(ForegroundEvaluator):
    """`oracle`: the best union of whole-sequence proposals, chosen with the ground truth.

    Best by intersection over union with all pixels of the sequence pooled, so that long and large appearances weigh
    more than in the mean over frames that is shown; no bound of that. A union's IoU is (sum of intersections) /
    (ground truth + sum of pixels outside it), so the best one is made of the proposals with the largest ratio of
    inside to outside: of a sorted list, a head.
    """

    passes = 2

    def __init__(self, *, toolkit_exact: bool = False):
        super().__init__(toolkit_exact=toolkit_exact)
        self.inside: dict[int, int] = {}
        self.outside: dict[int, int] = {}
        self.truth = 0
        self.chosen: np.ndarray | None = None

    def add(self, gt: np.ndarray, labels: np.ndarray, *, source: str, number: int) -> None:
        merged = merge_objects(gt)
        if number == 0:
            self.used.update(list_ids(labels).tolist())
            self.truth += int((merged == 1).sum())
            for counts, mask in ((self.inside, merged == 1), (self.outside, merged == 0)):
                for id_, count in zip(*np.unique(labels[mask], return_counts=True), strict=True):
                    counts[int(id_)] = counts.get(int(id_), 0) + int(count)
        else:
            if self.chosen is None:
                self.chosen = np.array(self._best_union(), dtype=np.int64)
            self._add_mask(merged, np.isin(labels, self.chosen))

    def _best_union(self) -> list[int]:
        ids = [id_ for id_ in self.used if self.inside.get(id_)]
        ids.sort(key=lambda id_: (-self.inside[id_] / (self.inside[id_] + self.outside.get(id_, 0)), id_))
        inside = np.cumsum([self.inside[id_] for id_ in ids])
        outside = np.cumsum([self.outside.get(id_, 0) for id_ in ids])
        return sorted(ids[: int(np.argmax(inside / (self.truth + outside))) + 1]) if ids else []

    def results(self, sequence: str) -> dict[str, SequenceScores]:
        return {"oracle": self._summary(sequence, tuple(self.chosen.tolist()))}


# ------------------------------------------------------------------ slots and tracks


class SlotsEvaluator:
    """`slots`: scores of `utils.scoring.slots`; prediction 0 is a segment like any other."""

    passes = 1

    def __init__(self, options: Options = DEFAULT_OPTIONS):
        self.table = SlotTable(clip_frames=options.clip_frames, first_frame_objects=options.first_frame_objects)
        self.frames = 0
        self.used: set[int] = set()

    def add(self, gt: np.ndarray, labels: np.ndarray, *, source: str, number: int) -> None:
        self.frames += 1
        self.used.update(list_ids(labels).tolist())
        self.table.add(count_shared_pixels(gt, labels))

    def results(self, sequence: str) -> dict[str, SlotSequence]:
        scores = self.table.scores()
        return {"slots": SlotSequence(sequence, self.frames, len(self.used), scores)}


class TracksEvaluator:
    """`tracks`: tubes of objects and proposals (`utils.scoring.tracks`); prediction 0 is no proposal."""

    passes = 1

    def __init__(self):
        self.table = TubeTable()
        self.frames = 0

    def add(self, gt: np.ndarray, labels: np.ndarray, *, source: str, number: int) -> None:
        self.frames += 1
        self.table.add(count_shared_pixels(gt, labels))

    def results(self, sequence: str) -> dict[str, TrackSequence]:
        return {"tracks": TrackSequence(sequence, self.frames, self.table.tracks())}
