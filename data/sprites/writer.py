"""Write the Sprites data set to disk.

`data/sprites/plan.py` plans a video, `data/sprites/render.py` paints it, and this module writes its files.
"""

import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from data.sprites.splits import PLANS
from utils import threads
from utils.errors import UserError
from utils.files import LOCK, find_leftovers, lock_folder, read_object, write_atomically, write_object
from utils.flags.choices import SPRITES_ROOT
from utils.names import check_name
from utils.png import write_label_png
from utils.processes import run_in_processes
from utils.progress import log_line, open_bar

VERSION = 4  # increase it with every change that changes pixels
MANIFEST = "sprites.json"
FRAMES, LABELS, SPLITS = "JPEGImages/480p", "Annotations_unsupervised/480p", "ImageSets/2017"
UNFINISHED = ".unfinished"
USUAL_SPLITS = ("train", "val")  # the others are written when a program first asks for them
PARAMETERS = ("seed", "height", "num_train", "num_val", "num_frames")


def write_sprites(
    root: str | os.PathLike, *, seed: int = 0, height: int = 240, num_train: int = 16, num_val: int = 8,
    num_frames: int = 32, splits: tuple[str, ...] = USUAL_SPLITS, workers: int | None = None, progress: bool = True,
) -> Path:  # fmt: skip
    """Write splits of the data set below `root` and return `root`. Videos that are already complete are kept.

    Args:
        seed: with the same arguments the frames and masks are the same, on every processor.
        height: rows of a frame; a frame has 16/9 as many columns.
        num_train: number of training videos.
        num_val: number of validation videos.
        num_frames: frames of a video.
        splits: the splits to write; others that are there already are kept.
        workers: number of processes, by default one for each CPU of this process. They are started with "spawn", so a
            script that calls this function needs an `if __name__ == "__main__"` guard, or `workers=1`.
        progress: show a progress bar.

    Raises:
        UserError: `root` cannot be written, or holds other files or Sprites with other arguments.
    """
    root = Path(root)
    _check_parameters(seed, height, num_train, num_val, num_frames, workers)
    parameters = {"version": VERSION, "seed": seed, "height": height, "num_train": num_train, "num_val": num_val,
                  "num_frames": num_frames}  # fmt: skip
    done = _find_finished(root, parameters)
    lists = _list_split_files(root, splits)
    if done is not None and done.keys() >= set(_list_names(parameters, splits)) and all(n.is_file() for n in lists):
        return root
    try:
        _write_missing(root, parameters, splits, workers, progress)
    except OSError as error:  # the error of a full disk has no file name
        raise UserError(f"{error.filename or root}: cannot write Sprites ({error.strerror}); free space, allow writing "
                        "there, or name another folder") from error  # fmt: skip
    return root


def ensure_sprites(root: str | os.PathLike, split: str = "val") -> Path:
    """Complete a split below `root` with the arguments with which it was begun, or begin it with the defaults.

    The training and validation videos are written together, those of another split when it is asked for.

    A folder that does not exist is made, with a note unless it is `SPRITES_ROOT`: the user names `root` by --basepath,
    perhaps by mistake. A missing path that has an ending is taken for a file and refused.

    Raises:
        UserError: `root` is no such folder, or holds other files than Sprites; or as `write_sprites`.
    """
    root = Path(root)
    is_default, is_new = root.resolve() == Path(SPRITES_ROOT).resolve(), not (root.exists() or root.suffix)
    usable = is_default or is_new or (root.is_dir() and not _holds_others(root))
    begun = _read_manifest(root)
    if not (usable or begun):
        raise UserError(f"--basepath {root}: neither Sprites nor an empty folder to generate them in; for a video of "
                        "your own give --dataset video, for other data its --dataset")  # fmt: skip
    if is_new and not is_default:
        log_line(f"note: --basepath {root}: made, for generated videos (Sprites)")
    options = {name: begun["parameters"][name] for name in PARAMETERS} if begun else {}
    return write_sprites(root, **options, splits=USUAL_SPLITS if split in USUAL_SPLITS else (split,))


def _write_missing(
    root: Path, parameters: dict, splits: tuple[str, ...], workers: int | None, progress: bool
) -> None:  # fmt: skip
    """Write the missing videos, then the split files, while no other process writes there."""
    with lock_folder(root, flag="--basepath", wait=True):  # another process may write, such as another rank
        done = _find_finished(root, parameters) or {}  # again: another process may have written meanwhile
        for path in (root / MANIFEST, *_list_split_files(root, splits)):
            for leftover in find_leftovers(path):  # of killed processes: no other process writes while we hold the lock
                leftover.unlink(missing_ok=True)
        _write_manifest(root, parameters, done)
        todo = [name for name in _list_names(parameters, splits) if name not in done]
        with _render_videos(root, todo, parameters, workers) as results:
            shown = open_bar(results, desc="generating Sprites", total=len(todo), unit="video",
                             disable=not (progress and todo))  # fmt: skip
            for name, checksum in shown:
                done[name] = checksum
                _write_manifest(root, parameters, done)
        for split, path in zip(splits, _list_split_files(root, splits), strict=True):
            with write_atomically(path) as temporary:
                temporary.write_text("".join(f"{name}\n" for name in _list_names(parameters, (split,))))
        shutil.rmtree(root / UNFINISHED, ignore_errors=True)


def _check_parameters(seed: int, height: int, num_train: int, num_val: int, num_frames: int, workers) -> None:
    for name, value, low in (
        ("seed", seed, 0), ("height", height, 32), ("num_train", num_train, 0), ("num_val", num_val, 0),
        ("num_frames", num_frames, 1), ("workers", 1 if workers is None else workers, 1),
    ):  # fmt: skip
        if value < low:
            raise UserError(f"--{name} {value}: give at least {low}")


def _list_names(parameters: dict, splits: tuple[str, ...]) -> list[str]:
    numbers = {split: PLANS[split].num_videos or parameters[f"num_{split}"] for split in splits}
    return [f"{split}-{i:02d}" for split, number in numbers.items() for i in range(number)]


def _make_video_seed(name: str, seed: int) -> list[int]:
    """Return the seed of one video, which does not depend on how many videos there are."""
    split, number = name.split("-")
    return [seed, PLANS[split].seed, int(number)]


def _find_finished(root: Path, parameters: dict) -> dict[str, int] | None:
    """Return the videos that are complete on disk -> checksum, or None if there is no data set yet.

    Raises:
        UserError: `root` holds other files, or Sprites with other parameters.
    """
    others = root.is_dir() and _holds_others(root)
    manifest = _read_manifest(root)
    if manifest is None:
        if others:
            raise UserError(f"{root}: holds files but no {MANIFEST}, so not Sprites; name a new or empty folder")
        return None
    written, videos = manifest["parameters"], manifest["videos"]
    if written != parameters:
        changed = [f"{k} {written.get(k)} there, {v} asked" for k, v in parameters.items() if written.get(k) != v]
        raise UserError(f"{root}: was written with other settings ({'; '.join(changed)}); "
                        "delete it or name another folder")  # fmt: skip
    return {name: checksum for name, checksum in videos.items() if _compute_checksum(root, name) == checksum}


def _holds_others(root: Path) -> bool:
    """Tell whether a folder has files besides those left by a process that was killed before it wrote the manifest.

    The files of a process that starts at the same time can be counted, so callers read the manifest after this call.
    """
    return bool(set(root.iterdir()) - {root / LOCK, *find_leftovers(root / MANIFEST)})


def _list_split_files(root: Path, splits: tuple[str, ...]) -> list[Path]:
    """Return the path of the split file of each split."""
    return [root / SPLITS / f"{split}.txt" for split in splits]


def _read_manifest(root: Path) -> dict | None:
    """Read the manifest: `parameters`, name -> whole number, and `videos`, name -> checksum. None if there is none."""
    if not (root / MANIFEST).is_file():
        return None
    mend = "delete the folder to write it anew"
    manifest = read_object(root / MANIFEST, mend=mend)
    parameters, videos = manifest.get("parameters"), manifest.get("videos")
    for key, values, names in (("parameters", parameters, ("version", *PARAMETERS)), ("videos", videos, ())):
        if not isinstance(values, dict) or not all(type(values.get(name)) is int for name in (*values, *names)):
            raise UserError(f"{root / MANIFEST}: '{key}' does not map names to whole numbers; {mend}")
    for name in videos:
        check_name(name, root / MANIFEST)
    return {"parameters": parameters, "videos": videos}


def _compute_checksum(root: Path, name: str) -> int:
    """Compute the CRC-32 of the names and contents of a video's files, by which missing and damaged files are noticed.

    Returns -1 if a file cannot be read, or vanishes because another process is writing the video again.
    """
    crc = 0
    for path in (path for kind in (FRAMES, LABELS) for path in sorted((root / kind / name).glob("*"))):
        try:
            crc = zlib.crc32(path.read_bytes(), zlib.crc32(path.name.encode(), crc))
        except OSError:
            return -1
    return crc


def _write_manifest(root: Path, parameters: dict, videos: dict[str, int]) -> None:
    write_object(root / MANIFEST, {"parameters": parameters, "videos": dict(sorted(videos.items()))})


@contextmanager
def _render_videos(
    root: Path, names: list[str], parameters: dict, workers: int | None
) -> Iterator[Iterator[tuple[str, int]]]:
    """Write videos with several processes; the context gives an iterator of (name, checksum) in order of completion."""
    if workers is None:
        workers = threads.count_cpus()
    workers = min(workers, len(names))
    calls = [(root, name, parameters) for name in names]
    with run_in_processes(_write_video, calls, workers=workers) as written:
        yield ((names[index], checksum) for index, checksum in written)


def _write_video(root: Path, name: str, parameters: dict) -> int:
    """Write one video to temporary folders and move them into place; return the checksum of the video."""
    from data.sprites.render import render_sequence  # slow to import, and most runs find all videos there

    seed = _make_video_seed(name, parameters["seed"])
    options = {"height": parameters["height"], "num_frames": parameters["num_frames"], "split": name.split("-")[0]}
    frames, labels = render_sequence(seed, **options)
    quality = np.random.default_rng([*seed, 2])
    base = int(quality.integers(62, 93))
    for kind in (FRAMES, LABELS):
        part = root / UNFINISHED / kind / name
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for t in range(len(frames)):
            if kind == FRAMES:
                write_jpeg(part / f"{t:05d}.jpg", frames[t], base + int(quality.integers(-4, 5)))
            else:
                write_label_png(part / f"{t:05d}.png", labels[t])
        target = root / kind / name
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, target)
    return _compute_checksum(root, name)


def write_jpeg(path: Path, frame: np.ndarray, quality: int) -> None:
    """Write a frame (H, W, 3) uint8 RGB to a JPEG; unlike `cv2.imwrite`, raise an error if the disk is full."""
    _, code = cv2.imencode(".jpg", frame[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))
    path.write_bytes(code.tobytes())
