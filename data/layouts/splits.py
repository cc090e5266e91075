"""Where the names of the videos of a split come from: a text file, keys of a JSON, folders, or a list known here.

And where those of the frames of a video do, for the data sets whose download names them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from utils.errors import UserError
from utils.files import file_version, read_object
from utils.names import checked_names, lines_in, names_in, natural_key
from utils.own_output import find_frames, note_left_out, refuse_own_output
from utils.progress import log_line


class SplitSource(Protocol):
    """Gives the names of a split below a root.

    describe: where from, in words. fixed: there are no splits but those of the registry, whatever lies below the root.
    """

    @property
    def describe(self) -> str: ...

    @property
    def fixed(self) -> bool: ...

    def names(self, root: Path, split: str, is_name: Callable[[str], bool]) -> list[str]:
        """At least one name; raises `UserError` that begins with the root or file at fault. `is_name`: whether a line
        with spaces is one name."""
        ...


@dataclass(frozen=True)
class SplitFile:
    """A text file of names.

    path: below the root, with {split}. special: paths of splits that lie elsewhere. frames: its lines are pairs of a
    frame and an annotation, as in DAVIS-2016 (`/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png`).
    """

    path: str
    special: Mapping[str, str] = field(default_factory=dict)
    frames: bool = False
    fixed = False

    @property
    def describe(self) -> str:
        special = (path.replace(split, "<split>") for split, path in self.special.items())
        return ", ".join(dict.fromkeys([self.path.format(split="<split>"), *special]))

    def names(self, root: Path, split: str, is_name: Callable[[str], bool]) -> list[str]:
        path = root / self.special.get(split, self.path).format(split=split)
        if not path.is_file():
            raise UserError(f"{root}: lacks {path.relative_to(root)}; check the root of the data set and --split")
        return checked_names(frames_in_pairs(path), path) if self.frames else names_in(path, is_name=is_name)


@dataclass(frozen=True)
class Listed:
    """Splits that are fixed by the literature and named by no file of the download: split -> names."""

    splits: Mapping[str, tuple[str, ...]]
    fixed = True

    @property
    def describe(self) -> str:
        return "; ".join(f"the {len(names)} of {split}" for split, names in self.splits.items())

    def names(self, root: Path, split: str, is_name: Callable[[str], bool]) -> list[str]:
        return list(self.splits[split])


@dataclass(frozen=True)
class Subfolders:
    """Every folder in a folder: path below the root, with {split}."""

    path: str

    @property
    def describe(self) -> str:
        return f"the folders in {self.path.format(split='<split>') or 'the root'}"

    @property
    def fixed(self) -> bool:
        return "{split}" not in self.path

    def names(self, root: Path, split: str, is_name: Callable[[str], bool]) -> list[str]:
        folder = root / self.path.format(split=split)
        if not folder.is_dir():
            raise UserError(f"{root}: lacks the folder {folder.relative_to(root)}; check the root and --split")
        refuse_own_output(folder)
        paths = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        names, left_out = [], []
        for path in sorted(paths, key=lambda path: natural_key(path.name)):
            frames, ours = find_frames(path)
            if ours and not frames:
                left_out.append((path.name, ours))
            else:  # frames may lie deeper
                names.append(path.name)
        if left_out:
            log_line(note_left_out(folder, left_out))
        return checked_names(names, folder)


@dataclass(frozen=True)
class MetaKeys:
    """The keys of "videos" in a JSON file, as YouTube-VOS has it: path below the root, with {split}."""

    path: str
    fixed = False

    @property
    def describe(self) -> str:
        return self.path.format(split="<split>")

    def names(self, root: Path, split: str, is_name: Callable[[str], bool]) -> list[str]:
        path = root / self.path.format(split=split)
        if not path.is_file():
            raise UserError(f"{root}: lacks {path.relative_to(root)}; check the root of the data set and --split")
        videos = read_json(path).get("videos")
        if not isinstance(videos, dict):
            raise UserError(f"{path}: has no 'videos' by name; download it again")
        return checked_names(videos, path)


# ------------------------------------------------------------------ frames


@dataclass(frozen=True)
class FrameList:
    """A file of the download that names the frames of videos; nothing is read by it, `data.check` compares with it.

    path: below the root, with {split} and {name}. read: video -> its frames, of this file.
    annotated: each of these frames has an annotation, where the annotations of its split are public.
    """

    path: str
    read: Callable[[Path], dict[str, list[str]]]
    annotated: bool = False

    def frames(self, root: Path, *, split: str, name: str) -> tuple[Path, list[str]]:
        """The file and the names of the frames that it gives a video; none: it does not say."""
        path = root / self.path.format(split=split, name=name)
        return path, _read_frames(self.read, path, file_version(path)).get(name, []) if path.is_file() else []


@lru_cache(maxsize=2)
def _read_frames(read: Callable[[Path], dict[str, list[str]]], path: Path, _version: str) -> dict[str, list[str]]:
    """The file of a split is read once a process, not once for each of its thousands of videos."""
    return read(path)


def frames_in_pairs(path: Path) -> dict[str, list[str]]:
    """The frames of the sequences of DAVIS-2016's split files, in order."""
    found: dict[str, list[str]] = {}
    for line in lines_in(path):
        frame = PurePosixPath(line.split()[0])
        found.setdefault(frame.parent.name, []).append(frame.stem)
    return found


def frames_in_meta(path: Path) -> dict[str, list[str]]:
    """The frames in which YouTube-VOS's `meta.json` has an object, for the videos of which it says so."""
    found = {}
    for name, video in read_json(path)["videos"].items():
        try:
            found[name] = sorted({frame for one in video["objects"].values() for frame in one["frames"]})
        except (KeyError, TypeError, AttributeError):
            continue  # which objects a video has is not needed, only its name
    return found


def frames_in_bmf(path: Path) -> dict[str, list[str]]:
    """The frames of FBMS's `<name>.bmf`: their number and that of views, then a file a line."""
    words = [word for line in lines_in(path) for word in line.split()]
    return {path.stem: [PurePosixPath(word).stem for word in words[2:]]}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a download. Raises `UserError`: not valid JSON, or something else than an object."""
    return read_object(path, mend="download it again")
