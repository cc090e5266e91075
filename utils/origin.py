"""Where a file came from: the command, the code, the libraries, the data."""

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision

REPOSITORY = Path(__file__).resolve().parent.parent


def origin() -> dict[str, Any]:
    """Plain values for a checkpoint: `command`, `git` (revision, "+" where files differ from it; None outside one) and
    `versions`."""
    return {"command": list(sys.argv), "git": git_revision(), "versions": versions()}


def versions() -> dict[str, str]:
    """Of Python and of the libraries that numbers depend on."""
    libraries = {module.__name__: str(module.__version__) for module in (torch, torchvision, timm, np)}
    return {"python": platform.python_version(), **libraries}


def git_revision() -> str | None:
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


def fingerprint(videos: dict[str, list[Path]]) -> str:
    """SHA-256 over the names of videos and their frames: 64 hexadecimal digits. Contents are not read."""
    digest = hashlib.sha256()
    for name in sorted(videos):
        names = (name, *(frame.name for frame in videos[name]))
        digest.update(b"".join(os.fsencode(name) + b"\0" for name in names) + b"\0")
    return digest.hexdigest()
