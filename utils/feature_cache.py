"""Features of frames kept on disk between runs, so that sweeps over the clustering's settings need no backbone.

One file a frame, named by a digest of all that its features depend on: nothing stale can be read, frames shared by two
videos are kept once, and an interrupted run continues where it was. Delete the folder, or any part of it, at any time.
"""

import contextlib
import hashlib
import uuid
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError


class FeatureCache:
    """Features (N, C) float32 in `folder`.

    Args:
        settings: what features depend on beside the frame: architecture, weights, normalisation, precision, versions.
    """

    def __init__(self, folder: Path, *, settings: tuple[str, ...]):
        self.folder = folder
        self.settings = repr(settings).encode()
        self.hits = 0  # frames that were there when they were asked for

    def path(self, frame: Tensor) -> Path:
        """Where the features of a frame (3, H, W) are or would be."""
        digest = hashlib.blake2b(self.settings, digest_size=20)
        digest.update(repr((tuple(frame.shape), frame.dtype)).encode())
        digest.update(frame.contiguous().cpu().numpy().tobytes())
        name = digest.hexdigest()
        return self.folder / name[:2] / f"{name}.npy"

    def load(self, path: Path) -> Tensor | None:
        """What is kept at a path made by `path`, or None.

        Raises:
            UserError: the file is damaged.
        """
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

    def save(self, path: Path, features: Tensor) -> None:
        """Keep features (N, C); whole or not at all.

        Raises:
            UserError: the folder cannot be written, or the disk is full.
        """
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # folders may be shared by machines
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.save(file, features.cpu().numpy(), allow_pickle=False)
            temporary.replace(path)
        except OSError as error:  # numpy's own, of a full disk, carries no number and no name
            raise UserError(
                f"--feature_cache {self.folder}: cannot be written ({error.strerror or error}); free space, name "
                "another folder or leave it out"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
