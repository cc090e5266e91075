"""Draw what tokens attend to in each checkpoint of a training run, as one picture.

    python -m tests.benchmarks.attention_maps --basepath CLIP --checkpoints identity outputs/run/step_*.pt \\
        --picture maps.png

A row per checkpoint. Each of three tokens of the first frame, marked by a cross, gives two pictures: its attention to
that frame and to the last of three frames that lie `--gap` apart. Brightness is the square root of attention over the
largest of the three frames.

An entry point like eval.py: nothing imports it, which is why it may import `model` and `data`.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

import argparse
import itertools
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from data.frames import resize
from data.loading import load_videos
from data.resolution import check_resolution, fit_resolution
from data.videos import compute_display_shape
from model.attention import mean_attention
from model.network import SpatioTemporalNetwork, build_network, check_origin
from model.weights import EMBEDDED
from utils.config import DEFAULT_TEMPERATURE
from utils.errors import OneLineParser, UserError, run_main
from utils.flags.choices import OWN_VIDEO
from utils.flags.types import positive_float, positive_int
from utils.run.checkpoints import load_checkpoint
from utils.visual import draw_contact_sheet, write_picture

IDENTITY = "identity"
PLACES = ((0.35, 0.25), (0.5, 0.5), (0.75, 0.7))  # of the tokens: down, right
NUM_FRAMES = 3
BUDGET = (160, 280)  # height, width


def main() -> None:
    args = make_parser().parse_args()
    network = build_network(
        backbone=args.backbone, dino_path=args.dino_path, num_blocks=args.num_t, num_heads=args.num_heads,
        with_cls=False,
    ).eval()  # fmt: skip
    frames = read_frames(args, network.backbone.patch_size)
    features = network.encode(frames)
    rows = []
    for checkpoint in args.checkpoints:
        if checkpoint == IDENTITY:
            network.init_blocks(IDENTITY, temperature=args.temperature)
        else:
            content = load_checkpoint(checkpoint)
            network.load_blocks(content, source=checkpoint)
            check_origin(content, network, num_heads=args.num_heads, source=checkpoint)
        rows.append((Path(checkpoint).stem, maps(network, frames, features)))
    write_picture(args.picture, draw_contact_sheet(rows, cell_width=210))
    print(args.picture)


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m tests.benchmarks.attention_maps", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--basepath", required=True, help="a video file or folder of frames")
    add("--checkpoints", nargs="+", required=True, help=f"of train.py; {IDENTITY}: the training-free point")
    add("--backbone", default=EMBEDDED)
    add("--dino_path", help="weights of the backbone, as for train.py")
    add("--num_t", type=positive_int, default=1, help="spatio-temporal blocks; attention is that of the last")
    add("--num_heads", type=positive_int, default=8, help="attention heads of a block")
    add("--temperature", type=positive_float, default=DEFAULT_TEMPERATURE, help=f"s of {IDENTITY}")
    add("--resolution", type=positive_int, nargs=2, metavar=("H", "W"),
        help="if not given, that of the video's shape with as many pixels as {} x {}".format(*BUDGET))  # fmt: skip
    add("--gap", type=positive_int, default=4, help="distance of the three frames in the video")
    add("--picture", type=Path, required=True, help="where the picture goes (.png, .jpg)")
    return parser


def read_frames(args: argparse.Namespace, patch_size: tuple[int, int]) -> Tensor:
    """Read three frames (3, 3, H, W) uint8 of a video."""
    (video, *others) = load_videos(OWN_VIDEO, Path(args.basepath), flag="--basepath")
    frames = list(itertools.islice(video.read(), 0, args.gap * (NUM_FRAMES - 1) + 1, args.gap))
    if others or len(frames) < NUM_FRAMES:
        raise UserError(
            f"--basepath {args.basepath}: give one video of {args.gap * (NUM_FRAMES - 1) + 1} frames or more"
        )
    resolution = tuple(args.resolution or fit_resolution(BUDGET, compute_display_shape(video), patch_size=patch_size))
    check_resolution(resolution, patch_size)
    return torch.stack([resize(frame, resolution) for frame in frames])


def maps(network: SpatioTemporalNetwork, frames: Tensor, features: Tensor) -> list[np.ndarray]:
    """Draw the attention of each token to the first and the last frame, as pictures (H, W, 3) uint8.

    frames: (3, 3, H, W) uint8. features: (3, N, C), what the backbone makes of them.
    """
    height, width = network.backbone.grid_size(*frames.shape[-2:])
    features = network.refine(features.clone(), list(range(NUM_FRAMES)))
    keys = network.keys(features.flatten(0, 1))
    pictures = []
    for down, right in PLACES:
        place = (int(down * height), int(right * width))
        token = features[0, place[0] * width + place[1]]
        row = mean_attention(network.queries(token[None]), keys)[0].view(NUM_FRAMES, height, width)
        for index in (0, NUM_FRAMES - 1):
            picture = heat(frames[index], row[index] / row.max())
            if index == 0:
                scale = frames.shape[-2] // height
                centre = ((place[1] * 2 + 1) * scale // 2, (place[0] * 2 + 1) * scale // 2)
                cv2.drawMarker(picture, centre, (255, 255, 255), cv2.MARKER_CROSS, 2 * scale, 2)
            pictures.append(picture)
    return pictures


def heat(frame: Tensor, values: Tensor) -> np.ndarray:
    """Draw values (h, w) in [0, 1] over a grey frame (3, H, W) uint8; return (H, W, 3) uint8 RGB."""
    grey = frame.float().mean(0).numpy()
    strength = cv2.resize(values.numpy(), grey.shape[::-1], interpolation=cv2.INTER_LINEAR)[..., None] ** 0.5
    return (0.55 * grey[..., None] * (1 - strength) + np.float32([255, 140, 0]) * strength).astype(np.uint8)


if __name__ == "__main__":
    run_main(main, lower="--resolution")
