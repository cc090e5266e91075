"""Check a GPU against the CPU and measure inference and training on it, as one table.

    bash tests/gpu.sh                                          # the embedded backbone on a generated video
    bash tests/gpu.sh --backbone vit_small_patch14_dinov2.lvd142m --dino_path W.pth --csv rows.csv
    bash tests/gpu.sh --device cpu --grids 3x4 --num_frames 6  # a rehearsal of all that it does, without a GPU

- `parity`: labels of `exact` and `fast` on the GPU and on the CPU, as the share of tokens with the same label; losses
  of a training step, as the largest difference in proportion; weights after it, as the largest difference.
- `inference`: frames per second as a whole and of each stage, with the peak memory of the stage on the GPU. As in
  eval.py, the GPU is waited for after each stage, so that its seconds can be told.
- `training`: steps per second of train.py and of the formulas as they stand (`tests.benchmarks.plain_training`).
- `waits`: share of the time in which no kernel runs, so that the GPU waits for the host. Kernels are timed by
  `torch.profiler` in a run of its own, since it slows down the host.

It is an entry point like eval.py, so it may import `model` and `data`.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

import argparse
import functools
import itertools
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from data.frames import resize
from data.sprites.writer import FRAMES, ensure_sprites
from model.network import SpatioTemporalNetwork, build_network
from model.segmenter import Segmenter, SegmenterSettings
from tests.benchmarks import inference, training
from tests.benchmarks.inference import OURS, STAGES, agreement, machine, print_row, read_frames, write_csv
from utils.clock import Clock
from utils.config import DEFAULT_TEMPERATURE
from utils.device import choose_device, peak_memory_gb, synchronize
from utils.errors import OneLineParser, run_main
from utils.files import check_writable
from utils.flags.choices import CLUSTERINGS, PLAIN, SPRITES_ROOT
from utils.flags.types import positive_int

AMPS = ("none", "bf16")
CLIP_LENGTH, BATCH = 3, 2  # of training
SHOWN_STAGES = tuple(stage for stage in STAGES if stage != "motion")  # which no segmenter here measures
COLUMNS = ("what", "tokens", "amp", "engine", "value", "times plain", "waits", "peak_gb")
CPU = torch.device("cpu")


class MemoryClock(Clock):
    """Measure also the peak memory of each stage in GB: `peaks`."""

    def __init__(self, device: torch.device):
        super().__init__(device)
        self.peaks: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        with super().__call__(stage):
            yield
        self.peaks[stage] = max(self.peaks.get(stage, 0.0), peak_memory_gb(self.device))


def main() -> None:
    args = make_parser().parse_args()
    device = choose_device(args.device)
    if args.csv:
        check_writable(args.csv.parent, flag="--csv")
    args.basepath = args.basepath or str(next((ensure_sprites(SPRITES_ROOT) / FRAMES).glob("val-*")))
    start = time.perf_counter()
    for number, row in enumerate(itertools.chain(check_parity(args, device), measure_inference(args, device),
                                                 measure_training(args, device))):  # fmt: skip
        row = {column: row.get(column, "") for column in (*COLUMNS, *SHOWN_STAGES)}
        print_row(row, first=number == 0, hidden=())
        if args.csv:
            write_csv(args.csv, [row])
    print(f"{machine()}, {args.backbone}, {time.perf_counter() - start:.0f} s in all")


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m tests.benchmarks.gpu", description=__doc__.splitlines()[0])
    inference.add_subject(parser, basepath="a video; without it a generated one")
    add = parser.add_argument
    add("--grids", nargs="+", type=parse_grid, default=[(24, 48), (40, 60)], metavar="HxW", help="grids of tokens")
    add("--num_frames", type=positive_int, default=30)
    add("--steps", type=positive_int, default=10, help="training steps of which the median counts")
    parser.set_defaults(device="cuda", tau=1.0, ratio=10, max_key_frames=None)
    return parser


def parse_grid(text: str) -> tuple[int, int]:
    """Read a grid such as 24x48."""
    if not (found := re.fullmatch(r"([1-9]\d{0,2})x([1-9]\d{0,2})", text)):
        raise argparse.ArgumentTypeError(f"{text}: give rows and columns of tokens, such as 24x48")
    return int(found[1]), int(found[2])


# ------------------------------------------------------------------ parity


def check_parity(args: argparse.Namespace, device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield rows that compare the device with the CPU, on the first grid and in float32."""
    grid = args.grids[0]
    name = {"tokens": "{}x{}".format(*grid), "amp": "none"}
    for engine in CLUSTERINGS:
        if engine != PLAIN:
            here, there = (
                inference.run(point := choose_point(args, grid), make_segmenter(point, engine, place), args.num_frames)
                for place in (CPU, device)
            )
            share = f"{100 * agreement(here.labels, there.labels):.3f} % of labels"
            yield {"what": "parity", **name, "engine": engine, "value": share}
    found = []
    for place in (CPU, device):
        step, network, batch = make_step(args, grid, "none", training.PROGRAM, place)
        losses = step(batch, 0)
        found.append((losses, [p.detach().cpu() for p in network.blocks.parameters()]))
    (losses, weights), (others, other_weights) = found
    worst = max(abs(losses[key] - others[key]) / max(abs(losses[key]), 1e-6) for key in losses)
    yield {"what": "parity", **name, "engine": training.PROGRAM, "value": f"losses differ by {worst:.1e} of them"}
    worst = max((one - other).abs().max().item() for one, other in zip(weights, other_weights, strict=True))
    yield {"what": "parity", **name, "engine": training.PROGRAM, "value": f"weights differ by {worst:.1e}"}


# ------------------------------------------------------------------ inference


def measure_inference(args: argparse.Namespace, device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield a row for each grid, precision and engine."""
    for grid, amp in itertools.product(args.grids, AMPS):
        point, plain = choose_point(args, grid, amp), None
        for engine in (PLAIN, *(engine for engine in CLUSTERINGS if engine != PLAIN)):
            segmenter = make_segmenter(point, engine, device)
            inference.run(point, segmenter, min(inference.WARM_UP, args.num_frames))
            clock = MemoryClock(device)
            seconds = time_call(device, inference.run, point, segmenter, args.num_frames, clock=clock)
            clustering = sum(clock.seconds[stage] for stage in OURS)
            plain = plain or clustering
            stages = {stage: f"{args.num_frames / took:.4g} /s, {clock.peaks[stage]:.2f} GB"
                      for stage, took in clock.seconds.items() if stage in SHOWN_STAGES and took}  # fmt: skip
            busy = measure_kernels(device, inference.run, point, segmenter, args.num_frames)
            yield {
                "what": "inference", "tokens": "{}x{}".format(*grid), "amp": amp, "engine": engine,
                "value": f"{args.num_frames / seconds:.4g} frames/s", "times plain": f"{plain / clustering:.2f}",
                "waits": f"{max(1 - busy / seconds, 0):.2f}", "peak_gb": f"{max(clock.peaks.values()):.2f}", **stages,
            }  # fmt: skip


def choose_point(args: argparse.Namespace, grid: tuple[int, int], amp: str = "none") -> argparse.Namespace:
    """Choose the settings of `inference.run` for a grid of tokens."""
    patch = find_patch_size(args.backbone, args.dino_path)
    return argparse.Namespace(**{**vars(args), "amp": amp, "resolution": tuple(side * patch for side in grid)})


@functools.cache
def find_patch_size(backbone: str, dino_path: str | None) -> int:
    return build_network(backbone=backbone, dino_path=dino_path, num_heads=8).backbone.patch_size[0]


def make_segmenter(point: argparse.Namespace, engine: str, device: torch.device) -> Segmenter:
    """Make a segmenter with the training-free block."""
    torch.manual_seed(0)
    network = build_network(backbone=point.backbone, dino_path=point.dino_path, num_heads=8, with_cls=False).to(device)
    network.init_blocks("identity", temperature=DEFAULT_TEMPERATURE)
    return Segmenter(network, SegmenterSettings(tau=point.tau, clustering=engine, amp=point.amp, memory_gb=32))


# ------------------------------------------------------------------ training


def measure_training(args: argparse.Namespace, device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield a row for each precision and engine, on the first grid."""
    plain = None
    for amp, engine in (("none", "plain"), *((amp, training.PROGRAM) for amp in AMPS)):
        step, _, batch = make_step(args, args.grids[0], amp, engine, device)
        for number in range(training.WARM_UP):
            step(batch, number)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        took = [time_call(device, step, batch, number) for number in range(args.steps)]
        seconds, peak = statistics.median(took), peak_memory_gb(device)
        plain = plain or seconds
        yield {
            "what": "training", "tokens": "{}x{}".format(*args.grids[0]), "amp": amp, "engine": engine,
            "value": f"{1 / seconds:.4g} steps/s", "times plain": f"{plain / seconds:.2f}",
            "waits": f"{max(1 - measure_kernels(device, step, batch, 0) / seconds, 0):.2f}",
            "peak_gb": f"{peak:.2f}",
        }  # fmt: skip


def make_step(
    args: argparse.Namespace, grid: tuple[int, int], amp: str, engine: str, device: torch.device
) -> tuple[training.Step, SpatioTemporalNetwork, Tensor]:
    """Make a step of an engine of `tests.benchmarks.training`, its network, and a batch of clips on the CPU."""
    point = choose_point(args, grid, amp)
    point.num_frames = CLIP_LENGTH
    torch.manual_seed(0)
    network = build_network(backbone=args.backbone, dino_path=args.dino_path, drop=0.0, attn_drop=0.0).to(device)
    network.init_blocks("identity", temperature=DEFAULT_TEMPERATURE)
    frames = [resize(frame, point.resolution) for frame in read_frames(args, CLIP_LENGTH * BATCH)]
    batch = torch.stack(frames).unflatten(0, (BATCH, CLIP_LENGTH))
    return training.ENGINES[engine](point, network), network, batch


# ------------------------------------------------------------------ time


def time_call(device: torch.device, work: Callable[..., Any], *arguments: Any, **options: Any) -> float:
    """Measure the seconds of a call, to the end of its work on the device."""
    synchronize(device)
    start = time.perf_counter()
    work(*arguments, **options)
    synchronize(device)
    return time.perf_counter() - start


def measure_kernels(device: torch.device, work: Callable[..., Any], *arguments: Any) -> float:
    """Measure the seconds of a call in which at least one kernel runs; on the CPU, one operation of torch."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as recorded:
        work(*arguments)
        synchronize(device)
    kind = torch.autograd.DeviceType.CUDA if device.type == "cuda" else torch.autograd.DeviceType.CPU
    times = [(e.time_range.start, e.time_range.end) for e in recorded.events() if e.device_type == kind]
    return measure_union(np.array(times, float).reshape(-1, 2)) / 1e6


def measure_union(intervals: np.ndarray) -> float:
    """Measure the length of the union of intervals (n, 2), given by start and end."""
    intervals = intervals[intervals[:, 0].argsort()]
    ends = np.maximum.accumulate(intervals[:, 1])
    before = np.concatenate([[-np.inf], ends[:-1]])
    return float((ends - np.maximum(intervals[:, 0], before)).clip(0).sum())


if __name__ == "__main__":
    run_main(main, lower="--grids or --num_frames")
