"""Judge blocks on whole videos: J of clusters and objects on the grid of tokens, and agreement, which needs no labels.

J at a single threshold says nothing about training, because it jumps by several points from one to the next
(docs/results.md). So every video is clustered at several multiples of its threshold.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from model.network import SpatioTemporalNetwork
from model.objects.affinity import CentredFeatures
from model.objects.find import find_objects
from model.objects.motion import Motion, MotionMeter
from model.objects.ranking import compute_sizes, multiply_components, rate_labels
from model.segmenter import Segmenter, SegmenterSettings, key_frame_indices
from model.training.distances import SHARE, quantiles, window_distances
from utils.scoring.slots import adjusted_rand_index

MAX_PROPOSALS = 20  # of protocol davis
KINDS = ("clusters", "objects")
MEASURES = (*KINDS, "agreement")


@dataclass
class Encoded:
    """A video as the block sees it, with its annotations.

    Attributes:
        features, mirrored: (T, N, C) of the video and of its mirror image.
        grid: (h, w), N = h * w.
        motion: of the tokens.
        truth: (objects, T, h, w) float32, the share of each token that an object covers; none if it is not annotated.
    """

    features: Tensor
    mirrored: Tensor
    grid: tuple[int, int]
    motion: Motion
    truth: np.ndarray


def encode_video(
    segmenter: Segmenter, frames: list[Tensor], read_truth: Callable[[tuple[int, int]], np.ndarray]
) -> Encoded:
    """Encode the frames (3, H, W) of a video and their mirror images, and measure motion.

    read_truth: reads the annotations of the video on a grid, as `Encoded` holds them.
    """
    meter = MotionMeter(segmenter.grid_size)
    features, grid = segmenter.encode(meter.watch(frames), num_frames=len(frames))
    mirrored, _ = segmenter.encode((frame.flip(-1) for frame in frames), num_frames=len(frames))
    return Encoded(features, mirrored, grid, meter.finish(), read_truth(grid))


def measure_distances(
    network: SpatioTemporalNetwork, videos: Iterable[Encoded], settings: SegmenterSettings
) -> np.ndarray:
    """Measure the distance that `SHARE` of the pairs of tokens in a window of a video do not exceed: (videos,), nats.

    Distances grow as attention sharpens. So the thresholds of a trained block should grow by the ratio of its distances
    to those of the block that it began as.
    """
    found = []
    for video in videos:
        key_frames = key_frame_indices(len(video.features), settings.key_stride, settings.max_key_frames)
        found += quantiles(window_distances(network, video.features, key_frames), (SHARE,))
    return np.array(found)


@torch.no_grad()
def judge(
    network: SpatioTemporalNetwork, videos: Iterable[Encoded], settings: SegmenterSettings, *, factors: Sequence[float]
) -> dict[str, np.ndarray]:
    """Measure a block.

    Args:
        factors: multiples of the threshold, 1 among them, at which agreement is measured.

    Returns:
        `clusters`, `objects`: (thresholds, videos), the sum of J over a video's objects. `agreement`: (videos,).
    """
    found: dict[str, list] = {name: [] for name in MEASURES}
    for video in videos:
        sums = np.zeros((len(KINDS), len(factors)))
        for column, factor in enumerate(factors):
            segmenter = Segmenter(network, replace(settings, tau=factor * settings.tau))
            clusters, objects = segment(segmenter, video.features, video.grid, video.motion)
            scores = multiply_components(rate_labels(objects, video.motion.evidence))
            sums[0, column] = sum_j(clusters, video.truth, compute_sizes(clusters))
            sums[1, column] = sum_j(objects, video.truth, scores)
            if factor == 1:
                found["agreement"].append(measure_agreement(segmenter, video, objects))
        for kind, of_kind in zip(KINDS, sums, strict=True):
            found[kind].append(of_kind)
    return {name: np.array(values).T for name, values in found.items()}


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


def measure_agreement(segmenter: Segmenter, video: Encoded, objects: np.ndarray) -> float:
    """Average the adjusted Rand index of a video's objects with those of it backwards and of its mirror image."""
    motion = video.motion
    back = Motion(motion.evidence[::-1].copy(), motion.boundaries[::-1].copy())
    mirror = Motion(motion.evidence[..., ::-1].copy(), motion.boundaries[..., ::-1].copy())
    _, backwards = segment(segmenter, video.features.flip(0), video.grid, back)
    _, mirrored = segment(segmenter, video.mirrored, video.grid, mirror)
    return float(np.mean([compare_maps(objects, other) for other in (backwards[::-1], mirrored[..., ::-1])]))


def compare_maps(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the adjusted Rand index of two label maps (T, h, w)."""
    shared = np.zeros((first.max() + 1, second.max() + 1), np.int64)
    np.add.at(shared, (first, second), 1)
    return adjusted_rand_index(shared)
