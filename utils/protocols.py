"""The protocols by which label maps are scored, by name: what each makes of a sequence, frame by frame.

A protocol's judge is given the ground truth and the prediction of one frame after the other and keeps tables only, so
that memory does not grow with the frames' size times their number. Results are plain values that go to JSON and back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from scipy.optimize import linear_sum_assignment

from utils.errors import UserError
from utils.metrics import VOID, Statistics, frame_scores, statistics

if TYPE_CHECKING:
    from utils.score_files import Scores

MAX_PROPOSALS = 20
GLOBAL_COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")


@dataclass(frozen=True)
class SequenceScores:
    """One sequence under a protocol that measures J and F. Object `k` is id `k + 1` of the ground truth.

    `proposals` counts the ids that occur in the results. `assignment` holds the proposal (0-based: id minus one)
    matched to each object, None where the object got none because there were fewer proposals than objects; under
    `paper` it is one such tuple per frame, under `oracle` the ids in the union, under `foreground` empty. `identity`
    (`davis` only): how consistent the proposals are over time, see `identity_of`.
    """

    HEADLINE: ClassVar = "J&F-Mean"
    TOTAL: ClassVar = "all objects"
    CSV_COLUMNS: ClassVar = ("Sequence", "J-Mean", "F-Mean")

    sequence: str
    frames: int
    proposals: int
    j: tuple[Statistics, ...]
    f: tuple[Statistics, ...]
    assignment: tuple
    identity: dict[str, float] | None = None

    @property
    def j_mean(self) -> float:
        """J-Mean averaged over the objects."""
        return float(np.mean([object_.mean for object_ in self.j]))

    @property
    def f_mean(self) -> float:
        """F-Mean averaged over the objects."""
        return float(np.mean([object_.mean for object_ in self.f]))

    def measures(self) -> dict[str, tuple[float, float]]:
        """Measure -> (sum over the objects, number of objects): every object of every sequence has the same weight."""
        count = len(self.j)
        j, f = np.sum(self.j, axis=0), np.sum(self.f, axis=0)
        sums = dict(zip(GLOBAL_COLUMNS, map(float, ((j[0] + f[0]) / 2, *j, *f)), strict=True))
        return {name: (value, count) for name, value in sums.items()}

    def table_row(self) -> dict[str, Any]:
        """Short column -> value, for the printed table."""
        j, f = self.j_mean, self.f_mean
        return {"objects": len(self.j), "proposals": self.proposals, "J": j, "F": f, "J&F": (j + f) / 2}

    @staticmethod
    def total_row(scores: "Scores") -> dict[str, Any]:
        """As `table_row`, of the whole data set."""
        summary = scores.summary()
        objects = sum(len(sequence.j) for sequence in scores.sequences)
        means = {"J": summary["J-Mean"], "F": summary["F-Mean"], "J&F": summary["J&F-Mean"]}
        return {"objects": objects, "proposals": None, **means}

    def csv_rows(self) -> list[tuple]:
        """A row of `CSV_COLUMNS` for each object, as the DAVIS toolkit writes them."""
        pairs = enumerate(zip(self.j, self.f, strict=True), start=1)
        return [(f"{self.sequence}_{k}", j.mean, f.mean) for k, (j, f) in pairs]

    def to_json(self) -> dict[str, Any]:
        values = {"frames": self.frames, "proposals": self.proposals, "J": self.j, "F": self.f}
        values["assignment"] = self.assignment
        return values | ({"identity": self.identity} if self.identity is not None else {})

    @classmethod
    def from_json(cls, sequence: str, content: dict[str, Any]) -> "SequenceScores":
        j, f = (tuple(Statistics(*values) for values in content[name]) for name in ("J", "F"))
        assignment = _tuples(content["assignment"])
        counts = content["frames"], content["proposals"]
        return cls(sequence, *counts, j, f, assignment, content.get("identity"))


@dataclass(frozen=True)
class ForegroundScores(SequenceScores):
    """One sequence with one foreground object. Both means of J over a data set are in use: the mean of sequences
    (J-Mean, as the DAVIS-2016 toolkit averages) and the mean of all frames (J-Mean of frames)."""

    TOTAL: ClassVar = "mean of sequences"

    def measures(self) -> dict[str, tuple[float, float]]:
        frames = {
            "J-Mean of frames": (self.j_mean * self.frames, self.frames),
            "F-Mean of frames": (self.f_mean * self.frames, self.frames),
        }
        return super().measures() | frames


class ProtocolInfo(NamedTuple):
    """predictions: which of eval.py's label maps the protocol is meant for. meaning: one line for tables. scores: what
    it makes of a sequence."""

    predictions: str
    meaning: str
    scores: type[SequenceScores]


PROTOCOLS = {
    "davis": ProtocolInfo(
        "davis",
        f"one assignment per sequence, at most {MAX_PROPOSALS} proposals (official DAVIS-2017)",
        SequenceScores,
    ),
    "paper": ProtocolInfo(
        "paper",
        "a new assignment in every frame, any number of proposals (identity over time is not scored)",
        SequenceScores,
    ),
    "foreground": ProtocolInfo(
        "foreground",
        "every id above 0 against all objects merged",
        ForegroundScores,
    ),
    "oracle": ProtocolInfo(
        "paper",
        "the union of proposals nearest to the merged objects, chosen WITH the ground truth: an upper bound",
        ForegroundScores,
    ),
}


def _tuples(values: Any) -> Any:
    return tuple(map(_tuples, values)) if isinstance(values, list | tuple) else values


class Judge(Protocol):
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


def judges(protocols: Sequence[str], *, toolkit_exact: bool = False) -> list[Judge]:
    """The judges for some of `PROTOCOLS`; those that share tables are one.

    toolkit_exact: decay with the official toolkit's 8-bit frame indices, wrong past 256 frames.
    """
    made: list[Judge] = []
    if matched := [name for name in protocols if name in ("davis", "paper")]:
        made.append(MatchingJudge(matched, toolkit_exact=toolkit_exact))
    if "foreground" in protocols:
        made.append(ForegroundJudge(toolkit_exact=toolkit_exact))
    if "oracle" in protocols:
        made.append(OracleJudge(toolkit_exact=toolkit_exact))
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
        rows = _positions(self.objects, np.arange(1, num_objects + 1))
        columns = _positions(self.proposals, proposals)
        return self.j[rows[:, None], columns], self.f[rows[:, None], columns]


def _positions(present: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Where each of `ids` stands among the sorted `present`; `len(present)` for those that do not."""
    at = np.searchsorted(present, ids)
    return np.where(np.append(present, -1)[at] == ids, at, len(present))


class _Matched(NamedTuple):
    """J and F (frames, objects) of the matched proposals, and which these are."""

    j: np.ndarray
    f: np.ndarray
    assignment: tuple


class MatchingJudge:
    """`davis` and `paper`: every proposal against every object, then Hungarian assignments.

    As in the DAVIS toolkit, the objects are ids 1 to the highest in the ground truth, void aside, and the
    proposals ids 1 to the highest in the results; an id that never occurs is an empty mask.
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
        ids = ids_of(labels)
        if self.limit is not None and len(ids) and ids[-1] > self.limit:
            raise UserError(
                f"{source}: has proposal ids up to {ids[-1]}, davis allows {self.limit}; write fewer proposals, "
                "numbered from 1, or score with --protocol paper"
            )
        self.used.update(ids.tolist())
        self.frames.append(_score_frame(gt, labels, ids))
        self.num_objects = max(self.num_objects, int(self.frames[-1].objects.max(initial=0)))

    def results(self, sequence: str) -> dict[str, SequenceScores]:
        _check_objects(self.num_objects, sequence)
        match = {"davis": self._match_sequence, "paper": self._match_frames}
        matched = {name: match[name]() for name in self.protocols}
        scores = {
            name: _summarise(sequence, self.used, *found, toolkit_exact=self.toolkit_exact)
            for name, found in matched.items()
        }
        return scores

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
        chosen = _assign((j.mean(axis=0) + f.mean(axis=0)) / 2)
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
            chosen = _assign((j + f) / 2)
            matched_j.append(j[rows, chosen])
            matched_f.append(f[rows, chosen])
            assignment.append(tuple(self._name(p) for p in ids[chosen] - 1))
        return _Matched(np.stack(matched_j), np.stack(matched_f), tuple(assignment))

    def _candidates(self, frame: _Frame) -> np.ndarray:
        """Ids present in `frame` and the first few absent ones, sorted."""
        first = np.arange(1, min(self._num_candidates, len(frame.proposals) + self.num_objects) + 1)
        absent = np.setdiff1d(first, frame.proposals, assume_unique=True)[: self.num_objects]
        return np.union1d(frame.proposals, absent)


def ids_of(labels: np.ndarray) -> np.ndarray:
    """Ids above 0 that occur in a label map, sorted."""
    return np.flatnonzero(np.bincount(labels.ravel())[1:]) + 1


def _check_objects(count: int, sequence: str) -> None:
    if not count:
        raise UserError(f"{sequence}: its annotations hold only 0 and void ({VOID}); number objects from 1")


def _score_frame(gt: np.ndarray, labels: np.ndarray, ids: np.ndarray) -> _Frame:
    """Score what occurs in the frame; `ids` are those of `labels`. High ids cost no more than low ones."""
    compact = np.zeros(int(ids.max(initial=0)) + 1, dtype=np.uint16)
    compact[ids] = np.arange(1, len(ids) + 1)
    objects = ids_of(gt)
    absent = int(objects.max(initial=0)) + 1
    objects = objects[objects != VOID]
    j, f = frame_scores(gt, compact.take(labels), [*objects, absent], len(ids) + 1)
    return _Frame(objects, ids, j, f)


def _assign(quality: np.ndarray) -> np.ndarray:
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


class ForegroundJudge:
    """`foreground`: all ids of the results as one mask, against all objects as one."""

    passes = 1

    def __init__(self, *, toolkit_exact: bool = False):
        self.toolkit_exact = toolkit_exact
        self.j: list[float] = []
        self.f: list[float] = []
        self.used: set[int] = set()

    def add(self, gt: np.ndarray, labels: np.ndarray, *, source: str, number: int) -> None:
        self.used.update(ids_of(labels).tolist())
        self._add_mask(merge_objects(gt), labels > 0)

    def _add_mask(self, merged: np.ndarray, mask: np.ndarray) -> None:
        j, f = frame_scores(merged, mask.astype(np.int32), [1], 1)
        self.j.append(j.item())
        self.f.append(f.item())

    def results(self, sequence: str) -> dict[str, SequenceScores]:
        return {"foreground": self._summary(sequence, ())}

    def _summary(self, sequence: str, assignment: tuple) -> SequenceScores:
        j, f = np.array(self.j)[:, None], np.array(self.f)[:, None]
        exact = self.toolkit_exact
        return _summarise(sequence, self.used, j, f, assignment, toolkit_exact=exact, kind=ForegroundScores)


class OracleJudge(ForegroundJudge):
    """`oracle`: the best union of whole-sequence proposals, chosen with the ground truth.

    Best by intersection over union with all pixels of the sequence pooled. A union's IoU is (sum of intersections) /
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
            self.used.update(ids_of(labels).tolist())
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
