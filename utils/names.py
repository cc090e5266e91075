"""Sort, read and check the names of files and videos; names in other people's files are not to be trusted."""

import codecs
import re
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from unicodedata import category

from utils.errors import UserError

VIDEO_SUFFIXES = {
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp",
    ".ogv", ".mxf", ".gif", ".apng",
}  # fmt: skip
# Names, in lower case, under which data sets keep folders of label images, which could be taken for frames.
LABEL_FOLDERS = {
    "annotations", "annotations_unsupervised", "annotations_semisupervised", "scribbles", "masks", "segmentations",
    "groundtruth", "ground-truth", "gt",
}  # fmt: skip


def may_hold_frames(folder: str) -> bool:
    """Tell by its name whether a folder may hold frames: it is neither hidden nor a folder of annotations."""
    return not folder.startswith(".") and folder.lower() not in LABEL_FOLDERS


def natural_key(name: str) -> list[tuple[bool, int, str]]:
    """Return a sort key that compares runs of digits as numbers, so that 2.png comes before 10.png."""
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def sort_naturally(paths: Iterable[Path]) -> list[Path]:
    """Sort paths by their names, comparing runs of digits as numbers."""
    return sorted(paths, key=lambda path: natural_key(path.name))


def list_folders(folder: Path) -> list[Path]:
    """List the folders directly in a folder, in natural order of their names. Hidden ones are left out."""
    return sort_naturally(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def format_ranges(numbers: Iterable[int], *, most: int | None = None) -> str:
    """Format rising numbers as ranges of consecutive ones, such as "1-3, 7".

    Args:
        most: show only this many ranges, then "...".
    """
    rows = [[number for _, number in row] for _, row in groupby(enumerate(numbers), lambda item: item[1] - item[0])]
    shown = [f"{row[0]}-{row[-1]}" if len(row) > 1 else str(row[0]) for row in rows[:most]]
    return ", ".join(shown + ["..."] * (len(shown) < len(rows)))


def check_name(name: object, source: object) -> str:
    """Return `name` if it is a plain name of a file or folder; refuse paths, which could lead out of the data set.

    Control characters are refused too: a line break in a name would break messages and lists of names.

    Args:
        source: where the name was found, for the error message.

    Raises:
        UserError: `name` is not a plain name.
    """
    unfit = not isinstance(name, str) or name in ("", ".", "..")
    if unfit or any(character in "/\\" or category(character) == "Cc" for character in name):
        raise UserError(f"{source}: names {name!r}, which is no plain file or folder name; restore this file")
    return name


def read_names(path: Path, *, is_name: Callable[[str], bool] = lambda line: False) -> list[str]:
    """Read the names in a text file, separated by white space. Blank lines and lines that begin with # are skipped.

    Args:
        is_name: tells whether a line that has spaces or begins with # is one name all the same.

    Raises:
        UserError: the file is not text, has no name, or has a name twice or one that is a path.
    """
    names = []
    for line in read_lines(path, keep=is_name):
        words = line.split()
        names += [line] if len(words) > 1 and is_name(line) else words
    return check_names(names, path)


def read_train_list(root: Path, train_list: str, *, known: Iterable[str] = ()) -> list[str]:
    """Read the names in the file of `--train_list`.

    Args:
        train_list: path of the file, absolute or relative to `root`.
        known: names of existing videos; such a name may have spaces if it stands on a line of its own.

    Raises:
        UserError: there is no such file; or as `read_names`.
    """
    path = root / train_list  # if `train_list` is absolute, so is the result
    if not path.is_file():
        raise UserError(f"--train_list {train_list}: no such file below {root}")
    return read_names(path, is_name=set(known).__contains__)


def read_lines(path: Path, *, keep: Callable[[str], bool] = lambda line: False) -> list[str]:
    """Read the stripped lines of a text file, without blank lines and without comments that `keep` does not keep."""
    lines = (line.strip() for line in read_text(path).splitlines())
    return [line for line in lines if line and (not line.startswith("#") or keep(line))]


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 if it begins with a byte order mark. Byte order marks are removed.

    Raises:
        UserError: the file is not such a text.
    """
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and len(content) > 2
    try:
        return content.decode("utf-16" if wide else "utf-8").replace("\ufeff", "")  # joined files have marks inside
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file ({error.reason}); restore it") from error


def check_names(names: Iterable[str], source: Path) -> list[str]:
    """Return `names`, at least one, all plain and none twice; errors name `source`, where they were found."""
    checked = [check_name(name, source) for name in names]
    if not checked:
        raise UserError(f"{source}: names no sequence; restore it")
    if len(set(checked)) < len(checked):
        twice = next(name for name in checked if checked.count(name) > 1)
        raise UserError(f"{source}: names {twice} twice; restore it")
    return checked
