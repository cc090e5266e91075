"""MOVi in the TFRecord files that TensorFlow Datasets keeps: one record is one video with its segmentations."""

import glob
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from data.annotations import RecordSegmentations
from data.tfrecord import Record, list_records
from data.videos import RecordVideo, Video
from utils.errors import UserError

_SHARD = re.compile(r"(?P<dataset>.+)-(?P<split>[^-]+)\.tfrecord-(?P<number>\d+)-of-(?P<total>\d+)")


@dataclass(frozen=True)
class RecordLayout:
    """Files `<dataset>-<split>.tfrecord-NNNNN-of-NNNNN` in one folder; videos are numbered through, 00000, 00001, ...

    dataset: as the names of the files begin. folders: where they may lie below the root; the first with such files
    counts. "." is the root itself.
    """

    dataset: str
    folders: tuple[str, ...]
    merged: bool = False
    sparse: bool = False
    split_source: str = "the files *-<split>.tfrecord-*"
    fixed_splits: bool = False

    @property
    def looks(self) -> str:
        return f"files {self.dataset}-<split>.tfrecord-NNNNN-of-NNNNN in {self.folders[0]}"

    @property
    def _files(self) -> str:
        return f"{self.dataset}-*.tfrecord-*"

    def is_at(self, root: Path) -> bool:
        return self._folder(root) is not None

    def names(self, root: Path, split: str) -> list[str]:
        return [f"{index:05d}" for index in range(len(self._records(root, split)))]

    def video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        video = RecordVideo(name, self._records(root, split)[int(name)])
        frames = video.frame_names
        if annotated:
            video.annotations = RecordSegmentations(video.record, frames)
        return video

    def mismatches(self, root: Path, split: str, video: Video) -> list[str]:
        return []  # reading a video compares the numbers of its frames and segmentations

    def orphans(self, root: Path, split: str) -> list[str]:
        return []

    def lacks(self, root: Path, split: str, *, annotated: bool = True) -> Path | None:
        return None  # frames and annotations lie in the same files

    def holds(self, root: Path, split: str, *, annotated: bool = True) -> bool:
        folder = self._folder(root)
        return folder is not None and any(folder.glob(f"{self.dataset}-{glob.escape(split)}.tfrecord-*"))

    def _folder(self, root: Path) -> Path | None:
        return next((root / path for path in self.folders if any((root / path).glob(self._files))), None)

    def _records(self, root: Path, split: str) -> list[Record]:
        folder = self._folder(root)
        if folder is None:
            raise UserError(f"{root}: lacks {self.looks}; check the root of the data set")
        return index_records(folder, self.dataset, split)


@lru_cache(maxsize=2)
def index_records(folder: Path, dataset: str, split: str) -> list[Record]:
    """The records of a split, in order; found once a process.

    Raises:
        UserError: files missing or damaged, or no record in them.
    """
    records = [record for path in _shards(folder, dataset, split) for record in list_records(path)]
    if not records:
        raise UserError(f"{folder}: its files of {split} hold no record; download them again")
    return records


def _shards(folder: Path, dataset: str, split: str) -> list[Path]:
    """The files of a split in order. Raises `UserError` where some of them, or all, are missing."""
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
