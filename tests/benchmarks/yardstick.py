"""Measure trained blocks beside the training-free one: means over thresholds, paired over videos.

    python -m tests.benchmarks.yardstick --blocks outputs/train/last.pt          # embedded backbone, Sprites val
    python -m tests.benchmarks.yardstick --blocks outputs/seed0/last.pt outputs/seed1/last.pt \\
        --config configs/dev8_dinov2_s14.yaml --davis_path DAVIS --dino_path W.pth --clustering fast

Every video is clustered at five multiples of its threshold, with the training-free block and with each of --blocks,
which count as seeds of one training; `model.training.validation` tells why and how. The program prints J of clusters
and of objects, and J of the foreground and of the best union of objects, as under protocols foreground and oracle. It
also prints the agreement of a video's objects with those of the video played backwards and of its mirror image.
Intervals come from a paired bootstrap over videos.

--ablate_motion measures the training-free block with motion in the ranking and the foreground only, and without motion,
beside motion that also splits.

All other flags are those of eval.py. It is an entry point like that, so it may import `model` and `data`.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

import sys
from dataclasses import replace

import numpy as np

import eval as evaluation
from data.videos import read_annotated_frames
from model.objects.motion import Motion
from model.segmenter import Segmenter, SegmenterSettings
from model.training.validation import (
    FACTORS,
    KINDS,
    MEASURES,
    OBJECTWISE,
    EncodedVideo,
    copy_with_own_blocks,
    count_objects,
    encode_video,
    measure_block,
    measure_distances,
    scale_threshold,
    weigh_videos,
)
from utils.device import choose_amp, choose_device
from utils.errors import OneLineParser, UserError, run_main
from utils.flags.choices import OBJECTS
from utils.run.checkpoints import load_checkpoint
from utils.scoring.bootstrap import bootstrap_difference, bootstrap_interval

DEFAULTS = {"proposals": OBJECTS, "motion": "flow", "flow_path": None, "max_objects": None}  # other values are refused


def main() -> None:
    parser = OneLineParser(prog="python -m tests.benchmarks.yardstick", description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", nargs="+", default=[], metavar="FILE", help="checkpoints, seeds of one training")
    parser.add_argument("--ablate_motion", action="store_true", help="compare uses of motion in place of blocks")
    own, rest = parser.parse_known_args()
    if own.ablate_motion and own.blocks:
        raise UserError("--ablate_motion: compares uses of motion with one block; leave --blocks out")
    args = evaluation.parse_arguments([*rest, "--training_free"])
    args.device, args.resume_path = choose_device(args.device), None
    args.amp = choose_amp(args.amp, args.device)
    if args.num_t > 1:
        raise UserError(f"--num_t {args.num_t}: the yardstick measures a single block; leave it out")
    for name, default in DEFAULTS.items():
        if getattr(args, name) != default:
            raise UserError(f"--{name}: the yardstick measures objects as they are made by default; leave it out")
    network = evaluation.make_network(args)
    settings = SegmenterSettings(
        key_stride=args.ratio, max_key_frames=args.max_key_frames, tau=args.tau, clustering=args.clustering,
        clusters=args.clusters, feature_cache=args.feature_cache, amp=args.amp,
    )  # fmt: skip
    segmenter, resolution = Segmenter(network, settings), tuple(args.resolution)
    sources = args.selection.load()
    if len(sources) < 2 and (own.blocks or own.ablate_motion):
        raise UserError("--sequences, --videos or --split: name one video; an interval needs at least 2")
    videos = [encode_video(read_annotated_frames(video, resolution), segmenter) for video in sources]
    free = copy_with_own_blocks(network)
    base = measure_block(free, videos, settings)
    print_means("training-free", base, videos)
    for name, changed in remove_motion(videos).items() if own.ablate_motion else ():
        found = measure_block(free, changed, settings)
        print_means(name, found, videos)
        print_differences(base, found, videos, names=("default motion", name))
    distances, seeds = measure_distances(free, videos, settings), []
    for path in own.blocks:
        network.load_blocks(load_checkpoint(path), source=path)
        fitted = scale_threshold(settings, network, videos, distances)
        seeds.append(measure_block(network, videos, fitted))
        print_means(f"{path} (thresholds times {fitted.tau / settings.tau:.2f})", seeds[-1], videos)
    if seeds:
        trained = {name: np.mean([seed[name] for seed in seeds], axis=0) for name in MEASURES}
        print_differences(base, trained, videos, names=("training-free", "trained"))


def remove_motion(videos: list[EncodedVideo]) -> dict[str, list[EncodedVideo]]:
    """Remove from videos what splits, or all motion: name of what is left -> videos."""
    found: dict[str, list[EncodedVideo]] = {"motion in the ranking only": [], "without motion": []}
    for video in videos:
        evidence, nothing = video.motion.evidence, np.zeros_like(video.motion.boundaries)
        for name, kept in zip(found, (evidence, np.zeros_like(evidence)), strict=True):
            found[name].append(replace(video, motion=Motion(kept, nothing)))
    return found


def print_means(name: str, found: dict[str, np.ndarray], videos: list[EncodedVideo]) -> None:
    """Print what `measure_block` found for a block, in percent."""
    print(f"{name}\n  agreement {100 * found['agreement'].mean():.1f}")
    counts = count_objects(videos)
    for kind in KINDS if counts.any() else ():
        values = 100 * average_videos(found[kind], kind, counts)
        by_threshold = ", ".join(f"{value:.1f} at {factor}" for factor, value in zip(FACTORS, values, strict=True))
        print(f"  J of {kind:<10} {values.mean():.1f}  ({by_threshold}; best minus worst {np.ptp(values):.1f})")
    sys.stdout.flush()


def average_videos(values: np.ndarray, kind: str, counts: np.ndarray) -> np.ndarray:
    """Average what `measure_block` found of a kind over objects, or videos with objects: (..., videos) -> (...)."""
    weights = weigh_videos(kind, counts)
    return (values if kind in OBJECTWISE else values * weights).sum(-1) / weights.sum()


def print_differences(
    first: dict[str, np.ndarray], second: dict[str, np.ndarray], videos: list[EncodedVideo], *, names: tuple[str, str]
) -> None:
    """Print the means of two of what `measure_block` found, and the intervals of the second minus the first."""
    counts = count_objects(videos)
    rows = [("agreement", first["agreement"], second["agreement"], np.ones(len(videos)))]
    if counts.all():
        for kind in KINDS:
            rows.append((f"J of {kind}", first[kind].mean(0), second[kind].mean(0), weigh_videos(kind, counts)))
    print(f"measure, {', '.join(names)}, difference, from, to")
    for name, one, other, weights in rows:
        means = [bootstrap_interval(values, weights).value for values in (one, other)]
        line = (*means, *bootstrap_difference(one, other, weights))
        print(f"{name}, " + ", ".join(f"{100 * value:.1f}" for value in line))


if __name__ == "__main__":
    run_main(main, lower="--resolution or --sequences")
