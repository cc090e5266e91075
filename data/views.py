"""Frames under a few fixed augmentations, so that what a frozen backbone makes of them can be kept (--feature_cache).

Augmentation v of a video is the same for all of its frames, so that a clip's frames agree (METHOD.md 3). The entries of
a store are the frames of all videos in order, each with its `num_views` views one after the other.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from data.clips import ClipDataset, reading
from data.frames import FrameReader, UnreadableImage, resize
from data.transforms import ClipAugmentation
from utils import distributed
from utils.feature_store import FILLED, UNREADABLE, FeatureStore
from utils.files import file_version
from utils.runs import say
from utils.stopping import StopRequest

FRAMES_TO_FILL = 8  # at once; always the same ones together, so that rounding is the same


def contents(videos: dict[str, list[Path]]) -> str:
    """SHA-256 over the frames' names and what says that they are unchanged: 64 hexadecimal digits, those of the main
    process in all, since each machine may have a copy of its own."""
    digest = hashlib.sha256()
    for name, paths in videos.items():
        for path in paths:
            digest.update(os.fsencode(f"{name}/{path.name}\0{file_version(path)}\0"))
    return distributed.gather(digest.hexdigest())[0]


class FrameViews(Dataset):
    """Entry i of a store: its frame (3, H, W) uint8, and whether it could be read (else zeros)."""

    def __init__(self, videos: dict[str, list[Path]], *, resolution: tuple[int, int], num_views: int, seed: int):
        self.videos = videos
        self.frames = [(video, place) for video, paths in enumerate(videos.values()) for place in range(len(paths))]
        self.readers = [FrameReader(paths) for paths in videos.values()]
        self.resolution, self.num_views, self.seed = resolution, num_views, seed
        self.augmentation = ClipAugmentation(resolution)

    def settings(self) -> dict[str, Any]:
        """Plain values that say all that the entries depend on, but for versions of libraries."""
        about = {"data": contents(self.videos), "resolution": list(self.resolution)}
        return about | {"num_views": self.num_views, "seed": self.seed}

    def __len__(self) -> int:
        return len(self.frames) * self.num_views

    def __getitem__(self, index: int) -> tuple[Tensor, bool]:
        video, place = self.frames[index // self.num_views]
        try:
            frame = resize(self.readers[video].read(place), self.resolution)
        except UnreadableImage:
            return torch.zeros(3, *self.resolution, dtype=torch.uint8), False
        draws = np.random.default_rng((self.seed, video, index % self.num_views))
        return self.augmentation(frame[None], seed=int(draws.integers(2**62)))[0], True


def collate_views(items: list[tuple[Tensor, bool]]) -> tuple[Tensor, list[bool]]:
    """Frames (n, 3, H, W) uint8, and whether each could be read."""
    frames, readable = zip(*items, strict=True)
    return torch.stack(frames), list(readable)


@torch.no_grad()
def fill(
    store: FeatureStore, views: FrameViews, *, embed: Callable[[Tensor], Tensor], num_workers: int, stop: StopRequest
) -> None:
    """Put the features of all views into `store`, each process a share; what is there is not made again.

    Frames that could not be read are tried again. Where the run is asked to stop it ends early.

    Args:
        embed: frames (n, 3, H, W) uint8 -> features (n, L, C).
    """
    if distributed.is_main():
        store.prepare()
    distributed.barrier()
    states = store.states()
    firsts = range(0, len(views), FRAMES_TO_FILL)
    firsts = [first for first in firsts if (states[first : first + FRAMES_TO_FILL] != FILLED).any()]
    say(f"feature cache {store.folder}: {len(views)} views of frames, {store.size / 1e9:.2f} GB; "
        f"{min(len(firsts) * FRAMES_TO_FILL, len(views))} to be made")  # fmt: skip
    distributed.barrier()  # all have seen the same
    firsts = firsts[distributed.rank() :: distributed.world_size()]
    groups = [list(range(first, min(first + FRAMES_TO_FILL, len(views)))) for first in firsts]
    bar = tqdm(groups, desc="feature cache", unit="batch", disable=not distributed.is_main() or not groups)
    with reading(
        views, batch_sampler=groups, num_workers=num_workers, stop=stop, collate_fn=collate_views
    ) as batches:  # fmt: skip
        for group, (frames, readable) in zip(bar, batches, strict=False):  # fewer where asked to stop
            store.write(group[0], embed(frames), readable)
            if stop.exit_code:
                break


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
