"""YouTube-VIS: folders of frames, and one JSON file of RLE masks for a split."""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from data.annotations import MAX_OBJECTS, RleVideo, Track
from data.frames import list_images
from data.layouts.base import counted
from data.layouts.splits import read_json
from data.videos import FrameFolder, Video
from utils.errors import UserError
from utils.files import file_version
from utils.names import plain_name

MAX_PIXELS = 2**26  # of a frame, so that a damaged JSON does not take all memory; 8K has 2**25


@dataclass(frozen=True)
class Entry:
    """A video of the JSON: files of its frames below the folder of frames, (height, width), its objects' masks."""

    files: tuple[str, ...]
    size: tuple[int, int]
    tracks: tuple[Track, ...]


class Content(NamedTuple):
    """What a JSON says. entries: its videos by name, in order. annotated: it has annotations at all, and orphans are
    those of videos that it does not describe, in words."""

    entries: dict[str, Entry]
    annotated: bool
    orphans: list[str]


@dataclass(frozen=True)
class InstanceLayout:
    """Frames as the JSON names them, below one folder; a split without annotations is for prediction only.

    frames: that folder below the root, with {split}. json: where the file may lie; the first that exists counts.
    """

    frames: str
    json: tuple[str, ...]
    merged: bool = False
    sparse: bool = False
    fixed_splits: bool = False

    @property
    def split_source(self) -> str:
        return " or ".join(path.format(split="<split>") for path in self.json)

    def names(self, root: Path, split: str) -> list[str]:
        path = self._json_path(root, split)
        if not (names := list(_content(path).entries)):
            raise UserError(f"{path}: describes no video; download it again")
        return names

    def video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        path = self._json_path(root, split)
        content = _content(path)
        entry = content.entries[name]
        files = [root / self.frames.format(split=split) / file for file in entry.files]
        if missing := [file for file in files if not file.is_file()]:
            raise UserError(f"{missing[0]}: missing, the first of {len(missing)} frames that {path} names; "
                            "complete the download")  # fmt: skip
        video = FrameFolder(name, files)
        if annotated and content.annotated:
            video.annotations = RleVideo(name, video.frame_names, entry.size, list(entry.tracks), path)
        return video

    def mismatches(self, root: Path, split: str, video: Video) -> list[str]:
        path, folder = self._json_path(root, split), root / self.frames.format(split=split)
        files = _content(path).entries[video.name].files
        extra = [image.name for image in list_images(folder / video.name) if f"{video.name}/{image.name}" not in files]
        return counted(folder / video.name, extra, f"images that {path} does not name", "remove them")

    def orphans(self, root: Path, split: str) -> list[str]:
        path = self._json_path(root, split)
        return counted(
            path, _content(path).orphans, "annotations of videos that it does not describe", "download it again"
        )

    def _json_path(self, root: Path, split: str) -> Path:
        candidates = [root / path.format(split=split) for path in self.json]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            names = " or ".join(str(path.relative_to(root)) for path in candidates)
            raise UserError(f"{root}: lacks {names}; check the root of the data set and --split")
        return found


def _content(path: Path) -> Content:
    return _parse(path, file_version(path))


@lru_cache(maxsize=2)
def _parse(path: Path, _version: str) -> Content:
    """What a JSON says. Files of 500 MB: read once a process.

    Raises:
        UserError: not valid JSON, or an entry that is not as it should be; it names the entry.
    """
    content = read_json(path)
    tracks: dict[Any, list[Track]] = defaultdict(list)
    sources: dict[Any, list[str]] = defaultdict(list)
    annotations = content.get("annotations") or []
    for index, annotation in enumerate(_listed(annotations, path, "annotations")):
        try:
            track = Track(tuple(annotation["segmentations"]), bool(annotation.get("iscrowd", 0)))
            tracks[annotation["video_id"]].append(track)
            sources[annotation["video_id"]].append(f"annotations[{index}], video_id {annotation['video_id']!r}")
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: annotations[{index}] is not as in YouTube-VIS ({error!r}); "
                            "download it again") from None  # fmt: skip
    entries: dict[str, Entry] = {}
    identities = set()
    for index, video in enumerate(_listed(content.get("videos"), path, "videos")):
        name, entry = _entry(video, tracks, path, index)
        if entries.setdefault(name, entry) is not entry:
            raise UserError(f"{path}: describes the video {name} twice; download it again")
        if video["id"] in identities:
            raise UserError(f"{path}: gives the id {video['id']} to two videos; download it again")
        identities.add(video["id"])
        sources.pop(video["id"], None)
    return Content(entries, bool(annotations), [source for one in sources.values() for source in one])


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
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: videos[{index}] is not as in YouTube-VIS ({error!r}); download it again") from None
    source = f"{path}, videos[{index}]"
    if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise UserError(f"{source}: {size[0]} x {size[1]} is no size of a frame; download it again")
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
