"""Pieces of one computation side by side: on a CPU a thread for each core, each computing on its own.

torch shares every single operation out over the cores and waits for the last of them; where operations are short, much
of the time goes there. Pieces that do not depend on each other need no waiting.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Piece, Result = TypeVar("Piece"), TypeVar("Result")
_pools: dict[int, ThreadPoolExecutor] = {}


def each(work: Callable[[Piece], Result], pieces: Iterable[Piece], *, device: torch.device) -> list[Result]:
    """`[work(piece) for piece in pieces]`, without gradients; several at a time where `device` is the CPU."""
    count = torch.get_num_threads()
    if device.type != "cpu" or count == 1:
        with torch.no_grad():
            return [work(piece) for piece in pieces]
    return list(_pool(count).map(work, pieces))


def _pool(count: int) -> ThreadPoolExecutor:
    """`count` threads that compute with one core each."""
    if count not in _pools:
        all_there = threading.Barrier(count + 1)

        def start(_: int) -> None:
            torch.set_num_threads(1)  # of this thread only, but also the default of threads yet to come
            torch.set_grad_enabled(False)
            all_there.wait()

        pool = _pools[count] = ThreadPoolExecutor(count, thread_name_prefix="piece")
        started = [pool.submit(start, index) for index in range(count)]
        all_there.wait()
        for future in started:
            future.result()
        torch.set_num_threads(count)
    return _pools[count]
