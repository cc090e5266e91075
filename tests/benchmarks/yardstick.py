"""Measure trained blocks beside the training-free one: means over thresholds, paired over videos.

    python -m tests.benchmarks.yardstick --blocks outputs/train/last.pt          # embedded backbone, Sprites val
    python -m tests.benchmarks.yardstick --blocks outputs/seed0/last.pt outputs/seed1/last.pt \\
        --config configs/dev8_dinov2_s14.yaml --davis_path DAVIS --dino_path W.pth --clustering fast

J at a single threshold says nothing about training, because it jumps by several points from one to the next. So every
video is clustered at five multiples of its threshold, with the training-free block and with each of --blocks, which
count as seeds of one training. The program prints J of clusters and of objects on the grid of tokens, with one
assignment a video as under protocol davis, and J of the foreground and of the best union of objects, as under
foreground and oracle. It also prints the adjusted Rand index of a video's objects with those of the video played
backwards and of its mirror image, which needs no annotations. Intervals come from a paired bootstrap over videos.

Distances grow as attention sharpens. So the thresholds of a trained block are multiplied by the ratio of its distances
to those of the training-free block, in the median of the videos.

All other flags are those of eval.py. It is an entry point like that, so it may import `model` and `data`.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

import sys
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import eval as evaluation
from data.videos import Video, read_resized_frames
from model.network import SpatioTemporalNetwork
from model.objects.affinity import CentredFeatures
from model.objects.find import find_objects
from model.objects.motion import Motion, MotionMeter
from model.objects.ranking import compute_sizes, multiply_components, rate_labels, select_foreground
from model.segmenter import Segmenter, SegmenterSettings, key_frame_indices
from model.training.distances import SHARE, quantiles, window_distances
from model.training.monitor import compare_maps
from utils.device import choose_amp, choose_device
from utils.errors import OneLineParser, UserError, run_main
from utils.flags.choices import OBJECTS
from utils.run.checkpoints import load_checkpoint
from utils.scoring.annotations import VOID
from utils.scoring.bootstrap import bootstrap_difference, bootstrap_interval
from utils.scoring.protocols import MAX_PROPOSALS

FACTORS = (0.7, 0.85, 1.0, 1.2, 1.4)  # multiples of the threshold
OBJECTWISE, VIDEOWISE = ("clusters", "objects"), ("foreground", "best union")  # means over objects and over videos
KINDS = (*OBJECTWISE, *VIDEOWISE)
MEASURES = (*KINDS, "agreement")
DEFAULTS = {"proposals": OBJECTS, "motion": "flow", "flow_path": None, "max_objects": None}  # other values are refused


@dataclass
class Encoded:
    """A video as the block sees it.

    Attributes:
        features, mirrored: (T, N, C) of the video and of its mirror image.
        grid: (h, w), N = h * w.
        motion: of the tokens.
        truth: (objects, T, h, w) float32, the share of each token that an object covers, in the annotated frames; no
            objects if there are none.
        annotated: positions of these frames in the video.
    """

    name: str
    features: Tensor
    mirrored: Tensor
    grid: tuple[int, int]
    motion: Motion
    truth: np.ndarray
    annotated: list[int]


def main() -> None:
    parser = OneLineParser(prog="python -m tests.benchmarks.yardstick", description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", nargs="+", default=[], metavar="FILE", help="checkpoints, seeds of one training")
    own, rest = parser.parse_known_args()
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
    videos = [encode(video, Segmenter(network, settings), tuple(args.resolution)) for video in args.selection.load()]
    distances = np.array([measure_distance(network, video, settings) for video in videos])
    base = measure_block(network, videos, settings)
    print_means("training-free", base, videos)
    seeds = []
    for path in own.blocks:
        network.load_blocks(load_checkpoint(path), source=path)
        ratio = float(np.median([measure_distance(network, video, settings) for video in videos] / distances))
        seeds.append(measure_block(network, videos, replace(settings, tau=settings.tau * ratio)))
        print_means(f"{path} (thresholds times {ratio:.2f})", seeds[-1], videos)
    if seeds:
        trained = {name: np.mean([seed[name] for seed in seeds], axis=0) for name in MEASURES}
        print_differences(base, trained, videos)


def encode(video: Video, segmenter: Segmenter, resolution: tuple[int, int]) -> Encoded:
    """Encode a video and its mirror image, measure its motion, and bring its annotations to the grid of tokens."""
    frames, count = list(read_resized_frames(video, resolution)), len(video.frame_names)
    meter = MotionMeter(segmenter.grid_size)
    features, grid = segmenter.encode(meter.watch(frames), num_frames=count)
    mirrored, _ = segmenter.encode((frame.flip(-1) for frame in frames), num_frames=count)
    return Encoded(video.name, features, mirrored, grid, meter.finish(), *read_truth(video, grid))


def read_truth(video: Video, grid: tuple[int, int]) -> tuple[np.ndarray, list[int]]:
    """Read `truth` and `annotated` of `Encoded`."""
    names = set(video.annotations.frame_names) if video.annotations else ()
    annotated = [place for place, name in enumerate(video.frame_names) if name in names]
    maps = [video.annotations.read(video.frame_names[place]) for place in annotated]
    return measure_shares(maps, grid), annotated


def measure_shares(maps: list[np.ndarray], grid: tuple[int, int]) -> np.ndarray:
    """Measure the share of each token that each object of label maps (H, W) covers: (objects, T, h, w) float32."""
    ids = sorted({int(number) for labels in maps for number in np.unique(labels) if 0 < number < VOID})
    shares = np.zeros((len(ids), len(maps), *grid), np.float32)
    for frame, labels in enumerate(maps):
        for index, number in enumerate(ids):
            mask = (labels == number).astype(np.float32)
            shares[index, frame] = cv2.resize(mask, grid[::-1], interpolation=cv2.INTER_AREA)
    return shares


def measure_distance(network: SpatioTemporalNetwork, video: Encoded, settings: SegmenterSettings) -> float:
    """Measure the distance that `SHARE` of the pairs of tokens in a window of a video do not exceed, in nats."""
    key_frames = key_frame_indices(len(video.features), settings.key_stride, settings.max_key_frames)
    return quantiles(window_distances(network, video.features, key_frames), (SHARE,))[0]


@torch.no_grad()
def measure_block(
    network: SpatioTemporalNetwork, videos: list[Encoded], settings: SegmenterSettings
) -> dict[str, np.ndarray]:
    """Measure a block.

    Returns:
        `clusters`, `objects`: (thresholds, videos), the sum of J over a video's objects. `foreground`, `best union`:
        (thresholds, videos), J of their union. `agreement`: (videos,).
    """
    found = {name: np.zeros((len(FACTORS), len(videos))) for name in KINDS} | {"agreement": np.zeros(len(videos))}
    for column, video in enumerate(videos):
        for row, factor in enumerate(FACTORS):
            segmenter = Segmenter(network, replace(settings, tau=factor * settings.tau))
            clusters, objects = segment(segmenter, video.features, video.grid, video.motion)
            scores = multiply_components(rate_labels(objects, video.motion.evidence))
            found["clusters"][row, column] = sum_j(clusters[video.annotated], video.truth, compute_sizes(clusters))
            shown = objects[video.annotated]
            found["objects"][row, column] = sum_j(shown, video.truth, scores)
            foreground = select_foreground(objects, video.motion.evidence)
            found["foreground"][row, column] = measure_union(shown, foreground, video.truth)
            best = choose_best_union(shown, len(foreground), video.truth)
            found["best union"][row, column] = measure_union(shown, best, video.truth)
            if factor == 1:
                found["agreement"][column] = measure_agreement(segmenter, video, objects)
    return found


def segment(
    segmenter: Segmenter, features: Tensor, grid: tuple[int, int], motion: Motion
) -> tuple[np.ndarray, np.ndarray]:
    """Find the clusters and the objects of a video, each (T, h, w)."""
    clusters = segmenter.cluster(features.clone(), grid).labels
    return clusters, find_objects(clusters, CentredFeatures(features, grid), motion=motion)[0]


def sum_j(labels: np.ndarray, truth: np.ndarray, scores: np.ndarray) -> float:
    """Sum J over the objects of a video, each assigned to one of the `MAX_PROPOSALS` best labels.

    J of a label and an object is the mean over frames of their IoU on tokens; 1 where both are empty.
    """
    frames, count = len(labels), len(scores)
    places = labels.reshape(frames, -1) + count * np.arange(frames)[:, None]
    sizes = np.bincount(places.ravel(), minlength=frames * count).reshape(frames, count)
    values = np.zeros((len(truth), count))
    for index, mask in enumerate(truth):
        shared = np.bincount(places.ravel(), mask.ravel(), minlength=frames * count).reshape(frames, count)
        union = sizes + mask.sum((1, 2))[:, None] - shared
        values[index] = np.where(union > 0, shared / np.maximum(union, 1e-9), 1).mean(0)
    best = values[:, np.argsort(-scores, kind="stable")[:MAX_PROPOSALS]]
    return float(best[linear_sum_assignment(-best)].sum())


def measure_union(labels: np.ndarray, chosen: np.ndarray, truth: np.ndarray) -> float:
    """Measure J of the union of the labels `chosen` (number of labels,) 0 or 1 and that of all objects, over frames."""
    merged, mask = truth.sum(0).clip(max=1), chosen[labels]
    shared = (merged * mask).sum((1, 2))
    union = merged.sum((1, 2)) + mask.sum((1, 2)) - shared
    return float(np.where(union > 0, shared / np.maximum(union, 1e-9), 1).mean()) if len(union) else 0.0


def choose_best_union(labels: np.ndarray, count: int, truth: np.ndarray) -> np.ndarray:
    """Choose which of `count` labels make the best union as `utils.scoring.evaluators.OracleEvaluator` does: 0 or 1."""
    merged = truth.sum(0).clip(max=1)
    sizes = np.bincount(labels.ravel(), minlength=count)
    inside = np.bincount(labels.ravel(), merged.ravel(), minlength=count)
    if not inside.any():
        return np.zeros(count, dtype=np.int32)
    order = np.argsort(-inside / np.maximum(sizes, 1), kind="stable")
    ious = inside[order].cumsum() / np.maximum(merged.sum() + (sizes - inside)[order].cumsum(), 1e-9)
    chosen = np.zeros(count, dtype=np.int32)
    chosen[order[: ious.argmax() + 1]] = 1
    return chosen


def measure_agreement(segmenter: Segmenter, video: Encoded, objects: np.ndarray) -> float:
    """Average the adjusted Rand index of a video's objects with those of it backwards and of its mirror image."""
    motion = video.motion
    back = Motion(motion.evidence[::-1].copy(), motion.boundaries[::-1].copy())
    mirror = Motion(motion.evidence[..., ::-1].copy(), motion.boundaries[..., ::-1].copy())
    _, backwards = segment(segmenter, video.features.flip(0), video.grid, back)
    _, mirrored = segment(segmenter, video.mirrored, video.grid, mirror)
    return float(np.mean([compare_maps(objects, other) for other in (backwards[::-1], mirrored[..., ::-1])]))


def print_means(name: str, found: dict[str, np.ndarray], videos: list[Encoded]) -> None:
    """Print what `measure_block` found for a block, in percent."""
    print(f"{name}\n  agreement {100 * found['agreement'].mean():.1f}")
    counts = count_objects(videos)
    for kind in KINDS if counts.any() else ():
        values = 100 * average_videos(found[kind], kind, counts)
        by_threshold = ", ".join(f"{value:.1f} at {factor}" for factor, value in zip(FACTORS, values, strict=True))
        print(f"  J of {kind:<10} {values.mean():.1f}  ({by_threshold}; best minus worst {np.ptp(values):.1f})")
    sys.stdout.flush()


def count_objects(videos: list[Encoded]) -> np.ndarray:
    """Count the objects of each video: (videos,) float64."""
    return np.array([len(video.truth) for video in videos], float)


def average_videos(values: np.ndarray, kind: str, counts: np.ndarray) -> np.ndarray:
    """Average what `measure_block` found of a kind over objects, or videos with objects: (..., videos) -> (...)."""
    weights = weigh_videos(kind, counts)
    return (values if kind in OBJECTWISE else values * weights).sum(-1) / weights.sum()


def weigh_videos(kind: str, counts: np.ndarray) -> np.ndarray:
    """Weigh videos with `counts` objects in the mean of a kind: by their objects, or alike if they have any."""
    return counts if kind in OBJECTWISE else (counts > 0).astype(float)


def print_differences(base: dict[str, np.ndarray], trained: dict[str, np.ndarray], videos: list[Encoded]) -> None:
    """Print trained minus training-free with intervals, means over thresholds and seeds."""
    if len(videos) < 2:
        raise UserError("--sequences: names one video; an interval needs at least 2")
    counts = count_objects(videos)
    rows = [("agreement", base["agreement"], trained["agreement"], np.ones(len(videos)))]
    if counts.all():
        for kind in KINDS:
            rows.append((f"J of {kind}", base[kind].mean(0), trained[kind].mean(0), weigh_videos(kind, counts)))
    print("measure, training-free, trained, difference, from, to")
    for name, first, second, weights in rows:
        means = [bootstrap_interval(values, weights).value for values in (first, second)]
        line = (*means, *bootstrap_difference(first, second, weights))
        print(f"{name}, " + ", ".join(f"{100 * value:.1f}" for value in line))


if __name__ == "__main__":
    run_main(main, lower="--resolution or --sequences")
