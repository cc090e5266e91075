"""Record where a file came from: command, code revision, versions of libraries, data."""

import hashlib
import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from utils.files import file_version

REPOSITORY = Path(__file__).resolve().parents[2]
# Libraries that results depend on: name -> module.
SCORING = {"numpy": "numpy", "opencv": "cv2", "scipy": "scipy"}
SEGMENTING = {**SCORING, "pillow": "PIL", "torch": "torch", "timm": "timm"}
LIBRARIES = {**SEGMENTING, "torchvision": "torchvision"}  # for training


def describe_origin() -> dict[str, Any]:
    """Return `command`, `git` (see `read_git_revision`) and `versions` as plain values for a checkpoint."""
    return {"command": list(sys.argv), "git": read_git_revision(), "versions": list_versions()}


def list_versions(libraries: dict[str, str] = LIBRARIES) -> dict[str, str]:
    """Return the versions of Python and of `libraries`. No others are imported, since scoring does not need torch."""
    found = {name: _find_version(name, module) for name, module in libraries.items()}
    return {"python": platform.python_version(), **found}


def _find_version(name: str, module: str) -> str:
    """Find the version of a library, if possible without importing it."""
    if module not in sys.modules:
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return str(importlib.import_module(module).__version__)


def read_git_revision() -> str | None:
    """Return the revision that is checked out, with "+" if tracked files were changed; None without git."""
    try:
        ask = ["git", "-C", str(REPOSITORY)]
        run = {"capture_output": True, "text": True, "timeout": 20, "check": True}
        top, revision = subprocess.run([*ask, "rev-parse", "--show-toplevel", "HEAD"], **run).stdout.splitlines()
        if Path(top).resolve() != REPOSITORY:
            return None  # this is a copy inside another repository
        changed = subprocess.run([*ask, "status", "--porcelain", "--untracked-files=no"], **run).stdout.strip()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return revision + ("+" if changed else "")


def hash_videos(videos: dict[str, list[Path]]) -> str:
    """Compute the SHA-256 of the names of videos and frames, and of the frames' sizes and times of change.

    Contents are not read, since there may be millions of frames. Returns 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(videos):
        names = (name, *(f"{frame.name}\0{file_version(frame)}" for frame in videos[name]))
        digest.update(b"".join(os.fsencode(name) + b"\0" for name in names) + b"\0")
    return digest.hexdigest()
