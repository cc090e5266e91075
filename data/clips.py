"""Training clips: every folder of frames below a root is a video; clips are drawn from them (METHOD.md 3)."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from data.frames import UnreadableImage, is_readable, list_images, read_image, resize
from data.transforms import ClipAugmentation
from utils.errors import UserError
from utils.names import listed_names, may_hold_frames
from utils.stopping import StopRequest, leave_to_parent

CLIPS_PER_EPOCH = 10_000
MAX_BAD_SHARE = 0.01  # of the image files
OVERDUE = 20  # seconds after which a batch that has not come lets a run that is asked to stop end
MAX_ATTEMPTS = 20  # clips tried in place of one with an unreadable frame


def index_videos(root: Path, *, train_list: str | None = None, flag: str = "--basepath") -> dict[str, list[Path]]:
    """Folders of frames in any depth below `root`: name relative to it -> frames in order.

    Hidden folders and folders of annotations are passed over.

    Args:
        train_list: a text file, absolute or relative to `root`, naming the folders to keep, one a line.

    Raises:
        UserError: no such folder, no frames below it, or a video of the list is missing.
    """
    if not root.is_dir():
        raise UserError(f"{flag} {root}: no such folder")
    videos = {}
    for folder, children, _ in os.walk(root, followlinks=True):
        children[:] = sorted(filter(may_hold_frames, children))
        if frames := list_images(Path(folder)):
            videos[os.path.relpath(folder, root)] = frames
    if not videos:
        raise UserError(f"{flag} {root}: no frames (jpg, png, ...) in any folder below it")
    return videos if train_list is None else _keep_listed(videos, root, train_list)


def _keep_listed(videos: dict[str, list[Path]], root: Path, train_list: str) -> dict[str, list[Path]]:
    wanted = set(listed_names(root, train_list))
    kept = {name: frames for name, frames in videos.items() if Path(name).name in wanted}
    if missing := wanted - {Path(name).name for name in kept}:
        raise UserError(f"--train_list {train_list}: no frames below {root} for {', '.join(sorted(missing)[:3])}")
    return kept


def clip_positions(length: int, centre: int, *, num_frames: int, gap: int) -> list[int]:
    """Frames of a clip around `centre`: `num_frames` of them, `gap` apart, all inside a video of `length` frames.

    The gap shrinks where the video is too short for it; below `num_frames` frames some are repeated. Near an end the
    clip is moved inwards.
    """
    if num_frames == 1:
        return [centre]
    if length < num_frames:
        return np.linspace(0, length - 1, num_frames).round().astype(int).tolist()
    gap = min(gap, (length - 1) // (num_frames - 1))
    first = min(max(centre - gap * (num_frames // 2), 0), length - 1 - gap * (num_frames - 1))
    return [first + gap * step for step in range(num_frames)]


@dataclass
class Clip:
    """frames: (T, 3, H, W) uint8; None where no clip could be read. bad: image files that could not be read."""

    frames: Tensor | None
    bad: list[str]


class ClipDataset(Dataset):
    """Clip number i of an endless stream; everything about it is drawn from (seed, i).

    So a stopped run continues with exactly the clips it would have seen, on any number of workers.

    Args:
        videos: as `index_videos` gives them.
        resolution: (height, width) of the frames given out.
        augment: colour augmentation; off for the fixed clips that are watched while training.
    """

    def __init__(
        self, videos: dict[str, list[Path]], *, resolution: tuple[int, int], num_frames: int = 3, gap: int = 4,
        seed: int = 0, augment: bool = True,
    ):  # fmt: skip
        self.videos = list(videos.values())
        self.resolution = resolution
        self.num_frames = num_frames
        self.gap = gap
        self.seed = seed
        self.augmentation = ClipAugmentation(resolution) if augment else None

    def __getitem__(self, index: int) -> Clip:
        """Clip `index`. Where a frame cannot be read another clip takes its place and the file is named in `bad`."""
        bad: list[str] = []
        for attempt in range(MAX_ATTEMPTS):
            rng = np.random.default_rng((self.seed, index, attempt))
            video = int(rng.integers(len(self.videos)))
            length = len(self.videos[video])
            positions = clip_positions(length, int(rng.integers(length)), num_frames=self.num_frames, gap=self.gap)
            try:
                return Clip(self.read(video, positions, rng), bad)
            except UnreadableImage as error:
                bad.append(str(error.path))
        return Clip(None, bad)

    def read(self, video: int, positions: list[int], rng: np.random.Generator) -> Tensor:
        """The frames at `positions` of a video, augmented by what `rng` gives: (T, 3, H, W) uint8."""
        paths = [self.videos[video][position] for position in positions]
        frames = torch.stack([resize(read_image(path), self.resolution) for path in paths])
        if self.augmentation is None:
            return frames
        return self.augmentation(frames, seed=int(rng.integers(2**62)))


def collate_clips(clips: list[Clip]) -> Clip:
    """Clips to a batch: frames (B, T, ...), or None where a clip has none; bad files together."""
    frames = [clip.frames for clip in clips]
    bad = [file for clip in clips for file in clip.bad]
    return Clip(None if any(f is None for f in frames) else torch.stack(frames), bad)


def frame_loader(dataset: Dataset, *, num_workers: int, **options: Any) -> DataLoader:
    """A loader for `fetch`; `options` are torch's."""
    timeout = OVERDUE if num_workers else 0
    return DataLoader(dataset, num_workers=num_workers, worker_init_fn=leave_to_parent, timeout=timeout, **options)


def fetch(loader: DataLoader, stop: StopRequest) -> Iterator[Any]:
    """The batches of `loader`; it ends early where the run is asked to stop while a batch is overdue, as when a file
    server does not answer. To be used within `readers`.
    """
    return _fetch(iter(loader), stop)  # readers start here, not with the first batch


def _fetch(batches: Iterator[Any], stop: StopRequest) -> Iterator[Any]:
    try:
        while True:
            try:
                yield next(batches)
            except StopIteration:
                return
            except (ConnectionError, EOFError) as error:  # a broken pipe
                raise _reader_ended(error) from error
            except RuntimeError as error:
                if not str(error).startswith("DataLoader timed out"):
                    raise
                if stop.exit_code:
                    return
    finally:
        if stop.exit_code:  # readers leave signals to us, and one that hangs could not be waited for
            for process in multiprocessing.active_children():
                process.kill()


@contextmanager
def readers() -> Iterator[None]:
    """Within it processes read frames; torch raises the end of one at whatever line is run just then.

    Raises:
        UserError: such a process has ended, mostly for want of memory.
    """
    try:
        yield
    except BaseException as error:
        # The run ends, and torch's word that a reader has too must not come into the message.
        if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if isinstance(error, RuntimeError) and "DataLoader worker (pid" in str(error):
            raise _reader_ended(error) from error
        raise


def _reader_ended(error: Exception) -> UserError:
    said = " ".join(str(error).split())[:120]
    return UserError(
        f"--num_workers: a process that reads frames ended ({said}); lower --num_workers or --batch_size, and go on "
        "with --resume_path auto"
    )


class StepSampler(Sampler[int]):
    """The clip numbers that one process sees, from `start_step` to `num_steps`.

    Step s takes clips s*G to (s+1)*G - 1, G = clips_per_step; rank r of `world_size` takes the r-th equal share, in
    order. Which clips a step sees depends on neither the number of processes nor on where a run was resumed. `repeat`:
    only the first so many clips, again and again.
    """

    def __init__(
        self, *, start_step: int, num_steps: int, clips_per_step: int, rank: int = 0, world_size: int = 1,
        repeat: int | None = None,
    ):  # fmt: skip
        self.steps = range(start_step, num_steps)
        self.clips_per_step = clips_per_step
        self.share = clips_per_step // world_size
        self.rank = rank
        self.repeat = repeat

    def __iter__(self) -> Iterator[int]:
        for step in self.steps:
            first = step * self.clips_per_step + self.rank * self.share
            for number in range(first, first + self.share):
                yield number if self.repeat is None else number % self.repeat

    def __len__(self) -> int:
        return len(self.steps) * self.share


class BadFrames:
    """Image files that could not be read: each is warned about once; more than 1 % of all is an error.

    Args:
        total: image files there are.
        known: files counted from the beginning.

    Attributes:
        files: in the order they were met; the same list throughout.
    """

    def __init__(self, total: int, known: Iterable[str] = ()):
        self.total = total
        self.files = list(known)

    @classmethod
    def of(cls, videos: dict[str, list[Path]], known: Any = None) -> "BadFrames":
        """Of the frames of `videos`; of those that a run knew as bad before it was stopped, what is bad still counts.

        known: what its checkpoint has, `files`, or whatever stands there in its place.
        """
        known = {file for file in known if isinstance(file, str)} if isinstance(known, list) else set()
        frames = [path for paths in videos.values() for path in paths if str(path) in known] if known else []
        return cls(sum(map(len, videos.values())), [str(path) for path in frames if not is_readable(path)])

    def add(self, batch: Clip) -> None:
        """Count what a batch met on its way.

        Raises:
            UserError: more than 1 % of the image files are unreadable, or no clip could be read whole.
        """
        for file in sorted(set(batch.bad).difference(self.files)):
            self.files.append(file)
            tqdm.write(f"warning: {file}: unreadable, skipped ({len(self.files)} so far)", file=sys.stderr)
        if batch.frames is None or len(self.files) > MAX_BAD_SHARE * self.total:
            raise UserError(
                f"{batch.bad[0]}: one of {len(self.files)} unreadable images met among {self.total}, more than 1 %; "
                "restore the files below --basepath"
            )
