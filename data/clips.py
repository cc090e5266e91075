"""Draw training clips from videos, which are the folders of frames below a root (docs/method.md, section 3)."""

import os
import pickle
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, dataloader
from tqdm import tqdm

from data.decoding import VIDEO_SUFFIXES
from data.frames import FrameReader, UnreadableImage, is_readable, resize
from data.transforms import ClipAugmentation
from utils.errors import UserError
from utils.names import listed_names, may_hold_frames
from utils.own_output import RESULTS, RUN, find_frames, note_left_out, refuse_own_output
from utils.pictures import SUFFIXES as IMAGE_SUFFIXES
from utils.progress import log_line
from utils.run.signals import StopRequest, ignore_stop_signals, kill_processes, list_children

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
    refuse_own_output(root, flag=flag)
    videos, left_out = {}, []
    for folder, children, _ in os.walk(root, followlinks=True):
        frames, ours = find_frames(Path(folder))
        name = os.path.relpath(folder, root)
        left_out += [(name, ours)] if ours else []
        children[:] = [] if ours in (RESULTS, RUN) else sorted(filter(may_hold_frames, children))
        if frames:
            videos[name] = frames
    if left_out:
        log_line(note_left_out(root, left_out))
    if not videos:
        clip = next((path for path in sorted(root.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES), None)
        found = "no frames (jpg, png, ...) in any folder below it"
        raise UserError(f"{flag} {root}: {f'{found}; {clip.name} is {explain_single_file(clip)}' if clip else found}")
    return videos if train_list is None else _keep_listed(videos, root, train_list)


def explain_single_file(clip: Path) -> str:
    """Say what to give instead of a single file: of a video file, frames cannot be drawn quickly at random."""
    if clip.suffix.lower() in IMAGE_SUFFIXES:
        return f"a single picture, but training reads folders of frames; give the folder, {clip.parent}"
    frames = shlex.quote(f"frames/{clip.stem}")
    command = f"mkdir -p {frames} && ffmpeg -i {shlex.quote(str(clip))} -q:v 2 {frames}/%05d.jpg"
    return f"a video file, but training reads folders of frames: {command}"


def _keep_listed(videos: dict[str, list[Path]], root: Path, train_list: str) -> dict[str, list[Path]]:
    wanted = set(listed_names(root, train_list, known={Path(name).name for name in videos}))
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
        self._readers: dict[int, FrameReader] = {}  # of the videos that were read

    @property
    def kinds(self) -> set[str]:
        """What was read here, in this process, beside plain 8-bit pictures, see `FrameReader`."""
        return {kind for reader in self._readers.values() for kind in reader.kinds}

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
        reader = self._readers.setdefault(video, FrameReader(self.videos[video]))
        frames = torch.stack([resize(reader.read(position), self.resolution) for position in positions])
        if self.augmentation is None:
            return frames
        return self.augmentation(frames, seed=int(rng.integers(2**62)))


def collate_clips(clips: list[Clip]) -> Clip:
    """Clips to a batch: frames (B, T, ...), or None where a clip has none; bad files together."""
    frames = [clip.frames for clip in clips]
    bad = [file for clip in clips for file in clip.bad]
    return Clip(None if any(f is None for f in frames) else torch.stack(frames), bad)


@contextmanager
def reading(
    dataset: Dataset, *, num_workers: int, stop: StopRequest, collate_fn: Callable[[list], Any], **options: Any
) -> Iterator[Iterator[Any]]:
    """Gives the batches of `dataset`, read ahead by processes that have ended when it is left, in whatever way.

    The batches end early where the run is asked to stop while one is overdue, as when a file server does not answer.

    Args:
        collate_fn: makes a batch of a list of items; at most one tensor should be in it.
        options: of torch's `DataLoader`.

    Raises:
        UserError: a process that reads frames has ended, mostly for want of memory, or none can be started. torch
            raises the end of one at whatever line is run just then, so this holds for all that is done within.
    """
    others = list_children()
    if num_workers:
        options |= {"timeout": OVERDUE, "worker_init_fn": ignore_stop_signals}
        collate_fn = Sender(collate_fn)
    loader = DataLoader(dataset, num_workers=num_workers, collate_fn=collate_fn, **options)
    try:
        try:
            batches = _start(loader)  # now, not with the first batch
            yield _receive(batches, stop) if num_workers else batches
        finally:  # by force: they ignore signals, and one that hangs could not be waited for
            kill_processes(process for process in list_children() if process not in others)
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise _reader_ended(error) from error


class Sender:
    """In a process that reads frames: makes batches and has them ready to be sent, as bytes.

    A tensor lies in shared memory; once there is no room for one, in containers that have little, all go through a
    pipe. torch does it in a thread that, where there is no room, prints a traceback and sends nothing, ever.
    """

    def __init__(self, collate: Callable[[list], Any]):
        self.collate = collate
        self.shares = True

    def __call__(self, items: list) -> tuple[bool, bytes]:
        """Whether the batch of `items` lies in shared memory; it, pickled."""
        batch = self.collate(items)
        if self.shares:
            try:
                return True, bytes(ForkingPickler.dumps(batch))
            except (RuntimeError, OSError):  # no room, or no more files may be open
                self.shares = False
        return False, pickle.dumps(batch)


def _start(loader: DataLoader) -> Iterator[Any]:
    try:
        return iter(loader)
    except (OSError, ImportError) as error:  # no semaphores, which lie in /dev/shm on Linux; or no more processes
        dataloader._MultiProcessingDataLoaderIter._shutdown = True  # else the end of the unfinished one prints an error
        raise UserError(
            f"--num_workers {loader.num_workers}: processes that read frames cannot be started here ({error}); give "
            "--num_workers 0, or the container shared memory (docker run --shm-size 1g)"
        ) from error


def _receive(batches: Iterator[tuple[bool, bytes]], stop: StopRequest) -> Iterator[Any]:
    """What `Sender` has sent."""
    told = False
    while True:
        try:
            shared, content = next(batches)
            batch = pickle.loads(content)
        except StopIteration:
            return
        except (ConnectionError, EOFError) as error:  # a broken pipe
            raise _reader_ended(error) from error
        except UserError as error:  # torch puts the traceback into the message
            raise UserError(str(error).strip().rpartition("UserError: ")[2]) from error
        except RuntimeError as error:
            if not str(error).startswith("DataLoader timed out"):
                raise
            if stop.exit_code:
                return
            continue
        if not (shared or told):
            log_line("note: /dev/shm is full: frames come through pipes, which takes longer; give the container more "
                "(docker run --shm-size 1g) or use --num_workers 0")  # fmt: skip
            told = True
        yield batch


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
