"""YouTube-VIS: folders of frames, and one JSON file of RLE masks for a split."""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from data.annotations import AGAIN, RleVideo, Track
from data.headers import image_size
from data.layouts.base import counted
from data.layouts.splits import read_json
from data.videos import FrameFolder, Video
from utils.errors import UserError
from utils.files import file_version
from utils.names import plain_name
from utils.pictures import list_images
from utils.scoring.annotations import MAX_OBJECTS

MAX_PIXELS = 2**26  # of a frame, so that a damaged JSON does not take all memory; 8K has 2**25


@dataclass(frozen=True)
class Entry:
    """A video of the JSON: files of its frames below the folder of frames, (height, width), its objects' masks.

    size: None where the JSON does not say; that of the first frame then.
    """

    files: tuple[str, ...]
    size: tuple[int, int] | None
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

    frames: where that folder may lie below the root, with {split}. json: where the file may. The first that exists
        counts.
    """

    frames: tuple[str, ...]
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
            raise UserError(f"{path}: describes no video; {AGAIN}")
        return names

    def video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        path = self._json_path(root, split)
        content = _content(path)
        entry = content.entries[name]
        files = [self._frames_path(root, split) / file for file in entry.files]
        if missing := [file for file in files if not file.is_file()]:
            raise UserError(f"{missing[0]}: missing, the first of {len(missing)} frames that {path} names; "
                            "complete the download")  # fmt: skip
        video = FrameFolder(name, files)
        if annotated and content.annotated:
            size = entry.size or image_size(files[0])
            video.annotations = RleVideo(name, video.frame_names, size, list(entry.tracks), path)
        return video

    def lacks(self, root: Path, split: str, *, annotated: bool = True) -> Path | None:
        folder = self._frames_path(root, split)
        return None if folder.is_dir() else folder

    def holds(self, root: Path, split: str, *, annotated: bool = True) -> bool:
        return self._frames_path(root, split).is_dir() and any(path.is_file() for path in self._json_paths(root, split))

    def mismatches(self, root: Path, split: str, video: Video) -> list[str]:
        path, folder = self._json_path(root, split), self._frames_path(root, split)
        files = _content(path).entries[video.name].files
        extra = [image.name for image in list_images(folder / video.name) if f"{video.name}/{image.name}" not in files]
        return counted(folder / video.name, extra, f"images that {path} does not name", "remove them")

    def orphans(self, root: Path, split: str) -> list[str]:
        path = self._json_path(root, split)
        return counted(path, _content(path).orphans, "annotations of videos that it does not describe", AGAIN)

    def _json_paths(self, root: Path, split: str) -> list[Path]:
        return [root / path.format(split=split) for path in self.json]

    def _json_path(self, root: Path, split: str) -> Path:
        candidates = self._json_paths(root, split)
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            names = " or ".join(str(path.relative_to(root)) for path in candidates)
            raise UserError(f"{root}: lacks {names}; check the root of the data set and --split")
        return found

    def _frames_path(self, root: Path, split: str) -> Path:
        candidates = [root / path.format(split=split) for path in self.frames]
        return next((path for path in candidates if path.is_dir()), candidates[0])


def _content(path: Path) -> Content:
    return _parse(path, file_version(path))


@lru_cache(maxsize=2)
def _parse(path: Path, _version: str) -> Content:
    """What a JSON says. Files of 500 MB: read once a process.

    Raises:
        UserError: not valid JSON, or an entry that is not as it should be; it names the entry.
    """
    content = read_json(path)
    if "images" in content and "videos" not in content:
        raise UserError(f"{path}: describes images, not videos; export it as YouTube-VIS, with 'videos' and a list of "
                        "'segmentations' for each object")  # fmt: skip
    tracks: dict[str, list[Track]] = defaultdict(list)
    sources: dict[str, list[str]] = defaultdict(list)
    annotations = content.get("annotations") or []
    for index, annotation in enumerate(_listed(annotations, path, "annotations")):
        try:
            video, track = _identity(annotation["video_id"]), _track(annotation)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{path}: annotations[{index}] is not as in YouTube-VIS ({error!r}); {AGAIN}") from None
        tracks[video].append(track)
        sources[video].append(f"annotations[{index}], video_id {annotation['video_id']!r}")
    entries: dict[str, Entry] = {}
    identities = set()
    for index, video in enumerate(_listed(content.get("videos"), path, "videos")):
        name, entry = _entry(video, tracks, path, index)
        if entries.setdefault(name, entry) is not entry:
            raise UserError(f"{path}: describes the video {name} twice; {AGAIN}")
        identity = _identity(video["id"])
        if identity in identities:
            raise UserError(f"{path}: gives the id {identity} to two videos; {AGAIN}")
        identities.add(identity)
        sources.pop(identity, None)
    return Content(entries, bool(annotations), [source for one in sources.values() for source in one])


def _identity(value: object) -> str:
    """An id as text: some tools write numbers in one place and texts in the other."""
    if isinstance(value, float):
        value = int(value)
    if not isinstance(value, int | str):
        raise TypeError(f"no id: {value!r}")
    return str(value)


def _track(annotation: dict[str, Any]) -> Track:
    segmentations = annotation["segmentations"]
    if not isinstance(segmentations, list):
        raise TypeError("its segmentations are no list, one for each frame")
    return Track(tuple(segmentations), bool(int(annotation.get("iscrowd") or 0)))


def _size(video: dict[str, Any]) -> tuple[int, int] | None:
    if video.get("height") is None and video.get("width") is None:
        return None
    return int(video["height"]), int(video["width"])


def _listed(value: object, path: Path, key: str) -> list:
    if not isinstance(value, list):
        raise UserError(f"{path}: has no list of '{key}'; {AGAIN}")
    return value


def _entry(video: Any, tracks: dict[str, list[Track]], path: Path, index: int) -> tuple[str, Entry]:
    """The name of a video, which is the folder of its frames, and what the JSON says of it."""
    try:
        parts = [str(file).replace("\\", "/").split("/") for file in video["file_names"]]
        size = _size(video)
        own = tuple(tracks[_identity(video["id"])])
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f"{path}: videos[{index}] is not as in YouTube-VIS ({error!r}); {AGAIN}") from None
    source = f"{path}, videos[{index}]"
    if size and (min(size) < 1 or size[0] * size[1] > MAX_PIXELS):
        raise UserError(f"{source}: {size[0]} x {size[1]} is no size of a frame; {AGAIN}")
    if not parts or any(len(part) != 2 or part[0] != parts[0][0] for part in parts):
        raise UserError(f"{source}: its file names are not all <video>/<frame> of one video; {AGAIN}")
    name = plain_name(parts[0][0], source)
    files = tuple(f"{name}/{plain_name(file, source)}" for _, file in parts)
    for track in own:
        if len(track.segmentations) != len(files):
            raise UserError(f"{source}: {len(track.segmentations)} segmentations of an object in {len(files)} frames; "
                            "give one, or null, for each frame")  # fmt: skip
    if len(own) > MAX_OBJECTS:
        raise UserError(f"{source}: {len(own)} objects, but ids go to {MAX_OBJECTS}; score a data set with fewer")
    return name, Entry(files, size, own)
