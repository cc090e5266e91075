"""Sprites: procedural videos with exact object masks, in the layout of DAVIS-2017-Unsupervised.

    python -m data.sprites --output_path datasets/sprites
    python -m data.sprites --contact_sheet sheet.jpg --color_baseline outputs/color

Two to five textured, jointed animals and machines move, occlude one another, leave and return before a cluttered,
moving background. Same arguments, same bytes, however many processes wrote them, on the same CPU with the same OpenCV,
NumPy, SciPy and Pillow: another CPU's instructions round one frame value in some 25,000 to its neighbour.
`sprites_scene` plans a video, `sprites_render` paints it, this file writes it.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import exit_on_interrupt

    exit_on_interrupt()

from data.sprites.writer import _write_jpeg, check_args, contact_sheet, parse_args, write_color_baseline, write_sprites
from utils.errors import run_main


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
        _write_jpeg(args.contact_sheet, contact_sheet(root), 88)
    if args.color_baseline:
        found = write_color_baseline(root, args.color_baseline, num_clusters=args.num_clusters)
        print(f"{args.color_baseline}: colour alone, {args.num_clusters} clusters, mean best IoU {found:.3f}")


if __name__ == "__main__":
    run_main(main, lower="--workers")
