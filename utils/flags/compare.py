"""Parse the flags of `python -m utils.compare`."""

import argparse
from pathlib import Path

from utils.errors import OneLineParser
from utils.flags.choices import PROTOCOLS


def parse_args(description: str) -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m utils.compare", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", type=Path, help="folder of results")
    parser.add_argument("b", type=Path, help="another, scored on the same sequences")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="by which scores; davis if not given")
    parser.add_argument("--split", default="*", help="which of the splits that were scored, if several were")
    parser.add_argument("--measure", help="which of the protocol's measures; its main one if not given")
    parser.add_argument("--picture", type=Path, help="where a picture of the sequences goes (.png)")
    parser.add_argument("--html", type=Path, metavar="DIR", help="write pages that show both side by side here")
    return parser.parse_args()
