"""Handle signals that ask a program to stop, from a scheduler or the keyboard, and end its child processes."""

import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # every program imports this module first, so it must be quick to import
    from multiprocessing.process import BaseProcess

# How the loader of shared libraries says that memory is too small.
NO_ROOM = re.compile("failed to map segment|cannot allocate memory", re.IGNORECASE)
REQUEUE = 75  # exit code of a run that was asked to stop and can be resumed: EX_TEMPFAIL of sysexits.h
INTERRUPTED = 130
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)]
SECONDS_TO_DIE = 5.0  # how long to wait for a killed process; one that waits for a file server takes time to end


class StopRequest:
    """Records whether a signal asked to stop. `exit_code` is 0 until then, afterwards the code to exit with."""

    def __init__(self) -> None:
        self.exit_code = 0

    def record(self, number: int, _frame: object) -> None:
        """Signal handler: record the request; a second Ctrl-C interrupts at once."""
        if number == signal.SIGINT and self.exit_code:
            raise KeyboardInterrupt
        self.exit_code = INTERRUPTED if number == signal.SIGINT else REQUEUE


@contextmanager
def catch_stop_signals() -> Iterator[StopRequest]:
    """Turn SIGTERM, SIGUSR1 and the first SIGINT into a request, which the program reads when it can stop."""
    request = StopRequest()
    before = {number: signal.signal(number, request.record) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def guard_imports() -> None:
    """Let Ctrl-C, and too little memory for the libraries, end the program with one line while it imports.

    Python's own KeyboardInterrupt would print a traceback, or the module that is being imported would turn it into
    another error. A signal that is ignored, as in a background job, stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit_at_once)
    sys.excepthook = _explain_exception


def _explain_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an exception that no program handled: one line if a library did not fit memory, else the traceback."""
    if issubclass(kind, MemoryError) or (issubclass(kind, ImportError) and NO_ROOM.search(str(error))):
        print("error: out of memory while libraries were loaded; raise the limit (ulimit -v)", file=sys.stderr)
        os._exit(2)
    sys.__excepthook__(kind, error, trace)


@contextmanager
def raise_on_interrupt() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt inside the context, in place of `guard_imports`."""
    at_once = signal.getsignal(signal.SIGINT) is _exit_at_once
    if at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if at_once:
            signal.signal(signal.SIGINT, _exit_at_once)


def _exit_at_once(_number: int, _frame: object) -> None:
    """Signal handler for times at which no file is being written."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


# ------------------------------------------------------------------ child processes


def ignore_stop_signals(_worker: int = 0) -> None:
    """Ignore signals that ask to stop, in a child process: its parent handles them and ends it."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def block_stop_signals() -> Iterator[None]:
    """Block signals that ask to stop in the processes started inside the context, also while they import."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def list_children() -> "list[BaseProcess]":
    """List the living child processes that multiprocessing started."""
    import multiprocessing

    return multiprocessing.active_children()


def kill_processes(processes: "Iterable[BaseProcess]") -> None:
    """Kill processes that are no longer needed.

    `terminate` has no effect on processes that ignore signals, and Python would wait for them for ever at its exit.
    """
    processes = list(processes)
    watched = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if watched else None  # torch's handler raises an error
    for process in processes:
        process.kill()
    for process in processes:
        process.join(SECONDS_TO_DIE)
    if handler is not None:
        signal.signal(signal.SIGCHLD, handler)
