"""Datasets as folders of frames and folders of label images, described by paths; and anybody's own videos."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from data.annotations import label_files
from data.decoding import VIDEO_SUFFIXES
from data.layouts.base import counted
from data.layouts.splits import FrameList, SplitSource
from data.videos import FrameFolder, Video, VideoFile
from utils.errors import UserError
from utils.names import natural_key
from utils.own_output import find_frames, folders_of_frames, note_left_out, refuse_own_output
from utils.pictures import list_images
from utils.progress import log_line
from utils.scoring.annotations import Annotations

COMPLETE = "the split names this sequence, so complete the download"


@dataclass(frozen=True)
class FolderLayout:
    """Frames in one folder for each video, annotations in another.

    frames, annotations: these folders below the root, with {name} and {split}; no annotations: for prediction only.
    source: where the names of a split come from.
    labels: what makes annotations of a folder and the names of the frames.
    merged, sparse: see `Layout`.
    folders: split -> what {split} stands for in `frames` and `annotations`, where it is not the split's name.
    unannotated: splits whose annotations are not public, or not whole, so that nothing can be scored.
    marker: what lies below a root of this layout and no other, as a pattern of file names, and in words where it is
        not simply the name of a folder; needed where the dataset has other layouts too.
    mask_ending: of stems of images among the frames that are annotations.
    frame_list: what names the frames of a video, where the download does.
    unread: the files among a video's annotations that nothing reads, where there can be such.
    own_annotations: no video but those of the split has a folder of annotations beside theirs.
    """

    frames: str
    source: SplitSource
    annotations: str | None = None
    labels: Callable[[Path, list[str]], Annotations] = label_files
    merged: bool = False
    sparse: bool = False
    folders: Mapping[str, str] = field(default_factory=dict)
    unannotated: tuple[str, ...] = ()
    marker: str = ""
    marker_in_words: str = ""
    mask_ending: str | None = None
    frame_list: FrameList | None = None
    unread: Callable[[Path, Annotations], list[Path]] | None = None
    own_annotations: bool = False

    @property
    def split_source(self) -> str:
        return self.source.describe

    @property
    def fixed_splits(self) -> bool:
        return self.source.fixed

    @property
    def looks(self) -> str:
        return self.marker_in_words or f"a folder {self.marker}"

    def is_at(self, root: Path) -> bool:
        return any(root.glob(self.marker))

    def names(self, root: Path, split: str) -> list[str]:
        return self.source.names(root, split, lambda name: os.path.isdir(root / self._path(self.frames, split, name)))

    def lacks(self, root: Path, split: str, *, annotated: bool = True) -> Path | None:
        paths = [self.frames, self.annotations] if annotated and self._has_truth(split) else [self.frames]
        parents = (root / path.rpartition("{name}")[0].format(split=self._folder(split)) for path in paths)
        return next((parent for parent in parents if not parent.is_dir()), None)

    def holds(self, root: Path, split: str, *, annotated: bool = True) -> bool:
        if self.lacks(root, split, annotated=annotated) is not None:
            return False
        try:
            names = self.names(root, split)
        except UserError:
            return False
        return any(self._list_frames(root / self._path(self.frames, split, name)) for name in names)

    def video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        folder = root / self._path(self.frames, split, name)
        frames = self._list_frames(folder)
        if not frames:
            raise UserError(f"{folder}: no frames; {COMPLETE}")
        video = FrameFolder(name, frames)
        if annotated and self._has_truth(split):
            truth = root / self._path(self.annotations, split, name)
            if not truth.is_dir():
                raise UserError(f"{truth}: no annotations; {COMPLETE}")
            video.annotations = self.labels(truth, video.frame_names)
            check_frames(video.annotations, video.frame_names, truth=truth, frames=folder, sparse=self.sparse)
        return video

    def mismatches(self, root: Path, split: str, video: Video) -> list[str]:
        found = self._against_list(root, split, video) if self.frame_list else []
        if self.unread and video.annotations:
            truth = root / self._path(self.annotations, split, video.name)
            files = [path.name for path in self.unread(truth, video.annotations)]
            found += counted(truth, files, "images that its definition does not name", "remove them")
        return found

    def orphans(self, root: Path, split: str) -> list[str]:
        parent = (root / self._path(self.annotations, split, "any")).parent if self._has_truth(split) else None
        if not self.own_annotations or parent is None or not parent.is_dir():
            return []
        folders = sorted(path.name for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
        extra = [name for name in folders if name not in set(self.names(root, split))]
        return counted(parent, extra, "folders of annotations of no video", "add its frames or remove it")

    def _against_list(self, root: Path, split: str, video: Video) -> list[str]:
        """The frames of a video, and the annotations if each should have one, against what the download names."""
        path, listed = self.frame_list.frames(root, split=self._folder(split), name=video.name)
        frames = video.frame_names
        if not listed:
            return []
        if set(listed).isdisjoint(frames):  # FBMS lists what the frames were made of; their number must agree
            listed = frames[: len(listed)] + listed[len(frames) :]
        annotated = video.annotations.frame_names if video.annotations else []
        known = {*listed, *annotated} if self.sparse else set(listed)  # YouTube-VOS lists the frames with an object
        extra, lost = [name for name in frames if name not in known], [name for name in listed if name not in frames]
        folder = root / self._path(self.frames, split, video.name)
        found = counted(folder, extra, f"frames that {path} does not name", "remove them")
        found += counted(folder, lost, f"frames missing that {path} names", "complete the download")
        if self.frame_list.annotated and video.annotations:
            bare = [name for name in listed if name not in {*annotated, *lost}]
            truth = root / self._path(self.annotations, split, video.name)
            found += counted(truth, bare, f"annotations missing of frames that {path} names", "complete the download")
        return found

    def _path(self, path: str, split: str, name: str) -> str:
        return path.format(split=self._folder(split), name=name)

    def _folder(self, split: str) -> str:
        return self.folders.get(split, split)

    def _has_truth(self, split: str) -> bool:
        return self.annotations is not None and split not in self.unannotated

    def _list_frames(self, folder: Path) -> list[Path]:
        images = list_images(folder) if folder.is_dir() else []
        return [path for path in images if self.mask_ending is None or not path.stem.endswith(self.mask_ending)]


def check_frames(annotations: Annotations, names: list[str], *, truth: Path, frames: Path, sparse: bool) -> None:
    """Annotations must be of frames of the video: of all of them, or, where they are sparse, of one at least.

    Raises:
        UserError: counting what lacks its partner, with the first.
    """
    annotated = annotations.frame_names
    if not annotated:
        raise UserError(f"{truth}: no annotations; {COMPLETE}")
    extra = set(annotated) - set(names)
    stray = sorted(extra if sparse else extra | (set(names) - set(annotated)))
    if stray:
        raise UserError(f"{truth}: {len(annotated)} annotations for {len(names)} frames in {frames}; "
                        f"first without a partner: {stray[0]}; complete the download")  # fmt: skip


@dataclass(frozen=True)
class OwnVideos:
    """Anybody's own: a video file, a folder of frames, or a folder of such files and folders; no annotation, no
    splits."""

    merged: bool = False
    sparse: bool = False
    split_source: str = "whatever lies there"
    fixed_splits: bool = True

    def names(self, root: Path, split: str) -> list[str]:
        if not root.exists():
            raise UserError(f"{root}: no such video file or folder of frames")
        refuse_own_output(root)
        if root.is_file():
            return [root.stem]
        files, (frames, ours) = list_video_files(root), find_frames(root)
        if files and frames:
            raise UserError(f"{root}: holds pictures ({frames[0].name}, ...) and video files ({files[0].name}, ...); "
                             "name one of the files, or move one kind elsewhere")  # fmt: skip
        left_out = [(root.name, ours)] if ours else []
        names = [root.resolve().name] if frames else []
        if not names:
            folders, others = folders_of_frames(root)
            names = sorted([*folders, *(path.stem for path in files)], key=natural_key)
            left_out += others
        if left_out:
            log_line(note_left_out(root, left_out))
        if not names:
            raise UserError(f"{root}: neither video files nor frames (jpg, png, ...) nor folders of frames; "
                            "name a video file or folder")  # fmt: skip
        if twice := next((name for name, after in pairwise(names) if name == after), None):
            raise UserError(f"{root}: two videos are named {twice} but for their endings; rename one")
        return names

    def video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        files = [root] if root.is_file() else [path for path in list_video_files(root) if path.stem == name]
        if files:
            return VideoFile(name, files[0])
        return FrameFolder(name, find_frames(root)[0] or find_frames(root / name)[0])

    def mismatches(self, root: Path, split: str, video: Video) -> list[str]:
        return [video.damage] if video.damage else []

    def orphans(self, root: Path, split: str) -> list[str]:
        return []

    def lacks(self, root: Path, split: str, *, annotated: bool = True) -> Path | None:
        return None

    def holds(self, root: Path, split: str, *, annotated: bool = True) -> bool:
        return False  # anything may be somebody's own


def list_video_files(folder: Path) -> list[Path]:
    """Video files of a folder by their endings, hidden ones left out."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]
    return sorted((path for path in files if not path.name.startswith(".")), key=lambda path: natural_key(path.name))
