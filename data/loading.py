"""Find the videos of a data set below the folder that the user gives, and open them."""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from data.layouts.base import Layout
from data.layouts.known import OTHER_SIZES, PAIRS_LAYOUT
from data.layouts.splits import Subfolders
from data.own_output import RESULTS, RUN, describe_left_out, describe_unread, find_frames, refuse_own_output
from data.registry import DATASETS, DatasetSpec
from data.videos import FrameFolder, Video, refuse_damaged_videos
from utils import distributed
from utils.errors import UserError
from utils.flags.choices import OWN_VIDEO, PAIRS
from utils.names import VIDEO_SUFFIXES, check_name, may_hold_frames, read_train_list
from utils.pictures import IMAGE_SUFFIXES
from utils.progress import log_line

ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
MAX_PLACES = 500  # folders below the root that are searched for a data set; a root such as / has far too many

# ------------------------------------------------------------------ the root


def resolve_root(
    dataset: str, *, davis_path: str | None, basepath: str | None, davis_flag: str = "--davis_path"
) -> tuple[Path, str]:
    """Return the root folder of a data set and the flag that names it.

    Args:
        davis_flag: the flag that names the root of DAVIS; `--basepath` in programs without `--davis_path`.

    Raises:
        UserError: the flag is missing and the data set has no default root, or `--davis_path` is given for a data set
            other than DAVIS.
    """
    path, flag = basepath, "--basepath"
    if dataset.startswith("davis"):
        path, flag = (basepath, flag) if basepath and not davis_path else (davis_path, davis_flag)
    elif davis_path is not None:
        raise UserError(f"--davis_path {davis_path}: --dataset {dataset} is not DAVIS; give --dataset davis17u or "
                        "another of DAVIS, or name the root as --basepath")  # fmt: skip
    path = path or DATASETS[dataset].default_root
    if path is None:
        raise UserError(f"{flag} is missing; give the root of --dataset {dataset}")
    return Path(path), flag


def check_root(dataset: str, root: Path, *, split: str | None, flag: str) -> None:
    """Refuse an impossible root or split before anything is generated or read.

    Raises:
        UserError: an impossible split; a root that does not exist, unless the data set is generated there; a file
            where a folder is needed.
    """
    resolve_split(DATASETS[dataset], split)
    if not DATASETS[dataset].generate and not root.exists():
        raise UserError(f"{flag} {root}: no such file or folder".lstrip())
    if dataset != OWN_VIDEO and root.is_file():
        raise UserError(f"{flag} {root}: is a file; give the folder where the download of --dataset {dataset} was "
                        f"unpacked, or --dataset {OWN_VIDEO} for a video file")  # fmt: skip


def guess_own_video(basepath: str | None, *, otherwise: str | None) -> str | None:
    """Return `OWN_VIDEO` if --basepath is clearly the user's own video, else `otherwise`.

    A note on stderr tells the user when `OWN_VIDEO` was guessed.
    """
    if basepath is None or otherwise == OWN_VIDEO or not _is_own_video(Path(basepath)):
        return otherwise
    log_line(f"note: --basepath {basepath} is taken as --dataset {OWN_VIDEO}")
    return OWN_VIDEO


def _is_own_video(root: Path) -> bool:
    """Tell whether a path is a file other than an archive, or holds frames where no data set has them."""
    if root.is_file():
        return root.suffix.lower() not in ARCHIVE_SUFFIXES
    try:
        return bool(DATASETS[OWN_VIDEO].layout.list_videos(root, "all"))
    except UserError:
        return False


# ------------------------------------------------------------------ evaluation


def load_videos(
    dataset: str, root: Path, *, split: str | None = None, flag: str, sequences: list[str] | None = None,
    videos: str | None = None, annotations: Path | None = None, allow_damaged: bool = False,
    clips: Sequence[Path] = (),
) -> list[Video]:  # fmt: skip
    """Open the videos of a split in the order in which the split lists them.

    Args:
        dataset: one of `DATASET_NAMES`.
        root: the root of the data set, or a folder up to two levels above it; for `video` the file or folder itself.
        split: the split, such as `val`; by default the first split of the data set.
        flag: the flag that named `root`, for error messages; empty if no flag did.
        sequences: keep only the videos of these names.
        videos: "A:B", keep only videos A to B - 1 of the split, counted from 0; either number may be omitted.
        annotations: for `pairs`, the folder with one folder of label PNGs for each video; `root` is then the folder
            with one folder of frames for each video.
        allow_damaged: decode all video files beforehand and warn about those that can only be decoded in part. Without
            it they are refused: at once, or when frames are read that an index lists.
        clips: for `video`, several files and folders to read in place of `root`.

    Raises:
        UserError: a missing file or folder, a damaged video file, annotations that do not match the frames, or a name
            in `sequences` that the split does not have.
    """
    spec = DATASETS[dataset]
    layout = choose_layout(spec, annotations)
    if dataset == OWN_VIDEO:
        layout = replace(layout, trust_index=not allow_damaged, paths=tuple(clips))
    split = resolve_split(spec, split)
    if spec.generate:
        spec.generate(root, split)
    root = locate_dataset(spec, layout, root, split)
    names = select_range(list_split_videos(spec, layout, root, split, flag=flag), videos)
    if distributed.is_main():
        for orphans in layout.find_orphans(root, split):  # they would be missing from the scores without a word
            log_line(f"warning: {orphans}")
    if sequences:
        if unknown := sorted(set(sequences) - set(names)):
            hint = "; if it is a clip, give it before the flags" if Path(unknown[0]).exists() else ""
            raise UserError(f"--sequences {unknown[0]}: not among the {len(names)} of {root}{hint}")
        names = [name for name in names if name in sequences]
    opened = [layout.open_video(root, split, name) for name in names]
    refuse_damaged_videos(opened, allow_damaged=allow_damaged)
    return opened


def choose_layout(spec: DatasetSpec, annotations: Path | None) -> Layout:
    """Return the layout of a data set; for `pairs`, one that reads annotations from a separate folder if given."""
    if annotations is None:
        return spec.layout
    if spec.name != PAIRS:
        raise UserError(f"--annotations {annotations}: only for --dataset {PAIRS}; leave it out")
    if not annotations.is_dir():
        raise UserError(f"--annotations {annotations}: no such folder")
    # Joined to the root, an absolute path replaces it. Braces in the path must not be read as fields of str.format.
    escaped = str(annotations.resolve()).replace("{", "{{").replace("}", "}}")
    return replace(PAIRS_LAYOUT, frames="{name}", annotations=f"{escaped}/{{name}}", source=Subfolders(""))


def resolve_split(spec: DatasetSpec, split: str | None) -> str:
    """Return the given split, or the default split of the data set if None.

    Raises:
        UserError: a text that cannot be the name of a split, or a split that the data set cannot have. Whether the
            files of the split exist is checked later, by the layout.
    """
    split = split or spec.default_split
    choices = ", ".join(spec.splits)
    try:
        check_name(split, "")
    except UserError:
        raise UserError(f"--split {split!r}: not the name of a split; choose from {choices}") from None
    if (spec.layout.fixed_splits or spec.generate) and split not in spec.splits:
        raise UserError(f"--split {split}: --dataset {spec.name} has no such split; choose from {choices}")
    return split


def list_split_videos(
    spec: DatasetSpec, layout: Layout, root: Path, split: str, *, flag: str, annotated: bool = True
) -> list[str]:
    """List the names of the videos of a split.

    Args:
        flag: the flag that named `root`, for error messages.
        annotated: the folder of annotations must exist too, if the annotations of the split are public.

    Raises:
        UserError: something is missing. If it is missing directly below the root, the message begins with `flag` and
            suggests a data set that can be read there.
    """
    try:
        names = layout.list_videos(root, split)
        if (missing := layout.find_missing_folder(root, split, annotated=annotated)) is not None:
            raise UserError(f"{root}: lacks {missing.relative_to(root)}")
        return names
    except UserError as error:
        if flag and str(error).startswith(f"{root}: "):
            raise UserError(f"{flag} {error}{_suggest_mend(spec, root, split, annotated=annotated)}") from None
        raise


def select_range(names: list[str], videos: str | None) -> list[str]:
    """Select the names in the range "A:B", as a slice does but without negative numbers; None selects all.

    Raises:
        UserError: not of the form A:B, or nothing is selected.
    """
    if videos is None:
        return names
    match = re.fullmatch(r"(\d*):(\d*)", videos)
    if not match:
        raise UserError(f"--videos {videos}: not of the form A:B, such as 600:900")
    first, last = (int(number) if number else None for number in match.groups())
    if not (selected := names[first:last]):
        raise UserError(f"--videos {videos}: selects none of the {len(names)} videos")
    return selected


# ------------------------------------------------------------------ training


def list_training_videos(dataset: str, root: Path, *, train_list: str | None = None) -> dict[str, list[Path]]:
    """List the frames of every training video: name of the video -> image files in order. Annotations are not read.

    Args:
        dataset: one of `DATASET_NAMES`; `OWN_VIDEO` stands for every folder of frames below `root`.
        train_list: a text file, absolute or relative to `root`, with the names of the videos to keep, one a line.

    Raises:
        UserError: a missing file or folder, videos that are not image files, or a name in `train_list` that the split
            does not have.
    """
    if dataset == OWN_VIDEO:
        return index_videos(root, train_list=train_list)
    spec = DATASETS[dataset]
    split = spec.training_split
    if spec.generate:
        spec.generate(root, split)
    place = locate_dataset(spec, spec.layout, root, split, annotated=False)
    names = list_split_videos(spec, spec.layout, place, split, flag="--basepath", annotated=False)
    if train_list is not None:
        wanted = set(read_train_list(root, train_list, known=names))
        if unknown := sorted(wanted - set(names)):
            raise UserError(f"--train_list {train_list}: {unknown[0]} is not among the {len(names)} training videos")
        names = [name for name in names if name in wanted]
    frames = {}
    for name in names:
        video = spec.layout.open_video(place, split, name, annotated=False)
        if not isinstance(video, FrameFolder):
            raise UserError(f"--basepath {root}: TFRecords cannot be trained on; export the frames of --dataset "
                            f"{dataset} to <split>/<video>/frames")  # fmt: skip
        frames[name] = video.paths
    return frames


def index_videos(root: Path, *, train_list: str | None = None) -> dict[str, list[Path]]:
    """Find all folders of frames below `root`, at any depth: path relative to `root` -> image files in order.

    Hidden folders, folders of annotations and the output of this project's programs are skipped.

    Args:
        train_list: a text file, absolute or relative to `root`, with the names of the folders to keep, one a line.

    Raises:
        UserError: `root` is no folder, no frames lie below it, or a video of the list is missing.
    """
    if not root.is_dir():
        raise UserError(f"--basepath {root}: no such folder")
    refuse_own_output(root, flag="--basepath")
    videos, left_out = {}, []
    for folder, children, _ in os.walk(root, followlinks=True):
        frames, own_output = find_frames(Path(folder))
        name = os.path.relpath(folder, root)
        left_out += [(name, own_output)] if own_output else []
        children[:] = [] if own_output in (RESULTS, RUN) else sorted(filter(may_hold_frames, children))
        if frames:
            videos[name] = frames
    if left_out:
        log_line(describe_left_out(root, left_out))
    if not videos:
        clip = next((path for path in sorted(root.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES), None)
        reason = "no frames (jpg, png, ...) in any folder below it"
        hint = f"; {clip.name} is {explain_single_file(clip)}" if clip else describe_unread(root)
        raise UserError(f"--basepath {root}: {reason}{hint}")
    return videos if train_list is None else _keep_listed_folders(videos, root, train_list)


def explain_single_file(clip: Path) -> str:
    """Explain why training cannot read a single video file or picture, and what to give instead.

    Training reads frames at random places, which a video file does not give quickly.
    """
    if clip.suffix.lower() in IMAGE_SUFFIXES:
        return f"a single picture, but training reads folders of frames; give the folder, {clip.parent}"
    frames = shlex.quote(f"frames/{clip.stem}")
    command = f"mkdir -p {frames} && ffmpeg -i {shlex.quote(str(clip))} -q:v 2 {frames}/%05d.jpg"
    return f"a video file, but training reads folders of frames: {command}"


def _keep_listed_folders(videos: dict[str, list[Path]], root: Path, train_list: str) -> dict[str, list[Path]]:
    wanted = set(read_train_list(root, train_list, known={Path(name).name for name in videos}))
    kept = {name: frames for name, frames in videos.items() if Path(name).name in wanted}
    if missing := wanted - {Path(name).name for name in kept}:
        raise UserError(f"--train_list {train_list}: no frames below {root} for {', '.join(sorted(missing)[:3])}")
    return kept


# ------------------------------------------------------------------ search below the root


def locate_dataset(spec: DatasetSpec, layout: Layout, root: Path, split: str, *, annotated: bool = True) -> Path:
    """Return the folder that holds a split: `root`, or the only such folder one or two levels below it.

    Archives are often unpacked into a folder of their own. A note on stderr names a folder other than `root`.
    """
    if layout.has_split(root, split, annotated=annotated):
        return root
    places = [place for place in _list_places(root) if layout.has_split(place, split, annotated=annotated)]
    if len(places) != 1:
        return root
    log_line(f"note: {spec.title} is read from {places[0]}")
    return places[0]


def _list_places(root: Path) -> Iterator[Path]:
    """Yield the folders one and two levels below a root, at most `MAX_PLACES` of them."""
    folders = (path for pattern in ("*", "*/*") for path in sorted(root.glob(pattern)))
    return islice((path for path in folders if path.is_dir() and not path.name.startswith(".")), MAX_PLACES)


def _suggest_mend(spec: DatasetSpec, root: Path, split: str, *, annotated: bool) -> str:
    """Suggest how to mend a split that cannot be read: by a data set found at the root, or by the right download."""
    family = [other for other in DATASETS.values() if other.name[:5] == spec.name[:5]]
    candidates = list({other.name: other for other in (spec, *family, *DATASETS.values())}.values())
    for place in (root, *_list_places(root)):
        where = "there" if place == root else f"in {place}"
        only_annotations_lack = spec.layout.has_split(place, split, annotated=False)
        for other in candidates:
            for part in dict.fromkeys((split, *other.splits)):
                useless = other is spec and (only_annotations_lack or part == split)
                if part in other.splits and not useless and other.layout.has_split(place, part, annotated=annotated):
                    option = "" if part == other.default_split else f" --split {part}"
                    return f"; give --dataset {other.name}{option}, whose files lie {where}"
        if any(layout.has_split(place, split, annotated=False) for layout in OTHER_SIZES.get(spec.name, ())):
            return f"; what lies {where} has the full resolution, but DAVIS is scored at 480p: give {spec.archive}"
    return f"; unpack there {spec.archive}" if spec.archive else "; check the root of the data set"
