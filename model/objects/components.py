"""Find the connected components of a mask, divided where their parts move apart (docs/method.md, section 8)."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage


class Components(NamedTuple):
    """Components of a mask (h, w), numbered from 1; 0 outside the mask.

    divided: (h, w) int, connected components that motion boundaries divide, `count` of them.
    connected: (h, w) int, connected components.
    """

    divided: np.ndarray
    count: int
    connected: np.ndarray


def label_components(
    mask: np.ndarray, boundaries: np.ndarray | None = None, *, min_size: int, min_share: float
) -> Components:
    """Number the connected components of a mask (h, w) bool, and divide those that motion boundaries divide.

    Without its tokens on motion boundaries a component may fall into parts. If at least two of them are large, each
    becomes a component, and every other token goes to the nearest of these.

    Args:
        boundaries: (h, w) bool, tokens on motion boundaries; None for none.
        min_size, min_share: tokens, and share of the component, that a large part has at least.
    """
    components, count = ndimage.label(mask)
    whole = Components(components, count, components)
    if boundaries is None or not (boundaries & mask).any():
        return whole
    parts, number = ndimage.label(mask & ~boundaries)
    sizes = np.bincount(parts.ravel(), minlength=number + 1)
    owners = np.zeros(number + 1, dtype=np.int64)  # the component that each part lies in
    owners[parts] = components
    owners[0] = 0
    large = sizes >= np.maximum(min_size, min_share * np.bincount(components.ravel())[owners])
    large[0] = False
    divided = np.bincount(owners[large], minlength=count + 1) > 1
    if not divided.any():
        return whole
    kept = np.flatnonzero(large & divided[owners])
    result = np.where(divided[components], 0, components)
    for component in np.flatnonzero(divided):
        inside = components == component
        own = np.where(inside & np.isin(parts, kept), parts, 0)
        result[inside] = count + find_nearest(own)[inside]
    numbers, result = np.unique(result, return_inverse=True)
    result = result.reshape(mask.shape) + (numbers[0] > 0)  # a mask that fills the frame has no 0
    return Components(result.astype(components.dtype), int(result.max()), components)


def find_nearest(values: np.ndarray, *, reach: float = np.inf) -> np.ndarray:
    """Find the nearest value above 0 at every place of (h, w), 0 where none is within `reach`."""
    if not values.any():
        return np.zeros_like(values)
    distance, (row, column) = ndimage.distance_transform_edt(values == 0, return_indices=True)
    return np.where(distance <= reach, values[row, column], 0)
