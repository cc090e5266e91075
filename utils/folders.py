"""Folders that a user names for what is written."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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

    Where nothing was written there in the end, as by a run that failed, it goes again.

    A lock of the process (POSIX), which children do not inherit; where the system has none, nobody is refused.

    Raises:
        UserError: another process holds it; names `flag`, the option that gave the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a+") as handle:
        try:
            import fcntl

            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            handle.seek(0)
            raise UserError(
                f"{flag} {folder}: another run writes there ({handle.read().strip() or 'a process'}); wait for it, end "
                "it, or choose another folder"
            ) from None
        except (ImportError, OSError):
            pass
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        handle.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                if [path.name for path in folder.iterdir()] == [LOCK]:
                    (folder / LOCK).unlink()
                    folder.rmdir()
