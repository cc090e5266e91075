"""Recognise what this project's programs write, so that it is never read as frames of a video.

Results and label PNGs look like folders of frames and often lie below the given root, as `outputs/` does below
`--basepath .`; a second run must find the same videos as the first.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from utils.errors import UserError
from utils.names import list_folders
from utils.pictures import FAULTS, IMAGE_SUFFIXES, list_images
from utils.png import make_palette
from utils.report.place import REPORT, holds_report
from utils.results import CONTACT_SHEET, OVERLAYS
from utils.visual import MARK

RESULTS, RUN, PICTURES = "results of eval.py", "a run of train.py", "label PNGs or pictures of results"
MIN_PALETTE_COLOURS = 3  # a shorter palette, such as black and dark red, could be anybody's
MAX_NAMED = 3  # folders of each kind that a note names


def identify_own_output(folder: Path) -> str | None:
    """Return `RESULTS` or `RUN` if this folder was written by eval.py or train.py, else None."""
    if _holds_results(folder) or holds_report(folder):
        return RESULTS
    return RUN if (folder / "log.jsonl").is_file() and (folder / "last.pt").is_file() else None


def refuse_own_output(root: Path, *, flag: str = "") -> None:
    """Refuse a folder or video file that eval.py or train.py wrote, or that lies in a folder of results.

    Args:
        flag: the flag that named `root`, with which the error message then begins.

    Raises:
        UserError: `root` is such output.
    """
    if output := identify_own_output(root) or (RESULTS if _lies_in_results(root.resolve()) else None):
        where = f"{flag} {root}" if flag else root
        raise UserError(f"{where}: holds {output}, no frames; name the video file or folder of frames")


def find_frames(folder: Path) -> tuple[list[Path], str | None]:
    """List the frames in a folder in order, without this project's output.

    To save time only the first and the last PNG are opened; if one of them is our output, all PNGs are.

    Returns:
        The frames, and the kind of output that was left out: `RESULTS`, `RUN`, `PICTURES` or None.
    """
    if output := identify_own_output(folder):
        return [], output
    images = list_images(folder)
    pngs, own_pictures = [path for path in images if path.suffix.lower() == ".png"], set()
    if any(map(_is_own_picture, (*pngs[:1], *pngs[-1:], *(path for path in pngs if path.name == CONTACT_SHEET)))):
        own_pictures = set(filter(_is_own_picture, pngs))
    return [path for path in images if path not in own_pictures], PICTURES if own_pictures else None


def find_frame_folders(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """List the folders directly below `root` that hold frames, in natural order; hidden folders are skipped.

    Returns:
        Their names, and (name, kind of output) of the folders in which output was left out.
    """
    found = {folder.name: find_frames(folder) for folder in list_folders(root)}
    left_out = [(name, output) for name, (_, output) in found.items() if output]
    return [name for name, (frames, _) in found.items() if frames], left_out


def describe_unread(root: Path) -> str:
    """Say which endings of files in a folder, or in the folders directly below it, are not read; "" if there are none.

    The text continues an error message: `; .tga is not read: save the frames as one of .bmp, ...`.
    """
    files = (path for pattern in ("*", "*/*") for path in root.glob(pattern) if path.is_file())
    endings = Counter(path.suffix.lower() for path in files if not path.name.startswith("."))
    unread = [ending for ending, _ in endings.most_common() if ending and ending not in IMAGE_SUFFIXES][:MAX_NAMED]
    if not unread:
        return ""
    return (f"; {', '.join(unread)} {'is' if len(unread) == 1 else 'are'} not read: save the frames as one of "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}")  # fmt: skip


def describe_left_out(root: Path, left_out: Iterable[tuple[str, str]]) -> str:
    """Return a note that says which output below `root` was not taken for frames.

    Args:
        left_out: (name of the folder, kind of output), at least one.
    """
    kinds: dict[str, list[str]] = {}
    for name, kind in left_out:
        kinds.setdefault(kind, []).append(name)
    parts = []
    for kind, names in kinds.items():
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        parts.append(f"{kind} in {', '.join(names[:MAX_NAMED])}{more}")
    return f"note: {root}: not taken for frames: {'; '.join(parts)}"


def _lies_in_results(place: Path) -> bool:
    """Tell whether a folder or file lies in results: as a video's masks, among the overlays, or in a report."""
    chain = (place, *place.parents)
    return any(
        _holds_results(folder) and ((folder / f"stats/{place.name}.json").is_file() or folder / OVERLAYS in chain)
        for folder in chain[1:4]
    ) or any(holds_report(folder) and folder / REPORT in chain for folder in chain[1:5])


def _holds_results(folder: Path) -> bool:
    try:
        settings = json.loads((folder / "settings.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(settings, dict) and "backbone" in settings and "predictions" in settings


def _is_own_picture(path: Path) -> bool:
    """Tell whether a PNG is a label map with our palette, which is the palette of DAVIS, or a picture that we drew."""
    if path.name == CONTACT_SHEET:
        return True
    try:
        with Image.open(path) as image:
            if image.format != "PNG":
                return False
            colours = image.palette.palette if image.mode == "P" else b""
            drawn = MARK.items() <= image.info.items()
    except FAULTS:  # the reader of the frame will report the fault
        return False
    return drawn or (len(colours) >= 3 * MIN_PALETTE_COLOURS and make_palette().tobytes().startswith(bytes(colours)))
