"""Draw training clips from folders of frames, in processes that read ahead (docs/method.md, section 3)."""

import pickle
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, dataloader
from tqdm import tqdm

from data.frames import FrameReader, UnreadableImage, is_readable, resize
from data.transforms import ClipAugmentation
from utils.errors import UserError
from utils.progress import log_line
from utils.run.signals import StopRequest, ignore_stop_signals, kill_processes, list_children

CLIPS_PER_EPOCH = 10_000


@dataclass(frozen=True)
class ReadingLimits:
    """Limits of the patience with files that cannot be read.

    Attributes:
        max_bad_share: share of the image files; more unreadable ones are no accident, and end the run.
        batch_timeout: seconds without a batch, after which a run that has been asked to stop ends without it; a
            file server that hangs may never answer.
        max_attempts: clips tried in place of a clip with an unreadable frame; where all fail, nearly all files are bad.
    """

    max_bad_share: float = 0.01
    batch_timeout: int = 20
    max_attempts: int = 20


LIMITS = ReadingLimits()


def choose_clip_positions(length: int, centre: int, *, num_frames: int, gap: int) -> list[int]:
    """Choose the positions of `num_frames` frames around `centre`, `gap` apart, in a video of `length` frames.

    A clip that would leave the video is shifted into it. In a short video the gap shrinks; in a video with fewer than
    `num_frames` frames some positions are repeated.
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
    """A training clip, or a batch of them.

    frames: (T, 3, H, W) uint8, in a batch (B, T, 3, H, W); None if no clip could be read.
    bad: image files that could not be read.
    origins: for each clip, the name of its video and the positions of its frames.
    """

    frames: Tensor | None
    bad: list[str]
    origins: list[tuple[str, list[int]]] = field(default_factory=list)


class ClipDataset(Dataset):
    """Draw clip i of an endless stream: its video, its frames and its augmentation depend on (seed, i) only.

    So a resumed run sees exactly the clips that it would have seen without the stop, with any number of workers.

    Args:
        videos: name of a video -> its image files in order, as `data.loading.index_videos` returns them.
        resolution: (height, width) of the frames returned.
        num_frames: frames of a clip.
        gap: distance between the frames of a clip, in frames of the video.
        augment: whether colours are augmented, which the fixed clips of the monitor are not.
    """

    def __init__(
        self, videos: dict[str, list[Path]], *, resolution: tuple[int, int], num_frames: int = 3, gap: int = 4,
        seed: int = 0, augment: bool = True,
    ):  # fmt: skip
        self.names, self.videos = list(videos), list(videos.values())
        self.resolution = resolution
        self.num_frames = num_frames
        self.gap = gap
        self.seed = seed
        self.augmentation = ClipAugmentation(resolution) if augment else None
        self._readers: dict[int, FrameReader] = {}  # position of a video -> its reader, made when first needed

    @property
    def conversions(self) -> set[str]:
        """The conversions of all frames read in this process, see `FrameReader`."""
        return {conversion for reader in self._readers.values() for conversion in reader.conversions}

    def __getitem__(self, index: int) -> Clip:
        """Draw clip `index`; where a frame is unreadable, list its file in `bad` and draw another clip instead."""
        bad: list[str] = []
        for attempt in range(LIMITS.max_attempts):
            rng = np.random.default_rng((self.seed, index, attempt))
            video = int(rng.integers(len(self.videos)))
            length = len(self.videos[video])
            positions = choose_clip_positions(
                length, int(rng.integers(length)), num_frames=self.num_frames, gap=self.gap
            )
            try:
                return Clip(self.read(video, positions, rng), bad, [(self.names[video], positions)])
            except UnreadableImage as error:
                bad.append(str(error.path))
        return Clip(None, bad)

    def read(self, video: int, positions: list[int], rng: np.random.Generator) -> Tensor:
        """Read the frames at `positions` of a video, resized and augmented: (T, 3, H, W) uint8."""
        reader = self._readers.setdefault(video, FrameReader(self.videos[video]))
        frames = torch.stack([resize(reader.read(position), self.resolution) for position in positions])
        if self.augmentation is None:
            return frames
        return self.augmentation(frames, seed=int(rng.integers(2**62)))


def read_all_frames(paths: list[Path], resolution: tuple[int, int]) -> Iterator[Tensor]:
    """Yield all frames of a training video, (3, H, W) uint8 each, resized and not augmented.

    An unreadable frame repeats the one before it, or is black if it is the first, so that positions stay.
    """
    reader, frame = FrameReader(paths), torch.zeros(3, *resolution, dtype=torch.uint8)
    for position in range(len(paths)):
        with suppress(UnreadableImage):
            frame = resize(reader.read(position), resolution)
        yield frame


def collate_clips(clips: list[Clip]) -> Clip:
    """Stack clips to a batch with frames (B, T, 3, H, W), or None if any clip has none, and all the rest of them."""
    frames = [clip.frames for clip in clips]
    bad, origins = ([item for clip in clips for item in getattr(clip, name)] for name in ("bad", "origins"))
    return Clip(None if any(f is None for f in frames) else torch.stack(frames), bad, origins)


@contextmanager
def load_batches(
    dataset: Dataset, *, num_workers: int, stop: StopRequest, collate_fn: Callable[[list], Any], **options: Any
) -> Iterator[Iterator[Any]]:
    """Start processes that read batches of `dataset` ahead, and end them all when the context is left.

    The context manager gives an iterator over the batches. It ends early if the run is asked to stop and no batch
    arrives for `batch_timeout` seconds, as when a file server does not answer.

    Args:
        num_workers: processes; with 0 this process reads the batches itself.
        stop: tells whether the run is asked to stop.
        collate_fn: makes a batch of a list of items; the batch should hold at most one tensor.
        options: further arguments of torch's `DataLoader`.

    Raises:
        UserError: a reading process cannot be started, or has ended, mostly because memory ran out. torch may raise
            the latter at any line within the context, so the whole context is guarded.
    """
    earlier_processes = list_children()
    if num_workers:
        options |= {"timeout": LIMITS.batch_timeout, "worker_init_fn": ignore_stop_signals}
        collate_fn = BatchSender(collate_fn)
    loader = DataLoader(dataset, num_workers=num_workers, collate_fn=collate_fn, **options)
    try:
        try:
            batches = _start_workers(loader)  # here, so that its errors come before the first batch
            yield _receive_batches(batches, stop) if num_workers else batches
        finally:  # killed: the processes ignore signals, and one that hangs would never end by itself
            kill_processes(process for process in list_children() if process not in earlier_processes)
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise _explain_ended_worker(error) from error


class BatchSender:
    """Make batches in a reading process and pickle them, with tensors in shared memory as long as there is room.

    Some containers have little shared memory. Once it is full, tensors are pickled by value and go through a pipe.
    Left to itself, torch would pickle in a thread that prints a traceback and never sends the batch.

    Args:
        collate: makes a batch of a list of items.
    """

    def __init__(self, collate: Callable[[list], Any]):
        self.collate = collate
        self.uses_shared_memory = True

    def __call__(self, items: list) -> tuple[bool, bytes]:
        """Return whether the batch of `items` lies in shared memory, and the pickled batch."""
        batch = self.collate(items)
        if self.uses_shared_memory:
            try:
                return True, bytes(ForkingPickler.dumps(batch))
            except (RuntimeError, OSError):  # shared memory is full, or the limit of open files is reached
                self.uses_shared_memory = False
        return False, pickle.dumps(batch)


def _start_workers(loader: DataLoader) -> Iterator[Any]:
    try:
        return iter(loader)
    except (
        OSError,
        ImportError,
    ) as error:  # no room for semaphores in /dev/shm, or too many processes
        dataloader._MultiProcessingDataLoaderIter._shutdown = True  # else its destructor prints an error
        raise UserError(
            f"--num_workers {loader.num_workers}: processes that read frames cannot be started here ({error}); give "
            "--num_workers 0, or the container shared memory (docker run --shm-size 1g)"
        ) from error


def _receive_batches(batches: Iterator[tuple[bool, bytes]], stop: StopRequest) -> Iterator[Any]:
    """Yield the batches that `BatchSender` has pickled; say once if they do not fit in shared memory."""
    warned = False
    while True:
        try:
            shared, content = next(batches)
            batch = pickle.loads(content)
        except StopIteration:
            return
        except (ConnectionError, EOFError) as error:  # a broken pipe
            raise _explain_ended_worker(error) from error
        except OSError as error:
            raise _restore_system_error(error) from error
        except UserError as error:  # torch puts the traceback into the message
            raise UserError(str(error).strip().rpartition("UserError: ")[2]) from error
        except RuntimeError as error:
            if not str(error).startswith("DataLoader timed out"):
                raise
            if stop.exit_code:
                return
            continue
        if not (shared or warned):
            log_line("note: /dev/shm is full: frames come through pipes, which takes longer; give the container more "
                "(docker run --shm-size 1g) or use --num_workers 0")  # fmt: skip
            warned = True
        yield batch


def _restore_system_error(error: OSError) -> OSError:
    """Return the system's error of a process that reads frames: torch keeps only its traceback, in the message."""
    found = re.search(r"\[Errno (\d+)\] ([^:\n]+)(?:: '([^'\n]*)')?", str(error))
    return OSError(int(found[1]), found[2], found[3]) if error.errno is None and found else error


def _explain_ended_worker(error: Exception) -> UserError:
    said = " ".join(str(error).split())[:120] or type(error).__name__
    return UserError(
        f"--num_workers: a process that reads frames ended ({said}); lower --num_workers or --batch_size, and go on "
        "with --resume_path auto"
    )


class StepSampler(Sampler[int]):
    """Sample the numbers of the clips that one process reads in steps `start_step` to `num_steps` - 1.

    Step s takes clips s*G to (s+1)*G - 1 with G = `clips_per_step`, and rank r of `world_size` takes the r-th equal
    share of them. So the clips of a step depend neither on the number of processes nor on where a run was resumed.

    Args:
        repeat: cycle through this many clips only.
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
    """Count image files that cannot be read: warn about each once, and fail if they are more than 1 % of all.

    Args:
        total: number of all image files.
        known: unreadable files that are already known.

    Attributes:
        files: the unreadable files in the order in which they were found; always the same list object.
    """

    def __init__(self, total: int, known: Iterable[str] = ()):
        self.total = total
        self.files = list(known)

    @classmethod
    def resume(cls, videos: dict[str, list[Path]], known: Any = None) -> "BadFrames":
        """Count the frames of `videos`; of the files known as unreadable, keep those that still are.

        Args:
            known: the `files` that the checkpoint of a stopped run has, which may be anything in a damaged checkpoint.

        Raises:
            UserError: they are more than 1 % of `videos`, which may be fewer than before.
        """
        known = {file for file in known if isinstance(file, str)} if isinstance(known, list) else set()
        frames = [path for paths in videos.values() for path in paths if str(path) in known] if known else []
        found = cls(sum(map(len, videos.values())), [str(path) for path in frames if not is_readable(path)])
        found._check_share()
        return found

    def add(self, batch: Clip) -> None:
        """Count the unreadable files of a batch.

        Raises:
            UserError: more than 1 % of the image files are unreadable, or the batch has no frames.
        """
        for file in sorted(set(batch.bad).difference(self.files)):
            self.files.append(file)
            tqdm.write(f"warning: {file}: unreadable, skipped ({len(self.files)} so far)", file=sys.stderr)
        self._check_share()
        if batch.frames is None:
            raise UserError(
                f"{batch.bad[-1]}: unreadable, like an image in each of {LIMITS.max_attempts} clips that were drawn in "
                "turn; restore the files below --basepath"
            )

    def _check_share(self) -> None:
        if len(self.files) > LIMITS.max_bad_share * self.total:
            raise UserError(
                f"{self.files[-1]}: one of {len(self.files)} unreadable images met among {self.total}, more than 1 %; "
                "restore the files below --basepath"
            )
