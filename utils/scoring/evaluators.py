"""Evaluators: score a sequence under each protocol, frame by frame.

An evaluator gets the ground truth and the prediction of one frame after the other. It stores tables and no label maps,
so its memory does not depend on the size of the frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from utils.errors import UserError
from utils.scoring.annotations import VOID
from utils.scoring.metrics import find_runs, frame_scores, renumber, statistics
from utils.scoring.protocols import MAX_PROPOSALS
from utils.scoring.sequence import ForegroundScores, Identity, SequenceScores, SlotSequence, TrackSequence
from utils.scoring.slots import SlotTable, count_shared_pixels, find_best_pairs
from utils.scoring.tracks import TubeTable, identity_switches


class Evaluator(Protocol):
    """Scores a sequence under one or several protocols. It must be given all frames `passes` times."""

    passes: int

    def add(self, gt: np.ndarray, labels: np.ndarray, *, source: str, number: int) -> None:
        """Add the next frame.

        Args:
            gt: (H, W) int32 label map of the ground truth, 255 is void.
            labels: (H, W) int32 label map of the prediction.
            source: file of the prediction, for messages.
            number: which pass over the frames this is, from 0.
        """
        ...

    def results(self, sequence: str) -> dict[str, SequenceScores]:
        """Return protocol -> scores, after all frames were added."""
        ...


@dataclass(frozen=True)
class Options:
    """Variants of the protocols that are in use in the literature.

    Attributes:
        toolkit_exact: compute decay with the DAVIS toolkit's 8-bit frame indices, which is wrong past 256 frames;
            under `foreground` and `oracle` leave out the first and last frame, as the toolkit of DAVIS-2016.
        first_frame_objects: under `slots`, count objects that are not in the first frame as background, as SOLV.
    """

    toolkit_exact: bool = False
    first_frame_objects: bool = False


DEFAULT_OPTIONS = Options()


def make_evaluators(protocols: Sequence[str], options: Options = DEFAULT_OPTIONS) -> list[Evaluator]:
    """Make the evaluators of some of `PROTOCOLS`; protocols that need the same tables share one evaluator."""
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
    """J and F of the objects and proposals that occur in one frame, each (objects + 1, proposals + 1).

    The last row and column are those of an empty mask. They stand for all objects and proposals of the sequence that
    do not occur in the frame.
    """

    objects: np.ndarray
    proposals: np.ndarray
    j: np.ndarray
    f: np.ndarray

    def table(self, num_objects: int, proposals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look up J and F of objects 1..`num_objects` with the proposals of these ids (n,), each (objects, n)."""
        rows = _find_positions(self.objects, np.arange(1, num_objects + 1))
        columns = _find_positions(self.proposals, proposals)
        return self.j[rows[:, None], columns], self.f[rows[:, None], columns]


def _find_positions(present: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the index of each of `ids` in the sorted `present`, or `len(present)` for an id that is not in it."""
    at = np.searchsorted(present, ids)
    return np.where(np.append(present, -1)[at] == ids, at, len(present))


class _Matched(NamedTuple):
    """J and F (frames, objects) of the matched proposals, and the assignment of proposals to objects."""

    j: np.ndarray
    f: np.ndarray
    assignment: tuple


class MatchingEvaluator:
    """Evaluator of `davis` and `paper`: scores every proposal with every object, then makes Hungarian assignments.

    Objects are the ids from 1 to the highest in the ground truth (without void), proposals those from 1 to the highest
    in the results. An id that never occurs is an empty mask. The DAVIS toolkit takes the highest id of the first frame
    only, which is the same in DAVIS.
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
        switches = identity_switches(per_frame.assignment, visible, per_frame.j)
        gap = (per_frame.j.mean() + per_frame.f.mean() - once.j.mean() - once.f.mean()) / 2
        return Identity(max(float(gap), 0.0), switches.switches, switches.visible)

    @property
    def _highest_id(self) -> int:
        return max(self.used, default=0)

    @property
    def _num_candidates(self) -> int:
        """Number of proposals to match, including empty ones that make it at least the number of objects."""
        return max(self._highest_id, self.num_objects)

    def _name(self, proposal: int) -> int | None:
        """Return the 0-based index of a proposal, or None for an empty one that was added."""
        return int(proposal) if proposal < self._highest_id else None

    def _match_sequence(self) -> _Matched:
        """Match once for the sequence (`davis`), on (J + F) / 2 averaged over frames."""
        ids = np.arange(1, self._num_candidates + 1)
        tables = [frame.table(self.num_objects, ids) for frame in self.frames]
        j, f = (np.stack(parts) for parts in zip(*tables, strict=True))
        chosen = _assign_proposals((j.mean(axis=0) + f.mean(axis=0)) / 2)
        rows = np.arange(self.num_objects)
        return _Matched(j[:, rows, chosen], f[:, rows, chosen], tuple(self._name(p) for p in chosen))

    def _match_frames(self) -> _Matched:
        """Match anew in every frame (`paper`).

        Proposals that do not occur in a frame are all the same empty mask, so it is enough to try as many of them as
        there are objects.
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
        """List the ids that occur in `frame` and the first few that do not, sorted."""
        first = np.arange(1, min(self._num_candidates, len(frame.proposals) + self.num_objects) + 1)
        absent = np.setdiff1d(first, frame.proposals, assume_unique=True)[: self.num_objects]
        return np.union1d(frame.proposals, absent)


def list_ids(labels: np.ndarray) -> np.ndarray:
    """List the ids above 0 that occur in a label map, sorted."""
    ids = np.unique(labels.ravel()[find_runs(labels.ravel())])
    return ids[ids > 0].astype(np.int64)


def _score_frame(gt: np.ndarray, labels: np.ndarray, ids: np.ndarray) -> _Frame:
    """Score the objects and proposals that occur in a frame; `ids` are those of `labels`.

    Ids are renumbered first, so that high ids take no more time than low ones.
    """
    compact = np.zeros(int(ids.max(initial=0)) + 1, dtype=np.uint8 if len(ids) < 255 else np.uint16)
    compact[ids] = np.arange(1, len(ids) + 1)
    objects = list_ids(gt)
    absent = int(objects.max(initial=0)) + 1
    objects = objects[objects != VOID]
    j, f = frame_scores(gt, renumber(labels, compact), [*objects, absent], len(ids) + 1)
    return _Frame(objects, ids, j, f)


def _assign_proposals(quality: np.ndarray) -> np.ndarray:
    """Assign a proposal to each object, (objects,), maximising the sum of `quality` (objects, proposals)."""
    proposals, objects = find_best_pairs(quality.T)
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
    """Merge all objects of a label map (H, W) into label 1; 255 stays void."""
    return np.where(gt == VOID, VOID, gt > 0).astype(np.int32)


class ForegroundEvaluator:
    """Evaluator of `foreground`: scores the union of all proposals with the union of all objects."""

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
    """Evaluator of `oracle`: scores the best union of proposals of the whole sequence, chosen with the ground truth.

    The union is chosen by the IoU over all pixels of the sequence. Frames with large objects weigh more in it than in
    the mean over frames that is reported, so the result is not an upper bound of that mean. The IoU of a union is (sum
    of intersections) / (ground truth + sum of pixels outside it). So the best union consists of the proposals with the
    largest ratio of inside to outside pixels: the first few of the list sorted by that ratio.
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
    """Evaluator of `slots` (`utils.scoring.slots`); label 0 of the prediction is a segment like any other."""

    passes = 1

    def __init__(self, options: Options = DEFAULT_OPTIONS):
        self.table = SlotTable(first_frame_objects=options.first_frame_objects)
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
    """Evaluator of `tracks` (`utils.scoring.tracks`); label 0 of the prediction is not a proposal."""

    passes = 1

    def __init__(self):
        self.table = TubeTable()
        self.frames = 0

    def add(self, gt: np.ndarray, labels: np.ndarray, *, source: str, number: int) -> None:
        self.frames += 1
        self.table.add(count_shared_pixels(gt, labels))

    def results(self, sequence: str) -> dict[str, TrackSequence]:
        return {"tracks": TrackSequence(sequence, self.frames, self.table.tracks())}
