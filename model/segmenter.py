"""A whole video to a label map: features, sparse key frames, attention rows, hierarchical clustering (METHOD.md 4, 5).

Rows of attention are made window by window. Those that fit the memory budget are kept for the assignment at the end,
the others made a second time, so that memory stays within the budget whatever the length of the video.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.clustering import assign, merge_centres, safe_log, window_centres
from model.network import SpatioTemporalNetwork
from utils.device import autocast, synchronize
from utils.errors import UserError

WINDOW = 3  # frames per stage-1 window, METHOD.md 5
FLOAT_BYTES = 4


@dataclass
class Segmentation:
    """labels: (T, h, w) int32 cluster of every token, in [0, num_clusters). seconds: time per stage."""

    labels: np.ndarray
    num_clusters: int
    seconds: dict[str, float]


def key_frame_indices(num_frames: int, key_stride: int) -> list[int]:
    """Frames 0, R, 2R, ...: T // R of them as in the reference, and at least one (METHOD.md 4)."""
    return list(range(0, num_frames, key_stride))[: max(num_frames // key_stride, 1)]


class Segmenter:
    """Segments videos with a network whose block is trained or at the identity.

    Args:
        network: in evaluation mode, on the device where everything is computed.
        key_stride: every how many frames a frame gives attention keys (R, `--ratio`).
        tau: distance threshold of the clustering, in nats.
        memory_gb: what features, attention and clustering may take together, in 1e9 bytes; the network itself and
            its activations for `frame_batch` frames come on top.
        frame_batch: frames per forward pass of the backbone.
        amp: precision of the backbone, a key of `utils.device.AMP_DTYPES`; attention and clustering stay in float32.
        chunk: rows per block of pairwise distances.
    """

    def __init__(
        self, network: SpatioTemporalNetwork, *, key_stride: int = 10, tau: float = 1.0, memory_gb: float = 8.0,
        frame_batch: int = 4, amp: str = "none", chunk: int = 1024,
    ):  # fmt: skip
        self.network = network.eval()
        self.device = next(network.parameters()).device
        self.key_stride = key_stride
        self.tau = tau
        self.memory_gb = memory_gb
        self.frame_batch = frame_batch
        self.amp = amp
        self.chunk = chunk

    def segment(self, frames: Iterable[Tensor], *, num_frames: int) -> Segmentation:
        """Label every token of a video.

        Args:
            frames: `num_frames` tensors (3, H, W), uint8 or float in [0, 1], RGB, all of one size; read once, in order.

        Raises:
            UserError: one window alone does not fit the memory budget.
        """
        clock = _Clock(self.device)
        features, grid = self.encode(frames, num_frames=num_frames, clock=clock)
        return self.cluster(features, grid, clock=clock)

    @torch.no_grad()
    def encode(
        self, frames: Iterable[Tensor], *, num_frames: int, clock: "_Clock | None" = None
    ) -> tuple[Tensor, tuple[int, int]]:
        """Key features (T, N, C) of a video's frames, as for `segment`, and its token grid (h, w)."""
        clock = clock or _Clock(self.device)
        features = None
        done = 0
        for batch in _batches(clock.iterate("decode", frames), self.frame_batch):
            with clock("backbone"):
                with autocast(self.device, self.amp):
                    encoded = self.network.encode(batch.to(self.device))
                encoded = encoded.float()
                if features is None:
                    features = encoded.new_empty(num_frames, *encoded.shape[1:])
                features[done : done + len(encoded)] = encoded
            done += len(encoded)
        if done != num_frames:
            raise ValueError(f"{num_frames} frames announced, {done} given")
        return features, self.network.backbone.grid_size(*batch.shape[-2:])

    @torch.no_grad()
    def cluster(self, features: Tensor, grid: tuple[int, int], *, clock: "_Clock | None" = None) -> Segmentation:
        """Label every token of a video from its key features (T, N, C), N = h*w for the grid (h, w)."""
        clock = clock or _Clock(self.device)
        num_frames, tokens = features.shape[:2]
        key_frames = key_frame_indices(num_frames, self.key_stride)
        spare_windows = self._spare_windows(features.shape, len(key_frames))
        with clock("attention"):
            features = self.network.refine(features, key_frames)
            queries, keys = self.network.queries_and_keys(features, key_frames)
        windows = queries.split(WINDOW * tokens, dim=1)

        spare_rows = spare_windows * WINDOW * tokens  # rows that fit the budget: of windows kept, and of centres
        kept, centres = {}, []
        for index, window in enumerate(windows):
            with clock("attention"):
                rows = self._rows(window, keys)
            with clock("clustering"):
                centres.append(window_centres(rows, tau=self.tau, chunk=self.chunk))
            found = sum(map(len, centres))
            # Stage 2 holds centres, their logarithms and both gathered once more; no window is at work by then.
            centre_rows = max(found, 5 * (found - WINDOW * tokens))
            while kept and centre_rows > spare_rows:
                spare_rows += len(kept.popitem()[1])
            if centre_rows > spare_rows:
                raise UserError(
                    f"--tau {self.tau:g}: {found} clusters in the first {index + 1} of {len(windows)} windows, more "
                    f"than fit --memory_gb {self.memory_gb:g}; raise either"
                )
            if len(rows) <= spare_rows - centre_rows:
                kept[index] = rows
                spare_rows -= len(rows)
            del rows
        with clock("clustering"):
            centres = merge_centres(torch.cat(centres), tau=self.tau)
            log_centres = safe_log(centres)
        labels = []
        for index, window in enumerate(windows):
            with clock("attention"):
                rows = kept.pop(index) if index in kept else self._rows(window, keys)
            with clock("clustering"):
                labels += [assign(part, centres, log_centres=log_centres) for part in rows.split(self.chunk)]
            del rows
        labels = torch.cat(labels).view(num_frames, *grid).to("cpu", torch.int32).numpy()
        return Segmentation(labels, len(centres), dict(clock.seconds))

    def _rows(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Attention distributions of queries (M, L, C/M) over keys (M, S, C/M): (L, S)."""
        return torch.cat([self.network.attention_rows(part, keys) for part in queries.split(self.chunk, dim=1)])

    def _spare_windows(self, shape: tuple[int, int, int], num_key_frames: int) -> int:
        """How many windows' worth of rows fit the budget beside all that must be there at once.

        shape: (T, N, C) of the features.
        """
        num_frames, tokens, dim = shape
        columns, window_rows = num_key_frames * tokens, WINDOW * tokens
        rows_bytes = FLOAT_BYTES * window_rows * columns
        # Features and queries; a window's rows, smoothed rows and their logarithms, once over again while rows still
        # free are gathered; cross terms and neighbourhood of a window; blocks of distances and of one head's attention.
        needed = (
            2 * FLOAT_BYTES * (num_frames + num_key_frames) * tokens * dim
            + 5 * rows_bytes
            + (FLOAT_BYTES + 1) * window_rows**2
            + 4 * FLOAT_BYTES * self.chunk * max(window_rows, columns)
        )
        budget = self.memory_gb * 1e9
        if needed > budget:
            raise UserError(
                f"--memory_gb {self.memory_gb:g}: {num_frames} frames of {tokens} tokens and {num_key_frames} key "
                f"frames need {1.05 * needed / 1e9:.2g}; raise it, or raise --ratio, or lower --resolution"
            )
        return int((budget - needed) // rows_bytes)


class _Clock:
    """Adds up seconds per stage."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        synchronize(self.device)
        start = time.perf_counter()
        yield
        synchronize(self.device)
        self.seconds[stage] += time.perf_counter() - start

    def iterate(self, stage: str, items: Iterable) -> Iterator:
        """Yield `items`, counting the time it takes to get each."""
        iterator = iter(items)
        while True:
            with self(stage):
                item = next(iterator, None)
            if item is None:
                return
            yield item


def _batches(frames: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """Stack frames (3, H, W) into batches (size, 3, H, W), the last one shorter."""
    batch = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == size:
            yield torch.stack(batch)
            batch = []
    if batch:
        yield torch.stack(batch)
