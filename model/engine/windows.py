"""Cluster one video window by window, by either engine (docs/method.md, sections 4, 5 and 11).

clusterer = WindowClusterer(network, key_features, grid=grid, samples=some_features, engine=ENGINES["exact"])
clusterer.reset(1.0)                # the threshold, in nats
for window in windows:              # (n, N, C), usually three frames
    clusterer.add_window(window)    # stage 1
clusterer.merge()                   # stage 2
labels = [clusterer.assign_window(index, window) for index, window in enumerate(windows)]

Of each window only its centres and, if asked for, a summary are kept.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.attention import mean_attention
from model.engine.bounds import (
    ProjectedRows,
    find_near_pairs,
    find_nearest_centres,
    fit_projection,
    group_columns,
    project_rows,
    truncate,
)
from model.engine.exact import assign, find_window_centres, merge_centres
from model.network import SpatioTemporalNetwork
from model.scratch import Scratch
from utils.clock import Clock


@dataclass(frozen=True)
class ProjectionLimits:
    """Sizes of the projection of attention rows.

    Attributes:
        columns_per_direction: key tokens; longer rows take longer to compare, so more directions pay off.
        columns_per_sample: key tokens for each row that the projection is fitted to.
        min_samples, max_samples: rows; fewer fit too poorly, more take too long.
        coarse_share: one in this many directions is compared for every pair of rows, the others for what is undecided.
    """

    columns_per_direction: int = 16
    columns_per_sample: int = 8
    min_samples: int = 32
    max_samples: int = 1024
    coarse_share: int = 4


LIMITS = ProjectionLimits()


@dataclass(frozen=True)
class Engine:
    """How much of the clustering is computed.

    Attributes:
        ranks: smallest and largest number of directions of the projection, see `rank`.
        key_pool: attention is paid to the means of this many by this many neighbouring tokens of a key frame.
        shrinkage: ratio of distances over pooled columns to those over all; the threshold is multiplied by it.
        row_stride: stage 1 takes one in this many tokens, see `select_diagonals`.
    """

    ranks: tuple[int, int]
    key_pool: int = 1
    shrinkage: float = 1.0
    row_stride: int = 1

    def rank(self, num_columns: int) -> int:
        """Choose the number of directions for rows over `num_columns` key tokens: more for longer rows, which take
        longer to compare."""
        least, most = self.ranks
        return min(max(num_columns // LIMITS.columns_per_direction, least), most)


ENGINES = {
    "exact": Engine(ranks=(512, 1024)),
    # Pairs of tokens at D = 1 over all columns are at 0.77 over pooled ones in the median of ten videos (0.65 to 0.98
    # by video); the ratio is similar for D from 0.25 to 4.
    "fast": Engine(ranks=(128, 128), key_pool=3, shrinkage=0.77, row_stride=3),
}


def sample_tokens(features: Tensor, num_columns: int) -> Tensor:
    """Sample tokens (n, C) at even steps of features (T, N, C), as many as a projection over `num_columns` needs."""
    wanted = min(max(num_columns // LIMITS.columns_per_sample, LIMITS.min_samples), LIMITS.max_samples)
    tokens = features.view(-1, features.shape[-1])
    return tokens[torch.linspace(0, len(tokens) - 1, min(wanted, len(tokens))).round().long()]


class WindowClusterer:
    """Cluster the windows of one video, see above.

    Args:
        network: in evaluation mode.
        key_features: (F, N, C), features of the key frames, the same for the whole video.
        grid: (h, w), N = h * w.
        samples: (n, C), features of tokens of the video that the projection is fitted to, see `sample_tokens`.
        clock: adds up the seconds of each stage.
    """

    def __init__(
        self, network: SpatioTemporalNetwork, key_features: Tensor, *, grid: tuple[int, int], samples: Tensor,
        engine: Engine, clock: Clock | None = None,
    ):  # fmt: skip
        self.clock = clock or Clock(key_features.device)
        self.network, self.grid, self.engine = network, grid, engine
        keys = network.keys(pool_tokens(key_features, grid, engine.key_pool).flatten(0, 1))
        self.order, self.column_groups, blocks = group_columns(keys.transpose(0, 1).flatten(1))
        self.keys = keys[:, self.order]
        sampled = mean_attention(network.queries(samples), self.keys)
        self.projection = fit_projection(sampled, rank=engine.rank(len(self.order)), blocks=blocks)
        self.scratch = Scratch()

    def reset(self, tau: float) -> None:
        """Forget all windows and start again with a threshold in nats."""
        self.tau = tau * self.engine.shrinkage
        self.num_frames = 0
        self.centres: list[Tensor] = []  # (K, S) of each window, or of all merged so far
        self.summaries: list[ProjectedRows | None] = []  # of each window

    @torch.no_grad()
    def add_window(self, features: Tensor, *, summary_rank: int = 0) -> None:
        """Run stage 1 on the features (n, N, C) of a window and add its centres.

        summary_rank: largest number of directions in the window's summary, which `assign_window` uses; 0 for no
            summary, so that `assign_window` computes the window's rows again.
        """
        with self.clock("attention"):
            rows = self._attend(features.flatten(0, 1))
        with self.clock("stage 1"):
            projected = self._project(rows) if summary_rank else None
            self.summaries.append(truncate(projected, self.projection, rank=summary_rank) if summary_rank else None)
            if self.engine.row_stride > 1:
                some = select_diagonals(self.num_frames, len(features), self.grid, self.engine.row_stride)
                some = some.to(rows.device)
                rows, projected = rows[some], projected and ProjectedRows(*(part[some] for part in projected))
            projected = projected or self._project(rows)
            near, _ = find_near_pairs(
                rows, projected, self.projection, tau=self.tau, coarse=self.rank // LIMITS.coarse_share
            )
            # Smoothing overwrites the logarithms of the projected rows, which are not needed any more.
            self.centres.append(
                find_window_centres(rows, near, tau=self.tau, column_groups=self.column_groups, scratch=self.scratch)
            )
        self.num_frames += len(features)

    @property
    def num_centres(self) -> int:
        return sum(map(len, self.centres))

    @property
    def rank(self) -> int:
        """Number of directions of the projection."""
        return len(self.projection.order)

    def count_summary_floats(self, rank: int) -> int:
        """Count the floats that a summary of at most `rank` directions takes for each token."""
        return 2 * min(rank, self.rank) + 2 * len(self.projection.bases) + 1

    @torch.no_grad()
    def merge(self) -> None:
        """Run stage 2: merge centres within tau of one another."""
        with self.clock("stage 2"):
            merged = merge_centres(torch.cat(self.centres), tau=self.tau, column_groups=self.column_groups)
            self.centres = [merged]
            self.projected_centres = truncate(project_rows(merged, self.projection), self.projection, rank=self.rank)

    def order_centres(self) -> Tensor | None:
        """Return the merged centres (K, S) over the key tokens in their order; None if key tokens are pooled."""
        return None if self.engine.key_pool > 1 else self.centres[0][:, self.order.argsort()]

    @torch.no_grad()
    def assign_window(self, index: int, features: Tensor) -> Tensor:
        """Assign every token of window `index` to its nearest merged centre: (n, N) int64.

        features: (n, N, C) of the window again. Attention rows are computed again for tokens whose summary does not
            prove the nearest centre.
        """
        with self.clock("assign"):
            tokens, shape = features.flatten(0, 1), features.shape[:2]
            projected = self.summaries[index]
            if projected is None:
                projected = self._project(self._attend(tokens))
            centres = truncate(self.projected_centres, self.projection, rank=projected.x_inside.shape[1])
            labels, undecided = find_nearest_centres(projected, centres)
            if len(which := undecided.nonzero()[:, 0]):
                labels[which] = assign(self._attend(tokens[which]), self.centres[0])
            return labels.unflatten(0, shape)

    def _attend(self, tokens: Tensor) -> Tensor:
        """Compute attention rows (L, S) of tokens (L, C), in memory that the next call uses again."""
        out = self.scratch("rows", (len(tokens), self.keys.shape[1]), like=self.keys)
        return mean_attention(self.network.queries(tokens), self.keys, out=out)

    def _project(self, rows: Tensor) -> ProjectedRows:
        return project_rows(rows, self.projection, scratch=self.scratch)


def pool_tokens(features: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Average size x size neighbouring tokens of each frame, fewer at the edges: (n, h*w, C) -> (n, L, C)."""
    if size == 1:
        return features
    maps = features.transpose(1, 2).unflatten(2, grid)
    return F.avg_pool2d(maps, size, ceil_mode=True, count_include_pad=False).flatten(2).transpose(1, 2)


def select_diagonals(first: int, count: int, grid: tuple[int, int], stride: int) -> Tensor:
    """Select one in `stride` tokens of `count` frames of a grid (h, w), on diagonals that move on from frame to frame.

    Within `stride` frames every place of the grid is selected once. `first` is the first frame's number in its video.

    Returns:
        Indices (n,) int64, rising, of tokens counted frame by frame and row by row.
    """
    frame, row, column = (torch.arange(size) for size in (count, *grid))
    place = first + frame[:, None, None] + row[:, None] + column
    return (place % stride == 0).flatten().nonzero()[:, 0]
