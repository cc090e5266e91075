"""Pieces of one computation side by side: on a CPU a thread for each core, each computing on its own.

torch shares every single operation out over the cores and waits for the last of them; where operations are short, much
of the time goes there. Pieces that do not depend on each other need no waiting.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Piece, Result = TypeVar("Piece"), TypeVar("Result")
_pools: dict[int, ThreadPoolExecutor] = {}
_making = threading.Lock()
if hasattr(os, "register_at_fork"):  # where processes can fork; threads do not live on in the new one
    os.register_at_fork(after_in_child=_pools.clear)


def each(work: Callable[[Piece], Result], pieces: Iterable[Piece], *, device: torch.device) -> list[Result]:
    """`[work(piece) for piece in pieces]`, without gradients; several at a time where `device` is the CPU.

    Where one piece fails, its error comes up once none is worked on any more. Within a piece, pieces of it are worked
    on one after the other.
    """
    run = _without_gradients(work)
    if (pool := _pool(device)) is None:
        return [run(piece) for piece in pieces]
    futures = [pool.submit(run, piece) for piece in pieces]
    wait(futures)
    return [future.result() for future in futures]


def on_one_core(work: Callable[[], Result], *, device: torch.device) -> Result:
    """`work()`, without gradients, by a single core where `device` is the CPU.

    For many short operations one after the other, where waiting for other cores takes what these save.
    """
    (result,) = each(lambda _: work(), [None], device=device)
    return result


def ahead(
    work: Callable[[Piece], Result], pieces: Iterable[Piece], *, device: torch.device, at_once: int
) -> Iterator[Result]:
    """Yield `work(piece)` of each piece in order, without gradients; where `device` is the CPU, of `at_once` pieces
    that are worked on, wait or are done while the one before them is used.

    Pieces are asked for as they are needed. When one fails, or this generator is closed early, no other is begun.
    """
    run = _without_gradients(work)
    if (pool := _pool(device)) is None:
        yield from map(run, pieces)
        return
    begun: deque[Future] = deque()
    try:
        for piece in pieces:
            begun.append(pool.submit(run, piece))
            if len(begun) == at_once:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()
        wait(begun)


def _without_gradients(work: Callable[[Piece], Result]) -> Callable[[Piece], Result]:
    """`work` in inference mode where the caller is, which threads do not take over."""
    inference = torch.is_inference_mode_enabled()

    def run(piece: Piece) -> Result:
        with torch.inference_mode() if inference else torch.no_grad():
            return work(piece)

    return run


def _pool(device: torch.device) -> ThreadPoolExecutor | None:
    """As many threads as torch has, that compute with one core each; None where it has but one, or on a GPU."""
    count = torch.get_num_threads()
    if device.type != "cpu" or count == 1:
        return None
    with _making:
        if count not in _pools:
            pool = ThreadPoolExecutor(count, thread_name_prefix="piece")
            together = threading.Barrier(count)
            for future in [pool.submit(_use_one_core, together) for _ in range(count)]:
                future.result()
            torch.set_num_threads(count)
            _pools[count] = pool
    return _pools[count]


def _use_one_core(together: threading.Barrier) -> None:
    together.wait(timeout=60)  # so that every thread of the pool gets here
    torch.get_num_threads()  # torch sets a thread up when it is first asked, and would undo the next line later
    torch.set_num_threads(1)  # of this thread, but also the default of threads yet to come: the caller sets it back
    together.wait(timeout=60)
