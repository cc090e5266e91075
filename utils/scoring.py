"""Score a folder of label PNGs against a folder of annotation PNGs, whoever wrote them.

    python -m utils.scoring --results results/ours --davis_path /data/DAVIS --protocol both

`<results>/<sequence>/<frame>.png` is scored against `<annotations>/<sequence>/<frame>.png` under one or both
of two named protocols (METHOD.md, section 6), which differ in how proposals are matched to objects:

- `davis`: one Hungarian assignment per sequence, at most 20 proposals: the official DAVIS-2017-Unsupervised
  protocol. Its numbers can be compared with other methods'.
- `paper`: a new Hungarian assignment in every frame, any number of proposals: how the paper's released
  numbers were scored. Identity over time is not scored: on the same PNGs, J&F is never below `davis`.

Everything is computed anew from the PNGs on every call. Of a sequence only one frame is in memory at a time,
beside a table of its J and F.
"""

import argparse
import csv
import io
import json
import multiprocessing
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from utils.annotations import Annotations, LabelFolder
from utils.errors import UserError, run_main
from utils.metrics import VOID, Statistics, frame_scores, statistics
from utils.png import read_label_png, replacing

MAX_PROPOSALS = 20
FRAMES_PER_PROCESS = 200  # starting a process costs about as much as scoring half of these
PROTOCOLS = {
    "davis": f"one assignment per sequence, at most {MAX_PROPOSALS} proposals (official DAVIS-2017)",
    "paper": "a new assignment in every frame, any number of proposals (identity over time is not scored)",
}
GLOBAL_COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
SEQUENCE_COLUMNS = ("Sequence", "J-Mean", "F-Mean")


@dataclass(frozen=True)
class SequenceScores:
    """One sequence under one protocol. Object `k` is id `k + 1` of the ground truth.

    `assignment` holds the proposal (0-based: id minus one) matched to each object, None where the object got
    no proposal because there were fewer proposals than objects; under `paper` it is one such tuple per frame.
    `proposals` counts the ids that occur in the results.
    """

    sequence: str
    frames: int
    proposals: int
    j: tuple[Statistics, ...]
    f: tuple[Statistics, ...]
    assignment: tuple

    @property
    def j_mean(self) -> float:
        """J-Mean averaged over the objects."""
        return float(np.mean([object_.mean for object_ in self.j]))

    @property
    def f_mean(self) -> float:
        """F-Mean averaged over the objects."""
        return float(np.mean([object_.mean for object_ in self.f]))


@dataclass(frozen=True)
class Scores:
    """All sequences under one protocol, in the order they were asked for."""

    protocol: str
    sequences: tuple[SequenceScores, ...]

    def summary(self) -> dict[str, float]:
        """The global row under `GLOBAL_COLUMNS`: every object of every sequence has the same weight."""
        j = np.mean([object_ for sequence in self.sequences for object_ in sequence.j], axis=0)
        f = np.mean([object_ for sequence in self.sequences for object_ in sequence.f], axis=0)
        return dict(zip(GLOBAL_COLUMNS, map(float, ((j[0] + f[0]) / 2, *j, *f)), strict=True))


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


@dataclass(frozen=True)
class _Table:
    """What a sequence's PNGs say, before any protocol: its frames' scores and how many ids there are.

    As in the DAVIS toolkit, the objects are ids 1 to the highest in the ground truth, void aside, and the
    proposals ids 1 to the highest in the results; an id that never occurs is an empty mask.
    """

    frames: tuple[_Frame, ...]
    num_objects: int
    highest_id: int
    used_ids: int

    @property
    def num_candidates(self) -> int:
        """Number of proposals to match: padded with empty ones where there are fewer than objects."""
        return max(self.highest_id, self.num_objects)

    def name(self, proposal: int) -> int | None:
        """0-based index of a proposal, None for one that was only added to have enough."""
        return int(proposal) if proposal < self.highest_id else None


def score(
    results: str | os.PathLike,
    annotations: dict[str, Annotations],
    *,
    protocols: Sequence[str] = ("davis",),
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, Scores]:
    """Score `<results>/<sequence>/*.png` of every sequence of `annotations`.

    The PNGs are read once for all `protocols` (keys of `PROTOCOLS`). Sequences are spread over at most
    `workers` processes (default: one per core), as many as the frames are worth; when one is enough, that is
    this process. Others are spawned, so a calling script needs its `if __name__ == "__main__"`. Returns one
    `Scores` per protocol. Raises `UserError` on the first missing or unfit file.
    """
    _check_request(results, annotations, protocols, workers)
    done: dict[str, dict[str, SequenceScores]] = {}
    # Long sequences first, so that none is left to run alone at the end.
    lengths = {name: len(annotated.frame_names) for name, annotated in annotations.items()}
    order = sorted(annotations, key=lambda name: -lengths[name])
    jobs = [(annotations[name], str(Path(results) / name), tuple(protocols)) for name in order]
    useful = -(-sum(lengths.values()) // FRAMES_PER_PROCESS)
    workers = min(workers or os.cpu_count() or 1, len(jobs), useful)
    with tqdm(total=len(jobs), desc="scoring", unit="seq", disable=None if progress else True) as bar:
        for index, scored in _run(jobs, workers):
            done[order[index]] = scored
            bar.update()
    return {name: Scores(name, tuple(done[sequence][name] for sequence in annotations)) for name in protocols}


def score_sequence(
    annotations: Annotations, result_dir: str | os.PathLike, protocols: Sequence[str] = ("davis",)
) -> dict[str, SequenceScores]:
    """Score one sequence: `protocols` -> its scores, from one pass over its frames.

    The frames are those of `annotations`, however sparse; each needs one of the same name and
    size in `result_dir`. Raises `UserError` when one is missing or unfit, when nothing is annotated, and,
    under `davis`, when there are more than 20 proposals.
    """
    limit = MAX_PROPOSALS if "davis" in protocols else None
    table = _read_table(annotations, Path(result_dir), limit)
    matched = {"davis": _match_sequence, "paper": _match_frames}
    return {name: _summarise(Path(result_dir).name, table, matched[name](table)) for name in protocols}


def write_scores(
    scores: Scores, results: str | os.PathLike, *, split: str, provenance: dict[str, Any] | None = None
) -> Path:
    """Write `scores` to `<results>/scores/<protocol>/` and return that folder.

    `global_results-<split>.csv` and `per-sequence_results-<split>.csv` have the DAVIS toolkit's names,
    columns and three decimals; `scores.json` has everything in full precision, with `provenance` (where the
    results came from: config, checkpoint hash) and the versions of the libraries that computed it.
    """
    folder = Path(results) / "scores" / scores.protocol
    summary = scores.summary()
    _write_text(folder / f"global_results-{split}.csv", _csv(GLOBAL_COLUMNS, [tuple(summary.values())]))
    _write_text(folder / f"per-sequence_results-{split}.csv", _csv(SEQUENCE_COLUMNS, _object_rows(scores)))
    _write_text(folder / "scores.json", _json(_as_dict(scores, split, provenance)))
    return folder


def print_table(scores: Scores, out: Callable[[str], None] = print) -> None:
    """Print a line per sequence and the global row, in percent, headed by the protocol and what it means."""
    width = max(len("sequence"), *(len(sequence.sequence) for sequence in scores.sequences))
    out(f"protocol {scores.protocol}: {PROTOCOLS[scores.protocol]}")
    out(f"{'sequence':<{width}}  objects  proposals      J      F    J&F")
    for sequence in scores.sequences:
        j, f = 100 * sequence.j_mean, 100 * sequence.f_mean
        counts = f"{len(sequence.j):>7}  {sequence.proposals:>9}"
        out(f"{sequence.sequence:<{width}}  {counts}  {j:5.1f}  {f:5.1f}  {(j + f) / 2:5.1f}")
    summary = {name: 100 * value for name, value in scores.summary().items()}
    objects = sum(len(sequence.j) for sequence in scores.sequences)
    means = "  ".join(f"{summary[name]:5.1f}" for name in ("J-Mean", "F-Mean", "J&F-Mean"))
    out(f"{'all objects':<{width}}  {objects:>7}  {'':>9}  {means}")
    out("  ".join(f"{name} {summary[name]:.1f}" for name in GLOBAL_COLUMNS))


def _check_request(
    results: str | os.PathLike, annotations: dict, protocols: Sequence[str], workers: int | None
) -> None:
    for protocol in protocols:
        if protocol not in PROTOCOLS:
            raise UserError(f"protocol {protocol!r} is unknown; choose from {', '.join(PROTOCOLS)}")
    if workers is not None and workers < 1:
        raise UserError(f"--workers is {workers}; give at least 1")
    if not annotations:
        raise UserError("there are no sequences to score; name at least one in the split file")
    if not Path(results).is_dir():
        raise UserError(f"{results}: no such folder of results; check --results")
    missing = [name for name in annotations if not (Path(results) / name).is_dir()]
    if missing:
        raise UserError(
            f"{Path(results) / missing[0]}: no such folder; the results lack {len(missing)} of "
            f"{len(annotations)} sequences; predict them first or score another split"
        )


def _run(jobs: list[tuple], workers: int) -> Iterator[tuple[int, dict[str, SequenceScores]]]:
    """Yield (index, answer) of `score_sequence` for every job, as they are done."""
    if workers == 1:
        yield from ((index, score_sequence(*job)) for index, job in enumerate(jobs))
        return
    # Spawned, not forked: the caller may hold threads or a GPU. One OpenCV thread each: the cores are taken.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,))
    try:
        futures = {pool.submit(score_sequence, *job): index for index, job in enumerate(jobs)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read_table(annotations: Annotations, result_dir: Path, limit: int | None) -> _Table:
    """Score every annotated frame; more than `limit` proposals are a `UserError` once they are seen."""
    num_objects, used, frames = 0, set(), []
    for name in annotations.frame_names:
        result = result_dir / f"{name}.png"
        gt, labels = _read_pair(annotations, name, result)
        ids = _ids(labels)
        if limit is not None and len(ids) and ids[-1] > limit:
            raise UserError(
                f"{result}: sequence {result_dir.name} has proposal ids up to {ids[-1]}, "
                f"davis allows {limit}; write fewer proposals, numbered from 1, or score with --protocol paper"
            )
        used.update(ids.tolist())
        frames.append(_score_frame(gt, labels, ids))
        num_objects = max(num_objects, frames[-1].objects.max(initial=0))
    if not num_objects:
        first = annotations.source(annotations.frame_names[0])
        raise UserError(f"{first}: only 0 and void ({VOID}) in any frame; number objects from 1")
    return _Table(tuple(frames), int(num_objects), max(used, default=0), len(used))


def _read_pair(annotations: Annotations, frame: str, result: Path) -> tuple[np.ndarray, np.ndarray]:
    if not result.is_file():
        raise UserError(f"{result}: no such file; every annotated frame needs a result, predict this one")
    gt, labels = annotations.read(frame), read_label_png(result)
    if gt.shape != labels.shape:
        sizes = " but ".join("{1}x{0}".format(*array.shape) for array in (labels, gt))
        raise UserError(f"{result}: is {sizes} in {annotations.source(frame)}; write results at the annotation's size")
    return gt, labels


def _ids(labels: np.ndarray) -> np.ndarray:
    """Ids above 0 that occur in a label map, sorted."""
    return np.flatnonzero(np.bincount(labels.ravel())[1:]) + 1


def _score_frame(gt: np.ndarray, labels: np.ndarray, ids: np.ndarray) -> _Frame:
    """Score what occurs in the frame; `ids` are those of `labels`. High ids cost no more than low ones."""
    compact = np.zeros(int(ids.max(initial=0)) + 1, dtype=np.uint16)
    compact[ids] = np.arange(1, len(ids) + 1)
    objects = _ids(gt)
    absent = int(objects.max(initial=0)) + 1
    objects = objects[objects != VOID]
    j, f = frame_scores(gt, compact.take(labels), [*objects, absent], len(ids) + 1)
    return _Frame(objects, ids, j, f)


_Matched = tuple[np.ndarray, np.ndarray, tuple]


def _match_sequence(table: _Table) -> _Matched:
    """`davis`: J and F (frames, objects) of proposals matched once, on (J + F) / 2 averaged over frames."""
    ids = np.arange(1, table.num_candidates + 1)
    tables = [frame.table(table.num_objects, ids) for frame in table.frames]
    j, f = (np.stack(parts) for parts in zip(*tables, strict=True))
    chosen = _assign((j.mean(axis=0) + f.mean(axis=0)) / 2)
    rows = np.arange(table.num_objects)
    return j[:, rows, chosen], f[:, rows, chosen], tuple(table.name(p) for p in chosen)


def _match_frames(table: _Table) -> _Matched:
    """`paper`: J and F (frames, objects) of the proposals matched anew in every frame.

    Proposals that do not occur in a frame are all the same empty mask there, so no more of them are looked at
    than there are objects.
    """
    rows, matched_j, matched_f, assignment = np.arange(table.num_objects), [], [], []
    for frame in table.frames:
        ids = _candidates(frame, table)
        j, f = frame.table(table.num_objects, ids)
        chosen = _assign((j + f) / 2)
        matched_j.append(j[rows, chosen])
        matched_f.append(f[rows, chosen])
        assignment.append(tuple(table.name(p) for p in ids[chosen] - 1))
    return np.stack(matched_j), np.stack(matched_f), tuple(assignment)


def _candidates(frame: _Frame, table: _Table) -> np.ndarray:
    """Ids present in `frame` and the first few absent ones, sorted."""
    first = np.arange(1, min(table.num_candidates, len(frame.proposals) + table.num_objects) + 1)
    absent = np.setdiff1d(first, frame.proposals, assume_unique=True)[: table.num_objects]
    return np.union1d(frame.proposals, absent)


def _assign(quality: np.ndarray) -> np.ndarray:
    """Proposal of each object, (objects,), maximising the summed `quality` (objects, proposals)."""
    proposals, objects = linear_sum_assignment(-quality.T)
    return proposals[np.argsort(objects)]


def _summarise(sequence: str, table: _Table, matched: _Matched) -> SequenceScores:
    j, f, assignment = matched
    return SequenceScores(
        sequence=sequence,
        frames=len(table.frames),
        proposals=table.used_ids,
        j=tuple(statistics(values) for values in j.T),
        f=tuple(statistics(values) for values in f.T),
        assignment=assignment,
    )


def _object_rows(scores: Scores) -> Iterator[tuple]:
    for sequence in scores.sequences:
        for k, (j, f) in enumerate(zip(sequence.j, sequence.f, strict=True), start=1):
            yield f"{sequence.sequence}_{k}", j.mean, f.mean


def _csv(columns: Sequence[str], rows: Iterable[tuple]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([f"{v:.3f}" if isinstance(v, float) else v for v in row] for row in rows)
    return text.getvalue()


def _json(content: dict[str, Any]) -> str:
    """Indented JSON with the innermost lists, three numbers or so, on one line each."""
    text = json.dumps(content, indent=1)
    return re.sub(r"\[\n[^][{}]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def _as_dict(scores: Scores, split: str, provenance: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "protocol": scores.protocol,
        "meaning": PROTOCOLS[scores.protocol],
        "split": split,
        "global": scores.summary(),
        "sequences": {sequence.sequence: _sequence_dict(sequence) for sequence in scores.sequences},
        "provenance": provenance or {},
        "versions": versions(),
    }


def _sequence_dict(sequence: SequenceScores) -> dict[str, Any]:
    return {
        "frames": sequence.frames,
        "proposals": sequence.proposals,
        "J": sequence.j,
        "F": sequence.f,
        "assignment": sequence.assignment,
    }


def versions() -> dict[str, str]:
    """Versions of what computes the scores."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "scipy": scipy.__version__,
    }


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _read_split(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path}: no such split file; check --davis_path and --split_file")
    names = list(dict.fromkeys(path.read_text(encoding="utf-8").split()))
    if not names:
        raise UserError(f"{path}: the split file names no sequence; put one name on each line")
    return names


def _read_provenance(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); mend or remove it") from None


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="one folder of PNGs per sequence")
    parser.add_argument("--davis_path", type=Path, required=True, help="root of the DAVIS dataset")
    parser.add_argument("--protocol", choices=[*PROTOCOLS, "both"], default="davis", help="how proposals are matched")
    parser.add_argument(
        "--annotations", default="Annotations_unsupervised/480p", help="annotations, relative to --davis_path"
    )
    parser.add_argument(
        "--split_file", default="ImageSets/2017/val.txt", help="sequences to score, relative to --davis_path"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes at most")
    return parser.parse_args()


def main() -> None:
    """Score, print and write, as the module's docstring says."""
    args = _parse_args()
    split_file = args.davis_path / args.split_file
    sequences = _read_split(split_file)
    provenance = _read_provenance(args.results / "settings.json")
    annotations = {name: LabelFolder(args.davis_path / args.annotations / name) for name in sequences}
    protocols = list(PROTOCOLS) if args.protocol == "both" else [args.protocol]
    for scores in score(args.results, annotations, protocols=protocols, workers=args.workers).values():
        print_table(scores)
        folder = write_scores(scores, args.results, split=split_file.stem, provenance=provenance)
        print(f"written to {folder}\n")


if __name__ == "__main__":
    run_main(main)
