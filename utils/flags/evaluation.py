"""Make the parser of eval.py: its flags, their defaults and what they are for."""

from argparse import BooleanOptionalAction
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils import config
from utils.flags.choices import (
    AUTO,
    CLUSTERINGS,
    DATASET_NAMES,
    MAX_KEY_FRAMES,
    PROPOSALS,
    PROTOCOLS,
    UPSAMPLINGS,
    parse_dataset_name,
)
from utils.flags.network import add_network_arguments
from utils.flags.scoring import add_score_options
from utils.flags.types import cluster_count, positive_float, positive_float_or_auto, positive_int


def make_parser() -> config.Parser:
    parser = config.Parser(
        program="eval", description="Segment whole videos without labels and score them.",
        alternatives=(("resume_path", "training_free"),),
        ineffective=(("temperature", "resume_path"), ("explore", "predictions")),
        needs=(("flow_path", "motion", "flow"),),
    )  # fmt: skip
    count = {"type": positive_int, "metavar": "N"}
    # fmt: off
    main = parser.main_group.add_argument
    main("clips", nargs="*", metavar="CLIP",
         help="Segment these video files, folders of frames or folders of both, by configs/own_video.yaml.")
    main("--davis_path", metavar="DIR", help="Read DAVIS from this folder.")
    main("--basepath", metavar="PATH", help="Read any other --dataset here, or a video file or folder of frames.")
    main("--dino_path", metavar="FILE", help="Read the backbone's weights from this file; else timm downloads them.")
    main("--resume_path", metavar="FILE", help="Load the trained block from this file; embedded: that in assets/.")
    main("--save_path", metavar="DIR",
         help="Write results here, or scores of --predictions; else to outputs/eval, outputs/CLIP or outputs/videos.")
    data = parser.add_argument_group("data").add_argument
    add_data_arguments(data)
    data("--resolution", type=positive_int, nargs=2, default=(320, 480), metavar=("H", "W"),
         help="Resize frames; if only a recipe says so, own videos and unusual shapes keep theirs at as many pixels.")
    add_network_arguments(
        parser, seed_help="Masks do not depend on it; it is taken because commands of the released code give it."
    )
    add_method_arguments(parser.add_argument_group("method").add_argument)
    output = parser.add_argument_group("output and scoring").add_argument
    output("--overwrite", action="store_true", help="Replace results of other settings in --save_path.")
    output("--predictions", metavar="DIR", help="Segment nothing, but score the PNGs <video>/<frame>.png of DIR.")
    output("--protocol", nargs="+", choices=(*PROTOCOLS, "both", "all"),
           help="Score under these protocols (docs/evaluation.md), by default the first of the data set.")
    add_score_options(output)
    output("--overlay", action=BooleanOptionalAction, help="Write overlay videos; on for --dataset video.")
    output("--explore", action="store_true", help="Keep queries and keys, so that the report can show attention.")
    output("--workers", **count, help="Score in at most N processes, by default one per core.")
    # fmt: on
    return parser


def add_data_arguments(add: Callable[..., Any]) -> None:
    """Add the flags of `Selection` to a parser or a group, but for those that name its root."""
    add(
        "--dataset", default="davis17u", type=parse_dataset_name, choices=DATASET_NAMES, metavar="NAME",
        help="Read the layout of this data set; video, also guessed from --basepath: your own. One of %(choices)s.",
    )  # fmt: skip
    add("--split", help="Take this split of the data set, by default the one that is scored.")
    add("--videos", metavar="A:B", help="Take only videos A to B - 1 of the split, counted from 0, such as 600:900.")
    add("--sequences", nargs="+", metavar="NAME", help="Take only these videos.")
    add("--annotations", type=Path, metavar="DIR", help="Read the label PNGs of --dataset pairs from this folder.")
    add("--flow_path", type=Path, metavar="DIR", help="Read optical flow here, <video>/<frame>.flo or .npy.")
    add("--allow_damaged", action="store_true", help="Segment what can be decoded of a damaged video file.")


def add_method_arguments(add: Callable[..., Any]) -> None:
    """Add the flags of attention, clustering, objects and upsampling to a parser or a group."""
    count = {"type": positive_int, "metavar": "N"}
    # fmt: off
    add("--training_free", action=BooleanOptionalAction, default=False, help="Use an untrained block.")
    add("--ratio", **count, default=10, help="Take every N-th frame as a key frame (R).")
    add("--max_key_frames", **count, default=MAX_KEY_FRAMES, help="Take at most N key frames, spread evenly.")
    add("--tau", type=positive_float_or_auto, default=AUTO, metavar="X",
           help="Cluster with this distance threshold, in nats; auto: the one stored in the checkpoint, else 1.")
    add("--clusters", type=cluster_count, nargs="+", metavar="N",
           help="Choose another tau for videos with fewer or more clusters than these two numbers; any: keep --tau.")
    add("--clustering", choices=CLUSTERINGS, default="exact",
           help="Cluster by the paper's formulas (exact, or slowly as plain), or fast with other masks.")
    add("--proposals", nargs="+", choices=PROPOSALS, default=["objects"],
           help="Make objects of the clusters, by all steps or some, or take the clusters as the paper does.")
    add("--motion", choices=("flow", "none"), default="flow",
           help="Rank objects by their motion against the camera too, as the optical flow between frames shows it.")
    add("--max_objects", **count, help="Keep the N best proposals of each video.")
    add("--upsampling", choices=UPSAMPLINGS, default="guided",
           help="Take masks to pixels guided by the frame's colours, or as blocks like the paper.")
    add("--memory_gb", type=positive_float, default=8.0, metavar="X", help="Limit memory but the network's to X GB.")
    add("--frame_batch", **count, default=4, help="Put N frames into a forward pass of the backbone.")
    add("--feature_cache", type=Path, metavar="DIR", help="Keep the backbone's features here for later runs.")
    # fmt: on
