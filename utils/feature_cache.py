"""Cache features of frames on disk, so that later runs with the same backbone need not compute them.

    cache = FeatureCache(folder, settings=network.backbone.settings() | {"amp": amp, ...})
    key = cache.key(frame)                          # of the frame as the backbone receives it: resized, augmented
    if (features := cache.load(key)) is None:       # (L, C) float32
        cache.save(key, features := encode(frame))

Each frame has a file `<folder>/<first two digits of the key>/<key>.npy`, an array (L, C) float32. The key is a hash of
the frame's pixels and of the settings, which must contain everything else that features depend on. So entries are never
out of date, equal frames are stored once, several processes may fill one folder, and an interrupted run continues. The
folder, or any part of it, can be deleted at any time.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError
from utils.files import write_atomically


class FeatureCache:
    """A folder of features (L, C) float32, one file per frame.

    Args:
        settings: plain values of everything that features depend on beside the frame: architecture, weights,
            normalisation, precision, device, versions of libraries, with CLS tokens or without.

    Attributes:
        hits: number of frames that `load` found.
    """

    def __init__(self, folder: Path, *, settings: dict[str, Any]):
        self.folder = folder
        self.settings = json.dumps(settings, sort_keys=True).encode()
        self.hits = 0

    def key(self, frame: Tensor) -> str:
        """Compute the key of a frame (3, H, W): 40 hexadecimal digits."""
        digest = hashlib.blake2b(self.settings, digest_size=20)
        digest.update(repr((tuple(frame.shape), frame.dtype)).encode())
        digest.update(frame.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()

    def path(self, key: str) -> Path:
        """Return the file of a key, whether it exists or not."""
        return self.folder / key[:2] / f"{key}.npy"

    def load(self, key: str) -> Tensor | None:
        """Read the features (L, C) of a key; None if the file does not exist.

        Raises:
            UserError: the file is damaged.
        """
        path = self.path(key)
        try:
            kept = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            return None
        except PermissionError:
            raise UserError(f"{path}: cannot be read; allow it, or name another --feature_cache") from None
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: damaged ({error}); delete it, it will be made again") from error
        if kept.dtype != np.float32 or kept.ndim != 2:
            raise UserError(f"{path}: no features of a frame; delete it, it will be made again")
        self.hits += 1
        return torch.from_numpy(kept)

    def save(self, key: str, features: Tensor) -> None:
        """Write the features (L, C) of a key.

        Raises:
            UserError: the folder cannot be written, or the disk is full.
        """
        try:
            with write_atomically(self.path(key)) as temporary, temporary.open("wb") as file:
                np.save(file, features.cpu().numpy(), allow_pickle=False)
        except OSError as error:  # numpy's own error for a full disk has no strerror
            raise UserError(
                f"--feature_cache {self.folder}: cannot be written ({error.strerror or error}); free space, name "
                "another folder or leave it out"
            ) from error
