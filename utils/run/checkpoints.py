"""Read checkpoint and weight files as pure data; write them so that a crash at any moment leaves a whole file."""

import argparse
import errno
import hashlib
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from utils.errors import UserError, is_out_of_memory
from utils.file_kinds import SAFETENSORS, TORCH, explain_bad_safetensors, identify_weights
from utils.files import write_atomically

# Errors of a disk or file server and not of the file. EINVAL is left out: torch raises it for short files.
DISK_ERRORS = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE)
# Keys in the header of a .safetensors file: architecture of its ViT, origin of its block.
STUDENT_KEY, BLOCK_KEY = "vision_transformer", "checkpoint"


class UnreadableFile(UserError):
    """The system could not read a file, which may be undamaged."""


def load_tensors(path: str | Path) -> dict[str, Any]:
    """Read a file of torch or safetensors onto the CPU without running any code that it may contain.

    The kind of file is found from its content and not from its name. `torch.load(weights_only=True)` refuses everything
    but tensors and plain containers. Two other types are allowed: `argparse.Namespace`, which DINO's full checkpoint
    contains, and single numbers of NumPy, which some training scripts save; these become Python numbers.

    Raises:
        UserError: the file is missing, cut short, of another kind, or contains other objects than data.
    """
    path = Path(path)
    kind = _identify_file(path)
    if kind not in (TORCH, SAFETENSORS):
        raise UserError(f"{path}: is {kind}")
    try:
        content = load_file(path) if kind == SAFETENSORS else _load_torch(path)
    except (pickle.UnpicklingError, AttributeError) as error:
        raise UserError(f"{path}: {_explain_refusal(error)}") from error
    except SafetensorError as error:
        raise UserError(f"{path}: {explain_bad_safetensors(path)}") from error
    except Exception as error:  # damaged bytes make the readers raise errors of a dozen types
        if is_out_of_memory(error):
            raise
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise UnreadableFile(f"{path}: cannot be read ({error.strerror}); mend that and start again") from error
        raise UserError(f"{path}: damaged, probably cut short on its way here; fetch it again") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path}: holds a {type(content).__name__} that is no dictionary of named values; "
                        "save a state dict: torch.save(model.state_dict(), FILE)")  # fmt: skip
    return content


def _load_torch(path: Path) -> Any:
    if zipfile.is_zipfile(path):  # torch itself does not compare the checksums: damaged weights would load in silence
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
    # Pass an open file: torch would take a name that ends with .safetensors for a file of that format.
    allowed = torch.serialization.safe_globals([argparse.Namespace, *_NUMPY_NUMBERS])
    with allowed, warnings.catch_warnings(), open(path, "rb") as file:
        warnings.simplefilter("ignore")  # of an unusual pickle: it is either read or refused below
        return torch.load(file, map_location="cpu", weights_only=True)


def _explain_refusal(error: Exception) -> str:
    """Explain why torch refuses a pickle. Its own message is not shown, since it tells how to turn the check off."""
    if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
        fault = f"refused, it holds a Python object ({found[1]}), which could run code"
        return f"{fault}; if you trust it, save its weights alone: torch.save(model.state_dict(), FILE)"
    return "refused, it is no file of torch or is damaged; fetch it again, or save a state dict with torch.save"


class _NumpyType:
    """Replaces `numpy.dtype` in a pickle: stores the name of the type and calls nothing of NumPy."""

    def __init__(self, name: str, *_):
        self.name, self.order = name, "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _numpy_number(kind: Any, content: Any) -> float | int | bool | None:
    """Replace `numpy.core.multiarray.scalar` in a pickle; return the number, or None if it is not a single number."""
    if not isinstance(kind, _NumpyType) or not isinstance(content, bytes):
        return None
    if not re.fullmatch(r"[fiub][1248]", str(kind.name)) or len(content) != int(kind.name[1]):
        return None
    return np.frombuffer(content, f"{kind.order}{kind.name}")[0].item()


# The names that NumPy 1 and 2 write.
_NUMPY_NUMBERS = [
    (_numpy_number, "numpy.core.multiarray.scalar"),
    (_numpy_number, "numpy._core.multiarray.scalar"),
    (_NumpyType, "numpy.dtype"),
]


def load_metadata(path: str | Path, key: str) -> dict[str, Any] | None:
    """Read the JSON mapping under `key` in the header of a safetensors file; None if the file has no such key.

    Raises:
        UserError: the file does not exist, or it or its header is damaged.
    """
    path = Path(path)
    if _identify_file(path) != SAFETENSORS:
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
    """Read a checkpoint of train.py, of utils.export (`blocks` without optimizer state) or of the reference.

    See `load_tensors` for errors.
    """
    content, metadata = load_tensors(path), load_metadata(path, BLOCK_KEY)
    return content if metadata is None else {"blocks": content, **metadata}


def _identify_file(path: Path) -> str:
    """Return `identify_weights` of a file; raise `UserError` if it does not exist or cannot be opened."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the file of weights in it")
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path given for the weights or checkpoint")
    try:
        return identify_weights(path)
    except OSError as error:
        raise UnreadableFile(f"{path}: cannot be read ({error.strerror}); mend that and start again") from error


def save_tensors(path: str | Path, tensors: dict[str, torch.Tensor], *, key: str, metadata: dict[str, Any]) -> None:
    """Write float16 copies of `tensors` as `.safetensors`, with `metadata` as JSON under `key` in its header.

    Raises:
        UserError: no space or no permission; nothing half-written is left behind.
    """
    state = {name: value.detach().cpu().half().contiguous() for name, value in tensors.items()}
    with _explain_failed_write(path), write_atomically(path, durable=True) as temporary:
        save_file(state, temporary, {key: json.dumps(metadata)})


def save_checkpoint(path: str | Path, content: dict[str, Any], *, keep_as: str | None = None) -> None:
    """Write `content` with `torch.save` so that a crash at any moment leaves a whole file behind.

    Args:
        keep_as: name in the same folder for the checkpoint that is replaced.

    Raises:
        UserError: no space or no permission; nothing half-written is left behind.
    """
    with _explain_failed_write(path), write_atomically(path, durable=True, keep_as=keep_as) as temporary:
        torch.save(content, temporary)


@contextmanager
def _explain_failed_write(path: str | Path) -> Iterator[None]:
    """Turn the errors that torch and safetensors raise for a full or read-only disk into one that names `path`."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        detail = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise UserError(f"{path}: cannot be written ({detail}); free space or choose another folder") from error


def hash_file(path: str | Path) -> str:
    """Compute the SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def hash_tensors(state: dict[str, torch.Tensor]) -> str:
    """Compute the SHA-256 of names, shapes and float32 values of a state dict: equal for equal weights in any file."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().float().contiguous()
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def stored_tau(checkpoint: dict[str, Any] | None) -> float | None:
    """Return the clustering threshold that train.py stored with its block, in nats; None if a checkpoint holds none."""
    tau = (checkpoint or {}).get("tau_auto")
    return tau if isinstance(tau, float) and 0 < tau < float("inf") else None
