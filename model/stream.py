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

from model.clustering import assign, merge_centres, window_centres
from model.network import SpatioTemporalNetwork
from model.sketch import View, fit_sketch, near_pairs, nearest, view_rows
from utils.clock import Clock
from utils.scratch import Scratch


@dataclass(frozen=True)
class Engine:
    """How much is computed.

    rank: directions of the sketch. verify: what its bounds leave open is computed. key_cell: of every key_cell x
    key_cell tokens of a key frame one gives a column. row_cell: of every row_cell x row_cell tokens of any frame one
    takes part in stage 1.
    """

    rank: int
    verify: bool
    key_cell: int
    row_cell: int


# The sketch is fitted to a row for every so many of its columns, within these limits.
COLUMNS_PER_SAMPLE, SAMPLES = 8, (32, 512)
ENGINES = {
    "exact": Engine(rank=224, verify=True, key_cell=1, row_cell=1),
    "fast": Engine(rank=96, verify=False, key_cell=2, row_cell=2),
}


def num_samples(num_columns: int) -> int:
    """How many rows a sketch over so many columns is fitted to."""
    return min(max(num_columns // COLUMNS_PER_SAMPLE, SAMPLES[0]), SAMPLES[1])


class Stream:
    """See above.

    Args:
        network: in evaluation mode.
        key_features: (F, N, C), of the frames that attention is paid to. They stay the same for the whole video.
        grid: (h, w), N = h * w.
        samples: (n, C) features of tokens of the video, n of `num_samples`; the sketch is made to suit these.
        tau: distance threshold, in nats.
        clock: adds up the seconds of each stage.
    """

    def __init__(
        self, network: SpatioTemporalNetwork, key_features: Tensor, *, grid: tuple[int, int], samples: Tensor,
        tau: float, engine: Engine, clock: Clock | None = None,
    ):  # fmt: skip
        self.clock = clock or Clock(key_features.device)
        self.network, self.grid, self.tau, self.engine = network, grid, tau, engine
        self.keys = network.keys(
            key_features.flatten(0, 1)[self._subset(len(key_features), engine.key_cell, device=key_features.device)]
        )
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
            rows = self._attend(features.flatten(0, 1))
        with self.clock("stage 1"):
            view = self._view(rows)
            self.kept.append(view._replace(centred_log=None) if keep else None)
            if self.engine.row_cell > 1:
                subset = self._subset(len(features), self.engine.row_cell, device=rows.device)
                rows, view = rows[subset], View(*(part[subset] for part in view))
            near, _ = near_pairs(rows, view, tau=self.tau, verify=self.engine.verify)
            self.found.append(window_centres(rows, near, tau=self.tau, scratch=self.scratch))

    @property
    def num_centres(self) -> int:
        return sum(map(len, self.found))

    @torch.no_grad()
    def merge(self) -> None:
        """Stage 2: centres within tau of one another become one."""
        with self.clock("stage 2"):
            self.found = [merge_centres(torch.cat(self.found), tau=self.tau)]
            self.centre_view = view_rows(self.found[0], self.sketch)

    @torch.no_grad()
    def labels(self, index: int, features: Tensor) -> Tensor:
        """The nearest centre of every token of window `index`, once merged: (n, N) int64.

        The window's features (n, N, C) are given again: rows of attention are made anew for tokens whose summary does
        not prove it.
        """
        with self.clock("assign"):
            features = features.flatten(0, 1)
            view = self.kept[index]
            if view is None:
                view = self._view(self._attend(features))
            labels, unsure = nearest(view, self.centre_view)
            if self.engine.verify and unsure.any():
                labels[unsure] = assign(self._attend(features[unsure]), self.found[0])
            return labels.view(-1, self.grid[0] * self.grid[1])

    def _attend(self, features: Tensor) -> Tensor:
        """Attention rows (L, S) of tokens (L, C), in memory that the next call uses again."""
        out = self.scratch("rows", (len(features), self.keys.shape[1]), like=self.keys)
        return self.network.attention_rows(self.network.queries(features), self.keys, out=out)

    def _view(self, rows: Tensor) -> View:
        return view_rows(rows, self.sketch, scratch=self.scratch)

    def _subset(self, num_frames: int, cell: int, *, device: torch.device) -> Tensor:
        """Indices into the tokens of frames, one in each cell, at another place of the cell from frame to frame."""
        height, width = self.grid
        index = torch.arange(num_frames * height * width, device=device).view(num_frames, height, width)
        picked = []
        for number, frame in enumerate(index):
            place = number * (cell + 1) % cell**2 if cell > 1 else 0
            top, left = place // cell % height, place % cell % width
            picked.append(frame[top::cell, left::cell].flatten())
        return torch.cat(picked)
