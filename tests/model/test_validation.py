"""Validation of a block: J and agreement over thresholds, beside the training-free block."""

import numpy as np
import pytest
import torch

from data.videos import AnnotatedFrames
from model.objects.motion import Motion
from model.segmenter import SegmenterSettings
from model.training import validation
from model.training.monitor import compare_maps
from model.training.validation import (
    FACTORS,
    EncodedVideo,
    choose_best_union,
    compare_with_training_free,
    copy_with_own_blocks,
    encode_video,
    measure_block,
    measure_distances,
    measure_union,
    scale_threshold,
    sum_j,
    summarise,
)
from tests.model.inputs import make_network, make_segmenter
from utils.errors import UserError

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
def sources():
    return [
        AnnotatedFrames(name, frames, [0, 2, 4], maps[::2])
        for name, (frames, maps) in (("ant", moving_square(4)), ("bee", moving_square(20)))
    ]


@pytest.fixture
def videos(network, sources):
    return [encode_video(source, make_segmenter(network)) for source in sources]


def test_a_block_that_is_still_training_free_changes_nothing(network, videos):
    told = []
    found = compare_with_training_free(
        network, videos, SETTINGS, temperature=6.0, factors=FACTORS_OF_TEST, progress=told.append
    )
    assert found.before == found.after > 0
    assert found.difference == (0, 0, 0)
    assert told == [1, 2]


def test_a_comparison_measures_both_blocks_as_one_by_one(network, videos, tiny_weights):
    trained = make_network(tiny_weights)  # at random
    found = compare_with_training_free(trained, videos, SETTINGS, temperature=6.0, factors=FACTORS_OF_TEST)
    free = measure_block(network, videos, SETTINGS, FACTORS_OF_TEST)
    fitted = scale_threshold(SETTINGS, trained, videos, measure_distances(network, videos, SETTINGS))
    other = measure_block(trained, videos, fitted, FACTORS_OF_TEST)
    assert found.before == pytest.approx(free["objects"].mean(0).sum() / 2)
    assert found.after == pytest.approx(other["objects"].mean(0).sum() / 2)
    assert fitted.tau < SETTINGS.tau  # all rows of a random block are alike


def test_a_comparison_says_which_block_is_better():
    found = summarise(np.array([[0.5, 0.9], [0.5, 0.9]]), np.array([1.0, 2.0]))
    assert found == (pytest.approx(1 / 3), pytest.approx(0.6), pytest.approx((0.8 / 3, 0.2, 0.4)))
    assert found.name_values() == pytest.approx({"validation_j_free": 1 / 3, "validation_j": 0.6})
    assert found.describe() == "J of objects 33.3 training-free and 60.0 trained (+26.7 [20.0, 40.0])"


@pytest.mark.parametrize("answers", [[True], [False, True], [False] * 3 + [True], [False] * 4 + [True]])
def test_a_comparison_stops_before_the_next_video_is_read_or_measured(network, videos, answers):
    asked = iter(answers)
    assert compare_with_training_free(network, videos, SETTINGS, temperature=6.0, stop=lambda: next(asked)) is None
    assert next(asked, None) is None


def test_a_comparison_needs_two_videos_with_objects(network, videos, sources):
    empty = encode_video(sources[0]._replace(maps=[np.zeros((48, 80), np.uint8)] * 3), make_segmenter(network))
    with pytest.raises(UserError, match="1 of the validation videos have annotated objects; at least 2"):
        compare_with_training_free(network, [videos[0], empty], SETTINGS, temperature=6.0)


def test_a_comparison_leaves_the_block_as_it_is(tiny_weights, videos):
    trained = make_network(tiny_weights)
    before = {name: value.clone() for name, value in trained.blocks.state_dict().items()}
    compare_with_training_free(trained, videos, SETTINGS, temperature=6.0, factors=(1.0,))
    assert all(torch.equal(before[name], value) for name, value in trained.blocks.state_dict().items())
    assert copy_with_own_blocks(trained).backbone is trained.backbone


def test_objects_that_do_not_depend_on_the_way_agree_fully(monkeypatch):
    labels = np.random.default_rng(0).integers(0, 3, (4, 3, 5))
    features = torch.from_numpy(labels).flatten(1)[..., None]
    mirrored = torch.from_numpy(labels[..., ::-1].copy()).flatten(1)[..., None]
    nothing = np.zeros(labels.shape, bool)
    motion = Motion(nothing.astype(np.float32), nothing)
    video = EncodedVideo("ant", features, mirrored, (3, 5), motion, None, [])

    def segment(_segmenter, values, grid, _motion):
        return None, values.view(len(values), *grid).numpy()

    monkeypatch.setattr(validation, "segment", segment)
    assert validation.measure_agreement(None, video, labels) == 1
    assert validation.measure_agreement(None, video, labels[::-1]) < 1


def test_agreement_needs_the_threshold_itself(network, videos):
    assert 1 in FACTORS
    with pytest.raises(ValueError, match="agreement is measured at 1"):
        measure_block(network, videos, SETTINGS, (0.7, 1.4))


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
