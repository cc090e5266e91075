"""Files and folders on disk: hashes, locks, JSON, and writing that never leaves half a file."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from utils.errors import UserError

CHUNK = 2**20  # bytes read at once
LOCK = ".lock"  # name of the lock file in a folder
LOCK_SECONDS = 0.5  # wait that long for a lock: whoever held it may be removing its file at this moment
# What a file system without locks answers.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def digest_files(paths: Iterable[Path], *settings: object) -> str:
    """Hash the names and bytes of files, and the settings that they are read with. A missing file changes the hash.

    Reading costs about a second per GB on one core; all of DAVIS-2017's validation frames take a fifth of a second.
    Bytes are hashed, not times and sizes: a copied dataset keeps its hash, and a frame replaced by another changes it.
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
    """Describe the version of a file without reading it: size, both times of change in nanoseconds, inode.

    For files that are too many to read at every start. The second time (ctime) is set by the system and no program can
    set it back. Returns "gone" for a missing file, such as a broken link; reading it later raises the error.
    """
    try:
        about = path.stat()
    except OSError:
        return "gone"
    return f"{about.st_size} {about.st_mtime_ns} {about.st_ctime_ns} {about.st_ino}"


def check_writable(folder: Path, *, flag: str) -> None:
    """Refuse a folder in which no file can be created. The folder need not exist yet; nothing is left behind.

    A temporary file is created, since permissions say too little: root has all of them on a read-only disk too.

    Raises:
        UserError: naming `flag`, the option that gave the folder.
    """
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"{flag} {folder}: cannot be written ({error.strerror}); choose another folder") from None


@contextmanager
def lock_folder(folder: Path, *, flag: str, wait: bool = False) -> Iterator[None]:
    """Create a folder and lock it for this process; the system releases the lock however the process ends.

    The lock file is removed afterwards, and so is the folder if it was created here and is still empty. On a file
    system without locks nobody is refused.

    Args:
        flag: the option that gave the folder, for the error message.
        wait: wait until no other process holds the lock, instead of raising an error.

    Raises:
        UserError: another process holds the lock; names it and `flag`.
    """
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock_file = folder / LOCK
    # No soft lock in place of a missing one: it would outlive a process that is killed.
    lock = FileLock(lock_file, timeout=-1 if wait else LOCK_SECONDS, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        holder = _read_holder(lock_file)
        raise UserError(
            f"{flag} {folder}: another run writes there ({holder}); wait for it, end it, or choose another folder"
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        lock_file.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        with suppress(OSError):  # somebody removed the file, or the folder holds other files
            lock_file.unlink()
            if created:
                folder.rmdir()
        lock.release()


def _read_holder(lock_file: Path) -> str:
    """Read which process holds a lock; it may not have written its name yet."""
    with suppress(OSError):
        if holder := lock_file.read_text().strip():
            return holder
    return "a process"


def read_object(path: Path, *, mend: str) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        mend: what the user can do about a damaged file, such as "download it again"; ends the message.

    Raises:
        UserError: the file is not JSON, is nested too deeply to read, or holds a list or a single value.
    """
    try:
        content = json.loads(path.read_bytes())  # from bytes, json understands a byte order mark
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); {mend}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__} and no JSON object; {mend}")
    return content


def write_object(path: Path, content: dict[str, Any]) -> None:
    """Write one JSON object, indented, by `write_atomically`."""
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@contextmanager
def write_atomically(path: str | os.PathLike, *, durable: bool = False, keep_as: str | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; rename it to `path` on success, remove it on an error.

    A reader sees the old file or the whole new one, never a part. Missing folders are created.

    Args:
        durable: flush the file and its rename to the disk, so that a power failure does not lose it. Takes
            milliseconds, so it is for checkpoints and logs and not for every mask.
        keep_as: new name, in the same folder, of the file that is replaced. There is a whole file at every moment.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path)
    try:
        yield temporary
        if durable:
            _flush_file(temporary)
        if keep_as is not None and path.is_file():
            _give_second_name(path, path.with_name(keep_as))
        os.replace(temporary, path)
        if durable:
            _flush_folder(path.parent)
    finally:
        with suppress(OSError):  # an error of this line would hide the one that matters
            temporary.unlink(missing_ok=True)


def refuse_existing(path: Path, *, flag: str) -> None:
    """Refuse an output that exists already, so that nothing is overwritten.

    Raises:
        UserError: naming `flag`, the option that gave the path.
    """
    if os.path.lexists(path):
        raise UserError(f"{flag} {path}: exists already; choose another or remove it")


@contextmanager
def create_folder(path: str | os.PathLike, *, flag: str) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` on success, remove it with its files on an error.

    Missing parents are created.

    Args:
        flag: the option that gave the path, for the error message.

    Raises:
        UserError: `path` exists.
    """
    path = Path(path)
    refuse_existing(path, flag=flag)
    temporary = _temporary_name(path.absolute())  # absolute, so that a path such as `..` has a name
    temporary.mkdir(parents=True)
    try:
        yield temporary
        refuse_existing(path, flag=flag)  # another program may have made it meanwhile
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write to, which takes the place of `folder` on success and is removed on an error."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def find_leftovers(path: str | os.PathLike) -> list[Path]:
    """List the temporary files of `write_atomically(path)`, left by killed processes or in use by running ones."""
    path = Path(path)
    names = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]+\.partial")
    return [p for p in path.parent.iterdir() if names.fullmatch(p.name)] if path.parent.is_dir() else []


def _temporary_name(path: Path) -> Path:
    """Name a temporary file beside `path`; random, since several machines may write to one folder."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _give_second_name(path: Path, other: Path) -> None:
    """Make `other` a second name of the file `path`, in place of the file that has it."""
    temporary = _temporary_name(other)
    link_or_copy(path, temporary)
    os.replace(temporary, other)


def link_or_copy(path: Path, other: Path) -> None:
    """Make `other`, which does not exist yet, a second name of the file `path`, or a copy where that is impossible."""
    try:
        os.link(path, other)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(path, other)


def _flush_file(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
