"""Generate Sprites: procedural videos with exact object masks, in the layout of DAVIS-2017-Unsupervised.

    python -m data.sprites --output_path datasets/sprites
    python -m data.sprites --contact_sheet sheet.jpg --color_baseline outputs/color

Two to five textured, jointed animals and machines move, occlude one another, leave and return before a cluttered,
moving background. Same arguments, same frames and masks, on every processor and however many processes wrote them
(`data/sprites/exact.py` says why). The splits `small`, `crowd` and `leave` are written when a program asks for them.
`data/sprites/plan.py` plans a video, `render.py` paints it, `writer.py` writes it.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

import argparse
from pathlib import Path

from data.sprites.writer import DEFAULT_ROOT, draw_contact_sheet, write_color_baseline, write_jpeg, write_sprites
from utils.errors import OneLineParser, UserError, run_main
from utils.files import check_writable
from utils.png import MAX_INDEXED


def parse_args() -> argparse.Namespace:
    parser = OneLineParser(prog="python -m data.sprites", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--output_path", type=Path, default=Path(DEFAULT_ROOT), help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--height", type=int, default=240, help="rows of a frame; columns are 16/9 of it")
    parser.add_argument("--num_train", type=int, default=16, help="training videos")
    parser.add_argument("--num_val", type=int, default=8, help="validation videos")
    parser.add_argument("--num_frames", type=int, default=32, help="frames of a video")
    parser.add_argument("--workers", type=int, help="processes (default: one for each CPU)")
    parser.add_argument("--contact_sheet", type=Path, metavar="FILE.jpg", help="also draw the validation videos")
    parser.add_argument("--color_baseline", type=Path, metavar="DIR", help="also segment val by colour alone")
    parser.add_argument("--num_clusters", type=int, default=8, help="clusters of the colour baseline")
    return parser.parse_args()


def check_args(args: argparse.Namespace) -> None:
    """Refuse arguments that would only fail after the videos have been generated. Raises `UserError`."""
    for flag, output in (("--contact_sheet", args.contact_sheet), ("--color_baseline", args.color_baseline)):
        if output is None:
            continue
        if args.num_val < 1:
            raise UserError(f"{flag}: is made of the validation videos, of which there are none; raise --num_val")
        check_writable(output.parent if flag == "--contact_sheet" else output, flag=flag)
    if args.contact_sheet and args.contact_sheet.is_dir():
        raise UserError(f"--contact_sheet {args.contact_sheet}: is a folder; name a file, such as sheet.jpg")
    if not 1 <= args.num_clusters <= MAX_INDEXED:
        raise UserError(f"--num_clusters {args.num_clusters}: give 1 to {MAX_INDEXED}, the ids of an indexed PNG")


def main() -> None:
    args = parse_args()
    check_args(args)
    root = write_sprites(
        args.output_path, seed=args.seed, height=args.height, num_train=args.num_train, num_val=args.num_val,
        num_frames=args.num_frames, workers=args.workers,
    )  # fmt: skip
    print(f"{root}: {args.num_train} training and {args.num_val} validation videos of {args.num_frames} frames")
    if args.contact_sheet:
        args.contact_sheet.parent.mkdir(parents=True, exist_ok=True)
        write_jpeg(args.contact_sheet, draw_contact_sheet(root), 88)
    if args.color_baseline:
        found = write_color_baseline(root, args.color_baseline, num_clusters=args.num_clusters)
        print(f"{args.color_baseline}: colour alone, {args.num_clusters} clusters, mean best IoU {found:.3f}")


if __name__ == "__main__":
    run_main(main, lower="--workers")
