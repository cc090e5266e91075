"""YouTube-VIS: folders of frames, and one JSON file of RLE masks for a split."""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from data.annotations import MAX_OBJECTS, RleVideo, Track
from data.layouts.splits import read_json
from data.videos import FrameFolder, Video
from utils.errors import UserError
from utils.names import plain_name


@dataclass(frozen=True)
class Entry:
    """A video of the JSON: files of its frames below the folder of frames, (height, width), its objects' masks."""

    files: tuple[str, ...]
    size: tuple[int, int]
    tracks: tuple[Track, ...]


@dataclass(frozen=True)
class InstanceLayout:
    """Frames as the JSON names them, below one folder; a split without annotations is for prediction only.

    frames: that folder below the root, with {split}. json: where the file may lie; the first that exists counts.
    """

    frames: str
    json: tuple[str, ...]
    merged: bool = False
    sparse: bool = False

    @property
    def split_source(self) -> str:
        return " or ".join(path.format(split="<split>") for path in self.json)

    def names(self, root: Path, split: str) -> list[str]:
        path = self._json_path(root, split)
        if not (names := list(_entries(path))):
            raise UserError(f"{path}: describes no video; download it again")
        return names

    def video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        path = self._json_path(root, split)
        entry, has_truth = _entries(path)[name], _has_annotations(path)
        files = [root / self.frames.format(split=split) / file for file in entry.files]
        if missing := [file for file in files if not file.is_file()]:
            raise UserError(f"{missing[0]}: missing, the first of {len(missing)} frames that {path} names; "
                            "complete the download")  # fmt: skip
        video = FrameFolder(name, files)
        if annotated and has_truth:
            video.annotations = RleVideo(name, video.frame_names, entry.size, list(entry.tracks), path)
        return video

    def _json_path(self, root: Path, split: str) -> Path:
        plain_name(split, "--split")
        candidates = [root / path.format(split=split) for path in self.json]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            names = " or ".join(str(path.relative_to(root)) for path in candidates)
            raise UserError(f"{root}: lacks {names}; check the root of the data set and --split")
        return found


def _entries(path: Path) -> dict[str, Entry]:
    return _parse(path, path.stat().st_mtime_ns)[0]


def _has_annotations(path: Path) -> bool:
    return _parse(path, path.stat().st_mtime_ns)[1]


@lru_cache(maxsize=2)
def _parse(path: Path, _changed: int) -> tuple[dict[str, Entry], bool]:
    """Videos by name in the order of the JSON, and whether any is annotated. Files of 500 MB: read once a process.

    Raises:
        UserError: not valid JSON, or an entry that is not as it should be; it names the entry.
    """
    content = read_json(path)
    tracks: dict[Any, list[Track]] = defaultdict(list)
    annotations = content.get("annotations") or []
    for index, annotation in enumerate(_listed(annotations, path, "annotations")):
        try:
            track = Track(tuple(annotation["segmentations"]), bool(annotation.get("iscrowd", 0)))
            tracks[annotation["video_id"]].append(track)
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: annotations[{index}] is not as in YouTube-VIS ({error!r}); "
                            "download it again") from None  # fmt: skip
    entries: dict[str, Entry] = {}
    for index, video in enumerate(_listed(content.get("videos"), path, "videos")):
        name, entry = _entry(video, tracks, path, index)
        if entries.setdefault(name, entry) is not entry:
            raise UserError(f"{path}: describes the video {name} twice; download it again")
    return entries, bool(annotations)


def _listed(value: object, path: Path, key: str) -> list:
    if not isinstance(value, list):
        raise UserError(f"{path}: has no list of '{key}'; download it again")
    return value


def _entry(video: Any, tracks: dict[Any, list[Track]], path: Path, index: int) -> tuple[str, Entry]:
    """The name of a video, which is the folder of its frames, and what the JSON says of it."""
    try:
        parts = [str(file).split("/") for file in video["file_names"]]
        size = int(video["height"]), int(video["width"])
        own = tuple(tracks[video["id"]])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: videos[{index}] is not as in YouTube-VIS ({error!r}); download it again") from None
    source = f"{path}, videos[{index}]"
    if not parts or any(len(part) != 2 or part[0] != parts[0][0] for part in parts):
        raise UserError(f"{source}: its file names are not all <video>/<frame> of one video; download it again")
    name = plain_name(parts[0][0], source)
    files = tuple(f"{name}/{plain_name(file, source)}" for _, file in parts)
    for track in own:
        if len(track.segmentations) != len(files):
            raise UserError(f"{source}: {len(track.segmentations)} segmentations of an object in {len(files)} frames; "
                            "download it again")  # fmt: skip
    if len(own) > MAX_OBJECTS:
        raise UserError(f"{source}: {len(own)} objects, but ids go to {MAX_OBJECTS}; score a data set with fewer")
    return name, Entry(files, size, own)
