"""Print scores and times of results as tables, write them as pages for a browser, or draw a training log.

python -m utils.report --results outputs/training_free outputs/trained            # Markdown, side by side
python -m utils.report --log outputs/train/log.jsonl --picture curve.png
python -m utils.report --results outputs/eval --html outputs/eval --frames DAVIS/JPEGImages/480p \\
    --annotations DAVIS/Annotations_unsupervised/480p

eval.py writes the pages of its own results. --html writes those of earlier results or of another method's PNGs, into
any folder; then open its index.html. Without --frames it shows masks alone, without --annotations no ground truth.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

import argparse
import sys
from pathlib import Path

from utils.errors import OneLineParser, UserError, run_main
from utils.files import check_writable
from utils.report.pages import refuse_to_lose_frames, write_report
from utils.report.place import check_report_folder
from utils.report.results import MEND, Results
from utils.report.sources import FolderSource, list_masks
from utils.report.tables import format_costs, format_scores
from utils.report.training_log import draw_log


def main() -> None:
    args = parse_arguments()
    if args.log:
        draw_log(args.log, args.picture)
    if args.html:
        print(f"report: {write_pages(args)}")
    elif args.results:
        print_tables(args.results)


def parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m utils.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, nargs="+", help="folders that eval.py wrote, side by side")
    parser.add_argument("--log", type=Path, help="log.jsonl of a training run")
    parser.add_argument("--picture", type=Path, help="where the picture of --log goes (.png)")
    parser.add_argument("--html", type=Path, metavar="DIR", help="write pages of one folder of --results here")
    parser.add_argument("--frames", type=Path, metavar="DIR", help="one folder of frames a video, for --html")
    parser.add_argument("--annotations", type=Path, metavar="DIR", help="one folder of label PNGs a video, for --html")
    parser.add_argument("--scores_path", type=Path, metavar="DIR", help="scores of another method's PNGs, for --html")
    args = parser.parse_args()
    if bool(args.log) != bool(args.picture) or not (args.log or args.results):
        raise UserError("give --results FOLDER..., or --log FILE with --picture FILE")
    if args.html and (args.results is None or len(args.results) != 1):
        raise UserError("--html: shows one folder of --results; for two give python -m utils.compare A B --html DIR")
    for flag in ("frames", "annotations", "scores_path"):
        folder = getattr(args, flag)
        if folder is not None and not args.html:
            raise UserError(f"--{flag}: has no effect without --html; give both")
        if folder is not None and not folder.is_dir():
            raise UserError(f"--{flag} {folder}: no such folder")
    return args


def write_pages(args: argparse.Namespace) -> Path:
    """Write the pages of one folder of results; return the page to open."""
    (path,) = args.results
    if not path.is_dir():
        raise UserError(f"--results {path}: no such folder")
    check_report_folder(args.html, [path], flag="--html")
    check_writable(args.html, flag="--html")
    if not (masks := list_masks(Results(path).predictions)):
        raise UserError(f"--results {path}: holds no folders of label PNGs; run eval.py first")
    if args.frames is None:
        refuse_to_lose_frames(args.html, flag="--html")
        print("note: no --frames, so masks are shown alone", file=sys.stderr, flush=True)
    sources = [FolderSource(folder, frames=args.frames, annotations=args.annotations) for folder in masks]
    return write_report(path, sources, folder=args.html, scores_path=args.scores_path, flag="--html")


def print_tables(results: list[Path]) -> None:
    """Print scores of all folders side by side, and what each cost."""
    try:
        tables = [format_scores(results)]
        tables += [f"{folder.name}:\n\n{format_costs(folder)}" for folder in results]
    except (LookupError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"--results: a file of scores or stats is damaged ({error!r}); {MEND}") from error
    print("\n\n".join(tables))


if __name__ == "__main__":
    run_main(main)
