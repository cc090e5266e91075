"""Read YouTube-VIS: folders of frames, and for each split one JSON file with masks in run-length encoding."""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from data.annotations.rle import AGAIN, RleVideo, Track, read_whole_number
from data.frames import read_image_size
from data.layouts.base import report_items
from data.layouts.splits import read_json
from data.videos import FrameFolder, Video
from utils.errors import UserError
from utils.files import file_version
from utils.names import check_name
from utils.pictures import list_images
from utils.scoring.annotations import MAX_OBJECTS

MAX_PIXELS = 2**26  # in a frame; a damaged JSON could ask for all memory. A frame of 8K has 2**25


@dataclass(frozen=True)
class Entry:
    """Hold what the JSON says about one video.

    Attributes:
        files: paths of its frames below the folder of all frames.
        size: (height, width); None if the JSON does not say, which means the size of the first frame.
        tracks: its objects.
    """

    files: tuple[str, ...]
    size: tuple[int, int] | None
    tracks: tuple[Track, ...]


class Content(NamedTuple):
    """Hold what a JSON says about a split.

    entries: name of a video -> its entry, in order.
    annotated: whether the JSON has annotations.
    orphans: for error messages, the annotations of videos that the JSON does not describe.
    """

    entries: dict[str, Entry]
    annotated: bool
    orphans: list[str]


@dataclass(frozen=True)
class InstanceLayout:
    """Read a data set whose splits are one JSON file each, which names the frames and holds the masks.

    A JSON without annotations can be segmented but not scored.

    Attributes:
        frames: paths below the root, with the field {split}, where the folder of all frames may lie.
        json: paths below the root, with the field {split}, where the JSON may lie. The first that exists is read.
    """

    frames: tuple[str, ...]
    json: tuple[str, ...]
    merged: bool = False
    sparse: bool = False
    fixed_splits: bool = False

    @property
    def split_source(self) -> str:
        return " or ".join(path.format(split="<split>") for path in self.json)

    def list_videos(self, root: Path, split: str) -> list[str]:
        path = self._json_path(root, split)
        if not (names := list(_read_content(path).entries)):
            raise UserError(f"{path}: describes no video; {AGAIN}")
        return names

    def open_video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        path = self._json_path(root, split)
        content = _read_content(path)
        entry = content.entries[name]
        files = [self._frames_path(root, split) / file for file in entry.files]
        if missing := [file for file in files if not file.is_file()]:
            raise UserError(f"{missing[0]}: missing, the first of {len(missing)} frames that {path} names; "
                            "complete the download")  # fmt: skip
        video = FrameFolder(name, files)
        if annotated and content.annotated:
            size = entry.size or read_image_size(files[0])
            video.annotations = RleVideo(name, video.frame_names, size, list(entry.tracks), path)
        return video

    def find_missing_folder(self, root: Path, split: str, *, annotated: bool = True) -> Path | None:
        folder = self._frames_path(root, split)
        return None if folder.is_dir() else folder

    def has_split(self, root: Path, split: str, *, annotated: bool = True) -> bool:
        return self._frames_path(root, split).is_dir() and any(path.is_file() for path in self._json_paths(root, split))

    def find_mismatches(self, root: Path, split: str, video: Video) -> list[str]:
        path, folder = self._json_path(root, split), self._frames_path(root, split)
        files = _read_content(path).entries[video.name].files
        extra = [image.name for image in list_images(folder / video.name) if f"{video.name}/{image.name}" not in files]
        return report_items(folder / video.name, extra, f"images that {path} does not name", "remove them")

    def find_orphans(self, root: Path, split: str) -> list[str]:
        path = self._json_path(root, split)
        return report_items(path, _read_content(path).orphans, "annotations of videos that it does not describe", AGAIN)

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


def _read_content(path: Path) -> Content:
    return _parse_content(path, file_version(path))


@lru_cache(maxsize=2)
def _parse_content(path: Path, _version: str) -> Content:
    """Parse the JSON of a split. Such files have up to 500 MB, so the last two are kept.

    Args:
        _version: changes with the file, so that a changed file is read again.

    Raises:
        UserError: not valid JSON, or an invalid entry, which the message names.
    """
    content = read_json(path)
    if "images" in content and "videos" not in content:
        raise UserError(f"{path}: describes images, not videos; export it as YouTube-VIS, with 'videos' and a list of "
                        "'segmentations' for each object")  # fmt: skip
    tracks: dict[str, list[Track]] = defaultdict(list)
    sources: dict[str, list[str]] = defaultdict(list)
    annotations = content.get("annotations") or []
    for index, annotation in enumerate(_check_list(annotations, path, "annotations")):
        try:
            video, track = _parse_id(annotation["video_id"]), _parse_track(annotation)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{path}: annotations[{index}] is not as in YouTube-VIS ({error!r}); {AGAIN}") from None
        tracks[video].append(track)
        sources[video].append(f"annotations[{index}], video_id {annotation['video_id']!r}")
    entries: dict[str, Entry] = {}
    seen_ids = set()
    for index, video in enumerate(_check_list(content.get("videos"), path, "videos")):
        name, entry = _parse_entry(video, tracks, path, index)
        if entries.setdefault(name, entry) is not entry:
            raise UserError(f"{path}: describes the video {name} twice; {AGAIN}")
        video_id = _parse_id(video["id"])
        if video_id in seen_ids:
            raise UserError(f"{path}: gives the id {video_id} to two videos; {AGAIN}")
        seen_ids.add(video_id)
        sources.pop(video_id, None)
    return Content(entries, bool(annotations), [source for of_video in sources.values() for source in of_video])


def _parse_id(value: object) -> str:
    """Convert an id to text, since some tools write the same id as a number here and as text there."""
    return value if isinstance(value, str) else str(read_whole_number(value))


def _parse_track(annotation: dict[str, Any]) -> Track:
    segmentations = annotation["segmentations"]
    if not isinstance(segmentations, list):
        raise TypeError("its segmentations are no list, one for each frame")
    return Track(tuple(segmentations), bool(int(annotation.get("iscrowd") or 0)))


def _parse_size(video: dict[str, Any]) -> tuple[int, int] | None:
    if video.get("height") is None and video.get("width") is None:
        return None
    return int(video["height"]), int(video["width"])


def _check_list(value: object, path: Path, key: str) -> list:
    if not isinstance(value, list):
        raise UserError(f"{path}: has no list of '{key}'; {AGAIN}")
    return value


def _parse_entry(video: Any, tracks: dict[str, list[Track]], path: Path, index: int) -> tuple[str, Entry]:
    """Parse one video: return its name, which is that of the folder of its frames, and its entry."""
    try:
        parts = [str(file).replace("\\", "/").split("/") for file in video["file_names"]]
        size = _parse_size(video)
        video_tracks = tuple(tracks[_parse_id(video["id"])])
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f"{path}: videos[{index}] is not as in YouTube-VIS ({error!r}); {AGAIN}") from None
    source = f"{path}, videos[{index}]"
    if size and (min(size) < 1 or size[0] * size[1] > MAX_PIXELS):
        raise UserError(f"{source}: {size[0]} x {size[1]} is no size of a frame; {AGAIN}")
    if not parts or any(len(part) != 2 or part[0] != parts[0][0] for part in parts):
        raise UserError(f"{source}: its file names are not all <video>/<frame> of one video; {AGAIN}")
    name = check_name(parts[0][0], source)
    files = tuple(f"{name}/{check_name(file, source)}" for _, file in parts)
    for track in video_tracks:
        if len(track.segmentations) != len(files):
            raise UserError(f"{source}: {len(track.segmentations)} segmentations of an object in {len(files)} frames; "
                            "give one, or null, for each frame")  # fmt: skip
    if len(video_tracks) > MAX_OBJECTS:
        raise UserError(
            f"{source}: {len(video_tracks)} objects, but ids go to {MAX_OBJECTS}; score a data set with fewer"
        )
    return name, Entry(files, size, video_tracks)
