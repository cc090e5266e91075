"""Judge trained blocks beside the training-free one: means over thresholds, paired over videos.

    python -m tests.benchmarks.yardstick --blocks outputs/train/last.pt          # embedded backbone, Sprites val
    python -m tests.benchmarks.yardstick --blocks outputs/seed0/last.pt outputs/seed1/last.pt \\
        --config configs/dev8_dinov2_s14.yaml --davis_path DAVIS --dino_path W.pth --clustering fast

J at a single threshold says nothing about training, because it jumps by several points from one to the next. So every
video is clustered at five multiples of its threshold, with the training-free block and with each of --blocks, which
count as seeds of one training. The program prints J of clusters and of objects on the grid of tokens, with one
assignment a video as under protocol davis. It also prints the adjusted Rand index of a video's objects with those of
the video played backwards and of its mirror image, which needs no annotations. Intervals come from a paired bootstrap
over videos.

Distances grow as attention sharpens. So the thresholds of a trained block are multiplied by the ratio of its distances
to those of the training-free block, in the median of the videos.

All other flags are those of eval.py. It is an entry point like that, so it may import `model` and `data`.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

import sys
from dataclasses import replace
from functools import partial

import numpy as np

import eval as evaluation
from data.annotations.tokens import read_token_shares
from data.videos import read_resized_frames
from model.segmenter import Segmenter, SegmenterSettings
from model.training.judging import KINDS, MEASURES, Encoded, encode_video, judge, measure_distances
from utils.device import choose_device
from utils.errors import OneLineParser, UserError, run_main
from utils.run.checkpoints import load_checkpoint
from utils.scoring.bootstrap import bootstrap_difference, bootstrap_interval

FACTORS = (0.7, 0.85, 1.0, 1.2, 1.4)  # multiples of the threshold


def main() -> None:
    parser = OneLineParser(prog="python -m tests.benchmarks.yardstick", description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", nargs="+", default=[], metavar="FILE", help="checkpoints, seeds of one training")
    own, rest = parser.parse_known_args()
    args = evaluation.parse_arguments([*rest, "--training_free"])
    args.device, args.resume_path = choose_device(args.device), None
    network = evaluation.make_network(args)
    settings = SegmenterSettings(
        key_stride=args.ratio, max_key_frames=args.max_key_frames, tau=args.tau, clustering=args.clustering,
        clusters=args.clusters, feature_cache=args.feature_cache, amp=args.amp,
    )  # fmt: skip
    videos = [
        encode_video(
            Segmenter(network, settings), list(read_resized_frames(video, tuple(args.resolution))),
            partial(read_token_shares, video.annotations, video.frame_names),
        )
        for video in args.selection.load()
    ]  # fmt: skip
    distances = measure_distances(network, videos, settings)
    base = judge(network, videos, settings, factors=FACTORS)
    print_means("training-free", base, videos)
    seeds = []
    for path in own.blocks:
        network.load_blocks(load_checkpoint(path), source=path)
        ratio = float(np.median(measure_distances(network, videos, settings) / distances))
        seeds.append(judge(network, videos, replace(settings, tau=settings.tau * ratio), factors=FACTORS))
        print_means(f"{path} (thresholds times {ratio:.2f})", seeds[-1], videos)
    if seeds:
        trained = {name: np.mean([seed[name] for seed in seeds], axis=0) for name in MEASURES}
        print_differences(base, trained, videos)


def print_means(name: str, found: dict[str, np.ndarray], videos: list[Encoded]) -> None:
    """Print what `judge` found for a block, in percent."""
    count = sum(len(video.truth) for video in videos)
    print(f"{name}\n  agreement {100 * found['agreement'].mean():.1f}")
    for kind in KINDS if count else ():
        values = 100 * found[kind].sum(1) / count
        by_threshold = ", ".join(f"{value:.1f} at {factor}" for factor, value in zip(FACTORS, values, strict=True))
        print(f"  J of {kind:<8} {values.mean():.1f}  ({by_threshold}; best minus worst {np.ptp(values):.1f})")
    sys.stdout.flush()


def print_differences(base: dict[str, np.ndarray], trained: dict[str, np.ndarray], videos: list[Encoded]) -> None:
    """Print trained minus training-free with intervals, means over thresholds and seeds."""
    if len(videos) < 2:
        raise UserError("--sequences: names one video; an interval needs at least 2")
    counts = np.array([len(video.truth) for video in videos], float)
    rows = [("agreement", base["agreement"], trained["agreement"], np.ones(len(videos)))]
    if counts.all():
        rows += [(f"J of {kind}", base[kind].mean(0), trained[kind].mean(0), counts) for kind in KINDS]
    print("measure, training-free, trained, difference, from, to")
    for name, first, second, weights in rows:
        means = [bootstrap_interval(values, weights).value for values in (first, second)]
        line = (*means, *bootstrap_difference(first, second, weights))
        print(f"{name}, " + ", ".join(f"{100 * value:.1f}" for value in line))


if __name__ == "__main__":
    run_main(main, lower="--resolution or --sequences")
