"""Names of files and sequences: their order, and those that must not be trusted."""

import codecs
import re
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from unicodedata import category

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
    """Return `name` if it is that of one file or folder: names from other people's files must not lead elsewhere.

    Control characters are refused too: a line break would end a message, or a line of a list, in the middle of a name.

    Raises:
        UserError: naming `source`, where the name was found.
    """
    unfit = not isinstance(name, str) or name in ("", ".", "..")
    if unfit or any(character in "/\\" or category(character) == "Cc" for character in name):
        raise UserError(f"{source}: names {name!r}, which is no plain file or folder name; restore this file")
    return name


def names_in(path: Path, *, is_name: Callable[[str], bool] = lambda line: False) -> list[str]:
    """Read the names in a text file, divided by white space; blank lines and those that begin with # do not count.

    Args:
        is_name: whether a line, which has spaces or begins with #, is one name all the same.

    Raises:
        UserError: not text, no name, one twice, or a path.
    """
    found = []
    for line in lines_in(path, keep=is_name):
        words = line.split()
        found += [line] if len(words) > 1 and is_name(line) else words
    return checked_names(found, path)


def listed_names(root: Path, train_list: str, *, known: Iterable[str] = ()) -> list[str]:
    """Read the names in a --train_list, a file absolute or relative to `root`.

    Args:
        known: names that there are; one with spaces stands on a line of its own.

    Raises:
        UserError: as `names_in`, and where there is no such file.
    """
    path = root / train_list  # an absolute one stays as it is
    if not path.is_file():
        raise UserError(f"--train_list {train_list}: no such file below {root}")
    return names_in(path, is_name=set(known).__contains__)


def lines_in(path: Path, *, keep: Callable[[str], bool] = lambda line: False) -> list[str]:
    """Read the lines of a text file, stripped, without blank ones and without comments, unless `keep` says so."""
    lines = (line.strip() for line in read_text(path).splitlines())
    return [line for line in lines if line and (not line.startswith("#") or keep(line))]


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 where its byte order mark says so, without such marks.

    Raises:
        UserError: not such a text.
    """
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and len(content) > 2  # as Windows' shell
    try:
        return content.decode("utf-16" if wide else "utf-8").replace("\ufeff", "")  # within: of files put together
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
