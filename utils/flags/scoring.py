"""Add the flags of scoring, which eval.py and `python -m utils.scoring` share, and parse those of the latter."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.errors import OneLineParser
from utils.flags.choices import PROTOCOLS


def add_score_options(add: Callable[..., Any]) -> None:
    """Add the flags of `Options` to a parser or a group, by its `add_argument`."""
    add(
        "--toolkit_exact",
        action="store_true",
        help="Score as the DAVIS toolkits do: 8-bit frame indices in decay; under foreground and oracle without the "
        "first and last frame.",
    )
    add("--first_frame_objects", action="store_true", help="Count only the first frame's objects under slots (SOLV).")


def parse_args(description: str) -> argparse.Namespace:
    """Parse the flags of `python -m utils.scoring`."""
    parser = OneLineParser(
        prog="python -m utils.scoring", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, help="one folder of PNGs per sequence")
    parser.add_argument("--davis_path", type=Path, required=True, help="root of the DAVIS dataset")
    parser.add_argument(
        "--protocol", nargs="+", choices=[*PROTOCOLS, "both", "all"], default=["davis"],
        help="a table for each; both: davis and paper, all: every one",
    )  # fmt: skip
    parser.add_argument(
        "--annotations", default="Annotations_unsupervised/480p", help="annotations, relative to --davis_path"
    )
    parser.add_argument(
        "--split_file", default="ImageSets/2017/val.txt", help="sequences to score, relative to --davis_path"
    )
    parser.add_argument("--scores_path", type=Path, help="folder for tables and scores of sequences")
    add_score_options(parser.add_argument)
    parser.add_argument("--workers", type=int, help="processes at most; all cores if not given")
    return parser.parse_args()
