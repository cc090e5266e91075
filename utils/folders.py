"""Folders that a user names for what is written."""

import tempfile
from pathlib import Path

from utils.errors import UserError


def check_writable(folder: Path, *, flag: str) -> None:
    """Refuse a folder in which nothing can be written. It need not be there yet; nothing is left behind.

    Trying says more than asking for permissions, which root always has, on a file system that is read-only too.

    Raises:
        UserError: naming `flag`, the option that gave the folder.
    """
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"{flag} {folder}: cannot be written ({error.strerror}); choose another folder") from None
