"""Show progress: a bar over the frames of all videos, and lines printed above it."""

import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

from utils import distributed

Item = TypeVar("Item")
# Rough share of a video's time that each stage takes; only used to estimate the time left.
STAGES = {"features": 0.5, "clustering": 0.25, "labels": 0.05, "objects": 0.1, "writing": 0.1}
LOG_INTERVAL = 10  # seconds between updates where stderr is a file, in which each update is a line


class FrameBar:
    """A progress bar over the frames of all videos. A frame counts by the `STAGES` that it has passed.

    bar.start("bear", 82)
    bar("features", 40)     # the features of 40 frames of the video are computed

    Args:
        lengths: number of frames of each video.
        shown: False for all processes but the main one.
    """

    def __init__(self, lengths: Sequence[int], *, shown: bool = True):
        interval = 0.1 if sys.stderr.isatty() else LOG_INTERVAL
        self.bar = tqdm(
            total=sum(lengths), disable=not (shown and lengths), mininterval=interval, maxinterval=interval,
            smoothing=0,
            bar_format="segmenting{desc} {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} frames [{elapsed}<{remaining}]",
        )  # fmt: skip
        self.videos = len(lengths)
        self.done = 0  # videos
        self.before = 0  # frames of them
        self.name, self.length, self.stage = "", 0, ""

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
        self.bar.update(max(now - self.bar.n, 0))
        if stage != self.stage:
            self.bar.refresh()
        self.stage = stage

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


def report_progress(items: Iterable[Item], stage: str, progress: Callable[[str, int], None]) -> Iterator[Item]:
    """Yield `items`, one per frame, and report their number as the progress of a stage."""
    progress(stage, 0)
    for done, item in enumerate(items, 1):
        yield item
        progress(stage, done)


_library_calls: list[object] = []  # one entry for each call of the Python interface that is running, in any thread


@contextmanager
def warn_instead_of_printing() -> Iterator[None]:
    """Turn the lines of `log_line` into Python warnings and show no bars: for callers that have the terminal."""
    call = object()
    _library_calls.append(call)
    try:
        yield
    finally:
        _library_calls.remove(call)


def shows_bars() -> bool:
    """Tell whether this process may draw progress bars."""
    return distributed.is_main() and not _library_calls


def log_line(message: str, *, all_processes: bool = False) -> None:
    """Print a line to stderr above any progress bar, or warn with it inside `warn_instead_of_printing`.

    Args:
        all_processes: for facts that only one process of several knows; otherwise only the main one prints.
    """
    if _library_calls:
        warnings.warn(re.sub("^(note|warning): ", "", message), stacklevel=2)
    elif all_processes or distributed.is_main():
        tqdm.write(message, file=sys.stderr)
