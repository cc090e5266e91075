"""Find the targets of a training run, round by round, and keep them on disk, a file for each video.

rounds = TargetRounds(output / "targets", network, lengths={"bear": 82}, read=read_frames, tau=1.0, ...)
if rounds.begins_at(step):
    rounds.find(step, stop=..., progress=...)           # segments every video that has no file yet
rounds.enter(step)
clip = ClipTargets(rounds.load("bear"), [0, 4, 8])
"""

import bisect
import functools
import json
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from model.engine.threshold import CLUSTER_RANGE
from model.network import SpatioTemporalNetwork
from model.objects.motion import MotionMeter
from model.segmenter import Segmenter, SegmenterSettings
from model.settings import VERSION
from model.training.targets import LIMITS, ObjectMaps, find_object_maps
from utils import distributed
from utils.errors import UserError
from utils.files import read_object, write_atomically, write_object
from utils.progress import StageProgress, log_line
from utils.run.checkpoints import hash_tensors

SETTINGS = "settings.json"  # what the targets of a round were made by
KEPT_VIDEOS = 64  # whose targets stay in memory


class TargetRounds:
    """Find the targets of a training run in several rounds, and keep them on disk.

    A round begins with the block as it is then: it segments all training videos, and what it finds counts as much as
    what each round before it found. Every video has a file <folder>/round_<number>/<video>.npz, so a run that is killed
    while it looks for targets continues with the next video. Several processes share the videos.

    Args:
        folder: where the targets are kept.
        network: the network that is trained.
        lengths: name of each video -> its number of frames.
        read: gives the frames (3, H, W) uint8 of a video by its name, at the resolution of the training.
        tau: threshold of the clustering, in nats.
        num_steps, num_rounds: of the run; rounds begin at even steps.
        made_by: plain values that name what else targets depend on, such as the resolution; `data` for the videos.
    """

    def __init__(
        self, folder: Path, network: SpatioTemporalNetwork, *, lengths: dict[str, int],
        read: Callable[[str], Iterable[Tensor]], tau: float, num_steps: int, num_rounds: int, made_by: dict[str, Any],
    ):  # fmt: skip
        self.folder, self.network, self.lengths, self.read, self.tau = folder, network, lengths, read, tau
        self.starts = [-(-number * num_steps // num_rounds) for number in range(num_rounds)]
        self.made_by = json.loads(json.dumps({"version": VERSION, "limits": asdict(LIMITS), "tau": tau, **made_by}))
        self.number = 0  # of the current round, from 1 on
        self.load = functools.lru_cache(maxsize=KEPT_VIDEOS)(self._load)

    def begins_at(self, step: int) -> bool:
        """Tell whether a round begins after `step` steps."""
        return step in self.starts

    def enter(self, step: int) -> list[str]:
        """Take the targets of the round in which step `step` lies, which were found before.

        Returns:
            Names of the videos that show no sure objects; their clips add nothing to the loss.

        Raises:
            UserError: they are not all there, or were found with other settings or in other frames.
        """
        self.number = bisect.bisect_right(self.starts, step)
        self.load.cache_clear()
        for number in range(1, self.number + 1):  # targets of earlier rounds are used too
            self._check_settings(number)
        unsure = []
        for name, length in self.lengths.items():
            found = self.load(name)
            if found.maps.shape[1] != length:
                raise UserError(f"{self._file(name)}: are targets of another version of the video; restore its frames, "
                                "or start a new run")  # fmt: skip
            unsure += [] if found.has_sure_objects() else [name]
        return unsure

    def _check_settings(self, number: int) -> None:
        """Raise `UserError` if the targets of a round were found with other settings."""
        folder = self._round_folder(number)
        known = read_object(folder / SETTINGS, mend="restore it, or start a new run")
        # Data written anew, as copies on a node's own disk, are another `data`; a resumed run notes that by itself.
        keys = [key for key in {**self.made_by, **known} if key not in ("data", "block")]
        differing = [key for key in keys if known.get(key) != self.made_by.get(key)]
        if "version" in differing:
            raise UserError(f"{folder}: its targets were found by another version of this program; start a new run")
        if differing:
            raise UserError(f"{folder}: its targets were found with another {', '.join(differing)}; "
                            "give that again, or start a new run")  # fmt: skip

    def find(self, step: int, *, stop: Callable[[], bool], progress: StageProgress) -> None:
        """Find the targets of the round that begins at `step`, except those that are there already.

        Args:
            stop: asked before each video; True leaves the rest undone.
        """
        self.number = bisect.bisect_right(self.starts, step)
        for number in range(1, self.number):
            self._check_settings(number)
        block = hash_tensors(self.network.blocks.state_dict())
        if distributed.is_main():
            _prepare_folder(self._round_folder(), self.made_by | {"block": block})
        distributed.barrier()
        left = [name for name in self.lengths if not self._file(name).exists()]
        distributed.barrier()  # before any process writes, so that all see the same videos left
        parts = distributed.divide_by_cost([self.lengths[name] for name in left], distributed.world_size())
        mine = [left[index] for index in parts[distributed.rank()]]
        for done, name in enumerate(mine):
            progress("videos", done, len(mine))
            if stop():
                break
            _save(self._file(name), self.segment(name))
        distributed.barrier()

    def segment(self, name: str) -> ObjectMaps:
        """Segment a video with the block as it is."""
        self.network.eval()
        settings = SegmenterSettings(clustering="fast", tau=self.tau, clusters=CLUSTER_RANGE)
        segmenter = Segmenter(self.network, settings)
        meter = MotionMeter(segmenter.grid_size)
        features, grid = segmenter.encode(meter.watch(self.read(name)), num_frames=self.lengths[name])
        return find_object_maps(segmenter, features, grid, motion=meter.finish())

    def _load(self, name: str) -> ObjectMaps:
        """Read the targets of a video, those of all rounds so far together."""
        rounds = [_read(self._file(name, number)) for number in range(1, self.number + 1)]
        return functools.reduce(ObjectMaps.fuse, rounds)

    def _file(self, name: str, number: int | None = None) -> Path:
        return self._round_folder(number) / f"{name}.npz"

    def _round_folder(self, number: int | None = None) -> Path:
        return self.folder / f"round_{number or self.number}"


def _save(path: Path, found: ObjectMaps) -> None:
    try:
        with write_atomically(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, maps=found.maps, is_boundary=found.is_boundary)
    except OSError as error:  # numpy's own error for a full disk has no strerror
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); free space and go on with "
                        "--resume_path auto") from error  # fmt: skip


def _read(path: Path) -> ObjectMaps:
    try:
        with np.load(path, allow_pickle=False) as kept:
            return ObjectMaps(kept["maps"], kept["is_boundary"])
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; restore it, or start a new run") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: damaged ({error}); restore it, or start a new run") from error


def _prepare_folder(folder: Path, made_by: dict[str, Any]) -> None:
    """Prepare the folder of a round; remove targets in it that were made otherwise."""
    if folder.exists() and _read_settings(folder) != made_by:
        log_line(f"note: {folder}: holds targets of other settings or videos; they are found anew")
        shutil.rmtree(folder)
    if not folder.exists():
        write_object(folder / SETTINGS, made_by)


def _read_settings(folder: Path) -> Any:
    """Read the settings that the targets of a round were made by; None if the file is missing or damaged."""
    try:
        return json.loads((folder / SETTINGS).read_text())
    except (FileNotFoundError, ValueError):
        return None
