"""Read the names of the videos of a split: from a text file, a JSON, the names of folders, or a list in the code.

Also read the names of the frames of a video, for data sets whose download lists them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from data.own_output import describe_left_out, find_frames, refuse_own_output
from utils.errors import UserError
from utils.files import file_version, read_object
from utils.names import check_names, list_folders, read_lines, read_names
from utils.progress import log_line


class SplitSource(Protocol):
    """Read the names of the videos of a split.

    Attributes:
        description: where the names come from, in words.
        fixed: only the splits in the registry exist, whatever lies below the root.
    """

    @property
    def description(self) -> str: ...

    @property
    def fixed(self) -> bool: ...

    def read_names(self, root: Path, split: str, *, is_name: Callable[[str], bool]) -> list[str]:
        """Read the names of the videos of a split, at least one.

        Args:
            is_name: tells whether a line with spaces is one name.

        Raises:
            UserError: the names cannot be read; the message begins with the root or with the file at fault.
        """
        ...


@dataclass(frozen=True)
class SplitFile:
    """Read the names of a split from a text file.

    Attributes:
        path: path of the file below the root, with the field {split}.
        special: split -> path, for splits whose file has another path.
        frames: each line is a frame and its annotation instead of a name, as in DAVIS-2016
            (`/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png`).
    """

    path: str
    special: Mapping[str, str] = field(default_factory=dict)
    frames: bool = False
    fixed = False

    @property
    def description(self) -> str:
        special = (path.replace(split, "<split>") for split, path in self.special.items())
        return ", ".join(dict.fromkeys([self.path.format(split="<split>"), *special]))

    def read_names(self, root: Path, split: str, *, is_name: Callable[[str], bool]) -> list[str]:
        path = root / self.special.get(split, self.path).format(split=split)
        if not path.is_file():
            raise UserError(f"{root}: lacks {path.relative_to(root)}; check the root of the data set and --split")
        return check_names(read_frame_pairs(path), path) if self.frames else read_names(path, is_name=is_name)


@dataclass(frozen=True)
class Listed:
    """Return the names of splits that the literature fixes and no file of the download lists.

    Attributes:
        splits: split -> names.
    """

    splits: Mapping[str, tuple[str, ...]]
    fixed = True

    @property
    def description(self) -> str:
        return "; ".join(f"the {len(names)} of {split}" for split, names in self.splits.items())

    def read_names(self, root: Path, split: str, *, is_name: Callable[[str], bool]) -> list[str]:
        return list(self.splits[split])


@dataclass(frozen=True)
class Subfolders:
    """Take every folder in a folder for a video, except folders that hold output of this project only.

    Attributes:
        path: path of the folder below the root, which may have the field {split}.
    """

    path: str

    @property
    def description(self) -> str:
        return f"the folders in {self.path.format(split='<split>') or 'the root'}"

    @property
    def fixed(self) -> bool:
        return "{split}" not in self.path

    def read_names(self, root: Path, split: str, *, is_name: Callable[[str], bool]) -> list[str]:
        folder = root / self.path.format(split=split)
        if not folder.is_dir():
            raise UserError(f"{root}: lacks the folder {folder.relative_to(root)}; check the root and --split")
        refuse_own_output(folder)
        found = {path.name: find_frames(path) for path in list_folders(folder)}
        # A folder without any images counts: the frames may lie in a folder below it.
        left_out = {name: output for name, (frames, output) in found.items() if output and not frames}
        if left_out:
            log_line(describe_left_out(folder, left_out.items()))
        return check_names([name for name in found if name not in left_out], folder)


@dataclass(frozen=True)
class MetaKeys:
    """Read the names of a split from the keys of "videos" in a JSON file, as YouTube-VOS has it.

    Attributes:
        path: path of the file below the root, with the field {split}.
    """

    path: str
    fixed = False

    @property
    def description(self) -> str:
        return self.path.format(split="<split>")

    def read_names(self, root: Path, split: str, *, is_name: Callable[[str], bool]) -> list[str]:
        path = root / self.path.format(split=split)
        if not path.is_file():
            raise UserError(f"{root}: lacks {path.relative_to(root)}; check the root of the data set and --split")
        videos = read_json(path).get("videos")
        if not isinstance(videos, dict):
            raise UserError(f"{path}: has no 'videos' by name; download it again")
        return check_names(videos, path)


# ------------------------------------------------------------------ frames


@dataclass(frozen=True)
class FrameList:
    """Read a file of the download that lists the frames of videos, with which `data.check` compares the files found.

    Attributes:
        path: path of the file below the root, with the fields {split} and {name}.
        read: reads the file: name of a video -> names of its frames.
        annotated: every listed frame has an annotation, if the annotations of its split are public.
    """

    path: str
    read: Callable[[Path], dict[str, list[str]]]
    annotated: bool = False

    def read_frames(self, root: Path, *, split: str, name: str) -> tuple[Path, list[str]]:
        """Return the path of the file and the frames that it lists for a video; no frames if it lists none."""
        path = root / self.path.format(split=split, name=name)
        return path, _read_frames(self.read, path, file_version(path)).get(name, []) if path.is_file() else []


@lru_cache(maxsize=2)
def _read_frames(read: Callable[[Path], dict[str, list[str]]], path: Path, _version: str) -> dict[str, list[str]]:
    """Read a list of frames and keep the last two: one file can list the frames of thousands of videos."""
    return read(path)


def read_frame_pairs(path: Path) -> dict[str, list[str]]:
    """Read the frames in a split file of DAVIS-2016: name of a video -> names of its frames in order."""
    frames: dict[str, list[str]] = {}
    for line in read_lines(path):
        frame = PurePosixPath(line.split()[0])
        frames.setdefault(frame.parent.name, []).append(frame.stem)
    return frames


def read_annotated_frames(path: Path) -> dict[str, list[str]]:
    """Read `meta.json` of YouTube-VOS: name of a video -> sorted names of the frames in which it has an object."""
    frames = {}
    for name, video in read_json(path)["videos"].items():
        try:
            frames[name] = sorted({frame for item in video["objects"].values() for frame in item["frames"]})
        except (KeyError, TypeError, AttributeError):
            continue  # a video without a list of objects can be used all the same
    return frames


def read_bmf_frames(path: Path) -> dict[str, list[str]]:
    """Read `<name>.bmf` of FBMS: name of the video -> names of its frames.

    The file holds the number of frames, the number of views, and one file name a line.
    """
    words = [word for line in read_lines(path) for word in line.split()]
    return {path.stem: [PurePosixPath(word).stem for word in words[2:]]}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a download. Raises `UserError` if the file is not valid JSON or holds no object."""
    return read_object(path, mend="download it again")
