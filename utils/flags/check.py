"""Parse the flags of `python -m data.check`."""

import argparse
from pathlib import Path

from utils.errors import OneLineParser
from utils.flags.choices import DATASET_NAMES, PAIRS, parse_dataset_name


def parse_args(description: str) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m data.check", description=description.split("\n")[0])
    parser.add_argument(
        "--dataset",
        type=parse_dataset_name,
        choices=DATASET_NAMES,
        help="needed, but for a video file or folders of frames",
    )
    parser.add_argument("--list", action="store_true", help="print the data sets that are known as a table in Markdown")
    parser.add_argument("--basepath", help="root of the dataset")
    parser.add_argument("--split", help="the usual one of the dataset if not given")
    parser.add_argument("--videos", metavar="A:B", help="only videos A to B - 1 of the split, counted from 0")
    parser.add_argument("--annotations", type=Path, help=f"for {PAIRS}: folder of folders of label PNGs")
    parser.add_argument("--quick", action="store_true", help="only whether the files are there")
    return parser.parse_args()
