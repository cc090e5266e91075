"""Tiny networks, segmenters, videos and rows of attention for tests of the model."""

import numpy as np
import torch

from model.backbone import build_backbone
from model.clustering import symmetric_kl
from model.network import SpatioTemporalNetwork
from model.segmenter import Segmenter, SegmenterSettings
from tests.conftest import TINY_BACKBONE


def make_network(tiny_weights, **options):
    torch.manual_seed(3)
    backbone = build_backbone(TINY_BACKBONE, weights=tiny_weights)
    return SpatioTemporalNetwork(backbone, **options).eval()


def make_segmenter(network, **settings):
    return Segmenter(network, SegmenterSettings(**settings))


def video(num_frames, size=(48, 80), seed=0):
    generator = torch.Generator().manual_seed(seed)
    still = torch.rand(3, *size, generator=generator)
    return [(still + 0.1 * index).clamp(max=1) for index in range(num_frames)]


def neighbours(rows, *, tau):
    """Which pairs of rows (L, S) lie within D <= tau of each other, every distance computed: (L, L) bool."""
    return (symmetric_kl(rows, rows) <= tau).fill_diagonal_(True)


def random_rows(seed, count=40, columns=12, sharpness=1.0):
    """Rows around a few modes, so that something clusters."""
    generator = np.random.default_rng(seed)
    modes = generator.normal(size=(4, columns)) * 2
    logits = modes[generator.integers(4, size=count)] + generator.normal(size=(count, columns)) * 0.4
    return torch.from_numpy(logits * sharpness).softmax(-1)
