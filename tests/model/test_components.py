"""Connected components that motion boundaries divide."""

import numpy as np
import pytest
from scipy import ndimage

from model.objects.components import find_nearest, label_components

LIMITS = {"min_size": 2, "min_share": 0.25}


def grid(text):
    return np.array([[int(character) for character in row] for row in text.split()])


def test_without_motion_boundaries_components_are_those_of_the_mask():
    mask = grid("110011 110001 000000 011110") > 0
    expected, count = ndimage.label(mask)
    for boundaries in (None, np.zeros_like(mask), ~mask):
        components, number, connected = label_components(mask, boundaries, **LIMITS)
        np.testing.assert_array_equal(components, expected)
        assert number == count == 3
        assert connected is components


def test_a_motion_boundary_divides_a_component_and_its_tokens_go_to_the_nearest_part():
    mask = grid("1111110 1111110 0000000 0000011") > 0
    boundaries = grid("0011000 0011000 0000000 0000000") > 0
    components, count, connected = label_components(mask, boundaries, **LIMITS)
    assert count == 3
    np.testing.assert_array_equal(connected, ndimage.label(mask)[0])
    left, right, other = components[0, 0], components[0, 5], components[3, 5]
    assert len({left, right, other, 0}) == 4
    np.testing.assert_array_equal(components[0], [left, left, left, right, right, right, 0])
    np.testing.assert_array_equal(components[3], [0, 0, 0, 0, 0, other, other])


@pytest.mark.parametrize(("mask", "boundaries"), [("1111", "0010"), ("11111111", "00000010")], ids=["size", "share"])
def test_small_parts_do_not_divide(mask, boundaries):
    components, count, _ = label_components(grid(mask) > 0, grid(boundaries) > 0, **LIMITS)
    assert count == 1
    assert (components == 1).all()


def test_a_mask_that_fills_the_frame_can_be_divided():
    components, count, _ = label_components(grid("11111") > 0, grid("00100") > 0, **LIMITS)
    assert count == 2
    assert sorted(np.unique(components)) == [1, 2]


def test_the_nearest_value_counts_within_reach():
    values = grid("10000 00000 00002")
    assert find_nearest(values)[0].tolist() == [1, 1, 1, 2, 2]
    assert find_nearest(values, reach=1)[0].tolist() == [1, 1, 0, 0, 0]
