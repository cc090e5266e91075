"""A threshold from the distances at hand follows their scale."""

import numpy as np
import pytest
import torch

from model.attention import mean_attention
from model.clustering import symmetric_kl
from model.engine.threshold import search_tau
from model.segmenter import Segmenter, SegmenterSettings, key_frame_indices
from model.training.distances import SHARE, quantiles, window_distances
from tests.conftest import moving_disk
from tests.model.inputs import make_network


def features_of(network, *, num_frames=9):
    frames = [moving_disk(index, size=(64, 96), seed=0)[0] for index in range(num_frames)]
    frames = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    return Segmenter(network, SegmenterSettings(key_stride=4)).encode(frames, num_frames=num_frames)


@pytest.mark.parametrize("temperature", [2.0, 4.0, 8.0])
def test_the_share_of_pairs_within_tau_is_the_same_whatever_the_temperature(temperature, tiny_weights):
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=temperature)
    features, _ = features_of(network)
    key_frames = key_frame_indices(len(features), 4)
    tau = quantiles(window_distances(network, features, key_frames), (SHARE,))[0]
    keys = network.keys(features[key_frames].flatten(0, 1))
    shares = []
    for window in features.split(3):
        rows = mean_attention(network.queries(window.flatten(0, 1)), keys)
        near = symmetric_kl(rows, rows) <= tau
        shares.append((near.sum() - len(near)).item() / (len(near) * (len(near) - 1)))
    assert np.mean(shares) == pytest.approx(SHARE, abs=0.01)


def test_quantiles_are_those_of_numpy():
    values = torch.rand(1001, generator=torch.Generator().manual_seed(0))
    assert quantiles(values, (0.1, 0.5)) == pytest.approx(np.quantile(values.numpy(), (0.1, 0.5)), abs=2e-3)
    assert quantiles(torch.ones(1), (0.9,)) == [1.0]


def test_calibration_repeats_and_leaves_torchs_generator_alone(tiny_weights):
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=4.0)
    features, _ = features_of(network)
    state = torch.get_rng_state()
    first, second = (window_distances(network, features, [0, 4]) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert (first >= -1e-5).all()


@pytest.mark.parametrize("steepness", [1.0, 2.5, 4.0])
@pytest.mark.parametrize("scale", [0.05, 1.0, 20.0])
def test_a_threshold_is_found_however_far_away(scale, steepness):
    asked = []

    def count(tau):
        asked.append(tau)
        return max(round(100 * (tau / scale) ** -steepness), 1)

    assert 4 <= count(search_tau(count, start=scale, least=4, most=30)) <= 30
    asked.pop()
    assert len(set(asked)) == len(asked)


def test_a_threshold_with_a_wanted_number_of_clusters_is_kept_else_the_usual_one_is_tried():
    def count(tau):
        return round(28 * tau**-2)

    assert search_tau(count, start=1.5, least=4, most=30) == 1.5
    assert search_tau(count, start=0.25, least=4, most=30) == search_tau(count, start=5.0, least=4, most=30) == 1.0


def test_a_number_of_clusters_near_the_limits_is_taken_if_none_is_well_within():
    def count(tau):
        return 31 if tau <= 0.55 else 3 if tau > 0.6 else 20

    assert 0.55 < search_tau(count, start=1.0, least=4, most=30) <= 0.6


@pytest.mark.parametrize("number", [1, 1000])
def test_the_threshold_stays_if_none_gives_a_wanted_number(number):
    tried = []
    assert search_tau(lambda tau: tried.append(tau) or number, start=1.0, least=4, most=30) == 1.0
    assert min(tried) >= 1e-3
    assert len(tried) <= 9
