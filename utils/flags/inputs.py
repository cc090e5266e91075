"""Refuse files and folders that the command line names and that do not exist, before any library is loaded."""

import difflib
import os
from argparse import Namespace
from pathlib import Path

from utils.errors import UserError
from utils.flags.choices import AUTO

# Options that name a file or folder to read.
OPTIONS = ("basepath", "davis_path", "dino_path", "resume_path", "init_path", "flow_path", "annotations", "predictions")
WORDS = {"resume_path": (AUTO, "embedded"), "init_path": ("embedded",)}  # that options take in place of a path


def check_inputs(args: Namespace) -> None:
    """Refuse an option whose file or folder does not exist.

    Raises:
        UserError: it names the option.
    """
    for name in OPTIONS:
        value = getattr(args, name, None)
        if value is None or value in WORDS.get(name, ()) or (name == "basepath" and args.dataset == "sprites"):
            continue  # Sprites are generated into a new --basepath
        if is_missing(Path(value)):
            raise UserError(f"--{name} {value}: no such file or folder{suggest_similar(Path(value))}")
    listed, root = getattr(args, "train_list", None), args.basepath
    if listed and root and Path(root).is_dir() and is_missing(Path(root) / listed):
        raise UserError(f"--train_list {listed}: no such file below {root}")


def is_missing(path: Path) -> bool:
    """Tell whether there is no such file or folder; what cannot be looked at, as in a closed folder, may be there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def suggest_similar(missing: Path) -> str:
    """Suggest the file or folder beside a missing one that has the most similar name: the end of an error message."""
    try:
        names = os.listdir(missing.parent)
    except OSError:
        return "; check the path"
    close = difflib.get_close_matches(missing.name, names, n=1)
    return f"; did you mean {missing.parent / close[0]}?" if close else "; check the path"
