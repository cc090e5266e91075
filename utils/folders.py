"""Folders that a user names for what is written."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from utils.errors import UserError

LOCK = ".lock"


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


@contextmanager
def held(folder: Path, *, flag: str) -> Iterator[None]:
    """Make a folder and keep it to this process; the system lets go of it however the process ends.

    The lock's file goes in the end, and so does the folder where it was made here and nothing was written to it.

    A lock of the process (POSIX), which children do not inherit; where the system has none, nobody is refused.

    Raises:
        UserError: another process holds it; names `flag`, the option that gave the folder.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, flag=flag) as handle:
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        handle.flush()
        try:
            yield
        finally:
            with suppress(OSError):  # gone already, or of other files
                (folder / LOCK).unlink()
                if made:
                    folder.rmdir()


def _locked(folder: Path, *, flag: str) -> IO[str]:
    """The lock's file of a folder, open and locked."""
    while True:
        handle = open(folder / LOCK, "a+")  # noqa: SIM115, the caller closes it
        try:
            import fcntl

            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            with handle:
                handle.seek(0)
                holder = handle.read().strip() or "a process"
            raise UserError(
                f"{flag} {folder}: another run writes there ({holder}); wait for it, end it, or choose another folder"
            ) from None
        except (ImportError, OSError):
            return handle
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle.fileno()), os.stat(folder / LOCK)):
                return handle
        handle.close()  # its holder took the file away between our opening and our locking it
