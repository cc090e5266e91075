"""Divide the memory of `--memory_gb` between features, attention, clustering and objects of a video."""

import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.clustering import WINDOW
from model.engine.bounds import BLOCK_COLUMNS
from model.engine.windows import LIMITS as PROJECTION
from model.engine.windows import Engine
from utils.errors import UserError

FLOAT_BYTES = 4


@dataclass(frozen=True)
class BudgetLimits:
    """Shares and sizes by which memory is divided.

    Attributes:
        features_share: share of the budget that features may take in main memory; larger ones go to disk.
        summaries_share: share of what is spare for summaries of windows; the rest is for centres.
        min_summary_rank, max_summary_rank: directions of a window's summary; fewer prove too little, more take too
            much memory.
        centre_copies: rows of float32 for each centre in stage 2: as found and in one piece, merged in a list and in
            one piece, and the logarithms of these.
        object_bytes: bytes of `find_objects` for a token. 82 to 105 were measured, on 240 and 480 frames of 24x48
            tokens, and 5 are of `Motion`. 8 bytes for each track in each frame come on top; they matter from tens of
            thousands of frames on.
        message_margin: factor on the memory that a message asks for, so that something is spare for centres.
    """

    features_share: float = 0.5
    summaries_share: float = 0.5
    min_summary_rank: int = 64
    max_summary_rank: int = 512
    centre_copies: int = 5
    object_bytes: int = 115
    message_margin: float = 1.05


LIMITS = BudgetLimits()


@dataclass(frozen=True)
class MemoryBudget:
    """Memory that one video may take, in bytes."""

    total: float

    @property
    def gigabytes(self) -> float:
        return self.total / 1e9

    def keeps_in_memory(self, shape: tuple[int, ...]) -> bool:
        """Tell whether float32 features of a shape stay in main memory instead of on disk."""
        return FLOAT_BYTES * np.prod(shape) <= self.total * LIMITS.features_share

    def allocate_features(self, shape: tuple[int, int, int], *, spill_path: Path | None) -> Tensor:
        """Allocate uninitialised float32 features (T, N, C) in main memory, or in a temporary file in `spill_path`.

        The file has no name and goes away with the features.
        """
        if self.keeps_in_memory(shape):
            return torch.empty(shape)
        if spill_path is not None:
            spill_path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=spill_path) as file:
            if hasattr(os, "posix_fallocate"):  # so that a full disk is an error here; not on macOS
                os.posix_fallocate(file.fileno(), 0, int(FLOAT_BYTES * np.prod(shape)))
            return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="w+", shape=shape))

    def check_objects(self, shape: tuple[int, int, int]) -> None:
        """Refuse a video of features (T, N, C) whose objects do not fit once the clustering's memory is free.

        Raises:
            UserError: naming the memory needed.
        """
        num_frames, tokens, _ = shape
        needed = self._feature_bytes(shape) + LIMITS.object_bytes * num_frames * tokens
        what = f"objects of {num_frames} frames of {tokens} tokens need"
        self._check(needed, what, mend="lower --resolution, or give --proposals clusters")

    def check_plain_clustering(self, features: Tensor, *, num_key_frames: int) -> None:
        """Refuse a video of features (T, N, C) whose attention, twice for the distances, does not fit as a whole.

        Raises:
            UserError: naming the memory needed.
        """
        num_frames, tokens, _ = features.shape
        needed = 2 * features.element_size() * num_frames * tokens * num_key_frames * tokens
        what = f"--clustering plain keeps all attention of {num_frames} frames of {tokens} tokens, which needs"
        self._check(needed, what, mend="or give --clustering exact")

    def compute_spare(
        self, shape: tuple[int, int, int], *, grid: tuple[int, int], num_key_frames: int, engine: Engine,
        device: torch.device,
    ) -> "SpareMemory":  # fmt: skip
        """Compute what remains for summaries and centres beside the features and the clustering of one window.

        Args:
            shape: (T, N, C) of the features.
            grid: (h, w), N = h * w.

        Raises:
            UserError: one window alone does not fit; naming the memory needed.
        """
        num_frames, tokens, dim = shape
        columns = num_key_frames * math.prod(math.ceil(side / engine.key_pool) for side in grid)
        window_rows = WINDOW * tokens
        some_rows = math.ceil(window_rows / engine.row_stride)  # the rows of stage 1
        threads = torch.get_num_threads() if device.type == "cpu" else 1
        # In turn: the features; a window's rows and their logarithms, later the smoothed rows; copies of some rows;
        # near pairs as bits and as floats; projected rows, in part several times, and what each thread works on; what
        # the projection is fitted to, and attention in the making; keys.
        needed = (
            self._feature_bytes(shape)
            + 2.1 * FLOAT_BYTES * window_rows * columns
            + (2 * FLOAT_BYTES * some_rows * columns if some_rows < window_rows else 0)
            + (2 * FLOAT_BYTES + 3) * some_rows**2
            + FLOAT_BYTES * window_rows * (8 * engine.rank(columns) + 10 * columns / BLOCK_COLUMNS + 2048 * threads)
            + FLOAT_BYTES * columns * (2 * PROJECTION.max_samples + 512 * threads)
            + FLOAT_BYTES * num_key_frames * tokens * 3 * dim
        )
        what = f"{num_frames} frames of {tokens} tokens and {num_key_frames} key frames need"
        self._check(needed, what, mend="raise --ratio, or lower --max_key_frames or --resolution")
        return SpareMemory(self.total - needed)

    def _feature_bytes(self, shape: tuple[int, int, int]) -> int:
        """Count the bytes of features in main memory."""
        return FLOAT_BYTES * np.prod(shape) if self.keeps_in_memory(shape) else 0

    def _check(self, needed: float, what: str, *, mend: str) -> None:
        """Raise `UserError` if `needed` bytes are more than the budget."""
        if needed > self.total:
            amount = format_gigabytes(LIMITS.message_margin * needed)
            raise UserError(f"--memory_gb {self.gigabytes:g}: {what} {amount}; raise it, {mend}")


def format_gigabytes(size: float) -> str:
    """Write a size in bytes as GB, rounded up so that it suffices: with one decimal below 10, with none above."""
    tenths = math.ceil(size / 1e8)
    return f"{tenths / 10:.1f} GB" if tenths < 100 else f"{math.ceil(size / 1e9)} GB"


@dataclass(frozen=True)
class SpareMemory:
    """Memory for what grows with a video: summaries of windows, and centres; in bytes."""

    total: float

    def choose_summary_ranks(self, token_counts: list[int], *, count_floats: Callable[[int], int]) -> list[int]:
        """Choose the number of directions of each window's summary.

        All windows get as many as fit, between the limits. If even `min_summary_rank` does not fit for all, the first
        windows get it and the others 0, no summary.

        Args:
            token_counts: number of tokens of each window.
            count_floats: floats of a token's summary of a number of directions.
        """
        floats = self.total * LIMITS.summaries_share / FLOAT_BYTES
        rank = int((floats / sum(token_counts) - count_floats(0)) / 2)
        rank = max(min(rank, LIMITS.max_summary_rank), LIMITS.min_summary_rank)
        ranks = []
        for count in token_counts:
            floats -= count * count_floats(rank)
            ranks.append(rank if floats >= 0 else 0)
        return ranks

    def count_fitting_centres(self, num_columns: int) -> float:
        """Count the centres over `num_columns` columns that fit."""
        return self.total * (1 - LIMITS.summaries_share) / (LIMITS.centre_copies * FLOAT_BYTES * num_columns)
