"""Parse the flags of `python -m data.export`."""

import argparse
from pathlib import Path

from utils.errors import OneLineParser
from utils.flags.choices import BEST, COCO, EXPORT_FORMATS, YTVIS
from utils.predictions import FOREGROUND


def parse_object(text: str) -> str:
    """Return `best`, `foreground` or the id of a proposal, from 1."""
    if text not in (BEST, FOREGROUND) and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text} is neither {BEST} nor {FOREGROUND} nor an id from 1")
    return text


def parse_args(description: str) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m data.export", description=description.split("\n")[0])
    parser.add_argument("results", type=Path, metavar="RESULTS", help="a folder that eval.py wrote, its --save_path")
    parser.add_argument("--format", choices=EXPORT_FORMATS, required=True,
                        help="coco: a data set as JSON; ytvis: results as JSON; cutout: PNGs with alpha; webm: "
                        "videos with alpha; binary: PNGs of 0 and 255")  # fmt: skip
    parser.add_argument("--output_path", type=Path, required=True, metavar="PATH", help="the new file or folder")
    parser.add_argument("--object", type=parse_object, metavar="OBJECT",
                        help=f"what to keep: {BEST} (by default), {FOREGROUND}, or the id of a proposal")  # fmt: skip
    parser.add_argument("--video_ids", type=Path, metavar="JSON",
                        help="for ytvis: take ids and frames of videos from this JSON of the split; otherwise videos "
                        "are numbered from 1, in order of their names")  # fmt: skip
    args = parser.parse_args()
    if args.object and args.format in (COCO, YTVIS):
        parser.error(f"--object {args.object}: has no effect beside --format {args.format}, which holds all proposals")
    if args.video_ids and args.format != YTVIS:
        parser.error(f"--video_ids {args.video_ids}: has no effect beside --format {args.format}; leave it out")
    return args
