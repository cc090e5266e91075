"""Segment a video that comes a few frames at a time (docs/method.md, sections 4 and 5)."""

import torch
from torch import Tensor

from model.engine.windows import ENGINES, WindowClusterer, sample_tokens
from model.segmenter import PLAIN, Segmenter
from utils.errors import UserError


class FrameStream:
    """Segment a video that comes a few frames at a time, in memory that grows by its clusters alone.

    stream = FrameStream(segmenter, key_frames)        # such as the first frames, or earlier frames of the same place
    for frames in camera:                              # (n, 3, H, W), usually three
        labels = stream.step(frames)                   # (n, h, w)

    A cluster keeps its index until it, or one before it, is merged with another. Centres follow the video: at each step
    a centre moves half of the way to what joins its cluster. `Segmenter.segment`, which sees the whole video before it
    labels any frame, does neither.

    Raises:
        UserError: `--clustering plain`, or a network of several blocks.
    """

    @torch.no_grad()
    def __init__(self, segmenter: Segmenter, key_frames: Tensor):
        settings = segmenter.settings
        if settings.clustering == PLAIN:
            raise UserError("--clustering plain: needs the whole video, not frames as they come")
        if len(segmenter.network.blocks) > 1:
            raise UserError(f"--num_t {len(segmenter.network.blocks)}: frames as they come need a network of one block")
        self.segmenter = segmenter
        self.grid = segmenter.grid_size(*key_frames.shape[-2:])
        features = self._encode(key_frames)
        self.clusterer = WindowClusterer(
            segmenter.network, features, grid=self.grid, engine=ENGINES[settings.clustering],
            samples=sample_tokens(features, features.shape[0] * features.shape[1]),
        )  # fmt: skip
        self.clusterer.reset(settings.tau)

    @property
    def num_clusters(self) -> int:
        return self.clusterer.num_centres

    @torch.no_grad()
    def step(self, frames: Tensor) -> Tensor:
        """Label the tokens of frames (n, 3, H, W) by the clusters of all frames so far: (n, h, w) int64."""
        features = self._encode(frames)
        self.clusterer.add_window(features, summary_rank=self.clusterer.rank)
        self.clusterer.merge()
        labels = self.clusterer.assign_window(-1, features)
        self.clusterer.summaries.clear()
        return labels.unflatten(1, self.grid)

    def _encode(self, frames: Tensor) -> Tensor:
        batches = frames.split(self.segmenter.settings.frame_batch)
        return torch.cat([self.segmenter.encode_batch(batch) for batch in batches])
