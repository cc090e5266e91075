"""Sprites: procedural videos with exact object masks, in the layout of DAVIS-2017-Unsupervised.

    python -m data.sprites --output_path datasets/sprites
    python -m data.sprites --contact_sheet sheet.jpg --color_baseline outputs/color

Two to five textured, jointed animals and machines move, occlude one another, leave and return before a cluttered,
moving background. Same arguments, same bytes, however many processes wrote them, on the same CPU with the same OpenCV,
NumPy, SciPy and Pillow: another CPU's instructions round one frame value in some 25,000 to its neighbour.
`sprites_scene` plans a video, `sprites_render` paints it, this file writes it.
"""

import argparse
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from data.sprites.render import render_sequence
from utils import threads
from utils.errors import UserError
from utils.files import check_writable, find_leftovers, read_object, write_atomically
from utils.names import plain_name
from utils.png import MAX_INDEXED, make_palette, read_label_png, write_label_png
from utils.processes import run_in_processes

VERSION = 3  # raise it with every change of the pixels
MANIFEST = "sprites.json"
FRAMES, LABELS, SPLITS = "JPEGImages/480p", "Annotations_unsupervised/480p", "ImageSets/2017"
UNFINISHED, LOCK = ".unfinished", ".lock"
DEFAULT_ROOT = "datasets/sprites"
SPLIT_SEEDS = {"train": 0, "val": 1}
PARAMETERS = ("seed", "height", "num_train", "num_val", "num_frames")

# ------------------------------------------------------------------ writing


def write_sprites(
    root: str | os.PathLike, *, seed: int = 0, height: int = 240, num_train: int = 16, num_val: int = 8,
    num_frames: int = 32, workers: int | None = None, progress: bool = True,
) -> Path:  # fmt: skip
    """Write the dataset under `root` and return it; a complete one is left alone, a half-written one completed.

    `workers`: processes, by default one for each CPU of this process. They are started with "spawn", so a script
    that calls this needs an `if __name__ == "__main__"` guard, or `workers=1`. Raises `UserError` when `root` holds
    anything else than this dataset with these parameters, or cannot be written.
    """
    root = Path(root)
    _check_parameters(seed, height, num_train, num_val, num_frames, workers)
    parameters = {"version": VERSION, "seed": seed, "height": height, "num_train": num_train, "num_val": num_val,
                  "num_frames": num_frames}  # fmt: skip
    done = _finished(root, parameters)
    if done is not None and len(done) == num_train + num_val and all(path.is_file() for path in _lists(root)):
        return root
    try:
        _complete(root, parameters, workers, progress)
    except OSError as error:  # a full disk does not say which file it was
        raise UserError(f"{error.filename or root}: cannot write Sprites ({error.strerror}); free space, allow writing "
                        "there, or name another folder") from error  # fmt: skip
    return root


def ensure_sprites(root: str | os.PathLike) -> Path:
    """`write_sprites` with the settings that the dataset at `root` was begun with, the usual ones if there is none.

    For programs whose flag --basepath names `root`. It may well have been meant for something else, so only
    `DEFAULT_ROOT` is made: elsewhere Sprites must have been begun, or the folder be there and empty.

    Raises:
        UserError: `root` is no such place; or as `write_sprites`.
    """
    root = Path(root)
    usable = root.resolve() == Path(DEFAULT_ROOT).resolve() or (root.is_dir() and not _holds_others(root))
    begun = _read_manifest(root)
    if not (usable or begun):
        raise UserError(f"--basepath {root}: neither Sprites nor an empty folder to generate them in; for a video of "
                        "your own give --dataset video, for other data its --dataset")  # fmt: skip
    options = {name: begun["parameters"][name] for name in PARAMETERS} if begun else {}
    return write_sprites(root, **options)


def _complete(root: Path, parameters: dict, workers: int | None, progress: bool) -> None:
    """Write the videos that are missing, then the split files."""
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root):
        done = _finished(root, parameters) or {}  # another process may have been at it while we waited
        for path in (root / MANIFEST, *_lists(root)):
            for leftover in find_leftovers(path):  # whoever holds the lock is alone, so of processes that were killed
                leftover.unlink(missing_ok=True)
        _write_manifest(root, parameters, done)
        todo = [name for name in _names(parameters) if name not in done]
        with _rendering(root, todo, parameters, workers) as results:
            shown = tqdm(results, "generating Sprites", len(todo), unit="video", disable=not (progress and todo))
            for name, checksum in shown:
                done[name] = checksum
                _write_manifest(root, parameters, done)
        for split, path in zip(SPLIT_SEEDS, _lists(root), strict=True):
            lines = [name for name in _names(parameters) if name.startswith(split)]
            with write_atomically(path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in lines))
        shutil.rmtree(root / UNFINISHED, ignore_errors=True)


def _check_parameters(seed: int, height: int, num_train: int, num_val: int, num_frames: int, workers) -> None:
    for name, value, low in (
        ("seed", seed, 0), ("height", height, 32), ("num_train", num_train, 0), ("num_val", num_val, 0),
        ("num_frames", num_frames, 1), ("workers", 1 if workers is None else workers, 1),
    ):  # fmt: skip
        if value < low:
            raise UserError(f"{name} is {value}; give at least {low}")


def _names(parameters: dict) -> list[str]:
    return [f"{split}-{i:02d}" for split in SPLIT_SEEDS for i in range(parameters[f"num_{split}"])]


def _sequence_seed(name: str, seed: int) -> list[int]:
    """The seed of one video: apart for splits and numbers, the same whatever the number of videos."""
    split, number = name.split("-")
    return [seed, SPLIT_SEEDS[split], int(number)]


def _finished(root: Path, parameters: dict) -> dict[str, int] | None:
    """Videos that are whole on the disk -> checksum; None where nothing has been started."""
    others = root.is_dir() and _holds_others(root)
    manifest = _read_manifest(root)
    if manifest is None:
        if others:
            raise UserError(f"{root}: holds files but no {MANIFEST}, so not Sprites; name a new or empty folder")
        return None
    found, videos = manifest["parameters"], manifest["videos"]
    if found != parameters:
        changed = [f"{k} {found.get(k)} there, {v} asked" for k, v in parameters.items() if found.get(k) != v]
        raise UserError(f"{root}: was written with other settings ({'; '.join(changed)}); "
                        "delete it or name another folder")  # fmt: skip
    return {name: checksum for name, checksum in videos.items() if _checksum(root, name) == checksum}


def _holds_others(root: Path) -> bool:
    """Whether a folder holds more than a process killed before its first manifest leaves.

    Files of a process that begins meanwhile may count: look for the manifest, which comes first of all, afterwards.
    """
    found = set(root.iterdir())
    return bool(found - {root / LOCK, *find_leftovers(root / MANIFEST)})


def _lists(root: Path) -> list[Path]:
    """The files that name the videos of each split."""
    return [root / SPLITS / f"{split}.txt" for split in SPLIT_SEEDS]


def _read_manifest(root: Path) -> dict | None:
    """`parameters` (`PARAMETERS` and the version, whole numbers) and `videos`; None where there is no manifest."""
    if not (root / MANIFEST).is_file():
        return None
    mend = "delete the folder to write it anew"
    manifest = read_object(root / MANIFEST, mend=mend)
    parameters, videos = manifest.get("parameters"), manifest.get("videos")
    for key, values, names in (("parameters", parameters, ("version", *PARAMETERS)), ("videos", videos, ())):
        if not isinstance(values, dict) or not all(type(values.get(name)) is int for name in (*values, *names)):
            raise UserError(f"{root / MANIFEST}: '{key}' does not map names to whole numbers; {mend}")
    for name in videos:
        plain_name(name, root / MANIFEST)
    return {"parameters": parameters, "videos": videos}


def _checksum(root: Path, name: str) -> int:
    """CRC-32 over names and contents of a video's files: what is missing, cut short or overwritten changes it.

    -1 where a file cannot be read, or goes while we look: another process may be writing the video anew.
    """
    crc = 0
    for path in (path for kind in (FRAMES, LABELS) for path in sorted((root / kind / name).glob("*"))):
        try:
            crc = zlib.crc32(path.read_bytes(), zlib.crc32(path.name.encode(), crc))
        except OSError:
            return -1
    return crc


def _write_manifest(root: Path, parameters: dict, videos: dict[str, int]) -> None:
    with write_atomically(root / MANIFEST) as temporary:
        content = {"parameters": parameters, "videos": dict(sorted(videos.items()))}
        temporary.write_text(json.dumps(content, indent=1) + "\n")


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Let one process at a time write (several ranks may ask at once); where the system has no locks, go on."""
    with open(root / LOCK, "w") as handle:
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield


@contextmanager
def _rendering(
    root: Path, names: list[str], parameters: dict, workers: int | None
) -> Iterator[Iterator[tuple[str, int]]]:
    """Write videos in any order; gives (name, checksum) as they are done."""
    if workers is None:
        workers = threads.count_cpus()
    workers = min(workers, len(names))
    calls = [(root, name, parameters) for name in names]
    with run_in_processes(_write_video, calls, workers=workers, flag="--workers") as written:
        yield ((names[index], checksum) for index, checksum in written)


def _write_video(root: Path, name: str, parameters: dict) -> int:
    """Render one video into temporary folders, then move them into place; return its checksum."""
    seed = _sequence_seed(name, parameters["seed"])
    frames, labels = render_sequence(seed, height=parameters["height"], num_frames=parameters["num_frames"])
    quality = np.random.default_rng([*seed, 2])
    base = int(quality.integers(62, 93))
    for kind in (FRAMES, LABELS):
        part = root / UNFINISHED / kind / name
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for t in range(len(frames)):
            if kind == FRAMES:
                _write_jpeg(part / f"{t:05d}.jpg", frames[t], base + int(quality.integers(-4, 5)))
            else:
                write_label_png(part / f"{t:05d}.png", labels[t])
        target = root / kind / name
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, target)
    return _checksum(root, name)


def _write_jpeg(path: Path, frame: np.ndarray, quality: int) -> None:
    """Write (H, W, 3) uint8 RGB. `write_bytes` rather than `cv2.imwrite`, which says nothing on a full disk."""
    _, code = cv2.imencode(".jpg", frame[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))
    path.write_bytes(code.tobytes())


# ------------------------------------------------------------------ looking at it


def read_video(root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, H, W, 3) uint8 RGB and labels (T, H, W) uint8 of a written video."""
    frames = [cv2.imread(str(p))[..., ::-1] for p in sorted((root / FRAMES / name).glob("*.jpg"))]
    labels = [read_label_png(p) for p in sorted((root / LABELS / name).glob("*.png"))]
    return np.stack(frames), np.stack(labels).astype(np.uint8)


def outline(frame: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A copy of a frame (H, W, 3) with the objects of labels (H, W) outlined in the palette's colours."""
    frame = np.ascontiguousarray(frame)
    for k in np.unique(labels[labels > 0]):
        lines, _ = cv2.findContours((labels == k).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(frame, lines, -1, [int(c) for c in make_palette()[k]], 1)
    return frame


def contact_sheet(root: Path, *, split: str = "val", columns: int = 5) -> np.ndarray:
    """One row a video, `columns` frames spread over it, objects outlined: (h, w, 3) uint8 RGB."""
    rows = []
    for name in (root / SPLITS / f"{split}.txt").read_text().split():
        frames, labels = read_video(root, name)
        picks = np.linspace(0, len(frames) - 1, columns).round().astype(int)
        rows.append(np.hstack([outline(frames[t], labels[t]) for t in picks]))
    return np.vstack(rows)


# ------------------------------------------------------------------ how far colour alone goes


def color_baseline(
    frames: np.ndarray, num_clusters: int, *, stride: int = 4, window: int = 17, num_words: int = 16, seed: int = 0
) -> np.ndarray:
    """Cluster a video by colour: k-means on CIELAB and the histogram of colour words in a window, all frames at once.

    frames (T, H, W, 3) uint8 RGB -> label maps (T, H, W) uint8 of values 0 to `num_clusters` - 1. Every
    `stride`-th pixel is clustered, the others take their neighbour's label. What this finds needs no features.

    Raises:
        UserError: more clusters than pixels that are clustered.
    """
    cv2.setRNGSeed(seed)
    lab = np.stack([cv2.cvtColor(f.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for f in frames])
    sparse = lab[:, ::stride, ::stride]
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 15, 0.1)
    sample = np.ascontiguousarray(sparse[:, ::2, ::2].reshape(-1, 3))
    words = cv2.kmeans(sample, num_words, None, stop, 1, cv2.KMEANS_PP_CENTERS)[2]
    features = []
    for small, full in zip(sparse, lab, strict=True):
        nearest = ((full[:, :, None] - words) ** 2).sum(-1).argmin(-1)
        near = [cv2.blur((nearest == i).astype(np.float32), (window, window)) for i in range(num_words)]
        histogram = np.sqrt(np.stack(near, -1)[::stride, ::stride])
        features.append(np.concatenate([small / 40, histogram], -1))
    points = np.concatenate([f.reshape(-1, 3 + num_words) for f in features]).astype(np.float32)
    if num_clusters > len(points):
        raise UserError(f"--num_clusters {num_clusters}: more than the {len(points)} pixels that are clustered")
    found = cv2.kmeans(points, num_clusters, None, stop, 2, cv2.KMEANS_PP_CENTERS)[1]
    maps = found.reshape(sparse.shape[:3]).astype(np.uint8)
    height, width = frames.shape[1:3]
    return maps.repeat(stride, 1).repeat(stride, 2)[:, :height, :width]


def mean_best_iou(clusters: np.ndarray, labels: np.ndarray) -> float:
    """Mean over objects of the best IoU any one cluster reaches over the whole video; both (T, H, W) of ints."""
    ids = [k for k in np.unique(labels) if k not in (0, 255)]
    table = np.array([[np.sum((clusters == c) & (labels == k)) for c in np.unique(clusters)] for k in ids], float)
    sizes = np.array([np.sum(clusters == c) for c in np.unique(clusters)])
    areas = np.array([np.sum(labels == k) for k in ids])
    return float((table / (sizes[None] + areas[:, None] - table)).max(1).mean())


def write_color_baseline(root: Path, output: Path, *, num_clusters: int, split: str = "val") -> float:
    """Write `color_baseline` of a split's videos as label PNGs `output/<video>/<frame>.png`, every cluster a proposal.

    Returns the mean over videos of `mean_best_iou`.
    """
    scores = []
    for name in (root / SPLITS / f"{split}.txt").read_text().split():
        frames, labels = read_video(root, name)
        clusters = color_baseline(frames, num_clusters)
        (output / name).mkdir(parents=True, exist_ok=True)
        for t, proposals in enumerate(clusters + 1):
            write_label_png(output / name / f"{t:05d}.png", proposals)
        scores.append(mean_best_iou(clusters, labels))
    return float(np.mean(scores))


# ------------------------------------------------------------------ command line


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output_path", type=Path, default=Path(DEFAULT_ROOT), help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--height", type=int, default=240, help="rows of a frame; columns are 16/9 of it")
    parser.add_argument("--num_train", type=int, default=16, help="training videos")
    parser.add_argument("--num_val", type=int, default=8, help="validation videos")
    parser.add_argument("--num_frames", type=int, default=32, help="frames of a video")
    parser.add_argument("--workers", type=int, help="processes (default: one for each CPU)")
    parser.add_argument("--contact_sheet", type=Path, metavar="FILE.jpg", help="also draw the validation videos")
    parser.add_argument("--color_baseline", type=Path, metavar="DIR", help="also write what colour alone finds in val")
    parser.add_argument("--num_clusters", type=int, default=8, help="of the colour baseline")
    return parser.parse_args()


def check_args(args: argparse.Namespace) -> None:
    """Refuse what would fail only after the videos were generated. Raises `UserError` naming the flag."""
    for flag, output in (("--contact_sheet", args.contact_sheet), ("--color_baseline", args.color_baseline)):
        if output is None:
            continue
        if args.num_val < 1:
            raise UserError(f"{flag}: is made of the validation videos, of which there are none; raise --num_val")
        check_writable(output.parent if flag == "--contact_sheet" else output, flag=flag)
    if args.contact_sheet and args.contact_sheet.is_dir():
        raise UserError(f"--contact_sheet {args.contact_sheet}: is a folder; name a file, such as sheet.jpg")
    if not 1 <= args.num_clusters <= MAX_INDEXED:
        raise UserError(f"--num_clusters {args.num_clusters}: give 1 to {MAX_INDEXED}, the ids of an indexed PNG")
