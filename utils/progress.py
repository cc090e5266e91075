"""Show progress: bars over the frames of all videos and over the steps of a run, and lines printed above them."""

import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from tqdm import tqdm

from utils import distributed

Item = TypeVar("Item")
# Called with the name of a stage, how many of its parts are done, and how many there are.
StageProgress = Callable[[str, int, int], None]
# Rough share of a video's time that each stage takes; only used to estimate the time left.
STAGES = {"features": 0.5, "clustering": 0.25, "labels": 0.05, "objects": 0.1, "writing": 0.1}
LOG_INTERVAL = 10  # seconds between lines where stderr is no terminal, in which each update would be a line


class FrameBar:
    """A progress bar over the frames of all videos. A frame counts by the `STAGES` that it has passed.

    bar.start("bear", 82)
    bar("features", 40)     # the features of 40 frames of the video are computed

    Args:
        lengths: number of frames of each video.
        shown: False for all processes but the main one.
    """

    def __init__(self, lengths: Sequence[int], *, shown: bool = True):
        self.bar = open_bar(
            total=sum(lengths), disable=not (shown and lengths), smoothing=0,
            bar_format="segmenting{desc} {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} frames [{elapsed}<{remaining}]",
        )  # fmt: skip
        self.videos = len(lengths)
        self.done = 0  # videos
        self.before = 0  # frames of them
        self.name, self.length, self.stage = "", 0, ""
        self.interval = 0 if sys.stderr.isatty() else LOG_INTERVAL  # seconds between new stages that are shown
        self.due = 0.0  # when the next one may be; the first one is at once, so that a log tells early what goes on

    def start(self, name: str, length: int) -> None:
        """Begin the next video, `length` frames long."""
        self.finish()
        self.name, self.length, self.stage = name, length, ""
        self.done += 1

    def __call__(self, stage: str, frames: int) -> None:
        """Report that `frames` frames of the video have passed a stage. A stage may start again from 0."""
        stages = list(STAGES)
        earlier = sum(STAGES[name] for name in stages[: stages.index(stage)])
        now = self.before + self.length * earlier + frames * STAGES[stage]
        number = f" {self.done}/{self.videos}" if self.videos > 1 else ""
        self.bar.set_description_str(f"{number} {self.name}: {stage} {frames}/{self.length}", refresh=False)
        if self.bar.update(max(now - self.bar.n, 0)):
            self._put_off()
        if stage != self.stage and time.perf_counter() >= self.due:
            self.bar.refresh()
            self._put_off()
        self.stage = stage

    def _put_off(self) -> None:
        """Show no new stage before the next interval, if the bar is a log."""
        self.due = time.perf_counter() + self.interval

    def finish(self) -> None:
        """Report that the video is finished."""
        self.before += self.length
        self.bar.update(max(self.before - self.bar.n, 0))
        self.length = 0

    def __enter__(self) -> "FrameBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()
        self.bar.close()


class StepBar:
    """A progress bar over the steps of a training run, with the time left.

    with StepBar(100, first=0, pause_every=50) as bar:
        with bar.pause("monitor") as progress:   # is not counted as time of steps
            progress("clusters", 3, 8)           # 3 of 8 parts of the stage are done
        bar.count()                              # a step is done
        bar.show("loss 0.53")

    Args:
        first: number of steps done before.
        pause_every: steps between pauses, with one more after the last step; 0 for none. The time left includes the
            pauses to come, each as long as the last one.
    """

    def __init__(self, total: int, *, first: int, pause_every: int):
        self.bar = open_bar(
            total=total, initial=first, disable=not shows_bars(), miniters=1,
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps{desc}",
        )  # fmt: skip
        self.interval = self.bar.mininterval if shows_bars() else LOG_INTERVAL
        self.total, self.first, self.done, self.pause_every = total, first, first, pause_every
        self.step_seconds = self.pause_seconds = 0.0  # of all steps; of the last pause
        self.start = self.mark = time.perf_counter()
        self.pause_start: float | None = None  # of a pause that goes on
        self.note = ""

    def count(self) -> None:
        """Report that a step is done."""
        self._count_time()
        self.done += 1
        self._describe(self.note)
        self.bar.update()

    def show(self, note: str) -> None:
        """Show a note, such as losses, beside the bar until the next one."""
        self.note = note
        self._describe(note)

    @contextmanager
    def pause(self, reason: str) -> Iterator[StageProgress]:
        """Show a reason why no steps are done, with the stages reported to what is yielded and the time left of each.

        Time inside the context is not counted as time of steps.
        """
        self._count_time()
        self.pause_start = shown = self.mark
        stage_began: dict[str, float] = {}

        def progress(stage: str, done: int, total: int) -> None:
            nonlocal shown
            now = time.perf_counter()
            seconds = now - stage_began.setdefault(stage, now)
            left = f", {tqdm.format_interval(seconds / done * (total - done))} left" if done else ""
            self._describe(f"{reason}: {stage} {done}/{total}{left}")
            if done == 0 or now - shown >= self.interval:
                self.bar.refresh()
                shown = now

        try:
            yield progress
        finally:
            self.mark = time.perf_counter()
            self.pause_seconds = self.mark - self.pause_start
            self.pause_start = None
            self._describe(self.note)

    def seconds_left(self) -> float | None:
        """Estimate the time of the steps and pauses to come; None before the first step."""
        steps = self.done - self.first
        if not steps:
            return None
        left = (self.total - self.done) * self.step_seconds / steps + self._count_pauses() * self.pause_seconds
        if self.pause_start is not None:
            left += max(self.pause_start + self.pause_seconds - time.perf_counter(), 0.0)
        return left

    def _count_pauses(self) -> int:
        if not self.pause_every or self.done == self.total:
            return 0
        return -(-self.total // self.pause_every) - self.done // self.pause_every

    def _count_time(self) -> None:
        """Count the time since the last mark as time of steps."""
        now = time.perf_counter()
        self.step_seconds += now - self.mark
        self.mark = now

    def _describe(self, what: str) -> None:
        left = self.seconds_left()
        times = [tqdm.format_interval(time.perf_counter() - self.start)]
        times.append("?" if left is None else tqdm.format_interval(left))
        self.bar.set_description_str(f" [{'<'.join(times)}] {what}", refresh=False)

    def __enter__(self) -> "StepBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()


def ignore_progress(stage: str, done: int, total: int) -> None:
    """Do nothing: the `StageProgress` of callers that show none."""


def open_bar(items: Iterable[Item] | None = None, **options: Any) -> tqdm:
    """Open a progress bar on stderr. Where that is no terminal, every update is a line, `LOG_INTERVAL` apart.

    Bars that are of no use in a log take `disable=None` of tqdm instead.

    Args:
        items, options: as of tqdm.
    """
    if sys.stderr.isatty():
        return tqdm(items, **options)
    # With any delay, tqdm draws no bar when it is opened, before there is anything to tell.
    options |= {"mininterval": LOG_INTERVAL, "maxinterval": LOG_INTERVAL, "delay": 1e-9}
    return tqdm(items, file=_LineWriter(), **options)


class _LineWriter:
    """Write what tqdm draws over its last update as lines; one that differs in its times alone is left out."""

    def __init__(self) -> None:
        self.encoding = sys.stderr.encoding  # by which tqdm chooses the characters of its bar
        self.last = ""

    def write(self, text: str) -> None:
        line = text.strip()
        told = re.sub(r"\[.*?\]", "", line)
        if line and told != self.last:
            sys.stderr.write(f"{line}\n")
            self.last = told

    def flush(self) -> None:
        sys.stderr.flush()


def report_progress(items: Iterable[Item], stage: str, progress: Callable[[str, int], None]) -> Iterator[Item]:
    """Yield `items`, one per frame, and report their number as the progress of a stage."""
    progress(stage, 0)
    for done, item in enumerate(items, 1):
        yield item
        progress(stage, done)


# One entry for each call of the Python interface that is running, in any thread: what warns with a line.
_library_calls: list[Callable[[str], None]] = []
OWN_PACKAGES = ("selfvos", "model", "data", "utils")


@contextmanager
def warn_instead_of_printing(translate: Callable[[str], str]) -> Iterator[None]:
    """Turn the lines of `log_line` into Python warnings and show no bars: for callers that have the terminal.

    Warnings name the caller's line, from whichever thread they come.

    Args:
        translate: makes a warning of a line.
    """
    caller = _find_caller()
    file, number, names = caller.f_code.co_filename, caller.f_lineno, caller.f_globals
    registry = names.setdefault("__warningregistry__", {})  # where Python notes which warnings it has shown

    def warn(line: str) -> None:
        warnings.warn_explicit(translate(line), UserWarning, file, number, names.get("__name__"), registry)

    _library_calls.append(warn)
    try:
        yield
    finally:
        _library_calls.remove(warn)


def _find_caller() -> FrameType:
    """Find the innermost call from outside this program, past decorators."""
    frame = sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in (*OWN_PACKAGES, "contextlib"):
        frame = frame.f_back
    return frame


def shows_bars() -> bool:
    """Tell whether this process may draw progress bars."""
    return distributed.is_main() and not _library_calls


def log_line(message: str, *, all_processes: bool = False) -> None:
    """Print a line to stderr above any progress bar, or warn with it inside `warn_instead_of_printing`.

    Args:
        all_processes: for facts that only one process of several knows; otherwise only the main one prints.
    """
    if _library_calls:
        _library_calls[-1](re.sub("^(note|warning): ", "", message))
    elif all_processes or distributed.is_main():
        tqdm.write(message, file=sys.stderr)
