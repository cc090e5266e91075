"""Score label PNGs against ground truth under one or several protocols: the library behind `python -m utils.scoring`.

Scores of a sequence are kept with a hash of every file that they come from, so that an interrupted scoring continues
where it was. Of a sequence only one frame is in memory at a time, beside a table of its J and F. Under torchrun every
process scores its share.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Sequence
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
from utils.scoring.slots import CLIP_FRAMES
from utils.scoring.tables import Scores

VERSION = 3  # raise it with every change of what is computed: kept scores of older versions are then done anew
FRAMES_PER_PROCESS = 200  # starting a process costs about as much as scoring half of these


@dataclass(frozen=True)
class Job:
    """One sequence to score: picklable, it goes to other processes.

    keep: protocol -> digest of all that its scores depend on; they are then kept with it below `scores_path`.
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
    progress: bool = True,
) -> dict[str, Scores]:
    """Score `<results>/<sequence>/*.png` of every sequence of `annotations`.

    The PNGs are read once for all `protocols` (keys of `PROTOCOLS`). Sequences are spread over at most
    `workers` processes (default: one per core), as many as the frames are worth; when one is enough, that is
    this process. Others are spawned, so a calling script needs its `if __name__ == "__main__"`.

    Under torchrun each process scores its share.

    Args:
        keep: keep each sequence's scores below `<scores_path>/scores` and take those that are there for the same files.
        scores_path: the results if not given.

    Returns:
        One `Scores` per protocol, in the order of `annotations`; the same in every process.

    Raises:
        UserError: the first missing or unfit file.
    """
    _check_request(results, annotations, protocols, workers)
    truth = {name: annotated.digest() for name, annotated in annotations.items()}
    # Long sequences first, so that none is left to run alone at the end.
    order = sorted(annotations, key=lambda name: -len(annotations[name].frame_names))
    mine = order[distributed.rank() :: distributed.world_size()]
    jobs = [Job(name, annotations[name], Path(results), tuple(protocols), options) for name in mine]
    if keep:
        place = scores_path or Path(results)
        jobs = [replace(job, keep=_digests(job, truth[job.sequence]), scores_path=place) for job in jobs]
    done = _in_all_processes(jobs, workers, progress)
    scored = {}
    for name in protocols:
        used = {option: getattr(options, option) for option in PROTOCOLS[name].options}
        scored[name] = Scores(name, tuple(done[sequence][name] for sequence in annotations), used, truth)
        if len(scored[name].without_objects) == len(annotations):
            raise UserError(f"{next(iter(annotations))}: only 0 and void in any frame, as in all sequences; "
                            "number objects from 1")  # fmt: skip
    return scored


def score_sequence(job: Job) -> dict[str, SequenceScores]:
    """Score one sequence: its protocols -> scores, from one or two passes over its frames.

    The frames are those of `job.annotations`, however sparse; each needs a PNG of the same name and
    size in `<results>/<sequence>`. Raises `UserError` when one is missing or unfit, and,
    under `davis`, when there are more than 20 proposals.
    """
    at_work, results = make_evaluators(job.protocols, job.options), _result_files(job)
    for number in range(max(judge.passes for judge in at_work)):
        looking = [judge for judge in at_work if number < judge.passes]
        for frame in job.annotations.frame_names:
            gt, labels = _read_pair(job.annotations, frame, results[frame])
            for judge in looking:
                judge.add(gt, labels, source=str(results[frame]), number=number)
    found = {name: scores for judge in at_work for name, scores in judge.results(job.sequence).items()}
    for name, digest in job.keep.items():
        if name in found:
            _write_kept(_kept_file(job, name), digest, found[name])
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


def _in_all_processes(jobs: list[Job], workers: int | None, progress: bool) -> dict[str, dict[str, SequenceScores]]:
    """Sequence -> protocol -> scores of the jobs of all processes; a fault in one is raised in all."""
    try:
        mine, fault = _run_all(jobs, workers, progress), None
    except UserError as error:
        mine, fault = {}, str(error)
    gathered = distributed.gather((mine, fault))
    if faults := [fault for _, fault in gathered if fault]:
        raise UserError(faults[0])
    return {sequence: scores for part, _ in gathered for sequence, scores in part.items()}


def _run_all(jobs: list[Job], workers: int | None, progress: bool) -> dict[str, dict[str, SequenceScores]]:
    """Sequence -> protocol -> scores, those that were kept among them."""
    done = {job.sequence: _read_kept(job) for job in jobs}
    todo = [replace(job, protocols=tuple(p for p in job.protocols if p not in done[job.sequence])) for job in jobs]
    todo = [job for job in todo if job.protocols]
    useful = -(-sum(len(job.annotations.frame_names) for job in todo) // FRAMES_PER_PROCESS)
    workers = min(workers or max(threads.count_cpus() // threads.count_processes(), 1), len(todo), useful)
    disable = None if progress else True
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(todo), desc="scoring", unit="seq", disable=disable)
    with bar, run_in_processes(score_sequence, [(job,) for job in todo], workers=workers, flag="--workers") as answers:
        for index, scored in answers:
            done[todo[index].sequence] |= scored
            bar.update()
    return done


# ------------------------------------------------------------------ kept scores


def _kept_file(job: Job, protocol: str) -> Path:
    return job.scores_path / "scores" / protocol / "sequences" / f"{job.sequence}.json"


def _digests(job: Job, truth: str) -> dict[str, str]:
    """Protocol -> hash of everything that its scores of a sequence depend on; `truth`: of the ground truth."""
    predicted = digest_files(_result_files(job).values())
    digests = {}
    for name in job.protocols:
        options = [getattr(job.options, option) for option in PROTOCOLS[name].options]
        digests[name] = hashlib.blake2b(repr((VERSION, name, predicted, truth, options)).encode()).hexdigest()[:32]
    return digests


def _read_kept(job: Job) -> dict[str, SequenceScores]:
    """Protocol -> scores that were kept for exactly these files; none of others, nor damaged ones."""
    found = {}
    for name, digest in job.keep.items():
        try:
            content = json.loads(_kept_file(job, name).read_text(encoding="utf-8"))
            if content["digest"] == digest:
                found[name] = PROTOCOLS[name].scores.from_json(job.sequence, content["scores"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return found


def _write_kept(path: Path, digest: str, scores: SequenceScores) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps({"digest": digest, "scores": scores.to_json()}), encoding="utf-8")


# ------------------------------------------------------------------ files


def _result_files(job: Job) -> dict[str, Path]:
    """The PNG of each annotated frame, be it there or not."""
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
    """What eval.py noted of how it made the `results`; empty for anybody else's."""
    path = results / "settings.json"
    return read_object(path, mend="mend or remove it") if path.is_file() else {}


def _mend_root(args: argparse.Namespace) -> str:
    """What to give in place of --davis_path: archives are unpacked into a folder of their own as often as not."""
    inside = [path for pattern in ("*", "*/*") for path in sorted(args.davis_path.glob(pattern))]
    found = next((path for path in inside if (path / args.split_file).is_file()), None)
    return f"give --davis_path {found}" if found else "check --davis_path and --split_file"


def _mend_annotations(args: argparse.Namespace) -> str:
    """What to give in place of --annotations, where DAVIS's other download was unpacked."""
    known = ("Annotations_unsupervised/480p", "Annotations/480p", "Annotations")
    found = next((path for path in known if (args.davis_path / path).is_dir()), None)
    return f"give --annotations {found}, which is there" if found else "check --davis_path and --annotations"


def add_score_options(add: Callable[..., Any]) -> None:
    """The flags of `Options`."""
    add(
        "--toolkit_exact",
        action="store_true",
        help="as the DAVIS toolkits: 8-bit frame indices in decay; under "
        "foreground and oracle without the first and last frame",
    )
    add("--clip_frames", type=int, default=CLIP_FRAMES, help="clip length of slots (VideoSAUR's 6); 0: whole videos")
    add("--first_frame_objects", action="store_true", help="slots: only the first frame's objects count (SOLV)")


def read_score_options(args: argparse.Namespace) -> Options:
    if args.clip_frames < 0:
        raise UserError(f"--clip_frames is {args.clip_frames}; give at least 1, or 0 for whole videos")
    return Options(args.toolkit_exact, args.clip_frames or None, args.first_frame_objects)


def expand_protocol_names(names: Sequence[str], everything: Sequence[str]) -> list[str]:
    """Protocols by the names that --protocol takes: `both` is davis and paper, `all` is `everything`."""
    groups = {"both": ("davis", "paper"), "all": tuple(everything)}
    return list(dict.fromkeys(protocol for name in names for protocol in groups.get(name, (name,))))
