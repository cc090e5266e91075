"""Parse the flags of `python -m data.sprites`."""

import argparse
from pathlib import Path

from utils.errors import OneLineParser
from utils.flags.choices import SPRITES_ROOT


def parse_args(description: str) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m data.sprites", description=description.split("\n")[0])
    parser.add_argument("--output_path", type=Path, default=Path(SPRITES_ROOT), help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--height", type=int, default=240, help="rows of a frame; columns are 16/9 of it")
    parser.add_argument("--num_train", type=int, default=16, help="training videos")
    parser.add_argument("--num_val", type=int, default=8, help="validation videos")
    parser.add_argument("--num_frames", type=int, default=32, help="frames of a video")
    parser.add_argument("--workers", type=int, help="processes (default: one for each CPU)")
    parser.add_argument("--color_baseline", type=Path, metavar="DIR", help="also segment val by colour alone")
    parser.add_argument("--num_clusters", type=int, default=8, help="clusters of the colour baseline")
    return parser.parse_args()
