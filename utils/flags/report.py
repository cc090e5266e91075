"""Parse the flags of `python -m utils.report`."""

import argparse
from pathlib import Path

from utils.errors import OneLineParser, UserError


def parse_args(description: str) -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m utils.report", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
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
