"""Parse the flags of `python -m utils.export`."""

import argparse
from pathlib import Path

from utils.errors import OneLineParser


def parse_args(description: str) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m utils.export", description=description.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="last.pt or step_*.pt of train.py")
    parser.add_argument("--output_path", type=Path, required=True, help="the file to write")
    return parser.parse_args()
