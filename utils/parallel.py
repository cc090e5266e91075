"""Pieces of one computation side by side: on a CPU a thread for each core, each computing on its own.

torch shares every single operation out over the cores and waits for the last of them; where operations are short, much
of the time goes there. Pieces that do not depend on each other need no waiting.
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
    """`[work(piece) for piece in pieces]`, without gradients; several at a time where `device` is the CPU.

    Where one piece fails no other is begun, and its error comes up once none is worked on any more. Within a piece,
    pieces of it are worked on one after the other.
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
        for future in futures:  # left after a fault; Python would work on all of them before it exits
            future.cancel()
        wait(futures)
    return [future.result() for future in futures]


@contextmanager
def use_one_core(device: torch.device) -> Iterator[None]:
    """Within it this thread computes with a single core, where `device` is the CPU.

    For many short operations one after the other, where waiting for other cores takes what these save.
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
    """`count` threads that compute with one core each."""
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
    together.wait(timeout=60)  # so that every thread of the pool gets here
    torch.get_num_threads()  # torch sets a thread up when it is first asked, and would undo the next line later
    torch.set_num_threads(1)  # of this thread, but also the default of threads yet to come: the caller sets it back
    together.wait(timeout=60)


Item = TypeVar("Item")

END = object()


def prefetch(items: Iterable[Item], *, ahead: int = 2) -> Iterator[Item]:
    """Yield `items` in order, up to `ahead` of them made early by a thread; an exception in it comes up here.

    When this generator is closed early, the thread stops after the item it is at.
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
        except BaseException as error:  # handed on, whatever it is
            put((END, error))
        finally:
            if hasattr(items, "close"):
                items.close()  # a generator lets go of its file here, not some day

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
