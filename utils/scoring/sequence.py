"""Scores of one sequence under each protocol, with their JSON, table rows and weights in means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from utils.scoring.metrics import Statistics
from utils.scoring.slots import POOLS, SlotScores
from utils.scoring.tracks import Tracks, evaluate_tracks

GLOBAL_COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")


class DatasetScores(Protocol):
    """All sequences of a dataset under one protocol, see `utils.scoring.tables.Scores`."""

    protocol: str
    sequences: Sequence[Any]

    def summary(self) -> dict[str, float]: ...


class Identity(NamedTuple):
    """Measures of whether proposals stay on the same object over time, which `paper` does not score.

    Attributes:
        gap: J&F with the best assignment of every frame minus J&F with one assignment, mean of objects, at least 0.
        switches: matched frames (J at least 0.5) with another proposal than the object's last matched frame.
        visible: frames in which an object is visible, summed over objects (`utils.scoring.tracks.identity_switches`).
    """

    gap: float
    switches: int
    visible: int


@dataclass(frozen=True)
class SequenceScores:
    """One sequence under a protocol that measures J and F. Object `k` is id `k + 1` of the ground truth.

    Attributes:
        proposals: number of ids that occur in the results.
        assignment: the proposal matched to each object (id minus one), None if there were too few proposals. Under
            `paper` one such tuple per frame, under `oracle` the ids in the union, under `foreground` empty.
        identity: of `davis` only.
        absent: ids below the highest that no frame of the ground truth has; they count as objects.
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
    identity: Identity | None = None
    absent: tuple[int, ...] = ()

    @property
    def j_mean(self) -> float:
        """J-Mean averaged over the objects."""
        return _mean([object_.mean for object_ in self.j])

    @property
    def f_mean(self) -> float:
        """F-Mean averaged over the objects."""
        return _mean([object_.mean for object_ in self.f])

    def measures(self) -> dict[str, tuple[float, float]]:
        """Return measure -> (sum over objects, number of objects): all objects of the dataset weigh the same."""
        count = len(self.j)
        j, f = (np.sum(np.reshape(values, (count, 3)), axis=0) for values in (self.j, self.f))
        sums = dict(zip(GLOBAL_COLUMNS, map(float, ((j[0] + f[0]) / 2, *j, *f)), strict=True))
        return {name: (value, count) for name, value in sums.items()}

    def table_row(self) -> dict[str, Any]:
        """Return short column -> value, for the printed table."""
        j, f = self.j_mean, self.f_mean
        row = {"objects": len(self.j), "proposals": self.proposals, "J": j, "F": f, "J&F": (j + f) / 2}
        return row | ({"gap": self.identity.gap, "switches": self.identity.switches} if self.identity else {})

    @staticmethod
    def total_row(scores: "DatasetScores") -> dict[str, Any]:
        """Return short column -> value of the whole dataset."""
        summary = scores.summary()
        objects = sum(len(sequence.j) for sequence in scores.sequences)
        means = {"J": summary["J-Mean"], "F": summary["F-Mean"], "J&F": summary["J&F-Mean"]}
        row = {"objects": objects, "proposals": None, **means}
        if scores.protocol == "davis":
            known = [sequence for sequence in scores.sequences if sequence.identity]
            row["gap"] = sum(sequence.identity.gap * len(sequence.j) for sequence in known) / objects
            row["switches"] = sum(sequence.identity.switches for sequence in known)
        return row

    def csv_rows(self) -> list[tuple]:
        """Return a row of `CSV_COLUMNS` for each object, as the DAVIS toolkit writes them."""
        pairs = enumerate(zip(self.j, self.f, strict=True), start=1)
        return [(f"{self.sequence}_{k}", j.mean, f.mean) for k, (j, f) in pairs]

    def to_json(self) -> dict[str, Any]:
        values = {"frames": self.frames, "proposals": self.proposals, "J": self.j, "F": self.f}
        values["assignment"] = self.assignment
        values |= {"absent": self.absent} if self.absent else {}
        return values | ({"identity": self.identity._asdict()} if self.identity else {})

    @classmethod
    def from_json(cls, sequence: str, content: dict[str, Any]) -> "SequenceScores":
        j, f = (tuple(Statistics(*values) for values in content[name]) for name in ("J", "F"))
        assignment = _tuples(content["assignment"])
        counts = content["frames"], content["proposals"]
        identity = Identity(**content["identity"]) if "identity" in content else None
        return cls(sequence, *counts, j, f, assignment, identity, tuple(content.get("absent", ())))


@dataclass(frozen=True)
class ForegroundScores(SequenceScores):
    """One sequence with one foreground object.

    The literature uses two means of J over a dataset: over sequences (J-Mean) and over all frames (J-Mean of frames).
    """

    TOTAL: ClassVar = "mean of sequences"

    def measures(self) -> dict[str, tuple[float, float]]:
        count = self.frames if self.j else 0
        frames = {
            "J-Mean of frames": (self.j_mean * count if count else 0.0, count),
            "F-Mean of frames": (self.f_mean * count if count else 0.0, count),
        }
        return super().measures() | frames


@dataclass(frozen=True)
class SlotSequence:
    """One sequence under `slots`.

    The mean of a measure over a dataset gives the same weight to all sequences, or to all frames, clips or objects, as
    the paper that defines the measure does (`POOLS`). Undefined measures are NaN and are left out of means.
    """

    HEADLINE: ClassVar = "fg_ari_video"
    TOTAL: ClassVar = "mean"
    COLUMNS: ClassVar = SlotScores._fields[:-4]  # without the counts
    CSV_COLUMNS: ClassVar = ("Sequence", *COLUMNS)

    sequence: str
    frames: int
    proposals: int
    slots: SlotScores

    def measures(self) -> dict[str, tuple[float, float]]:
        """Return measure -> (value times weight, weight)."""
        found = {}
        for name in self.COLUMNS:
            value = getattr(self.slots, name)
            weight = getattr(self.slots, POOLS[name]) if name in POOLS else 1
            found[name] = (0.0, 0) if math.isnan(value) else (value * weight, weight)
        return found

    def table_row(self) -> dict[str, Any]:
        columns = {column: getattr(self.slots, name) for name, column in _SLOT_TABLE.items()}
        return {"objects": self.slots.objects, "proposals": self.proposals, **columns}

    @classmethod
    def total_row(cls, scores: "DatasetScores") -> dict[str, Any]:
        summary = scores.summary()
        return {"objects": sum(sequence.slots.objects for sequence in scores.sequences), "proposals": None} | {
            column: summary[name] for name, column in _SLOT_TABLE.items()
        }

    def csv_rows(self) -> list[tuple]:
        return [(self.sequence, *(getattr(self.slots, name) for name in self.COLUMNS))]

    def to_json(self) -> dict[str, Any]:
        slots = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in self.slots._asdict().items()}
        return {"frames": self.frames, "proposals": self.proposals, "slots": slots}

    @classmethod
    def from_json(cls, sequence: str, content: dict[str, Any]) -> "SlotSequence":
        slots = {name: math.nan if value is None else value for name, value in content["slots"].items()}
        return cls(sequence, content["frames"], content["proposals"], SlotScores(**slots))


_SLOT_TABLE = {
    "fg_ari_video": "FG-ARI",
    "fg_ari_frame": "FG-ARI/frame",
    "ari_video": "ARI",
    "mbo_video": "mBO",
    "miou_video": "mIoU",
    "miou_clip": "mIoU/clip",
}


@dataclass(frozen=True)
class TrackSequence:
    """One sequence under `tracks`. AP and AR are defined for a whole dataset and are not means over sequences."""

    HEADLINE: ClassVar = "AP"
    TOTAL: ClassVar = "all"
    CSV_COLUMNS: ClassVar = ("Sequence", "Objects", "Proposals", "Best-IoU")

    sequence: str
    frames: int
    tracks: Tracks

    @staticmethod
    def pooled(sequences: Sequence["TrackSequence"]) -> dict[str, float]:
        """Compute AP and AR of the dataset."""
        return evaluate_tracks([sequence.tracks for sequence in sequences])

    def table_row(self) -> dict[str, Any]:
        objects, proposals = self.tracks.iou.shape
        return {"objects": objects, "proposals": proposals, "best IoU": self._best_iou}

    @staticmethod
    def total_row(scores: "DatasetScores") -> dict[str, Any]:
        return {"objects": sum(len(sequence.tracks.iou) for sequence in scores.sequences)}

    @property
    def _best_iou(self) -> float:
        """Mean over objects of the IoU with the best proposal."""
        return float(self.tracks.iou.max(axis=1, initial=0.0).mean()) if len(self.tracks.iou) else math.nan

    def csv_rows(self) -> list[tuple]:
        return [(self.sequence, *self.tracks.iou.shape, self._best_iou)]

    def to_json(self) -> dict[str, Any]:
        return {"frames": self.frames, "tracks": {k: v.tolist() for k, v in self.tracks._asdict().items()}}

    @classmethod
    def from_json(cls, sequence: str, content: dict[str, Any]) -> "TrackSequence":
        tracks = {name: np.array(values, dtype=float) for name, values in content["tracks"].items()}
        shape = len(tracks["object_areas"]), len(tracks["proposal_areas"])  # lost where one of them is 0
        return cls(sequence, content["frames"], Tracks(**tracks | {"iou": tracks["iou"].reshape(shape)}))


def _mean(values: list[float]) -> float:
    """Return the mean; NaN for an empty list."""
    return float(np.mean(values)) if values else math.nan


def _tuples(values: Any) -> Any:
    return tuple(map(_tuples, values)) if isinstance(values, list | tuple) else values
