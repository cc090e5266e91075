"""Measure the time of each stage of inference and its memory, beside a direct implementation of the formulas.

    python -m tests.benchmarks.inference        # the embedded backbone on a generated video
    python -m tests.benchmarks.inference --basepath FRAMES --dino_path W.pth --backbone vit_small_patch14_dinov2 \
        --resolution 336 672 --num_frames 70 --csv results/benchmark.csv
    python -m tests.benchmarks.inference --sweep tokens frames key_frames --engines exact fast --picture growth.png
    python -m tests.benchmarks.inference --neighbour --engines exact fast    # also beside a busy process

Each measurement runs in its own process, so that its peak memory can be measured; it warms up on six frames and
reports medians. As in eval.py, frames are decoded on the same cores while the backbone computes; `decode` is the time
spent waiting for them. A video shorter than --num_frames is played forwards and backwards. `plain` is
`model.clustering`. With `--neighbour` each run of another engine is repeated beside a busy process in another session,
as that of another user; the row of ratios tells how many times longer each stage took. The last line tells the same of
processes that only count, one a core: a stage that keeps every core busy cannot lose less.

It is an entry point like eval.py, so it may import `model` and `data`.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

import argparse
import csv
import itertools
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from data.frames import resize
from data.loading import load_videos
from data.resolution import check_resolution
from data.sprites.writer import FRAMES, write_sprites
from model.engine.windows import ENGINES
from model.network import build_network
from model.objects.affinity import CentredFeatures
from model.objects.find import find_objects
from model.objects.motion import MotionMeter
from model.objects.ranking import multiply_components, rank_labels, rate_labels
from model.objects.upsampling import upsample_labels
from model.segmenter import Segmentation, Segmenter, SegmenterSettings, key_frame_indices
from model.weights import EMBEDDED
from tests.processes import run_in_own_process
from utils.clock import Clock
from utils.config import choose_temperature
from utils.device import AMP_DTYPES, choose_device, peak_memory_gb
from utils.errors import OneLineParser, UserError, run_main
from utils.files import check_writable
from utils.flags.choices import CLUSTERINGS, OWN_VIDEO, PLAIN, SPRITES_ROOT
from utils.flags.types import positive_float, positive_int
from utils.parallel import use_one_core
from utils.png import write_label_png
from utils.visual import save_figure

WARM_UP = 6  # frames
HIDDEN = ("device", "threads", "runs", "tau", "sweep", "backbone_name", "amp", "memory_gb")  # in the table printed
STAGES = ("decode", "motion", "backbone", "attention", "stage 1", "stage 2", "assign", "objects", "upsample", "write")
OURS = ("attention", "stage 1", "stage 2", "assign")
BESIDE, RATIO = "{} beside a busy neighbour", "{} beside it / quiet"  # rows of an engine, so named in its column
# It ends with the process that started it, however that ends.
SPIN = "import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    for _ in range(10**6): pass"
COUNT = "import time\nend, n = time.monotonic() + 3, 0\nwhile time.monotonic() < end: n += 1\nprint(n)"
SWEEPS = {"tokens": (0.5, 0.71, 1.0, 1.41), "frames": (0.5, 1.0, 2.0, 4.0), "key_frames": (0.25, 0.5, 1.0, 2.0)}


def main() -> None:
    args = make_parser().parse_args()
    if args.picture and not args.sweep:
        raise UserError(f"--picture {args.picture}: shows growth; name what is to grow with --sweep")
    if args.picture and args.neighbour:
        raise UserError(f"--picture {args.picture}: shows engines on a quiet machine alone; leave out --neighbour")
    for flag in ("csv", "picture"):
        if path := getattr(args, flag):
            check_writable(path.parent, flag=f"--{flag}")
    if args.basepath is None:
        args.basepath = str(write_sprites(Path(SPRITES_ROOT)) / FRAMES / "val-00")
    points = list(sweep_points(args)) if args.sweep else [("", args)]
    rows, labels = [], {}
    for swept, point in points:
        for engine in args.engines:
            measured, labels[engine] = run_in_own_process(measure, point, engine)
            for row in measured:
                rows.append({"sweep": swept, **row})
                print_row(rows[-1], first=len(rows) == 1)
                if args.csv:
                    write_csv(args.csv, rows[-1:])
        if not swept:
            for engine, other in itertools.combinations(args.engines, 2):
                print(f"{other} gives {100 * agreement(labels[engine], labels[other]):.3f} % of the tokens the label "
                      f"that {engine} gives")  # fmt: skip
    if args.neighbour:
        ratio = measure_counting(args.repeats)
        print(f"processes that only count, one a core, take {ratio:.2f} times as long beside it")
    print(machine())
    if args.picture:
        draw(rows, args.picture)


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m tests.benchmarks.inference", description=__doc__.splitlines()[0])
    add_subject(parser, basepath="a video file or folder of frames; without it the first generated validation video")
    add = parser.add_argument
    add("--temperature", type=positive_float, help="s of the training-free point; as in eval.py if not given")
    add("--num_frames", type=positive_int, default=30)
    add("--ratio", type=positive_int, default=10)
    add("--max_key_frames", type=positive_int)
    add("--tau", type=positive_float, default=1.0)
    add("--memory_gb", type=positive_float, default=8.0)
    add("--engines", nargs="+", choices=CLUSTERINGS, default=[PLAIN, *ENGINES])
    add("--repeats", type=positive_int, default=3, help="runs of which the median counts; plain has one")
    add("--neighbour", action="store_true", help="measure also beside a process that keeps a core busy")
    add("--sweep", nargs="+", choices=tuple(SWEEPS), default=[], help="growth with these, the others fixed")
    add("--picture", type=Path, help="for --sweep: a log-log plot")
    return parser


def add_subject(parser: argparse.ArgumentParser, *, basepath: str) -> None:
    """Add the options of both benchmarks: backbone, data, sizes, and the output table."""
    add = parser.add_argument
    add("--basepath", help=basepath)
    add("--backbone", default=EMBEDDED)
    add("--dino_path")
    add("--resolution", type=positive_int, nargs=2, default=(160, 280), metavar=("H", "W"))
    add("--amp", default="none", choices=tuple(AMP_DTYPES))
    add("--device", default="auto")
    add("--csv", type=Path, help="append the rows to this table")


def sweep_points(args: argparse.Namespace) -> Iterator[tuple[str, argparse.Namespace]]:
    """List settings that differ in one quantity."""
    key_frames = len(key_frame_indices(args.num_frames, args.ratio, args.max_key_frames))
    for name in args.sweep:
        seen = set()
        for factor in SWEEPS[name]:
            point = argparse.Namespace(**vars(args))
            if name == "tokens":  # height and width change alike
                patch = 8 if args.backbone == EMBEDDED else 56  # a multiple of the patch sizes in use
                point.resolution = tuple(max(round(side * factor**0.5 / patch), 1) * patch for side in args.resolution)
            elif name == "frames":
                point.num_frames = max(round(args.num_frames * factor), key_frames)
                point.ratio, point.max_key_frames = max(point.num_frames // key_frames, 1), key_frames
            else:
                point.ratio = max(round(args.num_frames / max(key_frames * factor, 1)), 1)
            key_indices = key_frame_indices(point.num_frames, point.ratio, point.max_key_frames)
            setting = (point.resolution, point.num_frames, len(key_indices))
            if setting not in seen:  # small quantities round to the same
                seen.add(setting)
                yield name, point


def measure(args: argparse.Namespace, engine: str) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Measure one engine on one setting; return its rows of the table and the labels (T, h, w)."""
    device = choose_device(args.device)
    network = build_network(backbone=args.backbone, dino_path=args.dino_path, num_heads=8, with_cls=False).to(device)
    network.init_blocks("identity", temperature=args.temperature or choose_temperature(args.backbone, "sprites"))
    check_resolution(args.resolution, network.backbone.patch_size)
    settings = SegmenterSettings(
        key_stride=args.ratio, tau=args.tau, memory_gb=args.memory_gb, amp=args.amp,
        max_key_frames=args.max_key_frames, clustering=engine,
    )  # fmt: skip
    segmenter = Segmenter(network, settings)
    run(args, segmenter, WARM_UP)
    quiet, beside = [], []
    for _ in range(1 if engine == PLAIN else args.repeats):
        quiet.append(run(args, segmenter, args.num_frames))
        if args.neighbour and engine != PLAIN:  # one after the other, so that whatever else runs meets both alike
            with busy_neighbour():
                beside.append(run(args, segmenter, args.num_frames))
    rows = [row_of(args, engine, quiet, device)]
    if beside:
        rows.append(row_of(args, BESIDE.format(engine), beside, device))
        rows.append(ratios(RATIO.format(engine), *rows))
    return rows, quiet[-1].labels


def row_of(args: argparse.Namespace, engine: str, runs: list[Segmentation], device: torch.device) -> dict[str, Any]:
    """Make a row of the table from the medians of several runs of one engine."""
    seconds = {stage: statistics.median(its.seconds.get(stage, 0.0) for its in runs) for stage in STAGES}
    num_frames, height, width = runs[-1].labels.shape
    key_frames = key_frame_indices(num_frames, args.ratio, args.max_key_frames)
    return {
        "engine": engine, "tokens": f"{height}x{width}", "frames": num_frames,
        "key_frames": len(key_frames), "clusters": runs[-1].num_clusters,
        **{stage: round(value, 3) for stage, value in seconds.items()},
        "clustering / backbone": round(sum(seconds[stage] for stage in OURS) / seconds["backbone"], 3),
        "peak_gb": round(peak_memory_gb(device), 2), "device": str(device), "threads": torch.get_num_threads(),
        "backbone_name": args.backbone, "amp": args.amp, "memory_gb": args.memory_gb,
        "tau": args.tau, "runs": len(runs),
    }  # fmt: skip


def ratios(engine: str, quiet: dict[str, Any], beside: dict[str, Any]) -> dict[str, Any]:
    """Make a row of the ratios of two rows; empty for a stage that took no time."""
    times = {stage: round(beside[stage] / quiet[stage], 2) if quiet[stage] else "" for stage in STAGES}
    return quiet | {"engine": engine} | times | {"clustering / backbone": "", "peak_gb": ""}


@contextmanager
def busy_neighbour() -> Iterator[subprocess.Popen]:
    """Keep one core busy with another process inside the context.

    It has a session of its own, by which the scheduler shares cores out, so that it gets as much as another user's.
    """
    command = [sys.executable, "-c", SPIN, str(os.getpid())]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def measure_counting(repeats: int) -> float:
    """Measure how many times longer processes that only count, one a core, take beside a busy neighbour."""
    quiet = beside = 0
    for _ in range(repeats):
        quiet += count_on_all_cores()
        with busy_neighbour():
            beside += count_on_all_cores()
    return quiet / beside


def count_on_all_cores() -> int:
    """Count for three seconds in one process a core, and return the sum."""
    command = [sys.executable, "-c", COUNT]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(torch.get_num_threads())]
    return sum(int(process.communicate()[0]) for process in processes)


def run(args: argparse.Namespace, segmenter: Segmenter, num_frames: int, *, clock: Clock | None = None) -> Segmentation:
    """Segment a video, from its files to label PNGs."""
    clock = clock or Clock(segmenter.device)
    meter = MotionMeter(segmenter.grid_size)
    frames = meter.watch(resize(frame, tuple(args.resolution)) for frame in read_frames(args, num_frames))
    features, grid = segmenter.encode(frames, num_frames=num_frames, clock=clock)
    found = segmenter.cluster(features, grid, clock=clock)
    with clock("objects"), use_one_core(features.device):
        objects, boundary_tokens = find_objects(found.labels, CentredFeatures(features, grid))
        scores = multiply_components(rate_labels(objects, meter.finish().evidence))
        proposals = rank_labels(objects, scores, max_proposals=20)
    with tempfile.TemporaryDirectory() as folder:
        pixels = upsample_labels(
            objects, read_frames(args, num_frames), boundary_tokens, how="guided", device=segmenter.device
        )
        for index, labels in enumerate(clock.iterate("upsample", pixels)):
            with clock("write"):
                write_label_png(Path(folder) / f"{index:05d}.png", proposals[labels])
    found.seconds |= clock.seconds | {"motion": meter.seconds}
    return found


def read_frames(args: argparse.Namespace, num_frames: int) -> Iterator[Tensor]:
    """Yield frames as they are needed; a video that is too short is played forwards and backwards."""
    (video, *others) = load_videos(OWN_VIDEO, Path(args.basepath), flag="--basepath")
    if others:
        raise UserError(f"--basepath {args.basepath}: holds several videos; give one of them")
    if len(video.frame_names) >= num_frames:
        yield from itertools.islice(video.read(), num_frames)
        return
    there = list(itertools.islice(video.read(), num_frames))
    yield from itertools.islice(itertools.cycle(there + there[-2:0:-1]), num_frames)


def agreement(labels: np.ndarray, others: np.ndarray) -> float:
    """Compute the share of tokens with the same label, after the best one-to-one matching of labels."""
    table = np.zeros((labels.max() + 1, others.max() + 1))
    np.add.at(table, (labels.ravel(), others.ravel()), 1)
    return table[linear_sum_assignment(-table)].sum() / labels.size


def machine() -> str:
    processor = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{processor}{device}, Python {platform.python_version()}, torch {torch.__version__}, {date.today()}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []


def print_row(row: dict[str, Any], *, first: bool, hidden: Sequence[str] = HIDDEN) -> None:
    shown = [key for key in row if key not in hidden]
    if first:
        print("| " + " | ".join(shown) + " |\n| " + " | ".join("---" for _ in shown) + " |")
    print("| " + " | ".join(str(row[key]) for key in shown) + " |", flush=True)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append rows to a table. Called after each measurement, so that wrong columns are found at the first.

    Raises:
        UserError: the table has other columns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    columns, new = [*rows[0], "machine"], not path.is_file()
    if not new and path.read_text().splitlines()[:1] != [",".join(columns)]:
        raise UserError(f"--csv {path}: has other columns; name another file")
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if new:
            writer.writeheader()
        writer.writerows({**row, "machine": machine()} for row in rows)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw seconds over tokens, frames and key frames, with the slope of a fitted line."""
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.ticker import NullLocator

    sweeps = list(dict.fromkeys(row["sweep"] for row in rows))
    figure = Figure(figsize=(4.5 * len(sweeps), 3.6), layout="tight")
    axes = figure.subplots(1, len(sweeps), squeeze=False)
    for axis, name in zip(axes[0], sweeps, strict=True):
        swept = [row for row in rows if row["sweep"] == name]
        lines = {
            engine: [row for row in swept if row["engine"] == engine] for engine in {row["engine"] for row in swept}
        }
        series = {engine: [sum(row[stage] for stage in OURS) for row in line] for engine, line in lines.items()}
        series["backbone"] = [row["backbone"] for row in next(iter(lines.values()))]
        places = [_quantity(row, name) for row in next(iter(lines.values()))]
        for label, values in sorted(series.items()):
            slope = np.polyfit(np.log(places), np.log(values), 1)[0]
            axis.loglog(places, values, marker="o", label=f"{label}, slope {slope:.1f}")
        axis.set(xlabel=name.replace("_", " "), ylabel="seconds")
        axis.set_xticks(places, [str(place) for place in places])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.legend(fontsize=8)
        axis.grid(which="both", alpha=0.3)
    save_figure(figure, path, dpi=110)


def _quantity(row: dict[str, Any], name: str) -> int:
    height, width = map(int, row["tokens"].split("x"))
    return height * width if name == "tokens" else row[name]


if __name__ == "__main__":
    run_main(main, lower="--memory_gb, --resolution or --num_frames")
