"""Compute independent pieces in parallel on a CPU, one thread per core; make items ahead of their use in a thread.

torch splits every single operation over the cores and waits for the slowest of them, which takes most of the time of
short operations. Independent pieces, each computed by one core, need no waiting.
"""

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

Piece, Result = TypeVar("Piece"), TypeVar("Result")
_pools: dict[int, ThreadPoolExecutor] = {}
_making = threading.Lock()
if hasattr(os, "register_at_fork"):  # where processes can fork; threads do not live on in the new one
    os.register_at_fork(after_in_child=_pools.clear)


def map_parallel(work: Callable[[Piece], Result], pieces: Iterable[Piece], *, device: torch.device) -> list[Result]:
    """Return `[work(piece) for piece in pieces]`, computed without gradients; in parallel if `device` is the CPU.

    If a piece fails, no further piece is started, and its error is raised after the running pieces have ended. A call
    inside `work` computes its pieces one after the other.
    """
    count, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()

    def run(piece: Piece) -> Result:
        with torch.inference_mode() if inference else torch.no_grad():
            return work(piece)

    if device.type != "cpu" or count == 1:
        return [run(piece) for piece in pieces]
    futures = [_pool(count).submit(run, piece) for piece in pieces]
    try:
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        for future in futures:  # after an error; Python would compute all of them before it exits
            future.cancel()
        wait(futures)
    return [future.result() for future in futures]


@contextmanager
def use_one_core(device: torch.device) -> Iterator[None]:
    """Let this thread compute with a single core inside the context, if `device` is the CPU.

    For sequences of many short operations, where waiting for other cores takes more time than they save.
    """
    count = torch.get_num_threads()
    if device.type != "cpu" or count == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


def _pool(count: int) -> ThreadPoolExecutor:
    """Return the pool of `count` threads that compute with one core each."""
    with _making:
        if count not in _pools:
            pool = ThreadPoolExecutor(count, thread_name_prefix="piece")
            together = threading.Barrier(count)
            for future in [pool.submit(_limit_pool_thread, together) for _ in range(count)]:
                future.result()
            torch.set_num_threads(count)
            _pools[count] = pool
    return _pools[count]


def _limit_pool_thread(together: threading.Barrier) -> None:
    together.wait(timeout=60)  # so that every thread of the pool runs this function once
    torch.get_num_threads()  # torch initialises a thread at its first call, which would undo the next line later
    torch.set_num_threads(1)  # also changes the default of new threads, which the caller restores
    together.wait(timeout=60)


Item = TypeVar("Item")

END = object()


def prefetch(items: Iterable[Item], *, ahead: int = 2) -> Iterator[Item]:
    """Yield `items` in order while a thread makes up to `ahead` of them in advance; its exceptions are raised here.

    If this generator is closed early, the thread stops after its current item.
    """
    ready: queue.Queue = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(entry: tuple) -> bool:
        while not stop.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((END, None))
        except BaseException as error:  # raised again in the thread that uses the items
            put((END, error))
        finally:
            if hasattr(items, "close"):
                items.close()  # so that a generator closes its file now and not when it is collected

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is END:
                return
            yield item
    finally:
        stop.set()
        thread.join()
