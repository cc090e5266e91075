"""The clusters of one video, made window by window (METHOD.md 4, 5), by either engine.

stream = Stream(network, key_features, grid=grid, samples=some_features, tau=1.0, engine=ENGINES["exact"])
for window in windows:          # (n, N, C), usually three frames
    stream.step(window)         # stage 1; what is kept of a window does not grow with the number of key frames
stream.merge()                  # stage 2
labels = [stream.labels(index, window) for index, window in enumerate(windows)]
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.clustering import assign, merge_centres, window_centres
from model.network import SpatioTemporalNetwork
from model.sketch import View, fit_sketch, near_pairs, nearest, view_rows
from utils.clock import Clock
from utils.scratch import Scratch


@dataclass(frozen=True)
class Engine:
    """How much is computed.

    rank: directions of the sketch. pool: stage 1 sees the means of pool x pool neighbouring tokens of a frame.
    label_cell: of every so many by so many tokens of a key frame one gives a column in the assignment; in stages 1 and
    2 every token does.
    """

    rank: int
    pool: int
    label_cell: int

    @property
    def thin(self) -> bool:
        """Whether the assignment looks at fewer columns than the clusters were made of."""
        return self.label_cell > 1


# The sketch is fitted to a row for every so many of its columns, within these limits.
COLUMNS_PER_SAMPLE, SAMPLES = 8, (32, 1024)
ENGINES = {
    "exact": Engine(rank=192, pool=1, label_cell=1),
    "fast": Engine(rank=96, pool=2, label_cell=3),
}


def sample_tokens(features: Tensor, num_columns: int) -> Tensor:
    """Tokens (n, C) spread evenly over features (T, N, C), as many as a sketch over so many columns is fitted to."""
    wanted = min(max(num_columns // COLUMNS_PER_SAMPLE, SAMPLES[0]), SAMPLES[1])
    tokens = features.view(-1, features.shape[-1])
    every = max(len(tokens) // wanted, 1)
    return tokens[every // 2 :: every]


class Stream:
    """See above.

    Args:
        network: in evaluation mode.
        key_features: (F, N, C), of the frames that attention is paid to. They stay the same for the whole video.
        grid: (h, w), N = h * w.
        samples: (n, C) features of tokens of the video, see `sample_tokens`; the sketch is made to suit these.
        tau: distance threshold, in nats.
        clock: adds up the seconds of each stage.
    """

    def __init__(
        self, network: SpatioTemporalNetwork, key_features: Tensor, *, grid: tuple[int, int], samples: Tensor,
        tau: float, engine: Engine, clock: Clock | None = None,
    ):  # fmt: skip
        self.clock = clock or Clock(key_features.device)
        self.network, self.grid, self.tau, self.engine = network, grid, tau, engine
        tokens = key_features.flatten(0, 1)
        self.keys = network.keys(tokens)
        if engine.thin:
            self.label_columns = grid_subset(len(key_features), grid, engine.label_cell, device=tokens.device)
            self.label_keys = network.keys(tokens[self.label_columns])
        self.sketch = fit_sketch(network.attention_rows(network.queries(samples), self.keys), rank=engine.rank)
        self.scratch = Scratch()
        self.found: list[Tensor] = []  # centres (K, S) of each window, or of all windows so far
        self.kept: list[View | None] = []

    @torch.no_grad()
    def step(self, features: Tensor, *, keep: bool = True) -> None:
        """Stage 1 on a window's features (n, N, C): its centres join those found so far.

        keep: hold on to a summary of the window, about twice the sketch's rank of floats a token, for `labels`.
        """
        with self.clock("attention"):
            pooled = pool_tokens(features, self.grid, self.engine.pool) if self.engine.pool > 1 else features
            rows = self._attend(pooled.flatten(0, 1), self.keys)
        with self.clock("stage 1"):
            view = view_rows(rows, self.sketch, scratch=self.scratch)
            self.kept.append(view._replace(centred_log=None) if keep and not self.engine.thin else None)
            near, _ = near_pairs(rows, view, tau=self.tau)
            self.found.append(window_centres(rows, near, tau=self.tau, scratch=self.scratch))

    @property
    def num_centres(self) -> int:
        return sum(map(len, self.found))

    @torch.no_grad()
    def merge(self) -> None:
        """Stage 2: centres within tau of one another become one."""
        with self.clock("stage 2"):
            self.found = [merge_centres(torch.cat(self.found), tau=self.tau)]
            self.centres = self.found[0]
            if self.engine.thin:
                # A centre may have next to nothing on these columns: then it is far from every token, not a NaN.
                self.centres = self.centres[:, self.label_columns].clamp_min_(torch.finfo(self.centres.dtype).tiny)
                self.centres /= self.centres.sum(-1, keepdim=True)
            else:
                self.centre_view = view_rows(self.centres, self.sketch)._replace(centred_log=None)

    @torch.no_grad()
    def labels(self, index: int, features: Tensor) -> Tensor:
        """The nearest centre of every token of window `index`, once merged: (n, N) int64.

        The window's features (n, N, C) are given again: rows of attention are made anew for tokens whose summary does
        not prove it.
        """
        with self.clock("assign"):
            tokens, frames = features.flatten(0, 1), features.shape[:2]
            if self.engine.thin:
                return assign(self._attend(tokens, self.label_keys), self.centres).view(frames)
            view = self.kept[index]
            if view is None:
                view = view_rows(self._attend(tokens, self.keys), self.sketch, scratch=self.scratch)
            labels, unsure = nearest(view, self.centre_view)
            if unsure.any():
                labels[unsure] = assign(self._attend(tokens[unsure], self.keys), self.centres)
            return labels.view(frames)

    def _attend(self, tokens: Tensor, keys: Tensor) -> Tensor:
        """Attention rows (L, S) of tokens (L, C), in memory that the next call uses again."""
        out = self.scratch("rows", (len(tokens), keys.shape[1]), like=keys)
        return self.network.attention_rows(self.network.queries(tokens), keys, out=out)


def pool_tokens(features: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Means of size x size neighbouring tokens of each frame, fewer at the edges: (n, h*w, C) -> (n, L, C)."""
    maps = features.transpose(1, 2).unflatten(2, grid)
    return F.avg_pool2d(maps, size, ceil_mode=True, count_include_pad=False).flatten(2).transpose(1, 2)


def grid_subset(num_frames: int, grid: tuple[int, int], cell: int, *, device: torch.device) -> Tensor:
    """Sorted indices of one token in each cell x cell of frames' grids, at another place from frame to frame: (L,)."""
    height, width = grid
    index = torch.arange(num_frames * height * width, device=device).view(num_frames, height, width)
    picked = []
    for number, frame in enumerate(index):
        place = number * (cell + 1) % cell**2 if cell > 1 else 0
        top, left = place // cell % height, place % cell % width
        picked.append(frame[top::cell, left::cell].flatten())
    return torch.cat(picked)
