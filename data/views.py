"""Frames under a few fixed augmentations, so that what a frozen backbone makes of them can be kept (--feature_cache).

Augmentation v of a video is the same for all of its frames, so that a clip's frames agree (METHOD.md 3). The entries of
a store are the frames of all videos in order, each with its `num_views` views one after the other.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.clips import ClipDataset
from data.frames import UnreadableImage, read_image, resize
from data.transforms import ClipAugmentation
from utils.feature_store import UNREADABLE, FeatureStore


def contents(videos: dict[str, list[Path]]) -> str:
    """SHA-256 over the frames' names, sizes and times of change: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, paths in videos.items():
        for path in paths:
            about = path.stat()
            digest.update(os.fsencode(f"{name}/{path.name}\0{about.st_size} {about.st_mtime_ns}\0"))
    return digest.hexdigest()


class FrameViews(Dataset):
    """Entry i of a store: its frame (3, H, W) uint8, and whether it could be read (else zeros)."""

    def __init__(
        self, videos: dict[str, list[Path]], *, resolution: tuple[int, int], num_views: int, seed: int
    ):  # fmt: skip
        self.frames = [(video, path) for video, paths in enumerate(videos.values()) for path in paths]
        self.resolution, self.num_views, self.seed = resolution, num_views, seed
        self.augmentation = ClipAugmentation(resolution)

    def __len__(self) -> int:
        return len(self.frames) * self.num_views

    def __getitem__(self, index: int) -> tuple[Tensor, bool]:
        video, path = self.frames[index // self.num_views]
        try:
            frame = resize(read_image(path), self.resolution)
        except UnreadableImage:
            return torch.zeros(3, *self.resolution, dtype=torch.uint8), False
        draws = np.random.default_rng((self.seed, video, index % self.num_views))
        return self.augmentation(frame[None], seed=int(draws.integers(2**62)))[0], True


class CachedClips(ClipDataset):
    """Clips drawn as by `ClipDataset`, each under one of the views: their features, from a filled store."""

    def __init__(self, videos: dict[str, list[Path]], *, store: FeatureStore, num_views: int, **options):
        super().__init__(videos, augment=False, **options)
        self.store, self.num_views = store, num_views
        self.first_frames = np.cumsum([0, *map(len, self.videos)])
        self.unreadable = store.states() == UNREADABLE

    def read(self, video: int, positions: list[int], rng: np.random.Generator) -> Tensor:
        """Features (T, L, C) float16 of the frames at `positions`."""
        view = int(rng.integers(self.num_views))
        entries = [int(self.first_frames[video] + position) * self.num_views + view for position in positions]
        for position, entry in zip(positions, entries, strict=True):
            if self.unreadable[entry]:
                raise UnreadableImage(self.videos[video][position], "when its features were to be kept")
        return self.store.read(entries)
