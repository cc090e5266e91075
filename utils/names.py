"""Names of files and sequences: their order, and those that must not be trusted."""

import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from utils.errors import UserError

# Folders of label images, which look like frames, as the datasets name them; in lower case.
LABEL_FOLDERS = {
    "annotations", "annotations_unsupervised", "annotations_semisupervised", "scribbles", "masks", "segmentations",
    "groundtruth", "ground-truth", "gt",
}  # fmt: skip


def may_hold_frames(folder: str) -> bool:
    """Whether to look for frames in a folder of this name: not where it is hidden or one of annotations."""
    return not folder.startswith(".") and folder.lower() not in LABEL_FOLDERS


def natural_key(name: str) -> list[tuple[bool, int, str]]:
    """Sort key that compares runs of digits as numbers."""
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def number_ranges(numbers: Iterable[int], *, most: int | None = None) -> str:
    """Numbers in rising order, those in a row as first-last, of at most so many rows: 1-3, 7, ..."""
    rows = [[number for _, number in row] for _, row in groupby(enumerate(numbers), lambda item: item[1] - item[0])]
    shown = [f"{row[0]}-{row[-1]}" if len(row) > 1 else str(row[0]) for row in rows[:most]]
    return ", ".join(shown + ["..."] * (len(shown) < len(rows)))


def plain_name(name: object, source: object) -> str:
    """`name` if it is that of one file or folder; names come from files of others and must not lead out of a dataset.

    Raises:
        UserError: naming `source`, where the name was found.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise UserError(f"{source}: names {name!r}, which is no plain file or folder name; restore this file")
    return name


def names_in(path: Path) -> list[str]:
    """The names in a text file, divided by white space. Raises `UserError`: not text, none, one twice, or a path."""
    return checked_names(read_text(path).split(), path)


def listed_names(root: Path, train_list: str) -> list[str]:
    """The names in a --train_list, a file absolute or relative to `root`. Raises `UserError` as `names_in`, and where
    there is no such file."""
    path = root / train_list  # an absolute one stays as it is
    if not path.is_file():
        raise UserError(f"--train_list {train_list}: no such file below {root}")
    return names_in(path)


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file ({error.reason}); restore it") from error


def checked_names(names: Iterable[str], source: Path) -> list[str]:
    """Names that are each one plain folder name, and none twice; `source` is where they were found."""
    found = [plain_name(name, source) for name in names]
    if not found:
        raise UserError(f"{source}: names no sequence; restore it")
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise UserError(f"{source}: names {twice} twice; restore it")
    return found
