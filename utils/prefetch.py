"""Reading ahead: the next items are made while the present one is worked on."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

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
