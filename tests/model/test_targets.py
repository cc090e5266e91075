"""Targets of the object loss, on maps worked out by hand, and on a video whose objects are obvious."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.losses import object_loss
from model.segmenter import Segmenter, SegmenterSettings
from model.training.targets import ClipTargets, ObjectMaps, TargetLimits, find_object_maps
from tests.model.inputs import make_network


def make_maps(*rows: list[int], boundary: tuple[int, ...] = ()) -> ObjectMaps:
    """One frame of 1 x n tokens, segmented once for each row."""
    is_boundary = np.zeros((1, 1, len(rows[0])), bool)
    is_boundary[..., list(boundary)] = True
    return ObjectMaps(np.array(rows, np.int16)[:, None, None], is_boundary)


def test_tokens_are_the_same_where_most_maps_say_so_and_unsure_in_between(monkeypatch):
    monkeypatch.setattr("model.training.targets.LIMITS", TargetLimits(same=0.6, different=0.3))
    clip = ClipTargets(make_maps([0, 0, 0, 1], [0, 0, 1, 1], [5, 5, 2, 2], [0, 0, 0, 3], boundary=()), [0])
    same, different = clip.compare(np.array([0]))
    assert same.tolist() == [[True, True, False, False]]  # the third shares its label in half of the maps
    assert different.tolist() == [[False, False, False, True]]


def test_boundary_tokens_are_neither_targets_nor_queries():
    clip = ClipTargets(make_maps([0, 0, 1, 1], boundary=(1, 3)), [0])
    same, different = clip.compare(np.array([0]))
    assert same.tolist() == [[True, False, False, False]]
    assert different.tolist() == [[False, False, True, False]]
    assert clip.draw_queries(10, np.random.default_rng(0)).tolist() == [0, 2]


def test_a_clip_takes_its_own_frames():
    maps = ObjectMaps(np.array([[[[0]], [[1]], [[0]]]], np.int16), np.zeros((3, 1, 1), bool))
    same, different = ClipTargets(maps, [2, 1, 0]).compare(np.array([0]))
    assert same.tolist() == [[True, False, True]]
    assert different.tolist() == [[False, True, False]]


def test_small_objects_are_drawn_more_often_than_their_size():
    labels = [0] * 900 + [1] * 100
    clip, rng = ClipTargets(make_maps(labels), [0]), np.random.default_rng(0)
    drawn = np.concatenate([clip.draw_queries(20, rng) for _ in range(200)])
    # weights 900 / 30 and 100 / 10: a quarter of the draws, a tenth of the tokens
    assert (drawn >= 900).mean() == pytest.approx(0.25, abs=0.03)


def test_fused_targets_count_all_maps():
    fused = make_maps([0, 0, 1], boundary=(1,)).fuse(make_maps([0, 1, 1], boundary=(2,)))
    assert fused.maps.shape == (2, 1, 1, 3)
    assert fused.is_boundary[0, 0].tolist() == [False, True, True]


@pytest.mark.parametrize(("rows", "sure"), [([[0, 0, 1]], True), ([[0, 0, 0]], False), ([[0, 0, 1], [0, 0, 0]], False)])
def test_objects_are_sure_if_the_maps_agree_on_two_of_them(rows, sure):
    assert make_maps(*rows).has_sure_objects() == sure


def test_the_loss_by_hand():
    attn = torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.2, 0.2, 0.3, 0.3]])
    same = torch.tensor([[True, True, False, False], [False, False, False, True]])
    different = torch.tensor([[False, False, True, False], [False, False, False, False]])
    # The first query: -log(0.6 / 0.9). The second has no other object and is left out.
    assert object_loss(attn, same, different).item() == pytest.approx(-np.log(0.6 / 0.9), rel=1e-5)
    assert object_loss(attn[1:], same[1:], different[1:]).item() == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_loss_falls_as_attention_moves_to_the_own_object(seed):
    rng = np.random.default_rng(seed)
    attn = torch.from_numpy(rng.dirichlet(np.ones(12), 5)).requires_grad_()
    labels = rng.integers(0, 3, (5, 12))  # 0: same, 1: different, 2: unsure
    same, different = torch.from_numpy(labels == 0), torch.from_numpy(labels == 1)
    loss = object_loss(attn, same, different)
    assert loss.item() >= 0
    loss.backward()
    usable = same.any(-1) & different.any(-1)
    assert (attn.grad[usable[:, None] & same] <= 0).all()
    assert (attn.grad[usable[:, None] & different] >= 0).all()
    assert (attn.grad[~(same | different)] == 0).all()
    assert (attn.grad[~usable] == 0).all()


def test_an_obvious_video_gives_the_same_objects_in_all_maps(tiny_weights):
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=3.0)
    generator = torch.Generator().manual_seed(0)
    frames, height, width, dim = 12, 6, 8, network.backbone.dim
    kinds = torch.randn(2, dim, generator=generator) * 3
    truth = torch.zeros(frames, height, width, dtype=torch.long)
    for t in range(frames):
        truth[t, 1:5, t % 4 + 1 : t % 4 + 4] = 1
    features = kinds[truth].flatten(1, 2) + 0.01 * torch.randn(frames, height * width, dim, generator=generator)
    segmenter = Segmenter(network, SegmenterSettings(clustering="fast", key_stride=4, clusters=None))
    found = find_object_maps(segmenter, features, (height, width), motion=None)
    assert found.maps.shape == (6, frames, height, width)
    assert found.has_sure_objects()
    clip = ClipTargets(found, [0, 5, 11])
    queries = clip.draw_queries(64, np.random.default_rng(0))
    same, different = (mask.numpy() for mask in clip.compare(queries))
    alike = truth[[0, 5, 11]].flatten().numpy()
    alike = alike[queries, None] == alike
    assert not (same & ~alike).any()
    assert not (different & alike).any()
