"""Read MOVi from the TFRecord files of TensorFlow Datasets: one record is one video with its segmentations."""

import glob
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from data.annotations.records import RecordSegmentations
from data.tfrecord import Record, list_records
from data.videos import RecordVideo, Video
from utils.errors import UserError

_SHARD = re.compile(r"(?P<dataset>.+)-(?P<split>[^-]+)\.tfrecord-(?P<number>\d+)-of-(?P<total>\d+)")


@dataclass(frozen=True)
class RecordLayout:
    """Read a data set kept as files `<dataset>-<split>.tfrecord-NNNNN-of-NNNNN` in one folder.

    The videos of a split are numbered across its files: 00000, 00001, ...

    Attributes:
        dataset: the beginning of the names of the files.
        folders: paths below the root where the files may lie; "." is the root itself. The first that
            holds such files is read.
    """

    dataset: str
    folders: tuple[str, ...]
    merged: bool = False
    sparse: bool = False
    split_source: str = "the files *-<split>.tfrecord-*"
    fixed_splits: bool = False

    @property
    def description(self) -> str:
        return f"files {self.dataset}-<split>.tfrecord-NNNNN-of-NNNNN in {self.folders[0]}"

    @property
    def _pattern(self) -> str:
        return f"{self.dataset}-*.tfrecord-*"

    def matches(self, root: Path) -> bool:
        return self._folder(root) is not None

    def list_videos(self, root: Path, split: str) -> list[str]:
        return [f"{index:05d}" for index in range(len(self._records(root, split)))]

    def open_video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        video = RecordVideo(name, self._records(root, split)[int(name)])
        frames = video.frame_names
        if annotated:
            video.annotations = RecordSegmentations(video.record, frames)
        return video

    def find_mismatches(self, root: Path, split: str, video: Video) -> list[str]:
        return []  # the number of segmentations is compared with that of frames when the video is read

    def find_orphans(self, root: Path, split: str) -> list[str]:
        return []

    def find_missing_folder(self, root: Path, split: str, *, annotated: bool = True) -> Path | None:
        return None  # the same files hold frames and annotations

    def has_split(self, root: Path, split: str, *, annotated: bool = True) -> bool:
        folder = self._folder(root)
        return folder is not None and any(folder.glob(f"{self.dataset}-{glob.escape(split)}.tfrecord-*"))

    def _folder(self, root: Path) -> Path | None:
        return next((root / path for path in self.folders if any((root / path).glob(self._pattern))), None)

    def _records(self, root: Path, split: str) -> list[Record]:
        folder = self._folder(root)
        if folder is None:
            raise UserError(f"{root}: lacks {self.description}; check the root of the data set")
        return index_records(folder, self.dataset, split)


@lru_cache(maxsize=2)
def index_records(folder: Path, dataset: str, split: str) -> list[Record]:
    """List the records of a split in order. The last two lists are kept, since finding records takes time.

    Raises:
        UserError: files missing or damaged, or no record in them.
    """
    records = [record for path in _list_shards(folder, dataset, split) for record in list_records(path)]
    if not records:
        raise UserError(f"{folder}: its files of {split} hold no record; download them again")
    return records


def _list_shards(folder: Path, dataset: str, split: str) -> list[Path]:
    """List the files of a split in order. Raises `UserError` if any of them is missing."""
    matches = ((_SHARD.fullmatch(path.name), path) for path in folder.iterdir())
    found = [(match, path) for match, path in matches if match and match["dataset"] == dataset]
    shards = {int(match["number"]): (int(match["total"]), path) for match, path in found if match["split"] == split}
    if not shards:
        splits = ", ".join(sorted({match["split"] for match, _ in found}))
        raise UserError(f"{folder}: has no files of --split {split}; choose from {splits}")
    total = max(total for total, _ in shards.values())
    if (first := next((number for number in range(total) if number not in shards), None)) is not None:
        raise UserError(f"{folder}: has {len(shards)} of the {total} files of {split}, first missing: {first:05d}; "
                        "complete the download")  # fmt: skip
    return [path for _, (_, path) in sorted(shards.items())]
