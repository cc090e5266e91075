"""Run functions in other processes, which end when the work is done, when it fails, and when this process is killed."""

import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import cv2

from utils.errors import UserError
from utils.progress import log_line
from utils.run.signals import block_stop_signals, kill_processes, list_children

FLAG = "--workers"  # of eval.py, utils.scoring and data.sprites: the number of processes


@contextmanager
def run_in_processes(
    work: Callable[..., Any], calls: Sequence[tuple], *, workers: int
) -> Iterator[Iterator[tuple[int, Any]]]:
    """Yield an iterator of (index, `work(*calls[index])`) in the order of completion, computed by several processes.

    Processes are spawned and not forked, since the caller may use threads or a GPU. They import the main program only
    if the work is defined there. Each has one OpenCV thread, since the cores are busy. If the system cannot share work
    between processes, a note says so and this process does it.

    Args:
        workers: processes at most, as `FLAG` sets them; with one, the work is done in this process.

    Raises:
        UserError: a process was killed from outside, usually because memory ran out.
    """
    pool = _open_pool(min(workers, len(calls)))
    if pool is None:
        yield ((index, work(*call)) for index, call in enumerate(calls))
        return
    with end_processes(pool):
        with block_stop_signals(), _hide_main_program(unless_needed_by=(work, calls)):
            futures = {pool.submit(work, *call): index for index, call in enumerate(calls)}
        yield ((futures[future], future.result()) for future in as_completed(futures))


def _open_pool(workers: int) -> ProcessPoolExecutor | None:
    if workers <= 1:
        return None
    try:
        return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
    except (OSError, ImportError, NotImplementedError) as error:  # no semaphores, which lie in /dev/shm on Linux
        reason = getattr(error, "strerror", None) or error
        log_line(f"note: {FLAG}: processes cannot share work here ({reason}; is there a /dev/shm? docker has "
                 "--shm-size); one does it all", all_processes=True)  # fmt: skip
        return None


@contextmanager
def _hide_main_program(*, unless_needed_by: object) -> Iterator[None]:
    """Keep processes that are spawned in this context from importing the main program, which takes seconds for eval.py.

    unless_needed_by: what the processes are sent; if something in it is defined in the main program, they import it.
    """
    main = sys.modules["__main__"]
    if b"__main__" in pickle.dumps(unless_needed_by):
        yield
        return
    known = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None  # multiprocessing finds the main program by these two
    try:
        yield
    finally:
        vars(main).update(known)


@contextmanager
def end_processes(pool: ProcessPoolExecutor) -> Iterator[None]:
    """End the processes of a pool when the context is left; after an error they are killed at once."""
    others = list_children()
    try:
        yield
    except BaseException as error:
        kill_processes(process for process in list_children() if process not in others)
        if isinstance(error, BrokenProcessPool):
            raise UserError(f"{FLAG}: a process that works for this one was ended from outside, mostly for want of "
                            f"memory; lower {FLAG}") from error  # fmt: skip
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    cv2.setNumThreads(1)
    end_with_parent()


def end_with_parent() -> None:
    """End this process when its parent is killed; otherwise it would wait for work for ever."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
