"""Folders of label PNGs: drifting squares, written as results and as annotations of DAVIS."""

from pathlib import Path

import numpy as np

from utils.png import write_label_png
from utils.scoring.annotations import LabelFiles, find_label_files


def write_video(folder: Path, labels: np.ndarray) -> Path:
    for k, frame in enumerate(labels):
        write_label_png(folder / f"{k:05d}.png", frame)
    return folder


def moving_squares(frames: int, ids: tuple[int, ...] = (1, 2), seed: int = 0) -> np.ndarray:
    """Label maps (frames, 36, 48): one drifting square per id, jittered by `seed`."""
    rng = np.random.default_rng(seed)
    video = np.zeros((frames, 36, 48), dtype=np.int32)
    for k, label in enumerate(ids):
        for t in range(frames):
            y, x = 2 + 9 * k % 24 + rng.integers(0, 4), 2 + (5 * t + 11 * k) % 32 + rng.integers(0, 4)
            video[t, y : y + 9, x : x + 9] = label
    return video


def folders(root: Path) -> dict[str, LabelFiles]:
    return {name: find_label_files(root / "Annotations_unsupervised" / "480p" / name) for name in ("dogs", "cat")}
