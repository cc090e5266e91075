"""Checkpoint files: read as data only, written so that a crash at any moment leaves a whole file behind."""

import argparse
import hashlib
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from utils.errors import UserError


def load_tensors(path: str | Path) -> dict[str, Any]:
    """Read a `.safetensors`, `.pth` or `.pt` file onto the CPU without running any code that it may hold.

    `torch.load(weights_only=True)` refuses everything but tensors and plain containers; `argparse.Namespace` alone
    is allowed besides, since DINO's full checkpoint carries its arguments in one.

    Raises:
        UserError: the file is missing, truncated, or holds anything else than data.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path given for the weights or checkpoint")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, AttributeError) as error:
        raise UserError(
            f"{path}: refused, the file is damaged or holds objects other than tensors and plain values "
            f"({_first_line(error)}); re-save its state dict alone"
        ) from error
    except (
        RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AssertionError, zipfile.BadZipFile,
        SafetensorError,
    ) as error:  # fmt: skip
        raise UserError(
            f"{path}: not a readable checkpoint, probably truncated ({_first_line(error)}); fetch it again"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path}: holds a {type(content).__name__} that is no dictionary of named values")
    return content


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write `content` with `torch.save` under a temporary name, flush it to the disk, then rename it into place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot write the checkpoint ({_first_line(error)}); free space or choose "
                        "another --output_path") from error  # fmt: skip
    _flush_folder(path.parent)


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def tensors_hash(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values of a state dict: the same for equal weights in any file."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().float().contiguous()
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
