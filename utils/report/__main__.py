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

    from utils.errors import run_main
    from utils.flags.report import parse_args

    run_main(lambda: parse_args(__doc__))  # help and refused flags need none of them

import sys
from argparse import Namespace
from pathlib import Path

from utils.errors import UserError, run_main
from utils.files import check_writable
from utils.flags.report import parse_args
from utils.report.pages import refuse_to_lose_frames, write_report
from utils.report.place import check_report_folder
from utils.report.results import MEND, Results
from utils.report.sources import FolderSource, list_masks
from utils.report.tables import format_costs, format_scores
from utils.report.training_log import draw_log


def main() -> None:
    args = parse_args(__doc__)
    if args.log:
        draw_log(args.log, args.picture)
    if args.html:
        print(f"report: {write_pages(args)}")
    elif args.results:
        print_tables(args.results)


def write_pages(args: Namespace) -> Path:
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
