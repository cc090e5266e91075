"""Checkpoint files: read as data only, written so that a crash at any moment leaves a whole file behind."""

import argparse
import errno
import hashlib
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from utils.errors import UserError, is_out_of_memory
from utils.file_kinds import SAFETENSORS, TORCH, explain_bad_safetensors, kind_of_weights

# Faults of a disk or its server, not of a file: EINVAL, which torch raises on short files, is not among them.
PASSING = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE)
# Under which name a .safetensors file says in its header how its ViT is built, or how its block was trained.
STUDENT_KEY, BLOCK_KEY = "vision_transformer", "checkpoint"


class CannotRead(UserError):
    """The system did not let a file be read, which may be whole."""


def load_tensors(path: str | Path) -> dict[str, Any]:
    """Read a file of torch or safetensors onto the CPU without running any code that it may hold.

    Which of the two it is, its content says, whatever it is called. `torch.load(weights_only=True)` refuses everything
    but tensors and plain containers; besides these only `argparse.Namespace` is allowed, since DINO's full checkpoint
    carries its arguments in one, and single numbers of NumPy, which training scripts log, are read as numbers.

    Raises:
        UserError: the file is missing, cut short, of another kind, or holds anything else than data.
    """
    path = Path(path)
    kind = _kind_of(path)
    if kind not in (TORCH, SAFETENSORS):
        raise UserError(f"{path}: is {kind}")
    try:
        content = load_file(path) if kind == SAFETENSORS else _load_torch(path)
    except (pickle.UnpicklingError, AttributeError) as error:
        raise UserError(f"{path}: {_explain_refusal(error)}") from error
    except SafetensorError as error:
        raise UserError(f"{path}: {explain_bad_safetensors(path)}") from error
    except Exception as error:  # what the readers raise on damaged bytes is of a dozen kinds
        if is_out_of_memory(error):
            raise
        if isinstance(error, OSError) and error.errno in PASSING:
            raise CannotRead(f"{path}: cannot be read ({error.strerror}); mend that and start again") from error
        raise UserError(f"{path}: damaged, probably cut short on its way here; fetch it again") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path}: holds a {type(content).__name__} that is no dictionary of named values; "
                        "save a state dict: torch.save(model.state_dict(), FILE)")  # fmt: skip
    return content


def _load_torch(path: Path) -> Any:
    # As an open file: by a name that ends with .safetensors torch would take it for one of those.
    with torch.serialization.safe_globals([argparse.Namespace, *_NUMPY_NUMBERS]), open(path, "rb") as file:
        return torch.load(file, map_location="cpu", weights_only=True)


def _explain_refusal(error: Exception) -> str:
    """Why torch will not read a pickle, in our own words: its message tells how to lower the guard."""
    if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
        held = f"refused, it holds a Python object ({found[1]}), which could run code"
        return f"{held}; if you trust it, save its weights alone: torch.save(model.state_dict(), FILE)"
    return "refused, it is no file of torch or is damaged; fetch it again, or save a state dict with torch.save"


class _NumpyType:
    """Stands for `numpy.dtype` in a file: only the name of the type is kept, nothing of NumPy is called."""

    def __init__(self, name: str, *_):
        self.name, self.order = name, "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _numpy_number(kind: Any, content: Any) -> float | int | bool | None:
    """Stands for `numpy.core.multiarray.scalar` in a file; None for what is no single number."""
    if not isinstance(kind, _NumpyType) or not isinstance(content, bytes):
        return None
    if not re.fullmatch(r"[fiub][1248]", str(kind.name)) or len(content) != int(kind.name[1]):
        return None
    return np.frombuffer(content, f"{kind.order}{kind.name}")[0].item()


# Under the names of NumPy 1 and 2.
_NUMPY_NUMBERS = [
    (_numpy_number, "numpy.core.multiarray.scalar"),
    (_numpy_number, "numpy._core.multiarray.scalar"),
    (_NumpyType, "numpy.dtype"),
]


def load_metadata(path: str | Path, key: str) -> dict[str, Any] | None:
    """The JSON mapping that a safetensors file carries in its header under `key`; None where it has none of that name.

    Raises:
        UserError: no such file, or the file or its header is damaged.
    """
    path = Path(path)
    if _kind_of(path) != SAFETENSORS:
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if key not in (metadata := file.metadata() or {}):
                return None
            content = json.loads(metadata[key])
    except SafetensorError as error:
        raise UserError(f"{path}: {explain_bad_safetensors(path)}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: '{key}' in its header is damaged; fetch it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: '{key}' in its header is no mapping; give a file made by this repository")
    return content


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of train.py, of utils.export (safetensors: `blocks` without a run to continue) or the
    reference's, see `load_tensors`."""
    content, metadata = load_tensors(path), load_metadata(path, BLOCK_KEY)
    return content if metadata is None else {"blocks": content, **metadata}


def _kind_of(path: Path) -> str:
    """What `kind_of_weights` says of a file. Raises `UserError`: there is none, or it cannot be opened."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the file of weights in it")
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path given for the weights or checkpoint")
    try:
        return kind_of_weights(path)
    except OSError as error:
        raise CannotRead(f"{path}: cannot be read ({error.strerror}); mend that and start again") from error


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


def stored_tau(checkpoint: dict[str, Any] | None, source: str | None) -> float:
    """Return the clustering threshold that train.py stored with its block.

    Args:
        checkpoint: its content; None if there is none.
        source: its file, for the message.

    Raises:
        UserError: there is no checkpoint, or it holds no threshold.
    """
    tau = (checkpoint or {}).get("tau_auto")
    if not isinstance(tau, float) or not 0 < tau < float("inf"):
        where = f"{source} holds none" if source else "there is no checkpoint"
        raise UserError(f"--tau auto: {where}; give a number")
    return tau
