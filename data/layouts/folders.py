"""Read data sets of one folder of frames and one of label images for each video; read the user's own videos."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data.annotations.images import find_frame_labels
from data.layouts.base import report_items
from data.layouts.splits import FrameList, SplitSource
from data.own_output import describe_left_out, describe_unread, find_frame_folders, find_frames, refuse_own_output
from data.videos import FrameFolder, Video, VideoFile
from utils.errors import UserError
from utils.names import VIDEO_SUFFIXES, list_folders, natural_key, sort_naturally
from utils.pictures import list_images
from utils.progress import log_line
from utils.scoring.annotations import Annotations

COMPLETE = "the split names this sequence, so complete the download"


@dataclass(frozen=True)
class FolderLayout:
    """Read a data set that keeps frames in one folder for each video and annotations in another.

    Attributes:
        frames: path of a video's folder of frames below the root, with the fields {name} and {split}.
        source: where the names of the videos of a split come from.
        annotations: path of a video's folder of annotations, like `frames`; None if the data set has none.
        find_annotations: makes the annotations of a video from their folder and the names of the video's frames.
        merged: see `Layout`.
        sparse: see `Layout`.
        folders: split -> the text that replaces {split}, for splits whose folder has another name.
        unannotated: splits whose annotations are not public, or not complete, so that nothing can be scored.
        marker: a pattern (glob) that matches below the root of this layout and below no other of the same data set;
            only needed by data sets with several layouts.
        marker_in_words: the marker for error messages, if it is not simply the name of a folder.
        mask_ending: the end of the stems of annotations that lie in the same folder as the frames.
        frame_list: a file of the download that lists the frames of a video, if there is one.
        find_unread: finds the files in a folder of annotations that nothing reads, if there can be any.
        folders_per_split: the folder of annotations belongs to one split, so that every folder in it must belong to a
            video of that split.
    """

    frames: str
    source: SplitSource
    annotations: str | None = None
    find_annotations: Callable[[Path, list[str]], Annotations] = find_frame_labels
    merged: bool = False
    sparse: bool = False
    folders: Mapping[str, str] = field(default_factory=dict)
    unannotated: tuple[str, ...] = ()
    marker: str = ""
    marker_in_words: str = ""
    mask_ending: str | None = None
    frame_list: FrameList | None = None
    find_unread: Callable[[Path, Annotations], list[Path]] | None = None
    folders_per_split: bool = False

    @property
    def split_source(self) -> str:
        return self.source.description

    @property
    def fixed_splits(self) -> bool:
        return self.source.fixed

    @property
    def description(self) -> str:
        return self.marker_in_words or f"a folder {self.marker}"

    def matches(self, root: Path) -> bool:
        return any(root.glob(self.marker))

    def list_videos(self, root: Path, split: str) -> list[str]:
        return self.source.read_names(
            root, split, is_name=lambda name: os.path.isdir(root / self._path(self.frames, split, name))
        )

    def find_missing_folder(self, root: Path, split: str, *, annotated: bool = True) -> Path | None:
        paths = [self.frames, self.annotations] if annotated and self._has_annotations(split) else [self.frames]
        parents = (root / path.rpartition("{name}")[0].format(split=self._folder(split)) for path in paths)
        return next((parent for parent in parents if not parent.is_dir()), None)

    def has_split(self, root: Path, split: str, *, annotated: bool = True) -> bool:
        if self.find_missing_folder(root, split, annotated=annotated) is not None:
            return False
        try:
            names = self.list_videos(root, split)
        except UserError:
            return False
        return any(self._list_frames(root / self._path(self.frames, split, name)) for name in names)

    def open_video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        folder = root / self._path(self.frames, split, name)
        frames = self._list_frames(folder)
        if not frames:
            raise UserError(f"{folder}: no frames{describe_unread(folder) or f'; {COMPLETE}'}")
        video = FrameFolder(name, frames)
        if annotated and self._has_annotations(split):
            annotation_folder = root / self._path(self.annotations, split, name)
            if not annotation_folder.is_dir():
                raise UserError(f"{annotation_folder}: no annotations; {COMPLETE}")
            video.annotations = self.find_annotations(annotation_folder, video.frame_names)
            check_annotated_frames(
                video.annotations, video.frame_names, annotation_folder=annotation_folder, frame_folder=folder,
                sparse=self.sparse,
            )  # fmt: skip
        return video

    def find_mismatches(self, root: Path, split: str, video: Video) -> list[str]:
        problems = self._compare_with_list(root, split, video) if self.frame_list else []
        if self.find_unread and video.annotations:
            folder = root / self._path(self.annotations, split, video.name)
            files = [path.name for path in self.find_unread(folder, video.annotations)]
            problems += report_items(folder, files, "images that its definition does not name", "remove them")
        return problems

    def find_orphans(self, root: Path, split: str) -> list[str]:
        parent = (root / self._path(self.annotations, split, "any")).parent if self._has_annotations(split) else None
        if not self.folders_per_split or parent is None or not parent.is_dir():
            return []
        known = set(self.list_videos(root, split))
        extra = [folder.name for folder in list_folders(parent) if folder.name not in known]
        return report_items(parent, extra, "folders of annotations of no video", "add its frames or remove it")

    def _compare_with_list(self, root: Path, split: str, video: Video) -> list[str]:
        """Compare the frames of a video, and its annotations, with the frames that the download lists."""
        path, listed = self.frame_list.read_frames(root, split=self._folder(split), name=video.name)
        frames = video.frame_names
        if not listed:
            return []
        if set(listed).isdisjoint(frames):  # FBMS lists other files: compare their number
            listed = frames[: len(listed)] + listed[len(frames) :]
        annotated = video.annotations.frame_names if video.annotations else []
        known = {*listed, *annotated} if self.sparse else set(listed)  # YouTube-VOS only lists frames with an object
        extra, missing = [name for name in frames if name not in known], [name for name in listed if name not in frames]
        folder = root / self._path(self.frames, split, video.name)
        problems = report_items(folder, extra, f"frames that {path} does not name", "remove them")
        problems += report_items(folder, missing, f"frames missing that {path} names", "complete the download")
        if self.frame_list.annotated and video.annotations:
            unannotated = [name for name in listed if name not in {*annotated, *missing}]
            folder, what = root / self._path(self.annotations, split, video.name), "annotations missing of frames that"
            problems += report_items(folder, unannotated, f"{what} {path} names", "complete the download")
        return problems

    def _path(self, path: str, split: str, name: str) -> str:
        return path.format(split=self._folder(split), name=name)

    def _folder(self, split: str) -> str:
        return self.folders.get(split, split)

    def _has_annotations(self, split: str) -> bool:
        return self.annotations is not None and split not in self.unannotated

    def _list_frames(self, folder: Path) -> list[Path]:
        images = list_images(folder) if folder.is_dir() else []
        return [path for path in images if self.mask_ending is None or not path.stem.endswith(self.mask_ending)]


def check_annotated_frames(
    annotations: Annotations, names: list[str], *, annotation_folder: Path, frame_folder: Path, sparse: bool
) -> None:
    """Refuse annotations without a frame and, unless annotations are sparse, frames without an annotation.

    Raises:
        UserError: there is no annotation, or one without its frame, or a frame without its annotation.
    """
    annotated = annotations.frame_names
    if not annotated:
        raise UserError(f"{annotation_folder}: no annotations; {COMPLETE}")
    extra = set(annotated) - set(names)
    stray = sorted(extra if sparse else extra | (set(names) - set(annotated)))
    if stray:
        raise UserError(f"{annotation_folder}: {len(annotated)} annotations for {len(names)} frames in {frame_folder}; "
                        f"first without a partner: {stray[0]}; complete the download")  # fmt: skip


@dataclass(frozen=True)
class OwnVideos:
    """Read the user's own videos: a video file, a folder of frames, or a folder of such files or folders.

    There are no annotations and no splits.

    Attributes:
        paths: several such files and folders to read together; if empty, the root is the only one.
        trust_index: see `VideoFile`.
    """

    paths: tuple[Path, ...] = ()
    trust_index: bool = False
    merged: bool = False
    sparse: bool = False
    split_source: str = "whatever lies there"
    fixed_splits: bool = True
    # Root -> name -> (one of `paths`, file or folder of frames), as last listed: so many videos are listed once.
    _found: dict[Path, dict[str, tuple[Path, Path]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def list_videos(self, root: Path, split: str) -> list[str]:
        found: dict[str, tuple[Path, Path]] = {}
        for path in self.paths or (root,):
            for name, source in self._list_at(path):
                if name in found:
                    also = "" if found[name][0] == path else f", the other in {found[name][0]}"
                    raise UserError(f"{path}: two videos are named {name} but for their endings{also}; rename one")
                found[name] = path, source
        self._found[root] = found
        return list(found)

    def _list_at(self, root: Path) -> list[tuple[str, Path]]:
        """List the videos at a path: name, and file or folder of frames."""
        if not root.exists():
            raise UserError(f"{root}: no such video file or folder of frames")
        refuse_own_output(root)
        if root.is_file():
            return [(root.stem, root)]
        files, (frames, own_output) = list_video_files(root), find_frames(root)
        if files and frames:
            raise UserError(f"{root}: holds pictures ({frames[0].name}, ...) and video files ({files[0].name}, ...); "
                             "name one of the files, or move one kind elsewhere")  # fmt: skip
        left_out = [(root.name, own_output)] if own_output else []
        videos = [(root.resolve().name, root)] if frames else []
        if not videos:
            folders, folders_left_out = find_frame_folders(root)
            videos = [*((name, root / name) for name in folders), *((path.stem, path) for path in files)]
            videos.sort(key=lambda video: natural_key(video[0]))
            left_out += folders_left_out
        if left_out:
            log_line(describe_left_out(root, left_out))
        if not videos:
            raise UserError(f"{root}: neither video files nor frames (jpg, png, ...) nor folders of frames"
                            f"{describe_unread(root) or '; name a video file or folder'}")  # fmt: skip
        return videos

    def open_video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        if name not in self._found.get(root, {}):
            self.list_videos(root, split)
        path, source = self._found[root][name]
        if source.is_dir():
            video = FrameFolder(name, find_frames(source)[0])
        else:
            video = VideoFile(name, source, trust_index=self.trust_index)
        video.root = path
        return video

    def find_mismatches(self, root: Path, split: str, video: Video) -> list[str]:
        return [video.damage] if video.damage else []

    def find_orphans(self, root: Path, split: str) -> list[str]:
        return []

    def find_missing_folder(self, root: Path, split: str, *, annotated: bool = True) -> Path | None:
        return None

    def has_split(self, root: Path, split: str, *, annotated: bool = True) -> bool:
        return False  # any folder could be the user's own, so this layout is never suggested


def list_video_files(folder: Path) -> list[Path]:
    """List the video files of a folder, known by their suffixes, in natural order. Hidden files are left out."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]
    return sort_naturally(path for path in files if not path.name.startswith("."))
