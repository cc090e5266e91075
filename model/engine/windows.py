"""The clusters of one video, made window by window (docs/method.md, sections 4 and 5), by either engine.

stream = Stream(network, key_features, grid=grid, samples=some_features, engine=ENGINES["exact"])
stream.restart(1.0)             # the threshold, in nats
for window in windows:          # (n, N, C), usually three frames
    stream.step(window)         # stage 1; what is kept of a window hardly grows with the number of key frames
stream.merge()                  # stage 2
labels = [stream.labels(index, window) for index, window in enumerate(windows)]
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.engine.bounds import View, fit_sketch, group_columns, near_pairs, nearest, summary, view_rows
from model.engine.exact import assign, merge_centres, window_centres
from model.engine.scratch import Scratch
from model.network import SpatioTemporalNetwork
from utils.clock import Clock


@dataclass(frozen=True)
class Engine:
    """How much is computed.

    ranks: at least and at most, directions of the sketch whose bounds save distances, see `rank`.
    key_pool: attention is paid to the means of so many by so many neighbouring tokens of a key frame.
    shrinkage: of distances between rows over pooled columns; the threshold shrinks with them.
    row_stride: stage 1 looks at one in so many tokens, see `diagonals`.
    """

    ranks: tuple[int, int]
    key_pool: int = 1
    shrinkage: float = 1.0
    row_stride: int = 1

    def rank(self, num_columns: int) -> int:
        """Asked for, for rows over so many key tokens: the longer a row, the more a distance costs that they save."""
        least, most = self.ranks
        return min(max(num_columns // COLUMNS_PER_DIRECTION, least), most)


# The sketch has a direction, and is fitted to a row, for every so many key tokens, pooled or not, within limits.
COLUMNS_PER_DIRECTION, COLUMNS_PER_SAMPLE, SAMPLES = 16, 8, (32, 1024)
COARSE = 4  # one in so many directions is asked about every pair of rows, the others about what these leave open
ENGINES = {
    "exact": Engine(ranks=(512, 1024)),
    # Pairs of tokens at D = 1 over all columns had 0.77 over these in the median of ten videos (0.65 to 0.98 by video),
    # likewise at D from 0.25 to 4.
    "fast": Engine(ranks=(128, 128), key_pool=3, shrinkage=0.77, row_stride=3),
}


def sample_tokens(features: Tensor, num_columns: int) -> Tensor:
    """Tokens (n, C) spread evenly over features (T, N, C), as many as a sketch over so many columns is fitted to."""
    wanted = min(max(num_columns // COLUMNS_PER_SAMPLE, SAMPLES[0]), SAMPLES[1])
    tokens = features.view(-1, features.shape[-1])
    return tokens[torch.linspace(0, len(tokens) - 1, min(wanted, len(tokens))).round().long()]


class Stream:
    """See above.

    Args:
        network: in evaluation mode.
        key_features: (F, N, C), of the frames that attention is paid to. They stay the same for the whole video.
        grid: (h, w), N = h * w.
        samples: (n, C) features of tokens of the video, see `sample_tokens`; the sketch is made to suit these.
        clock: adds up the seconds of each stage.
    """

    def __init__(
        self, network: SpatioTemporalNetwork, key_features: Tensor, *, grid: tuple[int, int], samples: Tensor,
        engine: Engine, clock: Clock | None = None,
    ):  # fmt: skip
        self.clock = clock or Clock(key_features.device)
        self.network, self.grid, self.engine = network, grid, engine
        keys = network.keys(pool_tokens(key_features, grid, engine.key_pool).flatten(0, 1))
        order, self.kinds, blocks = group_columns(keys.transpose(0, 1).flatten(1))
        self.keys = keys[:, order]
        sampled = network.attention_rows(network.queries(samples), self.keys)
        self.sketch = fit_sketch(sampled, rank=engine.rank(len(order)), blocks=blocks)
        self.scratch = Scratch()

    def restart(self, tau: float) -> None:
        """Begin, or forget all windows, to look at them with another threshold, in nats."""
        self.tau = tau * self.engine.shrinkage
        self.frames = 0  # seen so far
        self.found: list[Tensor] = []  # centres (K, S) of each window, or of all so far
        self.kept: list[View | None] = []

    @torch.no_grad()
    def step(self, features: Tensor, *, keep: int = 0) -> None:
        """Stage 1 on a window's features (n, N, C): its centres join those found so far.

        keep: how many directions of the sketch the window's summary, which is kept for `labels`, has at most. With 0 it
            is made a second time there.
        """
        with self.clock("attention"):
            rows = self._attend(features.flatten(0, 1))
        with self.clock("stage 1"):
            view = view_rows(rows, self.sketch, scratch=self.scratch) if keep else None
            self.kept.append(summary(view, self.sketch, rank=keep) if keep else None)
            if self.engine.row_stride > 1:
                some = diagonals(self.frames, len(features), self.grid, self.engine.row_stride).to(rows.device)
                rows, view = rows[some], view and View(*(part[some] for part in view))
            view = view or view_rows(rows, self.sketch, scratch=self.scratch)
            near, _ = near_pairs(rows, view, self.sketch, tau=self.tau, coarse=self.rank // COARSE)
            # Smoothing overwrites the logarithms of the view, which are not needed any more.
            self.found.append(window_centres(rows, near, tau=self.tau, kinds=self.kinds, scratch=self.scratch))
        self.frames += len(features)

    @property
    def num_centres(self) -> int:
        return sum(map(len, self.found))

    @property
    def rank(self) -> int:
        """Directions of the sketch."""
        return len(self.sketch.order)

    def floats_kept(self, rank: int) -> int:
        """Of a token's summary by at most so many directions."""
        return 2 * min(rank, self.rank) + 2 * len(self.sketch.bases) + 1

    @torch.no_grad()
    def merge(self) -> None:
        """Stage 2: centres within tau of one another become one."""
        with self.clock("stage 2"):
            self.found = [merge_centres(torch.cat(self.found), tau=self.tau, kinds=self.kinds)]
            self.centre_view = summary(view_rows(self.found[0], self.sketch), self.sketch, rank=self.rank)

    @torch.no_grad()
    def labels(self, index: int, features: Tensor) -> Tensor:
        """The nearest centre of every token of window `index`, once merged: (n, N) int64.

        The window's features (n, N, C) are given again: rows of attention are made anew for tokens whose summary does
        not prove it.
        """
        with self.clock("assign"):
            tokens, frames = features.flatten(0, 1), features.shape[:2]
            view = self.kept[index]
            if view is None:
                view = view_rows(self._attend(tokens), self.sketch, scratch=self.scratch)
            result, unsure = nearest(view, summary(self.centre_view, self.sketch, rank=view.rows.shape[1]))
            if unsure.any():
                result[unsure] = assign(self._attend(tokens[unsure]), self.found[0])
            return result.unflatten(0, frames)

    def _attend(self, tokens: Tensor) -> Tensor:
        """Attention rows (L, S) of tokens (L, C), in memory that the next call uses again."""
        out = self.scratch("rows", (len(tokens), self.keys.shape[1]), like=self.keys)
        return self.network.attention_rows(self.network.queries(tokens), self.keys, out=out)


def pool_tokens(features: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Means of size x size neighbouring tokens of each frame, fewer at the edges: (n, h*w, C) -> (n, L, C)."""
    if size == 1:
        return features
    maps = features.transpose(1, 2).unflatten(2, grid)
    return F.avg_pool2d(maps, size, ceil_mode=True, count_include_pad=False).flatten(2).transpose(1, 2)


def diagonals(first: int, count: int, grid: tuple[int, int], stride: int) -> Tensor:
    """One in `stride` tokens of `count` frames of a grid (h, w): on every `stride`-th diagonal, one further in each
    frame, so that in `stride` frames every place is there once. `first` is the first frame's number in its video.

    Indices (n,) int64, rising, of tokens frame by frame and row by row.
    """
    frame, row, column = (torch.arange(size) for size in (count, *grid))
    place = first + frame[:, None, None] + row[:, None] + column
    return (place % stride == 0).flatten().nonzero()[:, 0]
