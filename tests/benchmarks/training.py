"""Measure the time and memory of a training step, beside a direct implementation of the formulas.

    python -m tests.benchmarks.training                             # the embedded backbone on generated videos
    python -m tests.benchmarks.training --basepath VIDEOS \\
        --backbone vit_small_patch14_dinov2.lvd142m --dino_path W.pth \\
        --resolution 196 392 --csv assets/benchmark_training.csv

Each measurement runs in its own process, so that its peak memory can be measured; it warms up for two steps and
reports medians. `cpu` is the processor time of all cores together, which depends less on other work on the machine than
the time of a `step`. Clips are read beforehand. `base_gb` is the memory before the first step: libraries and weights.
`backbone` is the backbone's forward pass alone on the same frames. `plain` is `plain_training.py`. Steps have no
dropout, so that losses can be compared. `--engines` can also measure variants: the optimizer in a loop over parameters,
and `torch.compile` of the backbone's layers and the block's MLP, which compiles in its first step.

It is an entry point like train.py, so it may import `train`.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import train
from data.clips import ClipDataset
from data.loading import index_videos
from data.resolution import check_resolution
from data.sprites.writer import write_sprites
from model.network import SpatioTemporalNetwork, build_network
from model.training.step import TrainSettings, make_optimizer, seed_of, train_step
from tests.benchmarks import plain_training
from tests.benchmarks.inference import add_subject, machine, print_row, write_csv
from tests.processes import run_in_own_process
from utils.config import DEFAULT_TEMPERATURE, settings_from
from utils.device import autocast, choose_device, peak_memory_gb, synchronize
from utils.errors import OneLineParser, run_main
from utils.files import check_writable
from utils.flags.choices import SPRITES_ROOT
from utils.flags.types import positive_int

WARM_UP = 2  # steps
PROGRAM = "train.py"
LOOPED, COMPILED = "train.py, optimizer in a loop", "train.py, compiled"
Step = Callable[[Tensor, int], dict[str, float]]


def main() -> None:
    args = make_parser().parse_args()
    if args.csv:
        check_writable(args.csv.parent, flag="--csv")
    if args.basepath is None:
        args.basepath = str(write_sprites(Path(SPRITES_ROOT)))
    rows = {}
    for engine in dict.fromkeys(args.engines):
        rows[engine] = run_in_own_process(measure, args, engine)
        print_row(rows[engine], first=len(rows) == 1)
        if args.csv:
            write_csv(args.csv, [rows[engine]])
    for line in comparisons(rows):
        print(line)
    print(machine())


def comparisons(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Describe the speed of one engine relative to another, if both were measured."""
    lines, ours = [], rows.get(PROGRAM)
    if not ours:
        return lines
    lines.append(f"a step of {PROGRAM} takes {ours['step'] / ours['backbone']:.2f} times its backbone")
    if plain := rows.get("plain"):
        above = [row["peak_gb"] - row["base_gb"] for row in (ours, plain)]
        lines.append(f"it is {plain['step'] / ours['step']:.2f} times as fast as plain "
                     f"({plain['cpu'] / ours['cpu']:.2f} times by seconds computed), in "
                     f"{ours['peak_gb'] / plain['peak_gb']:.2f} of its memory; of what comes on top of libraries and "
                     f"weights in {above[0] / max(above[1], 0.01):.2f}")  # fmt: skip
    tried = [name for name in (LOOPED, COMPILED) if name in rows]
    return lines + [
        f"{name}: {rows[name]['step'] / ours['step']:.3f} times the time, {rows[name]['cpu'] / ours['cpu']:.3f} times "
        "the computing" for name in tried
    ]  # fmt: skip


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m tests.benchmarks.training", description=__doc__.splitlines()[0])
    add_subject(parser, basepath="folder of videos; without it the generated ones")
    add = parser.add_argument
    add("--num_frames", type=positive_int, default=3)
    add("--batch_size", type=positive_int, default=2)
    add("--steps", type=positive_int, default=7, help="of which the median counts")
    add("--engines", nargs="+", choices=tuple(ENGINES), default=("plain", PROGRAM))
    return parser


def measure(args: argparse.Namespace, engine: str) -> dict[str, Any]:
    device = choose_device(args.device)
    torch.manual_seed(0)
    network = build_network(backbone=args.backbone, dino_path=args.dino_path, drop=0.0, attn_drop=0.0).to(device)
    network.init_blocks("identity", temperature=DEFAULT_TEMPERATURE)
    check_resolution(args.resolution, network.backbone.patch_size)
    clips = ClipDataset(
        index_videos(Path(args.basepath)), resolution=tuple(args.resolution), num_frames=args.num_frames
    )
    batches = [
        torch.stack([clips[args.batch_size * number + i].frames for i in range(args.batch_size)])
        for number in range(WARM_UP + args.steps)
    ]
    step = ENGINES[engine](args, network)
    took, computed, losses = [], [], []
    base = peak_memory_gb(device)
    for number, batch in enumerate(batches):
        synchronize(device)
        start, computing = time.perf_counter(), time.process_time()
        losses.append(step(batch, number))
        synchronize(device)
        took.append(time.perf_counter() - start)
        computed.append(time.process_time() - computing)
    peak = peak_memory_gb(device)
    backbone = []
    for batch in batches[: WARM_UP + 3]:
        synchronize(device)
        start = time.perf_counter()
        with autocast(device, "none" if engine == "plain" else args.amp):
            network.embed(batch.to(device))
        synchronize(device)
        backbone.append(time.perf_counter() - start)
    return {
        "engine": engine, "tokens": "x".join(map(str, network.backbone.grid_size(*args.resolution))),
        "frames": args.num_frames, "batch": args.batch_size, "step": round(statistics.median(took[WARM_UP:]), 3),
        "cpu": round(statistics.median(computed[WARM_UP:]), 3),
        "backbone": round(statistics.median(backbone[WARM_UP:]), 3),
        "base_gb": round(base, 2), "peak_gb": round(peak, 2),
        "semantic": round(losses[0]["loss_semantic"], 6), "motion": round(losses[0]["loss_motion"], 6),
        "amp": "none" if engine == "plain" else args.amp,
        "device": str(device), "threads": torch.get_num_threads(), "backbone_name": args.backbone, "runs": args.steps,
    }  # fmt: skip


def program_step(args: argparse.Namespace, network: SpatioTemporalNetwork, *, fused: bool | None = True) -> Step:
    """Time a step of train.py, with a `fused` optimizer or with torch's default, which is a loop on a CPU."""
    settings = replace(
        settings_from(vars(train.make_parser().parse_args([])), TrainSettings),
        resolution=tuple(args.resolution), num_frames=args.num_frames, amp=args.amp,
    )  # fmt: skip
    optimizer = make_optimizer(network, lr=settings.lr, weight_decay=settings.weight_decay)
    for group in optimizer.param_groups:
        group["fused"] = fused
    scaler = torch.amp.GradScaler(enabled=False)
    return lambda batch, number: train_step(network, optimizer, scaler, [batch], step=number, settings=settings)


def looped_step(args: argparse.Namespace, network: SpatioTemporalNetwork) -> Step:
    """Time a step of train.py whose optimizer loops over parameters and operations."""
    return program_step(args, network, fused=None)


def compiled_step(args: argparse.Namespace, network: SpatioTemporalNetwork) -> Step:
    """Time a step of train.py in which all but `model.attention` is compiled."""
    for layer in (*network.backbone.vit.blocks, *(block.mlp for block in network.blocks)):
        layer.compile()
    return program_step(args, network)


def plain_step(args: argparse.Namespace, network: SpatioTemporalNetwork) -> Step:
    """Time a step of `tests.benchmarks.plain_training` with the queries that train.py draws."""
    settings = train.make_parser().parse_args([])
    optimizer = make_optimizer(network, lr=settings.lr, weight_decay=settings.weight_decay)
    plain_training.write_out(network)
    device = next(network.parameters()).device
    height, width = network.backbone.grid_size(*args.resolution)

    def step(batch: Tensor, number: int) -> dict[str, float]:
        network.train()
        generator = torch.Generator().manual_seed(seed_of(settings.seed, number, 0))
        sample = torch.randperm(height * width, generator=generator)[: settings.num_queries].to(device)
        tokens, attn = plain_training.forward(network, batch.to(device))
        semantic = plain_training.semantic_loss(attn, tokens, sample)
        motion = plain_training.motion_loss(attn, sample, num_frames=args.num_frames)
        optimizer.zero_grad()
        (semantic + motion).backward()
        torch.nn.utils.clip_grad_norm_(network.blocks.parameters(), settings.clip_grad)
        optimizer.step()
        return {"loss_semantic": semantic.item(), "loss_motion": motion.item()}

    return step


ENGINES = {
    "plain": plain_step, PROGRAM: program_step, LOOPED: looped_step, COMPILED: compiled_step,
}  # fmt: skip

if __name__ == "__main__":
    run_main(main, lower="--batch_size, --resolution or --num_frames")
