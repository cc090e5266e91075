"""Measure the time of scoring beside the DAVIS toolkit's algorithm on the same frames.

    python -m tests.benchmarks.scoring --davis_path DAVIS --results results/ours
    python -m tests.benchmarks.scoring          # without data: generated blobs, 480 x 854

Both read the same PNGs and score every proposal with every object. `per pair` is `tests.utils.reference_scoring`, which
extracts, outlines and dilates two masks for each pair, as the toolkit does. `utils.scoring.score` is measured with
matching and statistics. OpenCV has one thread per process.
"""

import multiprocessing
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import utils  # noqa: F401  before NumPy, which reads how threads are to work when it is loaded

# isort: split
import cv2
import numpy as np

from tests.utils import reference_scoring as reference
from utils.errors import OneLineParser, UserError, run_main
from utils.png import read_label_png, write_label_png
from utils.run.provenance import SCORING, list_versions
from utils.scoring.annotations import find_label_files
from utils.scoring.metrics import frame_scores
from utils.scoring.score import score

Frame = tuple[Path, Path, int, int]  # annotation, result, objects and proposals of the sequence


def blobs(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a label map (480, 854) of `count` ellipses, later ones in front."""
    labels = np.zeros((480, 854), dtype=np.int32)
    for label in range(1, count + 1):
        centre, axes = rng.integers((0, 0), (854, 480)), rng.integers(20, 120, 2)
        cv2.ellipse(labels, centre.tolist(), axes.tolist(), int(rng.integers(180)), 0, 360, label, -1)
    return labels


def generate(folder: Path, frames: int) -> tuple[dict[str, Path], Path]:
    """Write four sequences of blobs: 2 objects, 20 proposals. Returns annotations and results."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c", "d"):
        for k in range(frames):
            write_label_png(folder / "gt" / name / f"{k:05d}.png", blobs(2, rng))
            write_label_png(folder / "results" / name / f"{k:05d}.png", blobs(20, rng))
    return {name: folder / "gt" / name for name in ("a", "b", "c", "d")}, folder / "results"


def sample(davis_path: Path, results: Path, folder: Path, frames: int) -> dict[str, Path]:
    """Copy `frames` evenly spaced annotations of every sequence in `results` to `folder`."""
    annotations = davis_path / "Annotations_unsupervised" / "480p"
    names = sorted(path.name for path in results.glob("*/") if (annotations / path.name).is_dir())
    if not names:
        raise UserError(f"{results}: no folder named as one in {annotations}; check --results and --davis_path")
    for name in names:
        paths = sorted((annotations / name).glob("*.png"))
        (folder / name).mkdir()
        for k in np.unique(np.linspace(0, len(paths) - 1, frames).astype(int)):
            shutil.copy(paths[k], folder / name)
    return {name: folder / name for name in names}


def list_frames(annotations: dict[str, Path], results: Path) -> list[Frame]:
    """List every frame with the numbers of objects and proposals of its sequence."""
    frames = []
    for name, folder in annotations.items():
        pairs = [(path, results / name / path.name) for path in sorted(folder.glob("*.png"))]
        objects = max(int((gt * (gt != 255)).max()) for gt in (read_label_png(a) for a, _ in pairs))
        proposals = max(int(read_label_png(b).max()) for _, b in pairs)
        frames += [(a, b, objects, proposals) for a, b in pairs]
    return frames


def score_per_pair(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Read the PNGs of one frame and compute J and F with the reference."""
    annotation, result, objects, proposals = frame
    labels = read_label_png(annotation), read_label_png(result)
    return reference.frame_scores(*labels, list(range(1, objects + 1)), proposals)


def largest_difference(frame: Frame) -> float:
    """Compute the largest difference in J or F of any pair between both implementations."""
    annotation, result, objects, proposals = frame
    labels = read_label_png(annotation), read_label_png(result)
    ours = frame_scores(*labels, range(1, objects + 1), proposals)
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, score_per_pair(frame), strict=True))


def seconds(work: Callable[[], object]) -> np.ndarray:
    """Measure wall and processor seconds of `work`, (2,); processor seconds include its child processes."""
    before = time.perf_counter(), sum(os.times()[:4])
    work()
    return np.subtract((time.perf_counter(), sum(os.times()[:4])), before)


def in_processes(function: Callable, items: list, workers: int) -> None:
    """Map over spawned processes; starting them is included in the wall time, as in `score`."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, cv2.setNumThreads, (1,)) as pool:
        list(pool.map(function, items))


def measure(annotations: dict[str, Path], results: Path, frames: list[Frame], workers: int) -> None:
    """Print seconds per frame of both implementations and their ratio, by number of processes and clock."""
    pairs = sum(objects * proposals for _, _, objects, proposals in frames) / len(frames)
    height, width = read_label_png(frames[0][0]).shape
    print(f"{len(frames)} frames of {height}x{width}, {pairs:.1f} (object, proposal) pairs a frame")
    print(f"largest difference in J or F of any pair: {max(map(largest_difference, frames[::4])):.1e}")
    print(f"{'processes':>9}  {'s/frame':>9}  {'per pair':>8}  {'utils.scoring.score':>13}  {'ratio':>6}")
    for count in dict.fromkeys((1, workers)):
        if count == 1:
            slow = seconds(lambda: [score_per_pair(frame) for frame in frames])
        else:
            slow = seconds(lambda n=count: in_processes(score_per_pair, frames, n))
        fast = seconds(
            lambda n=count: score(results, {k: find_label_files(v) for k, v in annotations.items()}, workers=n)
        )
        for clock, a, b in zip(("wall", "processor"), slow / len(frames), fast / len(frames), strict=True):
            print(f"{count:>9}  {clock:>9}  {a:>8.4f}  {b:>13.4f}  {a / b:>5.1f}x")
    start = seconds(lambda: in_processes(abs, list(range(workers)), workers))
    print(f"with {workers} processes, starting them takes {start[0]:.1f} s (wall), {start[1]:.1f} s (processor)")


def main() -> None:
    parser = OneLineParser(prog="python -m tests.benchmarks.scoring", description=__doc__.splitlines()[0])
    parser.add_argument("--davis_path", type=Path, help="root of the DAVIS dataset (default: generated blobs)")
    parser.add_argument("--results", type=Path, help="folder of label PNGs of at most 20 proposals")
    parser.add_argument("--frames", type=int, default=40, help="frames of each sequence, evenly spaced")
    parser.add_argument("--workers", type=int, default=2, help="processes of the second line")
    args = parser.parse_args()
    if (args.davis_path is None) != (args.results is None):
        raise UserError("--davis_path and --results go together; give both or neither")
    cv2.setNumThreads(1)
    print(
        platform.processor() or platform.machine(), f"{os.cpu_count()} cores", platform.system(), list_versions(SCORING)
    )
    with tempfile.TemporaryDirectory() as folder:
        if args.results is None:
            annotations, results = generate(Path(folder), args.frames)
        else:
            annotations, results = sample(args.davis_path, args.results, Path(folder), args.frames), args.results
        measure(annotations, results, list_frames(annotations, results), args.workers)


if __name__ == "__main__":
    run_main(main)
