"""Say what is missing or damaged in a dataset: each problem in a line, then a summary.

    python -m data.check --dataset davis17u --basepath DAVIS
    python -m data.check --dataset ytvis19 --basepath YTVIS --split train --videos 600:900 --quick
    python -m data.check --list

Exit code 0 where everything is whole, 1 where something is not, 2 for bad flags. Nothing is written or generated.
`--list` prints the data sets that are known as a table in Markdown.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import exit_on_interrupt

    exit_on_interrupt()

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from tqdm import tqdm

from data.registry import (
    DATASET_NAMES,
    DATASETS,
    PAIRS,
    DatasetSpec,
    dataset_name,
    guess_own_video,
    known_split,
    layout_of,
    place_of,
    root_of,
    select,
    split_names,
)
from data.videos import Video
from utils.errors import OneLineParser, UserError, run_main
from utils.names import number_ranges
from utils.scoring.annotations import VOID, LabelFiles
from utils.scoring.label_checks import SHARP, is_smoothed


@dataclass
class Report:
    """What was found. sizes: (height, width) in pixels -> sequences; objects and sizes stay empty where only names
    were looked at. A problem that several frames share is in `problems` once. notes: what is no fault of the files.
    kinds: pictures beside plain 8-bit ones, such as 16-bit grey -> for each video that has them, how many frames and
    what is done to them."""

    problems: dict[str, None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    sequences: int = 0
    frames: int = 0
    annotated: int = 0
    objects: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    kinds: dict[str, dict[str, tuple[int, str]]] = field(default_factory=dict)

    def add(self, *problems: object) -> None:
        self.problems |= dict.fromkeys(" ".join(str(problem).split()) for problem in problems)

    def add_kinds(self, video: Video) -> None:
        """What was met while a video's frames were read; of a video file nothing is."""
        for kind, frames in getattr(video, "kinds", {}).items():
            what, _, done = kind.partition("; ")
            self.kinds.setdefault(what, {})[video.name] = (frames, done)


def check(
    spec: DatasetSpec, root: Path, *, split: str, videos: str | None = None, annotations: Path | None = None,
    quick: bool = False, progress: bool = True,
) -> Report:  # fmt: skip
    """Look at every frame and annotation of a split; with `quick` only at what files there are.

    Args: as `load_videos`. Raises `UserError` for arguments that fit nothing; all else is in the report.
    """
    split, report, layout = known_split(spec, split), Report(), layout_of(spec, annotations)
    root = place_of(spec, layout, root, split)
    try:
        names = split_names(spec, layout, root, split, flag="--basepath")
        report.add(*layout.orphans(root, split))
    except UserError as error:
        report.add(error)
        return report
    for name in tqdm(select(names, videos), "checking", unit="video", disable=None if progress else True):
        try:
            video = layout.video(root, split, name)
        except UserError as error:
            report.add(error)
            continue
        try:
            report.add(*layout.mismatches(root, split, video))
        except UserError as error:  # in what is only compared with; the video can be read
            report.add(error)
        report.sequences += 1
        report.frames += len(video.frame_names)
        report.annotated += len(video.annotations.frame_names) if video.annotations else 0
        if not quick:
            sizes = _check_frames(video, report)
            objects = _check_annotations(video, sizes, report)
            _check_ids(spec, video, objects, report)
    return report


def _check_frames(video: Video, report: Report) -> dict[str, tuple[int, int]]:
    """Read every frame; (height, width) of those that can be read."""
    sizes = {}
    for name, frame in zip(video.frame_names, video.attempt(), strict=False):  # fewer where the rest is lost
        if isinstance(frame, UserError):
            report.add(frame)
        else:
            sizes[name] = tuple(frame.shape[1:])
    report.add_kinds(video)
    if sizes:
        report.sizes[next(iter(sizes.values()))] += 1
    return sizes


def _check_annotations(video: Video, sizes: dict[str, tuple[int, int]], report: Report) -> set[int]:
    """Read every annotation: of the size of its frame, and at least one object in the video.

    Returns:
        The ids of its objects; none where some of them may not have been seen.
    """
    if video.annotations is None:
        return set()
    objects, whole, smoothed = set(), True, []
    for frame in video.annotations.frame_names:
        try:
            labels = video.annotations.read(frame)
        except UserError as error:
            report.add(error)
            whole = False
            continue
        objects.update(np.unique(labels).tolist())
        if is_smoothed(labels):
            smoothed.append(video.annotations.source(frame))
        if sizes.get(frame, labels.shape) != labels.shape:
            (height, width), (wanted_height, wanted_width) = labels.shape, sizes[frame]
            report.add(f"{video.annotations.source(frame)}: {width}x{height} pixels, but its frame has "
                       f"{wanted_width}x{wanted_height}; restore one of them")  # fmt: skip
    if smoothed:
        report.add(f"{smoothed[0]}: most ids only along edges, the first of {len(smoothed)} such masks: saved with "
                   f"smoothing or as JPEG; {SHARP}")  # fmt: skip
    binary = isinstance(video.annotations, LabelFiles) and VOID in objects
    objects -= {0, VOID}
    report.objects += len(objects)
    if whole and not objects:
        first = video.annotations.frame_names[0]
        mend = f"only 0 and {VOID}: score binary masks by --protocol foreground, or " if binary else ""
        report.add(f"{video.annotations.source(first)}: neither here nor later an object; {mend}number objects from 1")
    return objects if whole else set()


def _check_ids(spec: DatasetSpec, video: Video, objects: set[int], report: Report) -> None:
    """Ids without gaps, for `davis`: DAVIS counts an object for each id up to the highest, found or not.

    That is a fault of a dataset that is usually scored so. Others number what is never seen too, as MOVi does.
    """
    absent = sorted(set(range(1, max(objects, default=0))) - objects)
    if not absent or "davis" not in spec.protocols:
        return
    has = f"has object ids {number_ranges(sorted(objects))} but not {number_ranges(absent)}"
    line = f"video {video.name}: {has}, which the protocol davis would count as objects"
    if spec.protocols[0] == "davis":
        report.add(f"{line}; number its objects from 1 without gaps")
    else:
        report.notes.append(f"{line}; score it by {spec.protocols[0]}, or number its objects from 1 without gaps")


# ------------------------------------------------------------------ printing


def print_report(report: Report, title: str, *, quick: bool) -> None:
    for problem in report.problems:
        print(problem)
    for note in (*report.notes, *map(_describe_kind, report.kinds.items())):
        print(f"note: {note}")
    sizes = ", ".join(f"{width}x{height} ({count})" for (height, width), count in report.sizes.most_common())
    print(f"{title}: {len(report.problems) or 'no'} problem{'s' * (len(report.problems) != 1)}")
    print(f"{'sequences':>9}  {'frames':>7}  {'annotated':>9}  {'objects':>7}  sizes (sequences)")
    counts = f"{report.sequences:>9}  {report.frames:>7}  {report.annotated:>9}"
    print(f"{counts}  {'-' if quick else report.objects:>7}  {sizes or '-'}")


def _describe_kind(entry: tuple[str, dict[str, tuple[int, str]]]) -> str:
    """A kind of pictures in a line: 12 frames of 16-bit grey in 2 videos; values 0 to 4095 become 0 to 255 (ant)."""
    what, videos = entry
    name, (_, done) = next(iter(videos.items()))
    frames = sum(count for count, _ in videos.values())
    example = f" ({name})" if len({done for _, done in videos.values()}) > 1 else ""
    return (f"{frames} frame{'s' * (frames != 1)} of {what} in {len(videos)} video{'s' * (len(videos) != 1)}; "
            f"{done}{example}")  # fmt: skip


def table() -> str:
    """The registry in Markdown."""
    columns = {
        "--dataset": lambda spec: f"`{spec.name}`",
        "what": lambda spec: _plain(spec.title),
        "splits": lambda spec: ", ".join(spec.splits),
        "names from": lambda spec: _plain(spec.split_source),
        "objects, void label": _objects,
        "annotated": lambda spec: ("some frames" if spec.sparse else "every frame") if spec.protocols else "no",
        "protocols": lambda spec: ", ".join(spec.protocols) or "none",
        "licence": lambda spec: _plain(spec.licence),
        "citation": lambda spec: _plain(spec.citation),
        "download": lambda spec: _link(spec.download),
    }
    rows = [list(columns), ["---"] * len(columns)]
    rows += [[cell(spec) for cell in columns.values()] for spec in DATASETS.values()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _objects(spec: DatasetSpec) -> str:
    if not spec.protocols:
        return "none"
    return f"{'merged' if spec.single_object else 'several'}, {'no void' if spec.void is None else spec.void}"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"\\{character}" if character in "<>*|_" else character for character in text)


def _link(download: str) -> str:
    """The address under its host's name, or the words that stand in place of an address."""
    host = urlsplit(download).netloc
    return f"[{host}]({download})" if host else download


class _List(argparse.Action):
    """A flag that prints the table and ends the program, whatever other flags are required."""

    def __init__(self, option_strings: list[str], dest: str, **options: object):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(table())
        parser.exit()


def parse_args() -> argparse.Namespace:
    parser = OneLineParser(prog="python -m data.check", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument(
        "--dataset", type=dataset_name, choices=DATASET_NAMES, help="needed, but for a video file or folders of frames"
    )
    parser.add_argument("--list", action=_List, help="print the data sets that are known as a table in Markdown")
    parser.add_argument("--basepath", help="root of the dataset")
    parser.add_argument("--split", help="the usual one of the dataset if not given")
    parser.add_argument("--videos", metavar="A:B", help="only videos A to B - 1 of the split, counted from 0")
    parser.add_argument("--annotations", type=Path, help=f"for {PAIRS}: folder of folders of label PNGs")
    parser.add_argument("--quick", action="store_true", help="only whether the files are there")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    args.dataset = args.dataset or guess_own_video(args.basepath, otherwise=None)
    if args.dataset is None:
        raise UserError("--dataset is missing; give one of those that --list names")
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
