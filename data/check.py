"""Say what is missing or damaged in a dataset: each problem in a line, then a summary.

    python -m data.check --dataset davis17u --basepath DAVIS
    python -m data.check --dataset ytvis19 --basepath YTVIS --split train --videos 600:900 --quick

Exit code 0 where everything is whole, 1 where something is not, 2 for bad flags. Nothing is written or generated.
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.annotations import VOID
from data.registry import DATASET_NAMES, DATASETS, PAIRS, DatasetSpec, layout_of, root_of, select, split_names
from data.videos import Video
from utils.errors import UserError, run_main


@dataclass
class Report:
    """What was found. sizes: (height, width) in pixels -> sequences; objects and sizes stay empty where only names
    were looked at. A problem that several frames share is in `problems` once."""

    problems: dict[str, None] = field(default_factory=dict)
    sequences: int = 0
    frames: int = 0
    annotated: int = 0
    objects: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, problem: object) -> None:
        self.problems[" ".join(str(problem).split())] = None


def check(
    spec: DatasetSpec, root: Path, *, split: str, videos: str | None = None, annotations: Path | None = None,
    quick: bool = False, progress: bool = True,
) -> Report:  # fmt: skip
    """Look at every frame and annotation of a split; with `quick` only at what files there are.

    Args: as `load_videos`. Raises `UserError` for arguments that fit nothing; all else is in the report.
    """
    report, layout = Report(), layout_of(spec, annotations)
    try:
        names = split_names(layout, root, split, flag="--basepath")
    except UserError as error:
        report.add(error)
        return report
    for name in tqdm(select(names, videos), "checking", unit="video", disable=None if progress else True):
        try:
            video = layout.video(root, split, name)
        except UserError as error:
            report.add(error)
            continue
        report.sequences += 1
        report.frames += len(video.frame_names)
        report.annotated += len(video.annotations.frame_names) if video.annotations else 0
        if not quick:
            sizes = _check_frames(video, report)
            _check_annotations(video, sizes, report)
    return report


def _check_frames(video: Video, report: Report) -> dict[str, tuple[int, int]]:
    """Read every frame; (height, width) of those that can be read."""
    sizes = {}
    for name, frame in zip(video.frame_names, video.attempt(), strict=False):  # fewer where the rest is lost
        if isinstance(frame, UserError):
            report.add(frame)
        else:
            sizes[name] = tuple(frame.shape[1:])
    if sizes:
        report.sizes[next(iter(sizes.values()))] += 1
    return sizes


def _check_annotations(video: Video, sizes: dict[str, tuple[int, int]], report: Report) -> None:
    """Read every annotation: of the size of its frame, and at least one object in the video."""
    if video.annotations is None:
        return
    objects, whole = set(), True
    for frame in video.annotations.frame_names:
        try:
            labels = video.annotations.read(frame)
        except UserError as error:
            report.add(error)
            whole = False
            continue
        objects.update(np.unique(labels).tolist())
        if sizes.get(frame, labels.shape) != labels.shape:
            (height, width), (wanted_height, wanted_width) = labels.shape, sizes[frame]
            report.add(f"{video.annotations.source(frame)}: {width}x{height} pixels, but its frame has "
                       f"{wanted_width}x{wanted_height}; restore one of them")  # fmt: skip
    objects -= {0, VOID}
    report.objects += len(objects)
    if whole and not objects:
        first = video.annotations.frame_names[0]
        report.add(f"{video.annotations.source(first)}: neither here nor later an object; number objects from 1")


def print_report(report: Report, title: str, *, quick: bool) -> None:
    for problem in report.problems:
        print(problem)
    sizes = ", ".join(f"{width}x{height} ({count})" for (height, width), count in report.sizes.most_common())
    print(f"{title}: {len(report.problems) or 'no'} problem{'s' * (len(report.problems) != 1)}")
    print(f"{'sequences':>9}  {'frames':>7}  {'annotated':>9}  {'objects':>7}  sizes (sequences)")
    counts = f"{report.sequences:>9}  {report.frames:>7}  {report.annotated:>9}"
    print(f"{counts}  {'-' if quick else report.objects:>7}  {sizes or '-'}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--dataset", required=True, choices=DATASET_NAMES)
    parser.add_argument("--basepath", help="root of the dataset")
    parser.add_argument("--split", help="the usual one of the dataset if not given")
    parser.add_argument("--videos", metavar="A:B", help="only videos A to B - 1 of the split, counted from 0")
    parser.add_argument("--annotations", type=Path, help=f"for {PAIRS}: folder of folders of label PNGs")
    parser.add_argument("--quick", action="store_true", help="only whether the files are there")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    spec = DATASETS[args.dataset]
    root, _ = root_of(args.dataset, davis_path=None, basepath=args.basepath, davis_flag="--basepath")
    split = args.split or spec.default_split
    report = check(
        spec, root, split=split, videos=args.videos, annotations=args.annotations, quick=args.quick
    )  # fmt: skip
    print_report(report, f"{spec.title}, split {split}, {root}", quick=args.quick)
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    run_main(main)
