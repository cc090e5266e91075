"""Parse the flags of `python -m utils.visual`."""

import argparse
from pathlib import Path

from utils.errors import OneLineParser
from utils.flags.types import positive_int


def parse_args(description: str) -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m utils.visual", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, nargs="+", required=True,
                        help="folders with one folder of label PNGs per video; several: side by side")  # fmt: skip
    parser.add_argument("--picture", type=Path, required=True, help="where the picture goes (.png)")
    parser.add_argument("--count", type=positive_int, default=4, help="frames per video")
    return parser.parse_args()
