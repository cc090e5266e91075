"""Segment a whole video: frames to features, attention to key frames, clusters (docs/method.md, sections 4 and 5).

Frames are encoded in small batches and windows are clustered one by one. Of each window only a summary is kept, so
memory grows with the length of the video by its features and these summaries alone. Features that exceed the memory
budget are kept on disk; summaries that exceed it are computed a second time.
"""

import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

from model import clustering as plain
from model.engine.bounds import BLOCK
from model.engine.threshold import tau_for
from model.engine.windows import ENGINES, SAMPLES, Stream, sample_tokens
from model.network import SpatioTemporalNetwork
from model.objects.affinity import CentredUnits
from model.objects.find import find_objects
from utils.clock import Clock
from utils.device import autocast
from utils.errors import UserError
from utils.feature_cache import FeatureCache
from utils.parallel import prefetch, use_one_core

WINDOW = 3  # frames per stage-1 window, docs/method.md, section 5
PLAIN = "plain"
CLUSTERINGS = (*ENGINES, PLAIN)
MAX_KEY_FRAMES = 20
FLOAT_BYTES = 4
LEAST_KEPT, MOST_KEPT = 64, 512  # directions of a window's summary; fewer prove too little, more take too much memory
# That `find_objects` takes for a token: 82 to 105 measured, of 240 and 480 frames of 24x48 tokens. Not counted: 8 bytes
# for each track in each frame, which is little until there are tens of thousands of frames.
OBJECT_BYTES = 110
# Told how many frames have come through a stage: "features", "clustering", "labels" or "objects".
Progress = Callable[[str, int], None]


@dataclass
class Segmentation:
    """labels: (T, h, w) int32 cluster of every token, in [0, num_clusters). seconds: time per stage. objects: (T, h, w)
    int32 object of every token, as `find_objects` makes them of the clusters, and unsure: (T, h, w) bool, the tokens
    that show a part of two; None where these were not asked for. tau: the threshold that clusters were made with.
    cached: frames whose features came from the feature cache, so that the backbone's seconds are not theirs."""

    labels: np.ndarray
    num_clusters: int
    tau: float
    seconds: dict[str, float]
    objects: np.ndarray | None = None
    unsure: np.ndarray | None = None
    cached: int = 0


def key_frame_indices(num_frames: int, key_stride: int, max_key_frames: int | None = None) -> list[int]:
    """Frames 0, R, 2R, ...: T // R of them as in the reference, and at least one (docs/method.md, section 4).

    Of more than `max_key_frames` as many are taken, spread evenly.
    """
    indices = list(range(0, num_frames, key_stride))[: max(num_frames // key_stride, 1)]
    if max_key_frames is None or len(indices) <= max_key_frames:
        return indices
    return [indices[place * len(indices) // max_key_frames] for place in range(max_key_frames)]


class Segmenter:
    """Segments videos with a network whose block is trained or at the identity.

    Args:
        network: in evaluation mode, on the device where everything is computed.
        key_stride: every how many frames a frame gives attention keys (R, `--ratio`).
        max_key_frames: at most so many key frames, whatever the length of the video.
        tau: distance threshold of the clustering, in nats.
        clustering: one of `CLUSTERINGS`. `exact`: the formulas up to rounding, as long as the centres of all windows
            fit half of the memory that is left; beyond that they are merged early. `fast`: attention is paid to the
            means of 3x3 tokens, and centres are found from a third of the tokens. `plain`: the formulas as they stand
            (`model.clustering`), with every row of attention in memory.
        memory_gb: what features, attention, clustering and objects may take together, in 1e9 bytes; the network itself
            and its activations for `frame_batch` frames come on top.
        frame_batch: frames per forward pass of the backbone.
        amp: precision of the backbone, a key of `utils.device.AMP_DTYPES`; attention and clustering stay in float32.
        spill_path: folder for features that do not fit the budget, made if need be; None for the system's folder of
            temporary files.
        feature_cache: folder where features of frames are kept between runs; None for none.
        objects: what `segment` also makes of the clusters, options of `find_objects`; None for nothing.
        clusters: where there are not so many clusters of a video at tau, at least and at most, another tau is chosen
            for it; None keeps tau, and so does `open`.
    """

    def __init__(
        self, network: SpatioTemporalNetwork, *, key_stride: int = 10, max_key_frames: int | None = MAX_KEY_FRAMES,
        tau: float = 1.0, clustering: str = "exact", memory_gb: float = 8.0, frame_batch: int = 4,
        amp: str = "none", spill_path: Path | None = None, feature_cache: Path | None = None,
        objects: dict[str, Any] | None = None, clusters: tuple[int, int] | None = None,
    ):  # fmt: skip
        self.network = network.eval()
        self.objects = objects
        self.clusters = clusters
        self.device = next(network.parameters()).device
        self.key_stride = key_stride
        self.max_key_frames = max_key_frames
        self.tau = tau
        self.plain = clustering == PLAIN
        self.engine = ENGINES["exact" if self.plain else clustering]
        self.memory = memory_gb * 1e9
        self.frame_batch = frame_batch
        self.amp = amp
        self.spill_path = spill_path
        self.cache = None
        if feature_cache is not None:
            made_by = {"amp": amp, "device": self.device.type, "torch": torch.__version__, "timm": timm.__version__}
            self.cache = FeatureCache(feature_cache, settings=network.backbone.settings() | made_by)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Token grid (h, w) of a frame of `height` x `width` pixels."""
        return self.network.backbone.grid_size(height, width)

    def segment(
        self, frames: Iterable[Tensor], *, num_frames: int, progress: Progress = lambda stage, frames: None
    ) -> Segmentation:
        """Label every token of a video.

        Args:
            frames: `num_frames` tensors (3, H, W), uint8 or float in [0, 1], RGB, all of one size; read once, in order.
            progress: told of each stage; clustering begins again where another threshold is tried.

        Raises:
            UserError: one window alone, or the objects of all, does not fit the memory budget.
        """
        clock = Clock(self.device)
        before = self.cache.hits if self.cache else 0
        features, grid = self.encode(frames, num_frames=num_frames, clock=clock, progress=progress)
        found = self.cluster(features, grid, clock=clock, progress=progress)
        found.cached = self.cache.hits - before if self.cache else 0
        progress("objects", 0)
        if self.objects is not None:
            with clock("objects"), use_one_core(features.device):
                found.objects, found.unsure = find_objects(found.labels, CentredUnits(features, grid), **self.objects)
        found.seconds = dict(clock.seconds)
        return found

    @torch.no_grad()
    def encode(
        self, frames: Iterable[Tensor], *, num_frames: int, clock: Clock | None = None,
        progress: Progress = lambda stage, frames: None,
    ) -> tuple[Tensor, tuple[int, int]]:  # fmt: skip
        """Features (T, N, C) float32 of a video's frames, as for `segment`, and its token grid (h, w).

        They lie in main memory, or where they do not fit half the budget in a file that goes away with them.
        """
        clock = clock or Clock(self.device)
        features = None
        done = 0
        progress("features", 0)
        for batch in clock.iterate("decode", prefetch(_batches(frames, self.frame_batch))):
            with clock("backbone"):
                encoded = self._encode(batch)
                if features is None:
                    if self.objects is not None:
                        self._check_labels((num_frames, *encoded.shape[1:]))
                    features = self._room_for((num_frames, *encoded.shape[1:]))
                    grid = self.grid_size(*batch.shape[-2:])
                features[done : done + len(encoded)] = encoded[: num_frames - done]
            done += len(encoded)
            progress("features", done)
        if features is None or done != num_frames:
            raise ValueError(f"{num_frames} frames announced, {done} given")
        return features, grid

    @torch.no_grad()
    def open(self, key_frames: Tensor) -> "FrameStream":
        """For a video that comes a few frames at a time: what attention is paid to is given at once, (F, 3, H, W)."""
        return FrameStream(self, key_frames)

    @torch.no_grad()
    def cluster(
        self, features: Tensor, grid: tuple[int, int], *, clock: Clock | None = None,
        progress: Progress = lambda stage, frames: None,
    ) -> Segmentation:  # fmt: skip
        """Label every token of a video from its key features (T, N, C), N = h*w for the grid (h, w).

        With several blocks the features are overwritten by what the last block sees.
        """
        clock = clock or Clock(self.device)
        num_frames, tokens = features.shape[:2]
        key_frames = key_frame_indices(num_frames, self.key_stride, self.max_key_frames)
        if self.plain:
            return self._cluster_plainly(features, grid, key_frames, clock=clock)
        spare = self._spare_bytes(features.shape, grid, len(key_frames))
        with clock("attention"):
            features = self.network.refine(features, key_frames)
            context = features[key_frames].to(self.device)
            samples = sample_tokens(features, len(key_frames) * tokens).to(self.device)
        windows = features.split(WINDOW)

        with clock("attention"):
            stream = Stream(self.network, context, grid=grid, engine=self.engine, samples=samples, clock=clock)
        tau, fits = self._find_at_some_tau(stream, windows, spare=spare, progress=progress)
        if not fits:
            raise UserError(
                f"--tau {tau:g}: {stream.num_centres} clusters in the first {len(stream.kept)} of {len(windows)} "
                f"windows, more than fit --memory_gb {self.memory / 1e9:g}; raise either"
            )
        labels = np.empty((num_frames, *grid), dtype=np.int32)
        for index, window in enumerate(windows):
            part = stream.labels(index, window.to(self.device)).cpu().unflatten(1, grid).numpy()
            labels[WINDOW * index : WINDOW * index + len(part)] = part
            progress("labels", WINDOW * index + len(part))
        return Segmentation(labels, stream.num_centres, tau, dict(clock.seconds))

    def _find_at_some_tau(
        self, stream: Stream, windows: tuple[Tensor, ...], *, spare: float, progress: Progress
    ) -> tuple[float, bool]:
        """`_find_centres` at tau, or where that gives no number of clusters that is wanted, at another; with that."""
        latest = None

        def count(tau: float) -> int:
            nonlocal latest
            stream.restart(tau)
            latest = tau, self._find_centres(stream, windows, spare=spare, progress=progress)
            return stream.num_centres if latest[1] or not self.clusters else max(stream.num_centres, most + 1)

        if not self.clusters:
            count(self.tau)
            return latest
        least, most = self.clusters
        tau = tau_for(count, start=self.tau, least=least, most=most)
        if latest[0] != tau:
            count(tau)
        self._warn_if_no_threshold_fits(stream.num_centres, tau)
        return latest

    def _warn_if_no_threshold_fits(self, number: int, tau: float) -> None:
        """Say where tau, the best that was found, gives a number of clusters beyond the limits wanted."""
        least, most = self.clusters
        if not least <= number <= most:
            found = f"no threshold found, {number} at --tau {tau:g}"
            print(f"--clusters {least} {most}: {found}", file=sys.stderr, flush=True)

    def _cluster_plainly(
        self, features: Tensor, grid: tuple[int, int], key_frames: list[int], *, clock: Clock
    ) -> Segmentation:
        """As `cluster`, by the formulas of `model.clustering`.

        Raises:
            UserError: the rows of attention of all frames, twice, do not fit the memory budget.
        """
        num_frames, tokens, _ = features.shape
        needed = 2 * features.element_size() * num_frames * tokens * len(key_frames) * tokens
        if needed > self.memory:
            raise UserError(
                f"--memory_gb {self.memory / 1e9:g}: --clustering plain keeps all attention of {num_frames} frames of "
                f"{tokens} tokens, which needs {1.05 * needed / 1e9:.2g}; raise it, or give --clustering exact"
            )
        with clock("attention"):
            features = self.network.refine(features, key_frames)
            context = features[key_frames].to(self.device)
            windows = [plain.attention(self.network, part.to(self.device), context) for part in features.split(WINDOW)]
        latest = None

        def count(tau: float) -> int:
            nonlocal latest
            with clock("stage 1"):
                found = torch.cat([plain.leaders(plain.smooth(rows, tau), tau) for rows in windows])
            with clock("stage 2"):
                latest = tau, plain.merge(found, tau)
            return len(latest[1])

        tau = self.tau
        if self.clusters:
            tau = tau_for(count, start=self.tau, least=self.clusters[0], most=self.clusters[1])
        if latest is None or latest[0] != tau:
            count(tau)
        tau, centres = latest
        if self.clusters:
            self._warn_if_no_threshold_fits(len(centres), tau)
        with clock("assign"):
            labels = torch.cat([plain.divergence(rows, centres).argmin(-1) for rows in windows])
        labels = labels.view(num_frames, *grid).to("cpu", torch.int32).numpy()
        return Segmentation(labels, len(centres), tau, dict(clock.seconds))

    def _find_centres(self, stream: Stream, windows: tuple[Tensor, ...], *, spare: float, progress: Progress) -> bool:
        """Stages 1 and 2, in what the budget has to spare; False, and given up, where there are too many centres."""
        columns, tokens = stream.keys.shape[1], [window.shape[0] * window.shape[1] for window in windows]
        floats = spare / 2 / FLOAT_BYTES  # for summaries, of all windows alike if they fit in `LEAST_KEPT` directions
        rank = max(min(int((floats / sum(tokens) - stream.floats_kept(0)) / 2), MOST_KEPT), LEAST_KEPT)
        for index, (window, count) in enumerate(zip(windows, tokens, strict=True)):
            progress("clustering", WINDOW * index)
            floats -= count * stream.floats_kept(rank)
            # Stage 2 holds centres as found and in one piece, those merged, as a list and in one piece, and logarithms
            # of these. Merged early where they outgrow that, which can change a few labels.
            room = spare / 2 / (5 * FLOAT_BYTES * columns)
            if stream.num_centres > room:
                stream.merge()
                if stream.num_centres > room:
                    return False
            stream.step(window.to(self.device), keep=rank if floats >= 0 else 0)
        stream.merge()
        return True

    def _encode(self, batch: Tensor) -> Tensor:
        """Features (B, N, C) float32 of frames (B, 3, H, W), from the cache where they are there."""
        keys = [self.cache.key(frame) for frame in batch] if self.cache else []
        known = [self.cache.load(key) for key in keys] or [None] * len(batch)
        if missing := [index for index, found in enumerate(known) if found is None]:
            with autocast(self.device, self.amp):
                new = batch[missing].to(self.device)
                made = self.network.encode(new).float()
            if not made.isfinite().all():
                raise UserError(
                    f"--backbone {self.network.backbone.name}: its features of a frame are not finite"
                    + (f"; give another --amp than {self.amp}" if self.amp != "none" else "; check its weights")
                )
            for index, found in zip(missing, made, strict=True):
                known[index] = found
                if self.cache:
                    self.cache.save(keys[index], found)
        return torch.stack([found.to(self.device) for found in known])

    def _room_for(self, shape: tuple[int, int, int]) -> Tensor:
        """Uninitialised float32 features of a video, in memory or on disk."""
        if FLOAT_BYTES * np.prod(shape) <= self.memory / 2:
            return torch.empty(shape)
        if self.spill_path is not None:
            self.spill_path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.spill_path) as file:
            if hasattr(os, "posix_fallocate"):  # so that a full disk is an error here; not on macOS
                os.posix_fallocate(file.fileno(), 0, int(FLOAT_BYTES * np.prod(shape)))
            return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="w+", shape=shape))

    def _check_labels(self, shape: tuple[int, int, int]) -> None:
        """Refuse a video of features (T, N, C) whose objects would not fit once the clustering's own memory is free."""
        num_frames, tokens, _ = shape
        features = FLOAT_BYTES * np.prod(shape)
        needed = (features if features <= self.memory / 2 else 0) + OBJECT_BYTES * num_frames * tokens
        if needed > self.memory:
            raise UserError(
                f"--memory_gb {self.memory / 1e9:g}: objects of {num_frames} frames of {tokens} tokens need "
                f"{1.05 * needed / 1e9:.2g}; raise it, lower --resolution, or give --proposals clusters"
            )

    def _spare_bytes(self, shape: tuple[int, int, int], grid: tuple[int, int], num_key_frames: int) -> float:
        """What the budget leaves for what grows with a video: summaries of windows, and centres.

        shape: (T, N, C) of the features. grid: (h, w), N = h * w.
        """
        num_frames, tokens, dim = shape
        features = FLOAT_BYTES * num_frames * tokens * dim
        held = features if features <= self.memory / 2 else 0  # otherwise on disk
        columns = num_key_frames * math.prod(math.ceil(side / self.engine.key_pool) for side in grid)
        window_rows = WINDOW * tokens
        some_rows = math.ceil(window_rows / self.engine.row_stride)  # that stage 1 looks at
        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        # A window's rows, their logarithms, later smoothed rows; copies of some; neighbourhoods as bits and as floats;
        # the view, in part several times; what each thread works on; what the sketch is fitted to, attention in the
        # making; keys.
        needed = (
            held
            + 2.1 * FLOAT_BYTES * window_rows * columns
            + (2 * FLOAT_BYTES * some_rows * columns if some_rows < window_rows else 0)
            + (2 * FLOAT_BYTES + 3) * some_rows**2
            + FLOAT_BYTES * window_rows * (8 * self.engine.rank(columns) + 10 * columns / BLOCK + 2048 * threads)
            + FLOAT_BYTES * columns * (2 * SAMPLES[1] + 512 * threads)
            + FLOAT_BYTES * num_key_frames * tokens * 3 * dim
        )
        if needed > self.memory:
            raise UserError(
                f"--memory_gb {self.memory / 1e9:g}: {num_frames} frames of {tokens} tokens and {num_key_frames} key "
                f"frames need {1.05 * needed / 1e9:.2g}; "
                "raise it, raise --ratio, or lower --max_key_frames or --resolution"
            )
        return self.memory - needed


class FrameStream:
    """A video as it comes, in memory that grows by its clusters alone; made by `Segmenter.open`.

    stream = segmenter.open(key_frames)                # such as the first frames, or frames of the place
    for frames in camera:                              # (n, 3, H, W), usually three
        labels = stream.step(frames)                   # (n, h, w)

    A cluster keeps its index until it or one before it becomes one with another. Centres follow what is seen: at each
    step that of a cluster moves half of the way to what joins it. `segment`, which sees the whole video before it gives
    a label, does neither.
    """

    def __init__(self, segmenter: Segmenter, key_frames: Tensor):
        if segmenter.plain:
            raise UserError("--clustering plain: needs the whole video, not frames as they come")
        if len(segmenter.network.blocks) > 1:
            raise UserError(f"--num_t {len(segmenter.network.blocks)}: frames as they come need a network of one block")
        self.segmenter = segmenter
        self.grid = segmenter.grid_size(*key_frames.shape[-2:])
        features = torch.cat([segmenter._encode(batch) for batch in key_frames.split(segmenter.frame_batch)])
        self.stream = Stream(
            segmenter.network, features, grid=self.grid, engine=segmenter.engine,
            samples=sample_tokens(features, features.shape[0] * features.shape[1]),
        )  # fmt: skip
        self.stream.restart(segmenter.tau)

    @property
    def num_clusters(self) -> int:
        return self.stream.num_centres

    @torch.no_grad()
    def step(self, frames: Tensor) -> Tensor:
        """Labels (n, h, w) int64 of the tokens of frames (n, 3, H, W), by the clusters found so far and in these."""
        features = torch.cat([self.segmenter._encode(batch) for batch in frames.split(self.segmenter.frame_batch)])
        self.stream.step(features, keep=self.stream.rank)
        self.stream.merge()
        labels = self.stream.labels(-1, features)
        self.stream.kept.clear()
        return labels.unflatten(1, self.grid)


def _batches(frames: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Stack frames (3, H, W) into batches (size, 3, H, W), the last one shorter."""
    batch = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == size:
            yield torch.stack(batch)
            batch = []
    if batch:
        yield torch.stack(batch)
