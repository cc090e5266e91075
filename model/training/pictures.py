"""Draw what the block makes of one fixed clip: its clusters, and what some tokens attend to."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.attention import mean_attention
from model.network import SpatioTemporalNetwork
from model.segmenter import Segmentation
from utils.visual import draw_contact_sheet, draw_heat, mark_point, paint_labels

NUM_QUERIES = 3  # tokens of which the attention is drawn
FULL_HEAT = 0.99  # share of the weights below that which is drawn in the brightest colour


class ClipPainter:
    """Draw pictures of one clip at its key frames, the same frames and tokens at every step.

    Args:
        frames: (T, 3, H, W) uint8, the clip.
        features: (T, N, C), its key features.
        grid: (h, w) of the tokens.
        key_frames: indices of the frames that are drawn, to which attention is paid.
    """

    def __init__(self, frames: Tensor, features: Tensor, *, grid: tuple[int, int], key_frames: list[int]):
        self.features, self.grid, self.key_frames = features, grid, key_frames
        self.frames = [frame.permute(1, 2, 0).cpu().numpy() for frame in frames[key_frames]]
        self.middle = len(key_frames) // 2  # the frame in which the tokens lie
        self.tokens = choose_different_tokens(features[key_frames[self.middle]], grid, count=NUM_QUERIES)

    def draw_clusters(self, found: list[Segmentation]) -> np.ndarray:
        """Draw the key frames, and below them the clusters of segmentations: a picture (H, W, 3) uint8."""
        rows = [("frames", self.frames)]
        for segmentation in found:
            labels = segmentation.labels[self.key_frames]
            name = f"clusters: {len(np.unique(segmentation.labels))}, tau {segmentation.tau:.3g}"
            rows.append((name, [paint_labels(part, shape=self.frames[0].shape[:2]) for part in labels]))
        return draw_contact_sheet(rows)

    @torch.no_grad()
    def draw_attention(self, network: SpatioTemporalNetwork) -> np.ndarray:
        """Draw in a row for each of `tokens` how much it attends to the tokens of the key frames: (H, W, 3) uint8."""
        network.eval()
        device = next(network.parameters()).device
        features = network.refine(self.features.clone(), self.key_frames)[self.key_frames].to(device)
        queries = network.queries(features[self.middle, self.tokens])
        attn = mean_attention(queries, network.keys(features.flatten(0, 1)))
        attn = attn.view(len(self.tokens), len(self.key_frames), *self.grid).cpu().numpy()
        marked = [frame.copy() for frame in self.frames]
        rows = [("frames and tokens", marked)]
        for token, heat in zip(self.tokens, attn, strict=True):
            row, column = divmod(token, self.grid[1])
            point = (column + 0.5) / self.grid[1], (row + 0.5) / self.grid[0]
            full = max(float(np.quantile(heat, FULL_HEAT)), 1e-9)  # a few tokens get far more, from all tokens
            pictures = [draw_heat(frame, part / full) for frame, part in zip(self.frames, heat, strict=True)]
            for picture in (marked[self.middle], pictures[self.middle]):
                mark_point(picture, point)
            rows.append((f"yellow: {full * heat.size:.3g} times the mean", pictures))
        return draw_contact_sheet(rows)


def choose_different_tokens(features: Tensor, grid: tuple[int, int], *, count: int) -> list[int]:
    """Choose tokens of a frame that differ: the farthest from the mean, then each the farthest from those before.

    Args:
        features: (N, C), averaged over 3x3 tokens so that none is chosen that differs from its neighbours too.
            Tokens at the border are left out, as far as the grid has others.
    """
    maps = features.float().T.unflatten(1, grid)[None]
    smooth = F.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)[0].flatten(1).T
    rows, columns = (range(1, size - 1) if size > 2 else range(size) for size in grid)
    inner = torch.tensor([row * grid[1] + column for row in rows for column in columns], device=features.device)
    candidates, mean = smooth[inner], smooth.mean(dim=0)
    places = [int((candidates - mean).norm(dim=1).argmax())]
    while len(places) < min(count, len(inner)):
        places.append(int(torch.cdist(candidates, candidates[places]).amin(dim=1).argmax()))
    return inner[places].tolist()
