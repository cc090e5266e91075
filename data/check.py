"""Check a data set: print each missing or damaged file in a line, then a summary.

    python -m data.check --dataset davis17u --basepath DAVIS
    python -m data.check --dataset ytvis19 --basepath YTVIS --split train --videos 600:900 --quick
    python -m data.check --list

Exit code 0 where everything is whole, 1 where something is not, 2 for bad flags. Nothing is written or generated.
`--list` prints a table of the known data sets in Markdown.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

    from utils.errors import run_main
    from utils.flags.check import parse_args

    run_main(lambda: parse_args(__doc__))  # help and refused flags need none of them

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from tqdm import tqdm

from data.loading import (
    choose_layout,
    guess_own_video,
    list_split_videos,
    locate_dataset,
    resolve_root,
    resolve_split,
    select_range,
)
from data.registry import DATASETS, DatasetSpec
from data.videos import Video
from utils.errors import UserError, run_main
from utils.flags.check import parse_args
from utils.names import format_ranges
from utils.pictures import format_size
from utils.scoring.annotations import VOID, LabelFiles
from utils.scoring.label_checks import SHARP, is_smoothed


@dataclass
class Report:
    """Collect the results of a check. With `--quick`, `objects`, `sizes` and `conversions` stay empty.

    problems: one line for each problem, in order; a problem of several frames is listed once.
    notes: facts that the user should know but that are no faults.
    sequences, frames, annotated, objects: number of videos, frames, annotated frames and objects.
    sizes: (height, width) in pixels -> number of videos.
    conversions: kind of pictures, such as 16-bit grey -> video -> (number of frames, how they are converted). Plain
        8-bit pictures are not listed.
    """

    problems: dict[str, None] = field(default_factory=dict)  # a set in order
    notes: list[str] = field(default_factory=list)
    sequences: int = 0
    frames: int = 0
    annotated: int = 0
    objects: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    conversions: dict[str, dict[str, tuple[int, str]]] = field(default_factory=dict)

    def add(self, *problems: object) -> None:
        self.problems |= dict.fromkeys(" ".join(str(problem).split()) for problem in problems)

    def add_conversions(self, video: Video) -> None:
        """Add the conversions of the frames of a video, which has been read."""
        for conversion, frames in video.conversions.items():
            kind, _, how = conversion.partition("; ")
            self.conversions.setdefault(kind, {})[video.name] = (frames, how)


def check(
    spec: DatasetSpec, root: Path, *, split: str, videos: str | None = None, annotations: Path | None = None,
    quick: bool = False,
) -> Report:  # fmt: skip
    """Read every frame and annotation of a split, or with `quick` only check which files exist.

    Args:
        spec, root, split, videos, annotations: as in `data.loading.load_videos`.

    Raises:
        UserError: invalid arguments. All faults of the data set are in the report instead.
    """
    split, report, layout = resolve_split(spec, split), Report(), choose_layout(spec, annotations)
    root = locate_dataset(spec, layout, root, split)
    try:
        names = list_split_videos(spec, layout, root, split, flag="--basepath")
        report.add(*layout.find_orphans(root, split))
    except UserError as error:
        report.add(error)
        return report
    for name in tqdm(select_range(names, videos), "checking", unit="video", disable=None):
        try:
            video = layout.open_video(root, split, name)
        except UserError as error:
            report.add(error)
            continue
        try:
            report.add(*layout.find_mismatches(root, split, video))
        except UserError as error:  # in a file that is only used for comparison, so the video can be read
            report.add(error)
        report.notes += [video.doubt] if video.doubt else []
        report.sequences += 1
        report.frames += len(video.frame_names)
        report.annotated += len(video.annotations.frame_names) if video.annotations else 0
        if not quick:
            sizes = _check_frames(video, report)
            objects = _check_annotations(video, sizes, report)
            _check_ids(spec, video, objects, report)
    return report


def _check_frames(video: Video, report: Report) -> dict[str, tuple[int, int]]:
    """Read every frame of a video; return name of a frame -> (height, width) for the readable ones."""
    sizes = {}
    # Not strict: there are fewer frames than names if the rest of a file is lost.
    for name, frame in zip(video.frame_names, video.read_with_errors(), strict=False):
        if isinstance(frame, UserError):
            report.add(frame)
        else:
            sizes[name] = tuple(frame.shape[1:])
    report.add_conversions(video)
    if sizes:
        report.sizes[next(iter(sizes.values()))] += 1
    return sizes


def _check_annotations(video: Video, sizes: dict[str, tuple[int, int]], report: Report) -> set[int]:
    """Read every annotation of a video: each must have the size of its frame, and one must show an object.

    Returns:
        The ids of all objects; empty if an annotation is unreadable, since its objects are unknown.
    """
    if video.annotations is None:
        return set()
    objects, all_readable, smoothed = set(), True, []
    for frame in video.annotations.frame_names:
        try:
            labels = video.annotations.read(frame)
        except UserError as error:
            report.add(error)
            all_readable = False
            continue
        objects.update(np.unique(labels).tolist())
        if is_smoothed(labels):
            smoothed.append(video.annotations.source(frame))
        if sizes.get(frame, labels.shape) != labels.shape:
            report.add(f"{video.annotations.source(frame)}: {format_size(labels.shape)} pixels, but its frame has "
                       f"{format_size(sizes[frame])}; restore one of them")  # fmt: skip
    if smoothed:
        report.add(f"{smoothed[0]}: most ids only along edges, the first of {len(smoothed)} such masks: saved with "
                   f"smoothing or as JPEG; {SHARP}")  # fmt: skip
    binary = isinstance(video.annotations, LabelFiles) and VOID in objects
    objects -= {0, VOID}
    report.objects += len(objects)
    if all_readable and not objects:
        first = video.annotations.frame_names[0]
        mend = f"only 0 and {VOID}: score binary masks by --protocol foreground, or " if binary else ""
        report.add(f"{video.annotations.source(first)}: neither here nor later an object; {mend}number objects from 1")
    return objects if all_readable else set()


def _check_ids(spec: DatasetSpec, video: Video, objects: set[int], report: Report) -> None:
    """Report gaps in the ids of the objects, because DAVIS counts an object for each id up to the highest.

    Gaps are a problem in data sets that are usually scored by `davis`, and only worth a note in others: MOVi also
    numbers objects that are never visible.
    """
    absent = sorted(set(range(1, max(objects, default=0))) - objects)
    if not absent or "davis" not in spec.protocols:
        return
    has = f"has object ids {format_ranges(sorted(objects))} but not {format_ranges(absent)}"
    line = f"video {video.name}: {has}, which the protocol davis would count as objects"
    if spec.protocols[0] == "davis":
        report.add(f"{line}; number its objects from 1 without gaps")
    else:
        report.notes.append(f"{line}; score it by {spec.protocols[0]}, or number its objects from 1 without gaps")


# ------------------------------------------------------------------ printing


def print_report(report: Report, title: str, *, quick: bool) -> None:
    for problem in report.problems:
        print(problem)
    for note in (*report.notes, *map(_describe_conversion, report.conversions.items())):
        print(f"note: {note}")
    sizes = ", ".join(f"{width}x{height} ({count})" for (height, width), count in report.sizes.most_common())
    print(f"{title}: {len(report.problems) or 'no'} problem{'s' * (len(report.problems) != 1)}")
    print(f"{'sequences':>9}  {'frames':>7}  {'annotated':>9}  {'objects':>7}  sizes (sequences)")
    counts = f"{report.sequences:>9}  {report.frames:>7}  {report.annotated:>9}"
    print(f"{counts}  {'-' if quick else report.objects:>7}  {sizes or '-'}")


def _describe_conversion(entry: tuple[str, dict[str, tuple[int, str]]]) -> str:
    """Describe a conversion in a line: 12 frames of 16-bit grey in 2 videos; values 0 to 4095 become 0 to 255 (ant).

    The video in brackets is the one whose values are named, if those of other videos differ.
    """
    kind, videos = entry
    name, (_, how) = next(iter(videos.items()))
    frames = sum(count for count, _ in videos.values())
    example = f" ({name})" if len({how for _, how in videos.values()}) > 1 else ""
    return (f"{frames} frame{'s' * (frames != 1)} of {kind} in {len(videos)} video{'s' * (len(videos) != 1)}; "
            f"{how}{example}")  # fmt: skip


def format_table() -> str:
    """Format the registry as a table in Markdown."""
    columns = {
        "--dataset": lambda spec: f"`{spec.name}`",
        "what": lambda spec: _escape(spec.title),
        "splits": lambda spec: ", ".join(spec.splits),
        "names from": lambda spec: _escape(spec.split_source),
        "objects, void label": _describe_objects,
        "annotated": lambda spec: ("some frames" if spec.sparse else "every frame") if spec.protocols else "no",
        "protocols": lambda spec: ", ".join(spec.protocols) or "none",
        "licence": lambda spec: _escape(spec.licence),
        "citation": lambda spec: _escape(spec.citation),
        "download": lambda spec: _format_link(spec.download),
    }
    rows = [list(columns), ["---"] * len(columns)]
    rows += [[cell(spec) for cell in columns.values()] for spec in DATASETS.values()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _describe_objects(spec: DatasetSpec) -> str:
    if not spec.protocols:
        return "none"
    return f"{'merged' if spec.single_object else 'several'}, {'no void' if spec.void is None else spec.void}"


def _escape(text: str) -> str:
    """Escape the characters that have a meaning in Markdown."""
    return "".join(f"\\{character}" if character in "<>*|_" else character for character in text)


def _format_link(download: str) -> str:
    """Format an address as a link with the name of its host; return a text that is no address unchanged."""
    host = urlsplit(download).netloc
    return f"[{host}]({download})" if host else download


def main() -> None:
    args = parse_args(__doc__)
    if args.list:
        print(format_table())
        sys.exit(0)
    args.dataset = args.dataset or guess_own_video(args.basepath, otherwise=None)
    if args.dataset is None:
        if args.basepath and not Path(args.basepath).exists():
            raise UserError(f"--basepath {args.basepath}: no such file or folder")
        raise UserError("--dataset is missing; give one of those that --list names")
    spec = DATASETS[args.dataset]
    root, _ = resolve_root(args.dataset, davis_path=None, basepath=args.basepath, davis_flag="--basepath")
    split = args.split or spec.default_split
    if not (root.exists() or spec.generate):
        raise UserError(f"--basepath {root}: no such file or folder")
    report = check(
        spec, root, split=split, videos=args.videos, annotations=args.annotations, quick=args.quick
    )  # fmt: skip
    print_report(report, f"{spec.title}, split {split}, {root}", quick=args.quick)
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    run_main(main)
