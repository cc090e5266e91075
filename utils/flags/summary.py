"""Parse the flags of `python -m utils.summary`."""

import argparse
from pathlib import Path

from utils.errors import OneLineParser


def parse_args(description: str) -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m utils.summary", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, nargs="+", required=True, help="folders that eval.py wrote")
    parser.add_argument("--split", default="*", help="which split's scores, where there are several")
    parser.add_argument("--picture", type=Path, help="where the picture of resolutions goes (.png)")
    return parser.parse_args()
