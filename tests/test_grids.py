"""Tokens twice as fine from four shifted grids (model/grids.py)."""

import json

import pytest
import torch

from model.grids import finer_features, interleaved, shifted, shifts
from model.segmenter import Segmenter
from tests.conftest import snapshot
from tests.test_network import make_network, video
from utils.errors import UserError


def test_shifts_by_hand():
    assert shifts((8, 16)) == [(-2, -4), (-2, 4), (2, -4), (2, 4)]
    assert shifts((14, 14)) == [(-3, -3), (-3, 4), (4, -3), (4, 4)]


def test_shifted_by_hand():
    frame = torch.arange(12).view(1, 1, 3, 4)
    assert shifted(frame, 1, 0)[0, 0].tolist() == [[4, 5, 6, 7], [8, 9, 10, 11], [8, 9, 10, 11]]
    assert shifted(frame, 0, -2)[0, 0].tolist() == [[0, 0, 0, 1], [4, 4, 4, 5], [8, 8, 8, 9]]
    assert torch.equal(shifted(frame, 0, 0), frame)


class MeanOfPatch:
    """For a backbone: a token's features are the middle of it, in pixels of a frame that holds (y, x, 0)."""

    patch_size = (4, 8)

    @staticmethod
    def grid_size(height, width):
        return height // 4, width // 8

    def __call__(self, frames):
        return torch.nn.functional.avg_pool2d(frames[:, :2], self.patch_size).flatten(2).transpose(1, 2)


class FakeNetwork:
    backbone = MeanOfPatch()

    def encode(self, frames):
        return self.backbone(frames)


def test_fine_tokens_are_where_they_belong():
    """Away from the border, which is repeated, each has the middle of its place in the fine grid."""
    places = torch.stack(torch.meshgrid(torch.arange(24.0), torch.arange(48.0), indexing="ij"))
    frames = torch.stack([torch.cat([places, torch.zeros(1, 24, 48)])] * 2)
    frames[1, :2] += 100
    fine = finer_features(FakeNetwork(), frames)
    assert fine.shape == (2, 4 * 6 * 6, 2)
    expected = torch.stack(torch.meshgrid(2 * torch.arange(12) + 0.5, 4 * torch.arange(12) + 1.5, indexing="ij"), -1)
    for found, by in zip(fine.unflatten(1, (12, 12)), (0, 100), strict=True):
        torch.testing.assert_close(found[1:-1, 1:-1], expected[1:-1, 1:-1] + by)


def test_interleaved_by_hand():
    parts = [torch.tensor([[[n, 0.0], [n, 1.0]]]) for n in range(4)]  # of a grid of one row and two columns
    fine = interleaved(parts, (1, 2)).view(2, 4, 2)
    assert fine[..., 0].tolist() == [[0, 1, 0, 1], [2, 3, 2, 3]]
    assert fine[..., 1].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


@pytest.mark.parametrize("clustering", ["exact", "fast"])
def test_segments_of_fine_tokens(tiny_weights, tmp_path, clustering):
    """A grid of twice as many rows and columns, also frame by frame; features kept of either are not the other's."""
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=3.0)
    options = {"key_stride": 2, "tau": 0.05, "clustering": clustering, "feature_cache": tmp_path}
    frames = [(255 * frame).to(torch.uint8) for frame in video(6)]
    segmenter = Segmenter(network, grids=4, **options)
    found = segmenter.segment(frames, num_frames=6)
    assert found.labels.shape == (6, 6, 10)
    features, grid = segmenter.encode(frames, num_frames=6)
    assert grid == (6, 10)
    torch.testing.assert_close(features[2], finer_features(network, torch.stack(frames[2:3]))[0])
    assert Segmenter(network, **options).segment(frames, num_frames=6).labels.shape == (6, 3, 5)
    assert len(list(tmp_path.rglob("*.npy"))) == 12
    with pytest.raises(UserError, match=r"6 frames of 60 tokens .* or --resolution, or leave out --grids$"):
        Segmenter(network, grids=4, memory_gb=1e-4).segment(frames, num_frames=6)
    assert segmenter.open(torch.stack(frames[:1])).step(torch.stack(frames[:3])).shape == (3, 6, 10)


def test_eval_with_fine_tokens(davis, tmp_path, run_eval):
    made = {}
    for grids in (1, 4):
        run_eval("--davis_path", davis, "--training_free", "--tau", 0.05, "--proposals", "clusters", "--grids", grids,
                 "--upsampling", "nearest", "--save_path", tmp_path / str(grids))  # fmt: skip
        settings = json.loads((tmp_path / str(grids) / "settings.json").read_text())
        assert settings.get("grids") == (4 if grids == 4 else None)
        made[grids] = snapshot(tmp_path / str(grids))
    assert made[1] != made[4]
