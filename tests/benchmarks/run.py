"""Measure whole runs of eval.py from start to exit, by stage, beside the backbone alone over the same frames.

    python -m tests.benchmarks.run                                                # generated videos (Sprites)
    python -m tests.benchmarks.run --neighbour --csv rows.csv --config configs/dev8_dinov2_s14.yaml \
        --davis_path DAVIS --dino_path W.pth --training_free --sequences camel    # also a real video

Flags that are not listed by --help are those of eval.py for a second subject. Each subject is run three times: `cold`,
as a user runs it first; `cached`, with all features in a cache; `again`, where all results are there. The stages of a
video are those that eval.py records; the rest is told from the moments at which it prints lines:

- `start`: until the first video begins, or scoring where none is left.
- `rest`: between the first video and scoring, without the stages: fingerprints of videos, statistics.
- `motion` is left out of the sum, since it is measured in another thread while the backbone computes.

`backbone alone` encodes the same frames, decoded and resized before, in a process of its own. Seconds are medians over
`--repeats`, ratios are computed in each repeat. Files are in the system's cache, also in `cold` runs.

It is an entry point like eval.py, so it may import `model` and `data`.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import eval as eval_program
from data.sprites.writer import ensure_sprites
from data.videos import read_resized_frames
from model.segmenter import Segmenter, SegmenterSettings
from tests.benchmarks.inference import STAGES, busy_neighbour, machine, write_csv
from tests.processes import run_in_own_process
from utils.device import choose_amp, choose_device
from utils.errors import OneLineParser, UserError, run_main
from utils.files import check_writable, read_object
from utils.flags.choices import SPRITES_ROOT
from utils.flags.evaluation import make_parser as make_eval_parser
from utils.flags.types import positive_int
from utils.report.tables import STAGE_GROUPS
from utils.scoring.tables import align_columns

PROGRAM = Path(eval_program.__file__)
COLD, CACHED, AGAIN = RUNS = ("cold", "cached", "again")
QUIET, BESIDE = "quiet", "beside a busy neighbour"
# What eval.py prints at these moments. Each but the first stands in a line of its own.
MOMENTS = {"first video": rb"features 0/", "scoring": rb"scoring \d+ videos", "scored": rb"scoring: [0-9.]+ s/frame",
           "report": rb"report: [^\n]*index\.html"}  # fmt: skip
OF_VIDEOS = tuple(dict.fromkeys([*STAGES, *(stage for group in STAGE_GROUPS.values() for stage in group)]))
OVERLAPPED = "motion"
RATIOS = {"wall / backbone alone": ("wall", "backbone alone"), "cpu / backbone alone": ("cpu", "backbone alone cpu")}


def main() -> None:
    args, flags = make_parser().parse_known_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the temporary folder goes away
    if flags:
        refuse_wrong_flags(flags)
    if args.csv:
        check_writable(args.csv.parent, flag="--csv")
    recipe = str(PROGRAM.parent / "configs/embedded.yaml")
    sprites = ["--config", recipe, "--basepath", str(ensure_sprites(args.sprites))]
    subjects = {"sprites": sprites}
    if flags:
        subjects[" ".join(flags)] = flags
    for subject, own in subjects.items():
        with tempfile.TemporaryDirectory(prefix="benchmark_") as folder:
            rows = list(measure(own, Path(folder), repeats=args.repeats, neighbour=args.neighbour))
        print(f"{subject}, seconds\n" + "\n".join(align_columns(make_table(rows))) + "\n", flush=True)
        if args.csv:
            write_csv(args.csv, [{"subject": subject, **row} for row in rows])
    print(machine())


def refuse_wrong_flags(flags: list[str]) -> None:
    """Refuse flags that neither this program nor eval.py has, before anything is measured.

    Raises:
        UserError: naming the flag.
    """
    try:
        make_eval_parser().parse(flags)
    except UserError as error:
        raise UserError(f"{error}; own flags: --sprites, --repeats, --neighbour, --csv") from None


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m tests.benchmarks.run", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sprites", default=SPRITES_ROOT, help="folder of the generated videos, made if it is missing")
    add("--repeats", type=positive_int, default=3, help="runs of which the median counts")
    add("--neighbour", action="store_true", help="measure also beside a process that keeps a core busy")
    add("--csv", type=Path, help="append the rows to this table")
    return parser


def measure(flags: list[str], folder: Path, *, repeats: int, neighbour: bool) -> Iterator[dict[str, Any]]:
    """Yield a row of medians for each run of eval.py with these flags, quiet and beside a neighbour.

    One run before fills the feature cache; it is not measured.
    """
    cache = ["--feature_cache", str(folder / "cache")]
    run_once([*flags, *cache], folder / "filled")
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for repeat in range(repeats):  # in turn, so that whatever else runs meets all alike
        for place in (QUIET, BESIDE)[: 1 + neighbour]:
            results = folder / f"{place}{repeat}"
            with busy_neighbour() if place == BESIDE else nullcontext():
                wall, cpu = run_in_own_process(measure_backbone, flags, folder / "filled")
                measured = (
                    run_once(flags, results / COLD),
                    *(run_once([*flags, *cache], results / CACHED) for _ in (CACHED, AGAIN)),
                )
            for run, seconds in zip(RUNS, measured, strict=True):
                seconds |= {"backbone alone": wall, "backbone alone cpu": cpu}
                seconds |= {name: seconds[one] / seconds[other] for name, (one, other) in RATIOS.items()}
                found.setdefault((run, place), []).append(seconds)
    frames = sum(stats["frames"] for stats in read_stats(folder / "filled").values())
    for (run, place), each in found.items():
        medians = {name: round(statistics.median(seconds[name] for seconds in each), 3) for name in each[0]}
        yield {"run": run, "place": place, "frames": frames, **medians, "repeats": repeats}


def run_once(flags: Sequence[str], results: Path) -> dict[str, float]:
    """Run eval.py from start to exit; return its seconds as a whole, of computing, and of each stage."""
    is_there = results.exists()
    command = [sys.executable, "-u", str(PROGRAM), *flags, "--save_path", str(results)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    moments, printed = watch(process)
    _, status, usage = os.wait4(process.pid, 0)
    end = time.perf_counter()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"eval.py {' '.join(flags)}: failed with {printed.decode(errors='replace').splitlines()[-1]}")
    if missing := MOMENTS.keys() - moments.keys() - ({"first video"} if is_there else set()):
        raise UserError(f"eval.py {' '.join(flags)}: printed nothing for {min(missing)}; give videos with ground truth")
    of_videos = dict.fromkeys(OF_VIDEOS, 0.0)
    for stats in {} if is_there else read_stats(results).values():
        of_videos |= {stage: of_videos[stage] + stats["seconds"].get(stage, 0.0) for stage in OF_VIDEOS}
    begun = moments.get("first video", moments["scoring"])
    in_sum = sum(of_videos.values()) - of_videos[OVERLAPPED]
    return {
        "wall": end - start, "cpu": usage.ru_utime + usage.ru_stime, "start": begun - start, **of_videos,
        "rest": moments["scoring"] - begun - in_sum, "scoring": moments["scored"] - moments["scoring"],
        "report": moments["report"] - moments["scored"], "exit": end - moments["report"],
    }  # fmt: skip


def watch(process: subprocess.Popen) -> tuple[dict[str, float], bytes]:
    """Read what a process prints to its end: when it first printed each of `MOMENTS`, and all of it."""
    moments, printed = {}, b""
    while chunk := os.read(process.stdout.fileno(), 2**16):
        printed += chunk
        for name, pattern in MOMENTS.items():
            if name not in moments and re.search(pattern, printed):
                moments[name] = time.perf_counter()
    process.stdout.close()
    return moments, printed


def read_stats(results: Path) -> dict[str, dict[str, Any]]:
    """Read the statistics of each video of a folder of results."""
    return {path.stem: read_object(path, mend="run again") for path in sorted((results / "stats").glob("*.json"))}


def measure_backbone(flags: list[str], results: Path) -> tuple[float, float]:
    """Measure the seconds, and those of computing, in which the backbone encodes all frames of videos with results."""
    args = eval_program.parse_arguments([*flags, "--save_path", str(results)])
    args.device = choose_device(args.device)
    args.amp = choose_amp(args.amp, args.device)
    network = eval_program.make_network(args)
    segmenter = Segmenter(network, SegmenterSettings(frame_batch=args.frame_batch, amp=args.amp))
    stats, wall, cpu = read_stats(results), 0.0, 0.0
    for video in args.selection.load():
        frames = list(read_resized_frames(video, tuple(stats[video.name]["resolution"])))
        segmenter.encode(frames[: args.frame_batch], num_frames=len(frames[: args.frame_batch]))  # warms up
        start = time.perf_counter(), time.process_time()
        segmenter.encode(frames, num_frames=len(frames))
        wall, cpu = wall + time.perf_counter() - start[0], cpu + time.process_time() - start[1]
    return wall, cpu


def make_table(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Make the table that is printed: a row for each stage, a column for each run."""
    head = [["", *(f"{row['run']}{' beside' * (row['place'] == BESIDE)}" for row in rows)]]
    return head + [[name, *(f"{row[name]:.2f}" for row in rows)]
                   for name in rows[0] if isinstance(rows[0][name], float)]  # fmt: skip


if __name__ == "__main__":
    run_main(main, lower="--resolution")
