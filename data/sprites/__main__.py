"""Generate Sprites: procedural videos with exact object masks, in the layout of DAVIS-2017-Unsupervised.

    python -m data.sprites --output_path datasets/sprites
    python -m data.sprites --color_baseline outputs/color

Two to five textured, jointed animals and machines move, occlude one another, leave and return before a cluttered,
moving background. Same arguments, same frames and masks, on every processor and however many processes wrote them
(`data/sprites/exact.py` says why). The splits `small`, `crowd` and `leave` are written when a program asks for them.
`data/sprites/plan.py` plans a video, `render.py` paints it, `writer.py` writes it.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

    from utils.errors import run_main
    from utils.flags.sprites import parse_args

    run_main(lambda: parse_args(__doc__))  # help and refused flags need none of them

from argparse import Namespace

from data.sprites.baseline import write_color_baseline
from data.sprites.writer import write_sprites
from utils.errors import UserError, run_main
from utils.files import check_writable
from utils.flags.sprites import parse_args
from utils.png import MAX_INDEXED


def check_args(args: Namespace) -> None:
    """Refuse arguments that would only fail after the videos have been generated. Raises `UserError`."""
    if args.color_baseline:
        if args.num_val < 1:
            raise UserError("--color_baseline: is made of the validation videos, of which there are none; raise "
                            "--num_val")  # fmt: skip
        check_writable(args.color_baseline, flag="--color_baseline")
    if not 1 <= args.num_clusters <= MAX_INDEXED:
        raise UserError(f"--num_clusters {args.num_clusters}: give 1 to {MAX_INDEXED}, the ids of an indexed PNG")


def main() -> None:
    args = parse_args(__doc__)
    check_args(args)
    root = write_sprites(
        args.output_path, seed=args.seed, height=args.height, num_train=args.num_train, num_val=args.num_val,
        num_frames=args.num_frames, workers=args.workers,
    )  # fmt: skip
    print(f"{root}: {args.num_train} training and {args.num_val} validation videos of {args.num_frames} frames")
    if args.color_baseline:
        found = write_color_baseline(root, args.color_baseline, num_clusters=args.num_clusters)
        print(f"{args.color_baseline}: colour alone, {args.num_clusters} clusters, mean best IoU {found:.3f}")


if __name__ == "__main__":
    run_main(main, lower="--workers")
