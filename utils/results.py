"""Write a folder of results: label PNGs of every video and the settings they were made with.

<save_path>/settings.json              everything that the predictions depend on
<save_path>/<video>/<frame>.png        label maps; with several kinds of them <save_path>/<kind>/<video>/...
<save_path>/stats/<video>.json         clusters, seconds per stage, peak memory
<save_path>/overlays/<video>.mp4       the masks drawn over the frames, with --overlay; .side_by_side.mp4: beside them
<save_path>/scores/<protocol>/         written by utils.scoring.score
<save_path>/explore/<video>/           queries and keys of the last block, with --explore, by utils.report.attention
<save_path>/index.html, report/        pages for a browser, written by utils.report.pages
"""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.files import LOCK, check_writable, read_object, replace_folder, write_atomically, write_object
from utils.png import find_pngs, write_label_png
from utils.predictions import locate_predictions, read_kinds
from utils.progress import log_line
from utils.report.attention import EXPLORE, is_kept
from utils.report.jpegs import KEPT
from utils.report.place import INDEX, REPORT, check_report_folder, remove_report
from utils.report.results import is_background

CONTACT_SHEET = "contact_sheet.png"
OVERLAYS = "overlays"
# No names of videos where there is one kind of predictions, whose folders lie beside these.
RESERVED = {"stats", OVERLAYS, EXPLORE, "scores", REPORT, INDEX}


class ResultsFolder:
    """A folder of predictions made with one set of settings.

    Args:
        path: the folder; created if it is missing.
        kinds: kinds of predictions, such as `davis` (at most 20 proposals); several get a subfolder each.
        settings: everything that the predictions depend on, as plain values.
        origin: where data and settings came from, such as file names; recorded, but may differ between reruns.
        explore: whether results are complete only with what explains them (`explanation`).
    """

    def __init__(
        self, path: Path, *, kinds: list[str], settings: dict[str, Any], origin: dict[str, Any], explore: bool = False
    ):
        self.path = path
        self.kinds = kinds
        self.explore = explore
        self.settings = json.loads(json.dumps(settings))
        self.provenance = {**self.settings, "origin": origin}

    def check(self, *, overwrite: bool) -> None:
        """Refuse a folder to which these results cannot be written. Changes nothing.

        Raises:
            UserError: it holds results of other settings and `overwrite` is False, or files that are not results, or
                it cannot be written.
        """
        existing = self._read_settings()
        if existing is not None and existing != self.settings and not overwrite:
            raise UserError(
                f"--save_path {self.path}: holds results of other settings ({_difference(existing, self.settings)}); "
                "choose another folder or give --overwrite"
            )
        check_report_folder(self.path, [self.path], flag="--save_path")
        check_writable(self.path, flag="--save_path")

    def prepare(self, *, overwrite: bool) -> None:
        """Prepare the folder for writing; with `overwrite` remove the results in it, and nothing else.

        Raises:
            UserError: see `check`.
        """
        self.check(overwrite=overwrite)
        if overwrite and (existing := self._read_settings()) is not None:
            self._remove(existing)

    def _read_settings(self) -> dict[str, Any] | None:
        """Read the settings of the results in the folder; None if it is empty. Raises `UserError` for other files."""
        marker = self.path / "settings.json"
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--save_path {self.path}: is a file; choose a folder")
        if marker.exists():
            return {key: value for key, value in _read_json(marker).items() if key != "origin"}
        if self.path.is_dir() and any(path.name != LOCK for path in self.path.iterdir()):
            raise UserError(f"--save_path {self.path}: holds files that are not results of eval.py; choose another")
        return None

    def predictions(self, kind: str) -> Path:
        """Return the folder that has one folder of PNGs per video for a kind of predictions."""
        return locate_predictions(self.path, self.kinds, kind)

    def explanation(self, video: str) -> Path:
        """Return the folder of what explains a video's masks."""
        return self.path / EXPLORE / video

    def has(self, video: str, frame_names: list[str], *, fingerprint: Callable[[], str], root: Path) -> bool:
        """Tell whether the results of a video are complete. If it has moved since, its new place is recorded.

        Args:
            fingerprint: computes the fingerprint of the video that `finish` recorded. Called only if there are
                results, since it reads the whole video.
            root: where the video is read from.

        Raises:
            UserError: a frame was removed from complete results, the video has changed since, or its name is that of
                another file in the folder, which holds the videos themselves where there is one kind.
        """
        if len(self.kinds) == 1 and video in RESERVED:
            raise UserError(f"video '{video}': its results would take a name that --save_path uses; "
                            "rename the video, or give --protocol davis foreground")  # fmt: skip
        folders = [self.predictions(kind) / video for kind in self.kinds]
        if not all(folder.is_dir() for folder in folders) or not self._stats_file(video).exists():
            return False
        stats, now = _read_json(self._stats_file(video)), fingerprint()
        if (recorded := stats.get("video")) != now:
            which = f"another version of {video} ({recorded}, now {now})"
            if stats.get("root") not in (None, str(root)):
                which = f"another {video}, {stats['root']} and not {root}"
            raise UserError(f"--save_path {self.path}: holds results of {which}; choose another folder or give "
                            "--overwrite")  # fmt: skip
        for folder in folders:
            for name in frame_names:
                if not (folder / f"{name}.png").is_file():
                    raise UserError(f"{folder / name}.png: missing from finished results; remove {folder} to redo it")
        if self.explore and not is_kept(self.explanation(video)):
            log_line(f"note: --explore: {video} is segmented again, since its attention was not kept")
            return False
        if stats.get("root") != str(root):
            self.finish(video, {**stats, "root": str(root)})
        return True

    def write_video(self, video: str, *, frame_names: list[str], label_maps: Iterable[dict[str, np.ndarray]]) -> None:
        """Write the label maps (H, W) of every kind, frame by frame.

        The settings are written with the first video, so that a run that failed earlier leaves an empty folder.
        """
        shutil.rmtree(self.explanation(video), ignore_errors=True)  # it would explain the masks before these
        for folder in {self.path, *map(self.predictions, self.kinds)}:  # atomically: every process of a run does so
            write_object(folder / "settings.json", self.provenance)
        with ExitStack() as stack:  # every kind takes its place when the last frame is written
            folders = {kind: stack.enter_context(replace_folder(self.predictions(kind) / video)) for kind in self.kinds}
            for name, maps in zip(frame_names, label_maps, strict=True):
                for kind, labels in maps.items():
                    write_label_png(folders[kind] / f"{name}.png", labels)

    def finish(self, video: str, stats: dict[str, Any]) -> None:
        """Write a video's statistics, which marks its results as complete."""
        write_object(self._stats_file(video), stats)

    def list_background(self, video: str) -> list[int]:
        """List the proposals of a finished video that are background, see `select_background`."""
        return self.select_background(_read_json(self._stats_file(video))["proposals"])

    def select_background(self, proposals: dict[str, list[dict[str, Any]]]) -> list[int]:
        """List the ids of proposals, of the first kind of predictions, that are background.

        Args:
            proposals: kind of predictions -> entries of `Proposals.describe`.
        """
        kind = self.kinds[0]
        return [entry["id"] for entry in proposals[kind] if is_background(entry, kind=kind)]

    def _stats_file(self, video: str) -> Path:
        return self.path / "stats" / f"{video}.json"

    def _remove(self, existing: dict[str, Any]) -> None:
        """Remove earlier results of eval.py: videos with statistics, their scores, overlays and report."""
        kinds = read_kinds(existing, self.path / "settings.json", mend="choose another folder")
        roots = [locate_predictions(self.path, kinds, kind) for kind in kinds]  # nothing outside is ever removed
        for stats in (self.path / "stats").glob("*.json"):
            for root in roots:
                shutil.rmtree(root / stats.stem, ignore_errors=True)
        for root in {self.path, *roots}:
            shutil.rmtree(root / "scores", ignore_errors=True)
        for name in ("stats", OVERLAYS, EXPLORE, KEPT):
            shutil.rmtree(self.path / name, ignore_errors=True)
        remove_report(self.path)


def write_archive(path: Path, folder: Path, videos: list[str]) -> None:
    """Zip the label PNGs `<video>/<frame>.png` of `videos` below `folder`, as evaluation servers expect them."""
    with write_atomically(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for video in videos:
            for png in find_pngs(folder / video).values():
                archive.write(png, f"{video}/{png.name}")


def _difference(existing: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Describe the first two settings that differ, or that another version of the program made them."""
    if existing.get("version") != wanted.get("version"):
        return "made by another version of this program"
    keys = [key for key in {**existing, **wanted} if existing.get(key) != wanted.get(key)]
    values = ((key, existing.get(key), wanted.get(key)) for key in keys[:2])
    return ", ".join(f"another {k}" if isinstance(v, dict) else f"{k} {h} there, {v} now" for k, h, v in values)


def _read_json(path: Path) -> dict[str, Any]:
    return read_object(path, mend="remove the folder it lies in")
