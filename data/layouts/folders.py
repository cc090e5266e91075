"""Datasets as folders of frames and folders of label images, described by paths; and anybody's own videos."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data.annotations import label_files
from data.frames import list_images
from data.layouts.splits import SplitSource
from data.videos import FrameFolder, Video, VideoFile
from utils.annotations import Annotations
from utils.errors import UserError

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
    marker: see `MarkedLayout`; needed where the dataset has other layouts too.
    mask_ending: of stems of images among the frames that are annotations.
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
    mask_ending: str | None = None

    @property
    def split_source(self) -> str:
        return self.source.describe

    def is_at(self, root: Path) -> bool:
        return any(root.glob(self.marker))

    def names(self, root: Path, split: str) -> list[str]:
        return self.source.names(root, split)

    def video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        values = {"split": self.folders.get(split, split), "name": name}
        folder = root / self.frames.format(**values)
        frames = self._list_frames(folder)
        if not frames:
            raise UserError(f"{folder}: no frames; {COMPLETE}")
        video = FrameFolder(name, frames)
        if annotated and self.annotations is not None and split not in self.unannotated:
            truth = root / self.annotations.format(**values)
            if not truth.is_dir():
                raise UserError(f"{truth}: no annotations; {COMPLETE}")
            video.annotations = self.labels(truth, video.frame_names)
            check_frames(video.annotations, video.frame_names, truth=truth, frames=folder, sparse=self.sparse)
        return video

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
    """Anybody's own: a video file, a folder of frames, or a folder of such folders; no annotation, no splits."""

    merged: bool = False
    sparse: bool = False
    split_source: str = "whatever lies there"

    def names(self, root: Path, split: str) -> list[str]:
        if root.is_file():
            return [root.stem]
        if not root.is_dir():
            raise UserError(f"{root}: no such video file or folder of frames")
        if list_images(root):
            return [root.resolve().name]
        names = [path.name for path in sorted(root.iterdir()) if path.is_dir() and list_images(path)]
        if not names:
            raise UserError(f"{root}: neither frames (jpg, png, ...) nor folders of frames; "
                            "name a video file or folder")  # fmt: skip
        return names

    def video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        if root.is_file():
            return VideoFile(name, root)
        return FrameFolder(name, list_images(root) or list_images(root / name))
