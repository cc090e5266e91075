"""Segment a whole video: frames to features, attention to key frames, clusters (docs/method.md, sections 4 and 5).

    segmenter = Segmenter(network, SegmenterSettings(key_stride=10, tau=1.0))
    found = segmenter.segment(frames, num_frames=len(frames))       # found.labels: (T, h, w)

Frames are encoded in small batches and windows are clustered one by one. Of each window only centres and a summary are
kept, so memory grows with the length of the video by its features and these alone. Features that exceed the memory
budget are kept on disk; windows whose summaries exceed it are computed a second time (`model.engine.budget`).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model import clustering as plain
from model.clustering import WINDOW
from model.engine.budget import MemoryBudget, SpareMemory
from model.engine.threshold import Trial, cluster_at_wanted_number
from model.engine.windows import ENGINES, WindowClusterer, sample_tokens
from model.explanation import explain
from model.network import SpatioTemporalNetwork
from model.objects.affinity import CentredFeatures
from model.objects.find import find_objects
from model.objects.motion import Motion, MotionMeter
from utils.clock import Clock
from utils.device import autocast
from utils.errors import UserError
from utils.explanation import Explanation
from utils.feature_cache import FeatureCache
from utils.flags.choices import MAX_KEY_FRAMES, PLAIN
from utils.parallel import map_parallel, prefetch, use_one_core
from utils.progress import log_line

# Called with the name of a stage ("features", "clustering", "labels" or "objects") and the frames it has finished.
Progress = Callable[[str, int], None]


def ignore_progress(stage: str, frames: int) -> None:
    """Do nothing: the `Progress` of callers that show none."""


@dataclass(frozen=True)
class SegmenterSettings:
    """Settings of a `Segmenter`.

    Attributes:
        key_stride: distance of two key frames, in frames (R, `--ratio`).
        max_key_frames: largest number of key frames, whatever the length of the video; None for no limit.
        tau: distance threshold of the clustering, in nats.
        clustering: one of `utils.flags.choices.CLUSTERINGS`. `exact`: the formulas up to rounding, as long as the
            centres of all windows fit half of the memory that is left; beyond that they are merged early. `fast`:
            attention is paid to the means of 3x3 tokens, and centres are found from a third of the tokens. `plain`: the
            formulas as they stand (`model.clustering`), with every row of attention in memory.
        memory_gb: memory of features, attention, clustering and objects together, in 1e9 bytes; the network and its
            activations for `frame_batch` frames come on top.
        frame_batch: frames per forward pass of the backbone.
        amp: precision of the backbone, a key of `utils.device.AMP_DTYPES`; attention and clustering stay in float32.
        spill_path: folder for features that do not fit the budget, made if need be; None for the system's folder of
            temporary files.
        feature_cache: folder where features of frames are kept between runs; None for none.
        motion: measure how tokens move against the camera while the frames are read (`model.objects.motion`).
        objects: options of `find_objects`, with which `segment` also makes objects of the clusters; None for none.
        clusters: smallest and largest number of clusters of a video. If tau gives another number, another tau is
            searched for that video. None keeps tau, as `FrameStream` does.
        explain: also return what the clusters were made from (`Explanation`), which keeps the features in memory.
    """

    key_stride: int = 10
    max_key_frames: int | None = MAX_KEY_FRAMES
    tau: float = 1.0
    clustering: str = "exact"
    memory_gb: float = 8.0
    frame_batch: int = 4
    amp: str = "none"
    spill_path: Path | None = None
    feature_cache: Path | None = None
    motion: bool = False
    objects: dict[str, Any] | None = None
    clusters: tuple[int, int] | None = None
    explain: bool = False


@dataclass
class Segmentation:
    """Result of segmenting a video.

    Attributes:
        labels: (T, h, w) int32, the cluster of every token, in [0, num_clusters).
        num_clusters: number of clusters; some may have no token.
        tau: threshold that the clusters were made with, in nats.
        seconds: time of each stage.
        objects: (T, h, w) int32, the object of every token (`find_objects`); None if no objects were asked for.
        boundary_tokens: (T, h, w) bool, tokens that show parts of two things; None as for `objects`.
        motion: motion of every token against the camera; None if it was not measured.
        cached: number of frames whose features came from the feature cache, so that `seconds` has no backbone for them.
        explanation: what the clusters were made from; None if it was not asked for.
    """

    labels: np.ndarray
    num_clusters: int
    tau: float
    seconds: dict[str, float]
    objects: np.ndarray | None = None
    boundary_tokens: np.ndarray | None = None
    motion: Motion | None = None
    cached: int = 0
    explanation: Explanation | None = None


def key_frame_indices(num_frames: int, key_stride: int, max_key_frames: int | None = None) -> list[int]:
    """List the key frames 0, R, 2R, ...: T // R as in the reference, and at least one (docs/method.md, section 4).

    If there are more than `max_key_frames`, that many are taken at even steps.
    """
    indices = list(range(0, num_frames, key_stride))[: max(num_frames // key_stride, 1)]
    if max_key_frames is None or len(indices) <= max_key_frames:
        return indices
    return [indices[place * len(indices) // max_key_frames] for place in range(max_key_frames)]


def describe_key_frame_limit(lengths: dict[str, int], key_stride: int, max_key_frames: int) -> str | None:
    """Say in which videos, given by their numbers of frames, `max_key_frames` leaves fewer key frames than R gives."""
    counts = {name: len(key_frame_indices(length, key_stride)) for name, length in lengths.items()}
    limited = [name for name, count in counts.items() if count > max_key_frames]
    if not limited:
        return None
    return (f"--max_key_frames {max_key_frames}: limits {len(limited)} of {len(lengths)} videos, such as {limited[0]}, "
            f"which has {counts[limited[0]]} key frames at --ratio {key_stride}")  # fmt: skip


class Segmenter:
    """Segment videos with a network whose block is trained or at the identity.

    Args:
        network: set to evaluation mode; everything is computed on its device.
        settings: all else.
    """

    def __init__(self, network: SpatioTemporalNetwork, settings: SegmenterSettings | None = None):
        self.network = network.eval()
        self.settings = settings or SegmenterSettings()
        self.device = next(network.parameters()).device
        self.budget = MemoryBudget(self.settings.memory_gb * 1e9)
        self.cache = self._open_cache()

    def _open_cache(self) -> FeatureCache | None:
        if self.settings.feature_cache is None:
            return None
        made_by = {
            "amp": self.settings.amp, "device": self.device.type, "torch": torch.__version__, "timm": version("timm"),
        }  # fmt: skip
        return FeatureCache(self.settings.feature_cache, settings=self.network.backbone.settings() | made_by)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Compute the token grid (h, w) of a frame of `height` x `width` pixels."""
        return self.network.backbone.grid_size(height, width)

    def measure_explanation(self, num_frames: int, resolution: tuple[int, int]) -> dict[str, int | None]:
        """Measure what explains a video: its key frames, tokens of a frame, channels, heads, and most clusters."""
        return {
            "key_frames": len(key_frame_indices(num_frames, self.settings.key_stride, self.settings.max_key_frames)),
            "tokens": math.prod(self.grid_size(*resolution)), "width": self.network.backbone.dim,
            "heads": self.network.blocks[-1].attn.num_heads,
            "clusters": self.settings.clusters and self.settings.clusters[1],
        }  # fmt: skip

    def segment(
        self, frames: Iterable[Tensor], *, num_frames: int, flows: Iterable[np.ndarray] | None = None,
        progress: Progress = ignore_progress,
    ) -> Segmentation:  # fmt: skip
        """Label every token of a video.

        Args:
            frames: `num_frames` tensors (3, H, W), uint8 or float in [0, 1], RGB, all of one size; read once, in order.
            flows: optical flows (H, W, 2) from each frame but the last to the next, in pixels of their own size, for
                `motion`; None to compute them.
            progress: called at each stage; the clustering starts again for each threshold that is tried.

        Raises:
            UserError: one window alone, or the objects of the video, do not fit the memory budget.
        """
        clock = Clock(self.device)
        hits_before = self.cache.hits if self.cache else 0
        meter = MotionMeter(self.grid_size, flows) if self.settings.motion else None
        frames = meter.watch(frames) if meter else frames
        features, grid = self.encode(frames, num_frames=num_frames, clock=clock, progress=progress)
        found = self.cluster(features, grid, clock=clock, progress=progress)
        motion = meter.finish() if meter else None
        progress("objects", 0)
        objects = boundary_tokens = None
        if self.settings.objects is not None:
            with clock("objects"), use_one_core(features.device):
                objects, boundary_tokens = find_objects(
                    found.labels, CentredFeatures(features, grid), motion=motion, **self.settings.objects
                )
        return replace(
            found, objects=objects, boundary_tokens=boundary_tokens, motion=motion,
            seconds=dict(clock.seconds) | ({"motion": meter.seconds} if meter else {}),
            cached=self.cache.hits - hits_before if self.cache else 0,
        )  # fmt: skip

    @torch.no_grad()
    def encode(
        self, frames: Iterable[Tensor], *, num_frames: int, clock: Clock | None = None,
        progress: Progress = ignore_progress,
    ) -> tuple[Tensor, tuple[int, int]]:  # fmt: skip
        """Encode the frames of a video, given as for `segment`: features (T, N, C) float32 and the token grid (h, w).

        The features lie in main memory or, if they exceed half of the budget, in a file that goes away with them.
        """
        clock = clock or Clock(self.device)
        features = None
        done = 0
        progress("features", 0)
        for batch in clock.iterate("decode", prefetch(_batch_frames(frames, self.settings.frame_batch))):
            with clock("backbone"):
                encoded = self.encode_batch(batch)
                if features is None:
                    shape = (num_frames, *encoded.shape[1:])
                    if self.settings.objects is not None:
                        self.budget.check_objects(shape)
                    features = self.budget.allocate_features(shape, spill_path=self.settings.spill_path)
                    grid = self.grid_size(*batch.shape[-2:])
                features[done : done + len(encoded)] = encoded[: num_frames - done]
            done += len(encoded)
            progress("features", done)
        if features is None or done != num_frames:
            raise ValueError(f"{num_frames} frames announced, {done} given")
        return features, grid

    @torch.no_grad()
    def encode_batch(self, batch: Tensor) -> Tensor:
        """Encode frames (B, 3, H, W), or take their features from the cache: (B, N, C) float32."""
        keys = [self.cache.key(frame) for frame in batch] if self.cache else []
        known = [self.cache.load(key) for key in keys] or [None] * len(batch)
        if missing := [index for index, found in enumerate(known) if found is None]:
            for index, features in zip(missing, self._run_backbone(batch[missing]), strict=True):
                known[index] = features
                if self.cache:
                    self.cache.save(keys[index], features)
        return torch.stack([features.to(self.device) for features in known])

    def _run_backbone(self, batch: Tensor) -> Tensor:
        # A core that encodes whole frames is faster than several that share every product, if there are enough frames.
        shared = self.device.type == "cpu" and len(batch) >= torch.get_num_threads()
        pieces = batch.split(1) if shared else [batch]
        features = torch.cat(map_parallel(self._encode_piece, pieces, device=self.device))
        if not features.isfinite().all():
            mend = "check its weights"
            if self.settings.amp != "none":
                mend = f"give another --amp than {self.settings.amp}"
            raise UserError(f"--backbone {self.network.backbone.name}: its features of a frame are not finite; {mend}")
        return features

    def _encode_piece(self, piece: Tensor) -> Tensor:
        with autocast(self.device, self.settings.amp):
            return self.network.encode(piece.to(self.device)).float()

    @torch.no_grad()
    def cluster(
        self, features: Tensor, grid: tuple[int, int], *, clock: Clock | None = None,
        progress: Progress = ignore_progress,
    ) -> Segmentation:  # fmt: skip
        """Label every token of a video from its key features (T, N, C), N = h*w for the grid (h, w).

        With several blocks the features are overwritten by what the last block sees.

        Raises:
            UserError: the clustering does not fit the memory budget.
        """
        clock = clock or Clock(self.device)
        num_frames, tokens = features.shape[:2]
        key_frames = key_frame_indices(num_frames, self.settings.key_stride, self.settings.max_key_frames)
        if self.settings.clustering == PLAIN:
            return self._cluster_plainly(features, grid, key_frames, clock=clock)
        engine = ENGINES[self.settings.clustering]
        spare = self.budget.compute_spare(
            features.shape, grid=grid, num_key_frames=len(key_frames), engine=engine, device=self.device
        )
        with clock("attention"):
            features = self.network.refine(features, key_frames)
            key_features = features[key_frames].to(self.device)
            samples = sample_tokens(features, len(key_frames) * tokens).to(self.device)
            clusterer = WindowClusterer(
                self.network, key_features, grid=grid, engine=engine, samples=samples, clock=clock
            )
        windows = features.split(WINDOW)
        trial = self._cluster_at_wanted_number(
            lambda tau: self._find_centres(clusterer, windows, tau=tau, spare=spare, progress=progress)
        )
        if not trial.fits:
            raise UserError(
                f"--tau {trial.tau:g}: {trial.num_clusters} clusters in the first {len(clusterer.summaries)} of "
                f"{len(windows)} windows, more than fit --memory_gb {self.settings.memory_gb:g}; raise either"
            )
        labels = torch.empty(num_frames, tokens, dtype=torch.int32, device=self.device)
        for index, (window, part) in enumerate(zip(windows, labels.split(WINDOW), strict=True)):
            part.copy_(clusterer.assign_window(index, window.to(self.device)))
            progress("labels", WINDOW * index + len(part))
        labels = labels.cpu().numpy().reshape(num_frames, *grid)
        return self._describe(labels, trial, features, key_frames, clusterer.order_centres, clock=clock)

    def _find_centres(
        self, clusterer: WindowClusterer, windows: tuple[Tensor, ...], *, tau: float, spare: SpareMemory,
        progress: Progress,
    ) -> Trial:  # fmt: skip
        """Run stages 1 and 2 at a threshold; given up if the centres do not fit."""
        clusterer.reset(tau)
        ranks = spare.choose_summary_ranks(
            [len(window) * window.shape[1] for window in windows], count_floats=clusterer.count_summary_floats
        )
        max_centres = spare.count_fitting_centres(clusterer.keys.shape[1])
        for index, (window, rank) in enumerate(zip(windows, ranks, strict=True)):
            progress("clustering", WINDOW * index)
            if clusterer.num_centres > max_centres:
                clusterer.merge()  # early, which can change a few labels
                if clusterer.num_centres > max_centres:
                    return Trial(tau, clusterer.num_centres, fits=False)
            clusterer.add_window(window.to(self.device), summary_rank=rank)
        clusterer.merge()
        return Trial(tau, clusterer.num_centres)

    def _cluster_plainly(
        self, features: Tensor, grid: tuple[int, int], key_frames: list[int], *, clock: Clock
    ) -> Segmentation:
        """Do what `cluster` does by the formulas of `model.clustering`.

        Raises:
            UserError: the attention of all frames, twice, does not fit the memory budget.
        """
        self.budget.check_plain_clustering(features, num_key_frames=len(key_frames))
        with clock("attention"):
            features = self.network.refine(features, key_frames)
            keys = self.network.keys(features[key_frames].flatten(0, 1).to(self.device))
            windows = [
                plain.attention(self.network.queries(window.flatten(0, 1).to(self.device)), keys)
                for window in features.split(WINDOW)
            ]

        def find_centres(tau: float) -> Trial:
            with clock("stage 1"):
                found = [plain.greedy_leaders(plain.smooth(rows, tau), tau) for rows in windows]
            with clock("stage 2"):
                centres = plain.merge_centres(torch.cat(found), tau)
            return Trial(tau, len(centres), centres=centres)

        trial = self._cluster_at_wanted_number(find_centres)
        with clock("assign"):
            labels = torch.cat([plain.assign(rows, trial.centres) for rows in windows])
        labels = labels.view(len(features), *grid).to("cpu", torch.int32).numpy()
        return self._describe(labels, trial, features, key_frames, lambda: trial.centres, clock=clock)

    def _describe(
        self, labels: np.ndarray, trial: Trial, features: Tensor, key_frames: list[int],
        get_centres: Callable[[], Tensor | None], *, clock: Clock,
    ) -> Segmentation:  # fmt: skip
        """Describe clusters that were found, with an explanation if the settings ask for one."""
        explanation = None
        if self.settings.explain:
            with clock("explore"):
                explanation = explain(
                    self.network, features, key_frames=key_frames, labels=labels, num_clusters=trial.num_clusters,
                    centres=get_centres(), tau=trial.tau, clustering=self.settings.clustering,
                )  # fmt: skip
        return Segmentation(
            labels, trial.num_clusters, trial.tau, dict(clock.seconds), explanation=explanation
        )  # fmt: skip

    def _cluster_at_wanted_number(self, cluster_at: Callable[[float], Trial]) -> Trial:
        """Cluster at tau or at another threshold, as the settings ask; warn if no threshold gives a wanted number."""
        wanted = self.settings.clusters
        trial = cluster_at_wanted_number(cluster_at, start=self.settings.tau, wanted=wanted)
        if wanted and not wanted[0] <= trial.num_clusters <= wanted[1]:
            found = f"no threshold found, {trial.num_clusters} at --tau {trial.tau:g}"
            log_line(f"--clusters {wanted[0]} {wanted[1]}: {found}", all_processes=True)
        return trial


def _batch_frames(frames: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Stack frames (3, H, W) into batches (size, 3, H, W), the last one shorter."""
    batch = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == size:
            yield torch.stack(batch)
            batch = []
    if batch:
        yield torch.stack(batch)
