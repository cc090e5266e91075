"""Limits in tokens at other grids than the one that they were chosen on."""

import pytest

from model.objects import boundary, tracks
from model.objects.scale import REFERENCE_GRID, scale_area, scale_length


@pytest.mark.parametrize("limits", [boundary.LIMITS, tracks.LIMITS])
def test_limits_hold_for_the_reference_grid(limits):
    assert limits.scale_to(REFERENCE_GRID) == limits


def test_lengths_and_areas_grow_with_the_grid():
    double = tuple(2 * side for side in REFERENCE_GRID)
    assert scale_length(1.5, double) == pytest.approx(3)
    assert scale_area(1.5, double) == pytest.approx(6)
    assert scale_length(2, (35, 20)) == scale_length(2, (20, 35)) == 2
    found = tracks.LIMITS.scale_to(double)
    assert (found.reach, found.distance_scale, found.min_component_size) == (8, 4, 16)
    assert found.min_part_share == tracks.LIMITS.min_part_share
    found = boundary.LIMITS.scale_to(double)
    assert (found.max_width, found.blob_size, found.reach, found.distance_scale) == (4, 16, 4, 3)


@pytest.mark.parametrize("grid", [(1, 1), (3, 4)])
def test_tiny_grids_have_limits_of_a_token_at_least(grid):
    assert min(tracks.LIMITS.scale_to(grid).reach, tracks.LIMITS.scale_to(grid).min_component_size) == 1
    assert min(boundary.LIMITS.scale_to(grid).max_width, boundary.LIMITS.scale_to(grid).reach) == 1
