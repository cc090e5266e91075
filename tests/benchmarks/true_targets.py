"""Train a block toward targets that the ground truth has corrected, to see what better targets would gain.

    python -m tests.benchmarks.true_targets --config configs/embedded.yaml --targets objects --semantic_weight 0 \\
        --motion_weight 0 --output_path outputs/true
    python -m tests.benchmarks.yardstick --blocks outputs/true/last.pt --clustering fast

The targets are those of `train.py --targets objects`, but each annotated object is one object in all of them, and what
is not annotated is never part of it. The videos need label PNGs beside their frames, as in DAVIS and Sprites.

All flags are those of train.py. Nothing else trains with ground truth, and nothing imports this program.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

import sys
from argparse import Namespace
from pathlib import Path
from unittest.mock import patch

import numpy as np

import train
from model.network import SpatioTemporalNetwork
from model.training.rounds import TargetRounds
from model.training.targets import ObjectMaps
from model.training.validation import measure_shares
from utils.errors import UserError, run_main
from utils.png import read_label_png

INSIDE, OUTSIDE = 0.9, 0.1  # share of a token that an object covers; boundaries lie between
FOLDERS = ("Annotations_unsupervised", "Annotations")  # that replace JPEGImages in the path of a frame


def main() -> None:
    if {"-h", "--help"} & {*sys.argv}:
        return print(__doc__)
    make_rounds = train.make_rounds
    with patch.object(train, "make_rounds", lambda *args: correct_rounds(make_rounds(*args), *args)):
        train.main()


def correct_rounds(
    rounds: TargetRounds | None, args: Namespace, network: SpatioTemporalNetwork, videos: train.Videos
) -> TargetRounds:
    """Make the rounds of a training run correct what they find by the ground truth."""
    if rounds is None:
        raise UserError("--targets none: there is nothing to correct; add --targets objects")
    grid, segment = network.backbone.grid_size(*args.resolution), rounds.segment
    rounds.made_by["corrected_by_ground_truth"] = True  # so that train.py does not continue such a run
    rounds.segment = lambda name: correct_maps(segment(name), measure_shares(read_labels(videos[name]), grid))
    return rounds


def correct_maps(found: ObjectMaps, shares: np.ndarray) -> ObjectMaps:
    """Make each annotated object one object of every map.

    Args:
        found: maps (K, T, h, w).
        shares: (objects, T, h, w), the share of each token that an object covers.
    """
    if not len(shares):
        return found
    covered = shares.sum(0)
    is_boundary = np.where(covered > OUTSIDE, shares.max(0) < INSIDE, found.is_boundary)
    objects = found.maps.max() + 1 + shares.argmax(0)
    maps = np.where(covered >= 0.5, objects, found.maps)
    return ObjectMaps(maps.astype(np.int16), is_boundary)


def read_labels(frames: list[Path]) -> list[np.ndarray]:
    """Read the label map (H, W) of each frame."""
    return [read_label_png(find_annotation(path)) for path in frames]


def find_annotation(frame: Path) -> Path:
    """Find the label PNG of a frame."""
    for folder in FOLDERS:
        path = Path(*[folder if part == "JPEGImages" else part for part in frame.parts]).with_suffix(".png")
        if path.exists() and path != frame:
            return path
    raise UserError(f"{frame}: has no label PNG in {' or '.join(FOLDERS)}; give --basepath of DAVIS or Sprites")


if __name__ == "__main__":
    run_main(main)
