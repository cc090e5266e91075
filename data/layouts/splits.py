"""Where the names of the videos of a split come from: a text file, keys of a JSON, folders, or a list known here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from utils.errors import UserError
from utils.names import checked_names, names_in, plain_name, read_text


class SplitSource(Protocol):
    """Gives the names of a split below a root; `describe` says in words where from."""

    @property
    def describe(self) -> str: ...

    def names(self, root: Path, split: str) -> list[str]:
        """At least one name; raises `UserError` that begins with the root or file at fault."""
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

    @property
    def describe(self) -> str:
        return self.path.format(split="<split>")

    def names(self, root: Path, split: str) -> list[str]:
        plain_name(split, "--split")
        path = root / self.special.get(split, self.path).format(split=split)
        if not path.is_file():
            raise UserError(f"{root}: lacks {path.relative_to(root)}; check the root of the data set and --split")
        if self.frames:
            lines = read_text(path).splitlines()
            folders = (PurePosixPath(line.split()[0]).parent.name for line in lines if line.strip())
            return checked_names(dict.fromkeys(folders), path)
        return names_in(path)


@dataclass(frozen=True)
class Listed:
    """Splits that are fixed by the literature and named by no file of the download: split -> names."""

    splits: Mapping[str, tuple[str, ...]]

    @property
    def describe(self) -> str:
        return "; ".join(f"the {len(names)} of {split}" for split, names in self.splits.items())

    def names(self, root: Path, split: str) -> list[str]:
        if split not in self.splits:
            raise UserError(f"--split {split}: unknown here; choose from {', '.join(self.splits)}")
        return list(self.splits[split])


@dataclass(frozen=True)
class Subfolders:
    """Every folder in a folder: path below the root, with {split}."""

    path: str

    @property
    def describe(self) -> str:
        return f"the folders in {self.path.format(split='<split>') or 'the root'}"

    def names(self, root: Path, split: str) -> list[str]:
        folder = root / self.path.format(split=plain_name(split, "--split"))
        if not folder.is_dir():
            raise UserError(f"{root}: lacks the folder {folder.relative_to(root)}; check the root and --split")
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        return checked_names(names, folder)


@dataclass(frozen=True)
class MetaKeys:
    """The keys of "videos" in a JSON file, as YouTube-VOS has it: path below the root, with {split}."""

    path: str

    @property
    def describe(self) -> str:
        return self.path.format(split="<split>")

    def names(self, root: Path, split: str) -> list[str]:
        path = root / self.path.format(split=plain_name(split, "--split"))
        if not path.is_file():
            raise UserError(f"{root}: lacks {path.relative_to(root)}; check the root of the data set and --split")
        videos = read_json(path).get("videos")
        if not isinstance(videos, dict):
            raise UserError(f"{path}: has no 'videos' by name; download it again")
        return checked_names(videos, path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `UserError`: not valid JSON, or something else than an object."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); download it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object; download it again")
    return content
