"""Limits in tokens at other grids than the one that they were chosen on."""

import numpy as np
import pytest
import torch

from model.objects import boundary, tracks
from model.objects.affinity import CentredFeatures
from model.objects.find import find_objects
from model.objects.scale import REFERENCE_GRID, scale_area, scale_length
from tests.model.test_objects import same_partition


@pytest.mark.parametrize("limits", [boundary.LIMITS, tracks.LIMITS])
def test_limits_hold_for_the_reference_grid(limits):
    assert limits.scale_to(REFERENCE_GRID) == limits


def test_lengths_and_areas_grow_with_the_grid():
    double = tuple(2 * side for side in REFERENCE_GRID)
    assert scale_length(1.5, double) == pytest.approx(3)
    assert scale_area(1.5, double) == pytest.approx(6)
    assert scale_length(2, (35, 20)) == scale_length(2, (20, 35)) == 2
    found = tracks.LIMITS.scale_to(double)
    assert (found.reach, found.distance_scale, found.voters, found.min_component_size) == (8, 4, 12, 16)
    assert found.min_part_share == tracks.LIMITS.min_part_share
    found = boundary.LIMITS.scale_to(double)
    assert (found.max_width, found.blob_size, found.reach, found.distance_scale) == (4, 16, 4, 3)


@pytest.mark.parametrize("grid", [(1, 1), (3, 4)])
def test_tiny_grids_have_limits_of_a_token_at_least(grid):
    found = tracks.LIMITS.scale_to(grid)
    assert (found.reach, found.voters, found.min_component_size) == (1, 1, 1)
    found = boundary.LIMITS.scale_to(grid)
    assert (found.reach, found.max_width, found.blob_size) == (1, 1, 1)


def refine(labels, factor):
    return labels.repeat(factor, axis=1).repeat(factor, axis=2)


def test_objects_are_the_same_on_a_finer_grid():
    """Two of a kind that part, a speck too small for an object, and a ring of boundary tokens around a thing."""
    labels = np.zeros((8, *REFERENCE_GRID), dtype=int)
    for frame in labels:
        frame[4:8, 4:8] = frame[4:8, 12:16] = frame[16, 30] = 1
        frame[9:15, 19:25] = frame[10:14, 18:26] = 3
        frame[10:14, 19:25] = 2
    colours = torch.eye(4)
    found = []
    for factor in (1, 2):
        fine = refine(labels, factor)
        centred = CentredFeatures(colours[torch.from_numpy(fine)].flatten(1, 2), fine.shape[1:])
        found.append(find_objects(fine, centred)[0])
    assert len(np.unique(found[0])) == 4  # background, thing, and the two
    assert same_partition(refine(found[0], 2), found[1])
