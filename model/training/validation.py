"""Validate a block on videos, over several thresholds, beside the training-free one.

J at a single threshold says nothing about training, because it jumps by several points from one to the next. So every
video is segmented at several multiples of its threshold, and J is measured on the grid of tokens, with one assignment a
video as under protocol davis. Agreement needs no annotations: it is the adjusted Rand index of a video's objects with
those of the video played backwards and of its mirror image.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from model.network import SpatioTemporalNetwork
from model.objects.affinity import CentredFeatures
from model.objects.find import find_objects
from model.objects.motion import Motion, MotionMeter
from model.objects.ranking import compute_sizes, multiply_components, rate_labels, select_foreground
from model.segmenter import Segmenter, SegmenterSettings, key_frame_indices
from model.training.distances import SHARE, quantiles, window_distances
from model.training.monitor import compare_maps
from utils.errors import UserError
from utils.scoring.annotations import VOID
from utils.scoring.bootstrap import Interval, bootstrap_difference
from utils.scoring.protocols import MAX_PROPOSALS

FACTORS = (0.7, 0.85, 1.0, 1.2, 1.4)  # multiples of the threshold
OBJECTWISE, VIDEOWISE = ("clusters", "objects"), ("foreground", "best union")  # means over objects and over videos
KINDS = (*OBJECTWISE, *VIDEOWISE)
MEASURES = (*KINDS, "agreement")


@dataclass
class EncodedVideo:
    """A video as the block sees it.

    Attributes:
        name: name of the video.
        features: (T, N, C).
        mirrored: the same of its mirror image; None if agreement is not to be measured.
        grid: (h, w), N = h * w.
        motion: of the tokens.
        truth: (objects, T, h, w) float32, the share of each token that an object covers, in the annotated frames; no
            objects if there are none.
        annotated: positions of these frames in the video.
    """

    name: str
    features: Tensor
    mirrored: Tensor | None
    grid: tuple[int, int]
    motion: Motion
    truth: np.ndarray
    annotated: list[int]


class AnnotatedFrames(Protocol):
    """The interface of `data.videos.AnnotatedFrames`."""

    name: str
    frames: list[Tensor]
    annotated: list[int]
    maps: list[np.ndarray]


def encode_video(video: AnnotatedFrames, segmenter: Segmenter, *, mirror: bool = True) -> EncodedVideo:
    """Encode a video, measure its motion, and bring its annotations to the grid of tokens.

    mirror: encode its mirror image too.
    """
    frames, meter = video.frames, MotionMeter(segmenter.grid_size)
    features, grid = segmenter.encode(meter.watch(frames), num_frames=len(frames))
    mirrored = None
    if mirror:
        mirrored, _ = segmenter.encode((frame.flip(-1) for frame in frames), num_frames=len(frames))
    truth = measure_shares(video.maps, grid)
    return EncodedVideo(video.name, features, mirrored, grid, meter.finish(), truth, video.annotated)


def measure_shares(maps: list[np.ndarray], grid: tuple[int, int]) -> np.ndarray:
    """Measure the share of each token that each object of label maps (H, W) covers: (objects, T, h, w) float32."""
    ids = sorted({int(number) for labels in maps for number in np.unique(labels) if 0 < number < VOID})
    shares = np.zeros((len(ids), len(maps), *grid), np.float32)
    for frame, labels in enumerate(maps):
        for index, number in enumerate(ids):
            mask = (labels == number).astype(np.float32)
            shares[index, frame] = cv2.resize(mask, grid[::-1], interpolation=cv2.INTER_AREA)
    return shares


class Comparison(NamedTuple):
    """What training changed: J of objects, in the mean over thresholds and objects, as shares.

    before, after: of the training-free and of the trained block. difference: the interval of the second minus the
    first, paired over videos.
    """

    before: float
    after: float
    difference: Interval

    def name_values(self) -> dict[str, float]:
        """Name the values as a log does."""
        return {"validation_j_free": self.before, "validation_j": self.after}

    def describe(self) -> str:
        """Say it in percent."""
        values = (round(100 * value, 1) + 0.0 for value in (self.before, self.after, *self.difference))  # no -0.0
        return "J of objects {:.1f} training-free and {:.1f} trained ({:+.1f} [{:.1f}, {:.1f}])".format(*values)


def compare_with_training_free(
    network: SpatioTemporalNetwork, videos: Iterable[EncodedVideo], settings: SegmenterSettings, *, temperature: float,
    factors: Sequence[float] = FACTORS, stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda done: None,
) -> Comparison | None:  # fmt: skip
    """Compare the block of a network with the training-free one.

    Args:
        videos: taken one by one before the first is measured; those without annotated objects are left out.
        temperature: of the training-free block.
        factors: multiples of the threshold.
        stop: asked before each video is taken and before each is measured; if it says True, None is returned.
        progress: told how many videos are measured.

    Raises:
        UserError: fewer than two videos have annotated objects; an interval needs two.
    """
    known: list[EncodedVideo] = []
    source = iter(videos)
    while True:
        if stop():
            return None
        if (video := next(source, None)) is None:
            break
        known += [video] if len(video.truth) else []
    if len(known) < 2:
        raise UserError(f"{len(known)} of the validation videos have annotated objects; at least 2 are needed")
    free = copy_with_own_blocks(network)
    free.init_blocks("identity", temperature=temperature)
    fitted = scale_threshold(settings, network, known, measure_distances(free, known, settings))
    found: list[list[float]] = []
    for video in known:
        if stop():
            return None
        found.append(
            [
                measure_block(block, [video], own, factors, agreement=False)["objects"].mean()
                for block, own in ((free, settings), (network, fitted))
            ]
        )
        progress(len(found))
    return summarise(np.array(found), count_objects(known))


def summarise(found: np.ndarray, counts: np.ndarray) -> Comparison:
    """Summarise the sums of J (videos, 2) of the training-free and of the trained block; counts (videos,): objects."""
    before, after = found.T
    total = counts.sum()
    difference = bootstrap_difference(before, after, counts)
    return Comparison(float(before.sum() / total), float(after.sum() / total), difference)


def copy_with_own_blocks(network: SpatioTemporalNetwork) -> SpatioTemporalNetwork:
    """Copy a network but for its backbone, which both use."""
    return copy.deepcopy(network, {id(network.backbone): network.backbone})


def scale_threshold(
    settings: SegmenterSettings, network: SpatioTemporalNetwork, videos: list[EncodedVideo], reference: np.ndarray
) -> SegmenterSettings:
    """Multiply the threshold by the ratio of a network's distances to `reference` (videos,), in the median.

    Distances grow as attention sharpens, so a trained block needs another threshold for equally many clusters.
    """
    ratio = float(np.median(measure_distances(network, videos, settings) / reference))
    return replace(settings, tau=settings.tau * ratio)


def measure_distances(
    network: SpatioTemporalNetwork, videos: list[EncodedVideo], settings: SegmenterSettings
) -> np.ndarray:
    """Measure the distance that `SHARE` of the pairs of tokens in a window of each video do not exceed: (videos,)."""
    return np.array([measure_distance(network, video, settings) for video in videos])


def measure_distance(network: SpatioTemporalNetwork, video: EncodedVideo, settings: SegmenterSettings) -> float:
    """Measure the distance that `SHARE` of the pairs of tokens in a window of a video do not exceed, in nats."""
    key_frames = key_frame_indices(len(video.features), settings.key_stride, settings.max_key_frames)
    return quantiles(window_distances(network, video.features, key_frames), (SHARE,))[0]


@torch.no_grad()
def measure_block(
    network: SpatioTemporalNetwork, videos: list[EncodedVideo], settings: SegmenterSettings,
    factors: Sequence[float] = FACTORS, *, agreement: bool = True,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Measure the masks that a block gives, at several multiples of the threshold.

    Args:
        factors: the multiples.
        agreement: measure it too, at 1, which must be one of the factors.

    Returns:
        `clusters`, `objects`: (thresholds, videos), the sum of J over a video's objects. `foreground`, `best union`:
        (thresholds, videos), J of their union. `agreement`: (videos,), 0 if it is not measured.

    Raises:
        ValueError: agreement is asked for, and 1 is none of the factors.
    """
    if agreement and 1 not in factors:
        raise ValueError(f"factors {factors}: agreement is measured at 1, which must be one of them")
    found = {name: np.zeros((len(factors), len(videos))) for name in KINDS} | {"agreement": np.zeros(len(videos))}
    for column, video in enumerate(videos):
        for row, factor in enumerate(factors):
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
            if agreement and factor == 1:
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


def measure_agreement(segmenter: Segmenter, video: EncodedVideo, objects: np.ndarray) -> float:
    """Average the adjusted Rand index of a video's objects with those of it backwards and of its mirror image."""
    motion = video.motion
    back = Motion(motion.evidence[::-1].copy(), motion.boundaries[::-1].copy())
    mirror = Motion(motion.evidence[..., ::-1].copy(), motion.boundaries[..., ::-1].copy())
    _, backwards = segment(segmenter, video.features.flip(0), video.grid, back)
    _, mirrored = segment(segmenter, video.mirrored, video.grid, mirror)
    return float(np.mean([compare_maps(objects, other) for other in (backwards[::-1], mirrored[..., ::-1])]))


def count_objects(videos: list[EncodedVideo]) -> np.ndarray:
    """Count the objects of each video: (videos,) float64."""
    return np.array([len(video.truth) for video in videos], float)


def weigh_videos(kind: str, counts: np.ndarray) -> np.ndarray:
    """Weigh videos with `counts` objects in the mean of a kind: by their objects, or alike if they have any."""
    return counts if kind in OBJECTWISE else (counts > 0).astype(float)
