"""Being asked to stop while a run goes on: by a scheduler that wants its machine back, or from the keyboard."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

REQUEUE = 75  # exit code of a run that was asked to stop and can be continued: EX_TEMPFAIL of sysexits.h
INTERRUPTED = 130
ASKING = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)]


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
def stop_requests() -> Iterator[StopRequest]:
    """Within it SIGTERM, SIGUSR1 and a first SIGINT ask to stop, at a place that suits the program."""
    request = StopRequest()
    before = {number: signal.signal(number, request.note) for number in ASKING}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_to_parent(_worker: int = 0) -> None:
    """In a process that works for another: a signal sent to all of a job is for the parent alone, who ends us."""
    for number in ASKING:
        signal.signal(number, signal.SIG_IGN)
