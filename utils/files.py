"""What says that a file is still the one it was."""

import hashlib
import json
import os
import re
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from utils.errors import UserError

CHUNK = 2**20  # bytes read at once


def digest_files(paths: Iterable[Path], *settings: object) -> str:
    """Hash of the names and bytes of files, and of the settings they are read with. A missing file counts as such.

    About 1 GB/s on one core: all of DAVIS-2017's validation frames take a fifth of a second, and a copy of a data set
    is known as the same. Time of change and size would not tell a frame that was put in another's place.
    """
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
    for path in paths:
        if not path.is_file():
            digest.update(f"{path.name}:7:missing".encode())
            continue
        digest.update(f"{path.name}:{path.stat().st_size}:".encode())
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def file_version(path: Path) -> str:
    """What changes with a file without its being read: size, times of change in nanoseconds, place on the disk.

    For files whose bytes are too many to read at each start. The second time is the system's own, which no program
    sets back. Of a file that is not there, such as a link to nothing, reading it will tell.
    """
    try:
        about = path.stat()
    except OSError:
        return "gone"
    return f"{about.st_size} {about.st_mtime_ns} {about.st_ctime_ns} {about.st_ino}"


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


def read_object(path: Path, *, mend: str) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        mend: what the user can do where the file is damaged, such as "download it again"; ends the message.

    Raises:
        UserError: not JSON, nested too deeply to read, or a list or a single value.
    """
    try:
        content = json.loads(path.read_bytes())  # of bytes: a byte order mark is understood
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); {mend}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__} and no JSON object; {mend}")
    return content


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it becomes `path` in one step, on failure it goes.

    A reader therefore sees the old file or the whole new one, never a part. The folder is made if need be.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def leftovers(path: str | os.PathLike) -> list[Path]:
    """The temporary files of `replacing(path)`: of processes killed in the midst of it, or at it now."""
    path = Path(path)
    names = re.compile(rf"\.{re.escape(path.name)}\.\d+\.tmp")
    return [p for p in path.parent.iterdir() if names.fullmatch(p.name)] if path.parent.is_dir() else []
