"""Know the files of a report, and refuse a folder that holds those of another."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError
from utils.files import read_object

INDEX, REPORT = "index.html", "report"  # the page to open, and the folder of everything else
MARKER = f"{REPORT}/report.json"
MEND = "remove the report/ it lies in"


def holds_report(folder: Path) -> bool:
    """Tell whether this program has written a report in a folder."""
    return (folder / MARKER).is_file()


def identify_results(folder: Path, results: Sequence[Path]) -> list[str]:
    """Name the results that a report in `folder` shows, relative to it, so that both can be moved together."""
    return [os.path.relpath(path.resolve(), folder.resolve()) for path in results]


def check_report_folder(folder: Path, results: Sequence[Path], *, flag: str) -> None:
    """Refuse a folder whose report is of other results, or whose index.html or report/ is no report at all.

    Args:
        results: the folders of results that the report is to show.
        flag: the option that gave `folder`, for error messages.

    Raises:
        UserError: see above. Nothing is changed.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{flag} {folder}: is a file; choose a folder")
    found = [name for name in (INDEX, REPORT) if (folder / name).exists()]
    if not found:
        return
    if not holds_report(folder):
        raise UserError(f"{flag} {folder}: holds {found[0]}, which is no report of this program; choose another folder")
    shown = read_object(folder / MARKER, mend=MEND).get("results")
    if shown != identify_results(folder, results):
        raise UserError(f"{flag} {folder}: holds the report of other results ({shown}); choose another folder, or "
                        f"remove its {INDEX} and {REPORT}/")  # fmt: skip


def remove_report(folder: Path) -> None:
    """Remove the report in a folder, if there is one; other files stay."""
    if holds_report(folder):
        (folder / INDEX).unlink(missing_ok=True)
        shutil.rmtree(folder / REPORT, ignore_errors=True)
