"""Validation of a block: J and agreement over thresholds, beside the training-free block."""

import numpy as np
import pytest
import torch

from model.segmenter import SegmenterSettings
from model.training.monitor import compare_maps
from model.training.validation import (
    FACTORS,
    choose_best_union,
    compare_with_training_free,
    encode_video,
    measure_block,
    measure_union,
    scale_threshold,
    sum_j,
)
from tests.model.inputs import make_network, make_segmenter

SETTINGS = SegmenterSettings(clustering="fast")
FACTORS_OF_TEST = (0.7, 1.0)


def moving_square(start):
    """Frames (3, 48, 80) uint8 of a square that moves over noise, and their label maps."""
    noise = torch.randint(0, 90, (3, 48, 80), generator=torch.Generator().manual_seed(start), dtype=torch.uint8)
    frames, maps = [], []
    for index in range(5):
        place = np.s_[12:36, start + 4 * index : start + 4 * index + 24]
        frame, labels = noise.clone(), np.zeros((48, 80), np.uint8)
        frame[(slice(None), *place)], labels[place] = 220, 1
        frames, maps = [*frames, frame], [*maps, labels]
    return frames, maps


@pytest.fixture
def network(tiny_weights):
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=6.0)
    return network


@pytest.fixture
def videos(network):
    return [
        encode_video(name, frames, make_segmenter(network), annotated=[0, 2, 4], maps=maps[::2])
        for name, (frames, maps) in (("ant", moving_square(4)), ("bee", moving_square(20)))
    ]


def test_a_block_that_is_still_training_free_changes_nothing(network, videos):
    told = []
    found = compare_with_training_free(
        network, videos, SETTINGS, temperature=6.0, factors=FACTORS_OF_TEST, progress=lambda *part: told.append(part)
    )
    assert found.j[0] == found.j[1] > 0
    assert found.difference == (0, 0, 0)
    assert found.agreement[0] == found.agreement[1]
    assert told == [("videos", 0, 2), ("videos", 1, 2)]
    assert "J of objects" in found.describe()
    assert "(+0.0 [0.0, 0.0])" in found.describe()


def test_a_comparison_measures_both_blocks_as_one_by_one(network, videos, tiny_weights):
    trained = make_network(tiny_weights)  # at random
    found = compare_with_training_free(trained, videos, SETTINGS, temperature=6.0, factors=FACTORS_OF_TEST)
    free = measure_block(network, videos, SETTINGS, FACTORS_OF_TEST)
    fitted = scale_threshold(SETTINGS, trained, network, videos)
    other = measure_block(trained, videos, fitted, FACTORS_OF_TEST)
    assert found.j == pytest.approx((free["objects"].mean(0).sum() / 2, other["objects"].mean(0).sum() / 2))
    assert found.agreement == pytest.approx((free["agreement"].mean(), other["agreement"].mean()))
    assert fitted.tau < SETTINGS.tau  # all rows of a random block are alike
    assert found.name_values()["validation_j"] == found.j[1]


def test_a_comparison_stops_between_videos(network, videos):
    answers = iter([False, True])
    assert compare_with_training_free(network, videos, SETTINGS, temperature=6.0, stop=lambda: next(answers)) is None
    assert next(answers, None) is None  # asked before each of both videos


def test_a_comparison_leaves_the_block_as_it_is(tiny_weights, videos):
    trained = make_network(tiny_weights)
    before = {name: value.clone() for name, value in trained.blocks.state_dict().items()}
    compare_with_training_free(trained, videos, SETTINGS, temperature=6.0, factors=(1.0,))
    assert all(torch.equal(before[name], value) for name, value in trained.blocks.state_dict().items())


def test_thresholds_are_multiples_of_the_one_that_is_asked_for():
    assert 1 in FACTORS


def test_labels_are_assigned_as_protocol_davis_does():
    labels = np.array([[[0, 0, 1, 2]], [[0, 0, 1, 1]]])
    truth = np.zeros((2, 2, 1, 4), np.float32)
    truth[0, :, 0, :2] = 1  # label 0 in both frames: J 1
    truth[1, :, 0, 2:] = 1  # label 1: J 1/2, then 1
    assert sum_j(labels, truth, np.array([3.0, 2.0, 1.0])) == pytest.approx(1 + 0.75)
    assert compare_maps(labels, labels[::-1]) < compare_maps(labels, 2 - labels) == 1
    assert compare_maps(np.zeros_like(labels), np.zeros_like(labels)) == 0


def test_j_of_unions_of_labels():
    labels = np.array([[[0, 1, 1, 2, 3, 3]], [[0, 1, 1, 2, 3, 3]]])
    truth = np.zeros((2, 2, 1, 6), np.float32)
    truth[0, :, 0, 1:3] = 1
    truth[1, 0, 0, 3:5] = 1  # in the first frame alone
    assert choose_best_union(labels, 4, truth).tolist() == [0, 1, 1, 0]
    assert measure_union(labels, np.array([0, 1, 1, 0]), truth) == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert measure_union(labels, np.array([0, 0, 0, 0]), 0 * truth) == 1  # both empty
