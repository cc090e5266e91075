"""Where a file came from: the command, the code, the libraries, the data."""

import hashlib
import importlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from utils.files import file_version

REPOSITORY = Path(__file__).resolve().parents[2]
# What numbers depend on: the library's name, and that of its module.
SCORING = {"numpy": "numpy", "opencv": "cv2", "scipy": "scipy"}
LIBRARIES = {**SCORING, "pillow": "PIL", "torch": "torch", "torchvision": "torchvision", "timm": "timm"}


def describe_origin() -> dict[str, Any]:
    """Plain values for a checkpoint: `command`, `git` (revision, "+" where files differ from it; None outside one) and
    `list_versions`."""
    return {"command": list(sys.argv), "git": read_git_revision(), "versions": list_versions()}


def list_versions(libraries: dict[str, str] = LIBRARIES) -> dict[str, str]:
    """Of Python and of libraries; none is imported but those that are asked for, since scoring does without torch."""
    found = {name: str(importlib.import_module(module).__version__) for name, module in libraries.items()}
    return {"python": platform.python_version(), **found}


def read_git_revision() -> str | None:
    """The revision checked out here, with "+" where tracked files differ from it; None without git."""
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
    """SHA-256 over the names of videos and their frames, and sizes and times: 64 hexadecimal digits.

    Contents are not read: there may be millions.
    """
    digest = hashlib.sha256()
    for name in sorted(videos):
        names = (name, *(f"{frame.name}\0{file_version(frame)}" for frame in videos[name]))
        digest.update(b"".join(os.fsencode(name) + b"\0" for name in names) + b"\0")
    return digest.hexdigest()
