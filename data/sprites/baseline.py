"""Segment the videos of Sprites by colour alone: how much of the objects can be found without features."""

from pathlib import Path

import cv2
import numpy as np

from data.sprites.writer import FRAMES, LABELS, SPLITS
from utils.errors import UserError
from utils.png import read_label_png, write_label_png
from utils.scoring.slots import count_shared_pixels, measure_agreement

STRIDE = 4  # every such pixel is clustered; the pixels between take the label of their neighbour
WINDOW = 17  # pixels, side of the windows of the histograms
NUM_WORDS = 16  # bins of the histograms: typical colours of the video, found by k-means


def write_color_baseline(root: Path, output: Path, *, num_clusters: int) -> float:
    """Cluster the validation videos by colour and write label PNGs `output/<video>/<frame>.png`.

    Every cluster is a proposal. Returns the mean over videos of the mean best IoU over objects (mBO).
    """
    scores = []
    for name in (root / SPLITS / "val.txt").read_text().split():
        frames, labels = read_video(root, name)
        clusters = cluster_by_color(frames, num_clusters)
        (output / name).mkdir(parents=True, exist_ok=True)
        for t, proposals in enumerate(clusters + 1):
            write_label_png(output / name / f"{t:05d}.png", proposals)
        scores.append(measure_agreement(count_shared_pixels(labels, clusters)).mbo)
    return float(np.mean(scores))


def read_video(root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the frames (T, H, W, 3) uint8 RGB and labels (T, H, W) uint8 of a written video."""
    frames = [cv2.imread(str(p))[..., ::-1] for p in sorted((root / FRAMES / name).glob("*.jpg"))]
    labels = [read_label_png(p) for p in sorted((root / LABELS / name).glob("*.png"))]
    return np.stack(frames), np.stack(labels).astype(np.uint8)


def cluster_by_color(frames: np.ndarray, num_clusters: int) -> np.ndarray:
    """Cluster the pixels of a video by k-means on their CIELAB colours and on colour histograms of their surroundings.

    Args:
        frames: (T, H, W, 3) uint8 RGB.

    Returns:
        Label maps (T, H, W) uint8, 0 to `num_clusters` - 1.

    Raises:
        UserError: there are more clusters than clustered pixels.
    """
    cv2.setRNGSeed(0)
    lab = np.stack([cv2.cvtColor(f.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for f in frames])
    sparse = lab[:, ::STRIDE, ::STRIDE]
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 15, 0.1)
    sample = np.ascontiguousarray(sparse[:, ::2, ::2].reshape(-1, 3))
    words = cv2.kmeans(sample, NUM_WORDS, None, stop, 1, cv2.KMEANS_PP_CENTERS)[2]
    features = []
    for small, full in zip(sparse, lab, strict=True):
        nearest = ((full[:, :, None] - words) ** 2).sum(-1).argmin(-1)
        near = [cv2.blur((nearest == i).astype(np.float32), (WINDOW, WINDOW)) for i in range(NUM_WORDS)]
        histogram = np.sqrt(np.stack(near, -1)[::STRIDE, ::STRIDE])
        features.append(np.concatenate([small / 40, histogram], -1))
    points = np.concatenate([f.reshape(-1, 3 + NUM_WORDS) for f in features]).astype(np.float32)
    if num_clusters > len(points):
        raise UserError(f"--num_clusters {num_clusters}: more than the {len(points)} pixels that are clustered")
    found = cv2.kmeans(points, num_clusters, None, stop, 2, cv2.KMEANS_PP_CENTERS)[1]
    maps = found.reshape(sparse.shape[:3]).astype(np.uint8)
    height, width = frames.shape[1:3]
    return maps.repeat(STRIDE, 1).repeat(STRIDE, 2)[:, :height, :width]
