"""Being asked to stop, by a scheduler that wants its machine back or from the keyboard; ending processes that help."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # every program imports this module first, and what takes time after it
    from multiprocessing.process import BaseProcess

REQUEUE = 75  # exit code of a run that was asked to stop and can be continued: EX_TEMPFAIL of sysexits.h
INTERRUPTED = 130
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)]
SECONDS_TO_DIE = 5.0  # that a killed process may take, such as one that waits for a file server


class StopRequest:
    """`exit_code`: 0 until a signal asks to stop, then the code to exit with."""

    def __init__(self) -> None:
        self.exit_code = 0

    def note(self, number: int, _frame: object) -> None:
        """Signal handler: take note once; a second Ctrl-C interrupts at once."""
        if number == signal.SIGINT and self.exit_code:
            raise KeyboardInterrupt
        self.exit_code = INTERRUPTED if number == signal.SIGINT else REQUEUE


@contextmanager
def catch_stop_signals() -> Iterator[StopRequest]:
    """Within it SIGTERM, SIGUSR1 and a first SIGINT ask to stop, at a place that suits the program."""
    request = StopRequest()
    before = {number: signal.signal(number, request.note) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_on_interrupt() -> None:
    """From now on Ctrl-C ends the program with one word. For the imports of a program, which take seconds.

    Python's own KeyboardInterrupt would print a traceback, or be turned into another error by the module that is being
    imported. Where the signal is ignored, as of a job in the background, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit_at_once)


@contextmanager
def raise_on_interrupt() -> Iterator[None]:
    """Within it Ctrl-C raises KeyboardInterrupt, where before and after it ends the program (`exit_on_interrupt`)."""
    at_once = signal.getsignal(signal.SIGINT) is _exit_at_once
    if at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if at_once:
            signal.signal(signal.SIGINT, _exit_at_once)


def _exit_at_once(_number: int, _frame: object) -> None:
    """Signal handler: nothing is written yet, or any more, that would have to be finished."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


# ------------------------------------------------------------------ processes that work for this one


def ignore_stop_signals(_worker: int = 0) -> None:
    """In a process that works for another: a signal sent to all of a job is for the parent alone, who ends us."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def block_stop_signals() -> Iterator[None]:
    """Processes started within it never get a signal that asks to stop, not even while they import."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def list_children() -> "list[BaseProcess]":
    """Those of multiprocessing that are alive."""
    import multiprocessing

    return multiprocessing.active_children()


def kill_processes(processes: "Iterable[BaseProcess]") -> None:
    """End processes that are not needed any more at once; asking them to (`terminate`) is of no use where they ignore
    signals, and Python waits for such a one for ever when it exits."""
    processes = list(processes)
    watched = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if watched else None  # torch's raises an error
    for process in processes:
        process.kill()
    for process in processes:
        process.join(SECONDS_TO_DIE)
    if handler is not None:
        signal.signal(signal.SIGCHLD, handler)
