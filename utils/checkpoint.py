"""Checkpoint files: read as data only, written so that a crash at any moment leaves a whole file behind."""

import argparse
import errno
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from utils.errors import UserError, is_out_of_memory

# Faults of a disk or its server, not of a file: EINVAL, which torch raises on short files, is not among them.
PASSING = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE)
# Under which name a .safetensors file says in its header how its ViT is built, or how its block was trained.
STUDENT_KEY, BLOCK_KEY = "vision_transformer", "checkpoint"


class CannotRead(UserError):
    """The system did not let a file be read, which may be whole."""


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
    except Exception as error:  # what the readers raise on damaged bytes is of a dozen kinds
        if is_out_of_memory(error):
            raise
        if isinstance(error, OSError) and error.errno in PASSING:
            raise CannotRead(f"{path}: cannot be read ({error.strerror}); mend that and start again") from error
        raise UserError(
            f"{path}: not a readable checkpoint, probably truncated ({_first_line(error)}); fetch it again"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path}: holds a {type(content).__name__} that is no dictionary of named values")
    return content


def load_metadata(path: str | Path, key: str) -> dict[str, Any]:
    """The JSON mapping that a `.safetensors` file carries in its header under `key`.

    Raises:
        UserError: no such file, not safetensors, or nothing of that kind in its header.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; check the path given for the weights or checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {})[key])
    except (SafetensorError, OSError, ValueError, LookupError, RecursionError) as error:
        raise UserError(f"{path}: no .safetensors file with '{key}' in its header ({_first_line(error)}); "
                        "give one made by this repository") from error  # fmt: skip
    if not isinstance(content, dict):
        raise UserError(f"{path}: '{key}' in its header is no mapping; give a file made by this repository")
    return content


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of train.py, of utils.export (`.safetensors`: `blocks` without a run to continue) or the
    reference's, see `load_tensors`."""
    content = load_tensors(path)
    if Path(path).suffix != ".safetensors":
        return content
    return {"blocks": content, **load_metadata(path, BLOCK_KEY)}


def save_tensors(path: str | Path, tensors: dict[str, torch.Tensor], *, key: str, metadata: dict[str, Any]) -> None:
    """Write float16 copies of `tensors` as `.safetensors`, with `metadata` as JSON under `key` in its header."""
    path = Path(path)
    state = {name: value.detach().cpu().half().contiguous() for name, value in tensors.items()}
    write_whole(path, lambda partial: save_file(state, partial, {key: json.dumps(metadata)}))


def save_checkpoint(path: str | Path, content: dict[str, Any], *, keep_as: str | None = None) -> None:
    """Write `content` with `torch.save` under a temporary name, flush it to the disk, then rename it into place.

    keep_as: name for the file that is replaced, beside it; it gets that name once the new one is whole.
    """
    before = None if keep_as is None else lambda: _keep(Path(path), Path(path).with_name(keep_as))
    write_whole(Path(path), lambda partial: torch.save(content, partial), before_rename=before)


def _keep(path: Path, other: Path) -> None:
    """Give a file, if it is there, a second name; at no moment is there neither."""
    if not path.is_file():
        return
    spare = other.with_name(f".{other.name}.{os.getpid()}.partial")
    spare.unlink(missing_ok=True)
    try:
        os.link(path, spare)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, spare)
    os.replace(spare, other)


def write_whole(path: Path, write: Callable[[Path], None], *, before_rename: Callable[[], None] | None = None) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, rename it to `path`.

    Raises:
        UserError: no space or no permission; nothing half-written is left behind.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        if before_rename is not None:
            before_rename()
        os.replace(partial, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        if is_out_of_memory(error):
            raise
        detail = _first_line(error)
        raise UserError(f"{path}: cannot be written ({detail}); free space or choose another folder") from error
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
