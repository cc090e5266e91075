"""Bring annotations to the grid of tokens."""

from collections.abc import Sequence

import cv2
import numpy as np

from utils.scoring.annotations import VOID, Annotations


def read_token_shares(annotations: Annotations | None, frame_names: Sequence[str], grid: tuple[int, int]) -> np.ndarray:
    """Read the objects of a video as the shares of tokens (h, w) that they cover.

    Returns:
        (objects, T, h, w) float32, 0 in frames without annotation; no objects if there are no annotations.
    """
    if annotations is None:
        return np.zeros((0, len(frame_names), *grid), np.float32)
    annotated = set(annotations.frame_names)
    maps = {name: annotations.read(name) for name in frame_names if name in annotated}
    ids = sorted({int(number) for labels in maps.values() for number in np.unique(labels) if 0 < number < VOID})
    shares = np.zeros((len(ids), len(frame_names), *grid), np.float32)
    for place, name in enumerate(frame_names):
        for index, number in enumerate(ids if name in maps else ()):
            mask = (maps[name] == number).astype(np.float32)
            shares[index, place] = cv2.resize(mask, grid[::-1], interpolation=cv2.INTER_AREA)
    return shares
