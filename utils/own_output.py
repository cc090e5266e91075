"""What our programs write, told from what they are given, so that it is never taken for frames of a video.

Results and label PNGs look like folders of frames, and often lie below the root that is given: `--basepath .` with
`outputs/` in it. A second run has to find the same videos as the first.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from utils.errors import UserError
from utils.names import natural_key
from utils.pictures import FAULTS, list_images
from utils.png import make_palette

RESULTS, RUN, PICTURES = "results of eval.py", "a run of train.py", "label PNGs or pictures of results"
CONTACT_SHEET = "contact_sheet.png"
OVERLAYS = "overlays"
MARK = {"Software": "self-supervised video object segmentation"}  # in the text of PNGs that are made to be looked at
FEWEST_COLOURS = 3  # of a palette that says whose it is
NAMED = 3  # folders of each kind that a note names


def what_we_wrote(folder: Path) -> str | None:
    """`RESULTS` or `RUN` where one of our programs made a folder, and all below it; else None."""
    if _are_results(folder):
        return RESULTS
    return RUN if (folder / "log.jsonl").is_file() and (folder / "last.pt").is_file() else None


def refuse_own_output(root: Path, *, flag: str = "") -> None:
    """Refuse a root, a folder or a video file, that is results, lies in results or is a run.

    Raises:
        UserError: it begins with the flag, if one is given, and the root.
    """
    if made := what_we_wrote(root) or (RESULTS if _lies_in_results(root.resolve()) else None):
        where = f"{flag} {root}" if flag else root
        raise UserError(f"{where}: holds {made}, no frames; name the video file or folder of frames")


def find_frames(folder: Path) -> tuple[list[Path], str | None]:
    """The frames in a folder in order; and which of `RESULTS`, `RUN` and `PICTURES` it has that were left out, or None.

    Of PNGs the first and the last are looked at; all of them where one of these is ours.
    """
    if made := what_we_wrote(folder):
        return [], made
    images = list_images(folder)
    pngs, ours = [path for path in images if path.suffix.lower() == ".png"], set()
    if any(map(_is_our_picture, (*pngs[:1], *pngs[-1:], *(path for path in pngs if path.name == CONTACT_SHEET)))):
        ours = set(filter(_is_our_picture, pngs))
    return [path for path in images if path not in ours], PICTURES if ours else None


def folders_of_frames(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """The folders in `root` that hold frames, in the order of their numbers; and those with what was left out."""
    names, left_out = [], []
    folders = (path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    for folder in sorted(folders, key=lambda path: natural_key(path.name)):
        frames, ours = find_frames(folder)
        names += [folder.name] if frames else []
        left_out += [(folder.name, ours)] if ours else []
    return names, left_out


def note_left_out(root: Path, found: Sequence[tuple[str, str]]) -> str:
    """The line that says what was left out below `root`. found: folders and what they hold, at least one."""
    kinds: dict[str, list[str]] = {}
    for name, what in found:
        kinds.setdefault(what, []).append(name)
    said = (
        f"{what} in {', '.join(names[:NAMED])}" + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        for what, names in kinds.items()
    )
    return f"note: {root}: not taken for frames: {'; '.join(said)}"


def _lies_in_results(place: Path) -> bool:
    """Whether a folder is the masks of a video or the overlays in a folder of results, or a file one of the latter."""
    return any(
        _are_results(folder) and ((folder / f"stats/{place.name}.json").is_file() or folder / OVERLAYS in chain)
        for chain in [(place, *place.parents)]
        for folder in chain[1:4]
    )


def _are_results(folder: Path) -> bool:
    try:
        settings = json.loads((folder / "settings.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    ours = isinstance(settings, dict) and "backbone" in settings
    return ours and ("predictions" in settings or "protocols" in settings)  # its name until 2026-11


def _is_our_picture(path: Path) -> bool:
    """Whether a PNG is a label map with our palette, which is that of DAVIS, or a picture that we drew."""
    if path.name == CONTACT_SHEET:
        return True
    try:
        with Image.open(path) as image:
            if image.format != "PNG":
                return False
            colours = image.palette.palette if image.mode == "P" else b""
            drawn = MARK.items() <= image.info.items()
    except FAULTS:  # whoever reads it will tell
        return False
    return drawn or (len(colours) >= 3 * FEWEST_COLOURS and make_palette().tobytes().startswith(bytes(colours)))
