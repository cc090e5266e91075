"""Pictures of a clip for TensorBoard."""

import numpy as np
import torch

from model.segmenter import Segmentation
from model.training.pictures import ClipPainter, choose_different_tokens
from tests.model.inputs import make_network
from utils.visual import CELL_WIDTH, make_distinct_colours


def test_tokens_of_different_things_are_chosen():
    grid = 9, 12
    things = torch.zeros(grid, dtype=torch.long)
    things[1:5, 1:5], things[5:8, 7:11] = 1, 2
    features = torch.eye(3)[things].flatten(0, 1) + 0.01 * torch.randn(
        108, 3, generator=torch.Generator().manual_seed(0)
    )
    chosen = choose_different_tokens(features, grid, count=3)
    assert sorted(things.flatten()[chosen].tolist()) == [0, 1, 2]
    assert all(0 < token // 12 < 8 and 0 < token % 12 < 11 for token in chosen)
    assert choose_different_tokens(features, grid, count=3) == chosen
    assert len(choose_different_tokens(features[:2], (1, 2), count=3)) == 2  # all of them are at the border


def make_painter(network, frames):
    features = network.encode(frames)
    return ClipPainter(frames, features, grid=(3, 5), key_frames=[0, 4])


def test_pictures_show_clusters_and_what_a_block_attends_to(tiny_weights):
    network = make_network(tiny_weights)
    frames = torch.randint(0, 255, (6, 3, 48, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    painter = make_painter(network, frames)
    labels = np.zeros((6, 3, 5), np.int32)
    labels[4, 0, 4] = 255  # as many as there are colours, which begin anew
    height = CELL_WIDTH * 48 // 80
    picture = painter.draw_clusters([Segmentation(labels, 256, 1.0, {})] * 2)
    assert picture.shape == (3 * height, 2 * CELL_WIDTH, 3)
    labels[4, 0, 4] = 6
    picture = painter.draw_clusters([Segmentation(labels, 7, 1.0, {})])
    np.testing.assert_array_equal(picture[height + 5, -5], make_distinct_colours()[7])
    np.testing.assert_array_equal(picture[-5, -5], make_distinct_colours()[1])
    network.init_blocks("identity", temperature=8.0)
    state = torch.get_rng_state()
    first = painter.draw_attention(network)
    assert first.shape == (4 * height, 2 * CELL_WIDTH, 3)
    assert torch.equal(torch.get_rng_state(), state)
    network.init_blocks("identity", temperature=1.0)
    assert not np.array_equal(painter.draw_attention(network), first)
