"""Score label PNGs against ground truth; the functions behind `python -m utils.scoring` and eval.py.

Scores of a sequence are saved with a hash of all files that they depend on, so that an interrupted scoring continues.
Only one frame of a sequence is in memory at a time, beside a table of its J and F. Under torchrun every process scores
its part of the sequences.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from utils import distributed, threads
from utils.errors import UserError
from utils.files import digest_files, read_object, write_atomically
from utils.png import find_pngs, read_label_png
from utils.processes import run_in_processes
from utils.scoring.annotations import Annotations
from utils.scoring.evaluators import DEFAULT_OPTIONS, Options, make_evaluators
from utils.scoring.protocols import PROTOCOLS
from utils.scoring.sequence import SequenceScores
from utils.scoring.tables import Scores

VERSION = 3  # raise it with every change of a measure: saved scores of older versions are then computed again
FRAMES_PER_PROCESS = 400  # starting a process takes as long as scoring a hundred to two hundred of these


@dataclass(frozen=True)
class Job:
    """One sequence to score; can be pickled, to be sent to another process.

    Attributes:
        keep: protocol -> hash of everything that its scores depend on; scores with a hash are saved below
            `scores_path`.
    """

    sequence: str
    annotations: Annotations
    results: Path
    protocols: tuple[str, ...]
    options: Options = DEFAULT_OPTIONS
    keep: dict[str, str] = field(default_factory=dict)
    scores_path: Path = Path()


def score(
    results: str | os.PathLike,
    annotations: dict[str, Annotations],
    *,
    protocols: Sequence[str] = ("davis",),
    options: Options = DEFAULT_OPTIONS,
    keep: bool = False,
    scores_path: Path | None = None,
    workers: int | None = None,
) -> dict[str, Scores]:
    """Score `<results>/<sequence>/*.png` of every sequence of `annotations`.

    The PNGs are read once for all protocols. Processes are spawned, so a calling script needs its
    `if __name__ == "__main__"`. Under torchrun every process scores its part of the sequences.

    Args:
        protocols: keys of `PROTOCOLS`.
        keep: save the scores of each sequence below `<scores_path>/scores`, and reuse those of the same files.
        scores_path: the results if not given.
        workers: processes at most, one per core if not given. Few frames get fewer, or none beside this one.

    Returns:
        Protocol -> `Scores` with the sequences in the order of `annotations`; the same in every process.

    Raises:
        UserError: a file is missing or does not fit; the first such file is named.
    """
    _check_request(results, annotations, protocols, workers)
    truth = {name: annotated.digest() for name, annotated in annotations.items()}
    # Long sequences first: one that starts last would run alone at the end.
    order = sorted(annotations, key=lambda name: -len(annotations[name].frame_names))
    mine = order[distributed.rank() :: distributed.world_size()]
    jobs = [Job(name, annotations[name], Path(results), tuple(protocols), options) for name in mine]
    if keep:
        place = scores_path or Path(results)
        jobs = [replace(job, keep=_digests(job, truth[job.sequence]), scores_path=place) for job in jobs]
    done = _in_all_processes(jobs, workers)
    scored = {}
    for name in protocols:
        used = {option: getattr(options, option) for option in PROTOCOLS[name].options}
        scored[name] = Scores(name, tuple(done[sequence][name] for sequence in annotations), used, truth)
        if len(scored[name].without_objects) == len(annotations):
            raise UserError(f"{next(iter(annotations))}: only 0 and void in any frame, as in all sequences; "
                            "number objects from 1")  # fmt: skip
    return scored


def score_sequence(job: Job) -> dict[str, SequenceScores]:
    """Score one sequence in one or two passes over its frames; return protocol -> scores.

    Only annotated frames are scored. Each needs a PNG of the same name and size in `<results>/<sequence>`.

    Raises:
        UserError: a PNG is missing or has another size, or, under `davis`, there are more than 20 proposals.
    """
    evaluators, results = make_evaluators(job.protocols, job.options), _result_files(job)
    for number in range(max(evaluator.passes for evaluator in evaluators)):
        active = [evaluator for evaluator in evaluators if number < evaluator.passes]
        for frame in job.annotations.frame_names:
            gt, labels = _read_pair(job.annotations, frame, results[frame])
            for evaluator in active:
                evaluator.add(gt, labels, source=str(results[frame]), number=number)
    found = {name: scores for evaluator in evaluators for name, scores in evaluator.results(job.sequence).items()}
    for name, digest in job.keep.items():
        if name in found:
            _write_saved(_saved_file(job, name), digest, found[name])
    return found


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
        raise UserError(f"{results}: no such folder of results")
    missing = [name for name in annotations if not (Path(results) / name).is_dir()]
    if missing:
        raise UserError(
            f"{Path(results) / missing[0]}: no such folder; the results lack {len(missing)} of "
            f"{len(annotations)} sequences; predict them first or score another split"
        )


# ------------------------------------------------------------------ processes


def _in_all_processes(jobs: list[Job], workers: int | None) -> dict[str, dict[str, SequenceScores]]:
    """Score the jobs of all processes; return sequence -> protocol -> scores. An error in one is raised in all."""
    try:
        mine, fault = _run_all(jobs, workers), None
    except UserError as error:
        mine, fault = {}, str(error)
    gathered = distributed.gather((mine, fault))
    if faults := [fault for _, fault in gathered if fault]:
        raise UserError(faults[0])
    return {sequence: scores for part, _ in gathered for sequence, scores in part.items()}


def _run_all(jobs: list[Job], workers: int | None) -> dict[str, dict[str, SequenceScores]]:
    """Score this process's jobs, or read their saved scores; return sequence -> protocol -> scores."""
    done = {job.sequence: _read_saved(job) for job in jobs}
    todo = [replace(job, protocols=tuple(p for p in job.protocols if p not in done[job.sequence])) for job in jobs]
    todo = [job for job in todo if job.protocols]
    useful = -(-sum(len(job.annotations.frame_names) for job in todo) // FRAMES_PER_PROCESS)
    workers = min(workers or max(threads.count_cpus() // threads.count_processes(), 1), len(todo), useful)
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(todo), desc="scoring", unit="seq", disable=None)
    with bar, run_in_processes(score_sequence, [(job,) for job in todo], workers=workers) as answers:
        for index, scored in answers:
            done[todo[index].sequence] |= scored
            bar.update()
    return done


# ------------------------------------------------------------------ saved scores


def _saved_file(job: Job, protocol: str) -> Path:
    return job.scores_path / "scores" / protocol / "sequences" / f"{job.sequence}.json"


def _digests(job: Job, truth: str) -> dict[str, str]:
    """Return protocol -> hash of all that its scores depend on, given the hash `truth` of the ground truth."""
    predicted = digest_files(_result_files(job).values())
    digests = {}
    for name in job.protocols:
        options = [getattr(job.options, option) for option in PROTOCOLS[name].options]
        digests[name] = hashlib.blake2b(repr((VERSION, name, predicted, truth, options)).encode()).hexdigest()[:32]
    return digests


def _read_saved(job: Job) -> dict[str, SequenceScores]:
    """Read the scores that were saved for exactly these files; damaged ones are left out."""
    found = {}
    for name, digest in job.keep.items():
        try:
            content = json.loads(_saved_file(job, name).read_text(encoding="utf-8"))
            if content["digest"] == digest:
                found[name] = PROTOCOLS[name].scores.from_json(job.sequence, content["scores"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return found


def _write_saved(path: Path, digest: str, scores: SequenceScores) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps({"digest": digest, "scores": scores.to_json()}), encoding="utf-8")


# ------------------------------------------------------------------ files


def _result_files(job: Job) -> dict[str, Path]:
    """Return annotated frame -> its PNG, whether the file exists or not."""
    folder = job.results / job.sequence
    there = find_pngs(folder)
    return {name: there.get(name, folder / f"{name}.png") for name in job.annotations.frame_names}


def _read_pair(annotations: Annotations, frame: str, result: Path) -> tuple[np.ndarray, np.ndarray]:
    if not result.is_file():
        raise UserError(f"{result}: no such file; every annotated frame needs a result, predict this one")
    gt, labels = annotations.read(frame), read_label_png(result)
    if gt.shape != labels.shape:
        sizes = " but ".join("{1}x{0}".format(*array.shape) for array in (labels, gt))
        raise UserError(f"{result}: is {sizes} in {annotations.source(frame)}; write results at the annotation's size")
    return gt, labels


def read_provenance(results: Path) -> dict[str, Any]:
    """Read the settings that eval.py wrote beside the `results`; empty for those of another program."""
    path = results / "settings.json"
    return read_object(path, mend="mend or remove it") if path.is_file() else {}


def expand_protocol_names(names: Sequence[str], everything: Sequence[str]) -> list[str]:
    """List the protocols that --protocol names: `both` is davis and paper, `all` is `everything`."""
    groups = {"both": ("davis", "paper"), "all": tuple(everything)}
    return list(dict.fromkeys(protocol for name in names for protocol in groups.get(name, (name,))))
