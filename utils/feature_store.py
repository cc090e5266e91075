"""Features of a training set's frames kept on disk, so that training need not run the frozen backbone again.

One file of half-precision numbers, read through the page cache, beside one byte of state per entry. What features
depend on (weights, resolution, augmentation, the files, versions of libraries) names the folder, so nothing stale can
be read; entries are written in any order, by several processes, and an interrupted filling goes on where it was.
Folders of other settings stay; `about.json` in each tells whose it is. Delete any at any time but while it is used.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError

FORMAT = 2  # raise it with every change of how entries are made: reading, augmentation, resizing
MISSING, FILLED, UNREADABLE = 0, 1, 2
LARGEST = torch.finfo(torch.float16).max


class FeatureStore:
    """Features (L, C) of each of `entries` frames, float16, in a folder of its own below `folder`.

    Args:
        settings: plain values that say all that the features depend on.
        shape: (L, C).
    """

    def __init__(self, folder: Path, *, settings: dict[str, Any], entries: int, shape: tuple[int, int]):
        about = json.dumps({"format": FORMAT, **settings, "entries": entries, "shape": list(shape)}, sort_keys=True)
        self.folder = folder / hashlib.sha256(about.encode()).hexdigest()[:16]
        self.about, self.entries, self.shape = about, entries, tuple(shape)

    @property
    def size(self) -> int:
        """Bytes of all features."""
        return 2 * self.entries * self.shape[0] * self.shape[1]

    def prepare(self) -> None:
        """Make the files, as long as they will be; what is there stays, but for states that tell of features now gone.

        Raises:
            UserError: the folder cannot be written or its disk has no room for all of the features.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            whole = self._is_whole()
            missing = self.size * (self.states() == MISSING).mean() if whole else self.size
            free = shutil.disk_usage(self.folder).free
            if missing > free:
                raise UserError(
                    f"--feature_cache {self.folder.parent}: needs {missing / 1e9:.1f} GB more, {free / 1e9:.1f} GB are "
                    "free; lower --cache_views, name another folder or leave it out"
                )
            (self.folder / "about.json").write_text(self.about + "\n")
            if not whole:
                for name, length in self._lengths().items():
                    with self._path(name).open("ab") as file:
                        if name == "states":
                            file.truncate(0)
                        file.truncate(length)
        except OSError as error:
            raise UserError(
                f"--feature_cache {self.folder}: cannot be written ({error.strerror}); choose another folder"
            ) from None

    def states(self) -> np.ndarray:
        """State of every entry, (entries,) uint8: MISSING, FILLED or UNREADABLE.

        Raises:
            UserError: the files are not there, or not whole.
        """
        if not self._is_whole():
            raise UserError(
                f"--feature_cache {self.folder}: not there or cut short; it must be on a disk that all processes "
                "share, and stay while it is used"
            )
        return np.fromfile(self._path("states"), dtype=np.uint8, count=self.entries)

    def check_filled(self) -> None:
        """Raises `UserError` where entries are missing, whose features would be read as zeros."""
        if missing := int((self.states() == MISSING).sum()):
            raise UserError(
                f"--feature_cache {self.folder}: {missing} of {self.entries} features are missing though all were "
                "made; it must be on a disk that all processes share"
            )

    def write(self, first: int, features: Tensor, readable: list[bool]) -> None:
        """Fill entries `first`, `first` + 1, ... with features (n, L, C); of an unreadable frame they do not matter.

        Raises:
            UserError: features that half precision cannot hold, or a full disk.
        """
        if not bool((features.abs() <= LARGEST).all()):
            raise UserError("--feature_cache: features too large for half precision; train without it")
        states = bytes(FILLED if good else UNREADABLE for good in readable)
        try:
            _write_at(
                self._path("features"), first * self.size // self.entries, features.half().cpu().numpy().tobytes()
            )
            _write_at(self._path("states"), first, states)  # last, so that a state never tells of what is not there
        except OSError as error:
            raise UserError(
                f"--feature_cache {self.folder}: cannot be written ({error.strerror}); free space and start again, it "
                "goes on"
            ) from None

    def read(self, indices: list[int]) -> Tensor:
        """Features (n, L, C) float16 of filled entries."""
        features = np.memmap(self._path("features"), dtype=np.float16, mode="r", shape=(self.entries, *self.shape))
        return torch.from_numpy(np.stack([features[index] for index in indices]))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.bin"

    def _lengths(self) -> dict[str, int]:
        """Bytes of each file."""
        return {"features": self.size, "states": self.entries}

    def _is_whole(self) -> bool:
        paths = {self._path(name): length for name, length in self._lengths().items()}
        return all(path.is_file() and path.stat().st_size >= length for path, length in paths.items())


def _write_at(path: Path, offset: int, content: bytes) -> None:
    """Once it returns the content is on the disk, whatever becomes of the machine."""
    with path.open("r+b") as file:
        view = memoryview(content)
        while view:
            done = os.pwrite(file.fileno(), view, offset)
            view, offset = view[done:], offset + done
        os.fsync(file.fileno())
