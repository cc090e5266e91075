"""Make the parser of train.py: its flags, their defaults and what they are for."""

from argparse import BooleanOptionalAction

from utils import config
from utils.flags.choices import DATASET_NAMES, OWN_VIDEO, parse_dataset_name
from utils.flags.network import add_network_arguments
from utils.flags.types import dropout_rate, non_negative_float, non_negative_int, positive_float, positive_int


def make_parser() -> config.Parser:
    parser = config.Parser(
        program="train", description="Train the spatio-temporal block on video without labels.",
        ineffective=(("temperature", "init_path"), ("init", "init_path")), needs=(("rounds", "targets", "objects"),),
    )  # fmt: skip
    count, interval = {"type": positive_int, "metavar": "N"}, {"type": positive_int, "metavar": "STEPS"}
    number = {"type": non_negative_float, "metavar": "X"}
    # fmt: off
    main = parser.main_group.add_argument
    main("--basepath", metavar="DIR", help="Train on the folders of frames below this one, or on --dataset in it.")
    main("--dino_path", metavar="FILE", help="Read the backbone's weights from this file; else timm downloads them.")
    main("--resolution", type=positive_int, nargs=2, default=(192, 384), metavar=("H", "W"), help="Resize frames.")
    main("--output_path", default="outputs/train", metavar="DIR", help="Write checkpoints and logs here.")
    main("--resume_path", metavar="FILE",
         help="Continue the run of this checkpoint; auto: the newest in --output_path if there is one.")
    data = parser.add_argument_group("data").add_argument
    data("--dataset", default=OWN_VIDEO, type=parse_dataset_name, choices=DATASET_NAMES, metavar="NAME",
         help="Train on the training split of a data set; video: on all frames below --basepath. One of %(choices)s.")
    data("--train_list", metavar="FILE", help="Train only on the videos that this file, relative to --basepath, names.")
    data("--num_frames", **count, default=3, help="Take this many frames for a clip (T).")
    data("--gap", **count, default=4, help="Take frames of a clip this far apart in the video.")
    data("--num_workers", type=non_negative_int, default=2, metavar="N", help="Read frames in this many processes.")
    add_network_arguments(parser, seed_help="Seed everything that is random.")
    block = parser.add_argument_group("block").add_argument
    block("--with_cls", action=BooleanOptionalAction, default=True, help="Add CLS tokens in training.")
    block("--init", default="random", choices=("random", "identity"), help="Start at random or training-free.")
    block("--init_path", metavar="FILE", help="Start from the block of this checkpoint; embedded: that in assets/.")
    steps = parser.add_argument_group("optimisation").add_argument
    steps("--batch_size", **count, default=1, help="Put this many clips into a forward pass of each process.")
    steps("--accumulate", **count, default=1, help="Take this many forward passes for a step.")
    steps("--num_train_steps", **count, default=5000, help="End the run after this many steps.")
    steps("--lr", type=positive_float, default=1e-5, metavar="X", help="Peak of the learning rate's cosine schedule.")
    steps("--min_lr", **number, default=1e-6, help="End of the learning rate's cosine schedule; a lower --lr stays.")
    steps("--weight_decay", **number, default=0.1, help="Decay matrices, but no biases and norms.")
    steps("--clip_grad", type=positive_float, default=1.0, metavar="X", help="Limit the norm of the gradient.")
    steps("--drop", type=dropout_rate, default=0.1, metavar="P", help="Dropout of projections and MLP.")
    steps("--attn_drop", type=dropout_rate, default=0.4, metavar="P", help="Dropout of the attention.")
    steps("--targets", default="none", choices=("none", "objects"),
          help="objects: add the object loss, toward objects that are found in the training videos first.")
    steps("--rounds", **count, default=1, help="With --targets objects, find them this many times.")
    steps("--semantic_weight", **number, default=1.0, help="Weight of the semantic loss.")
    steps("--motion_weight", **number, default=1.0, help="Weight of the motion loss.")
    steps("--num_queries", **count, default=8, help="Compute both losses at this many token positions.")
    records = parser.add_argument_group("checkpoints and log").add_argument
    records("--overwrite", action="store_true", help="Replace the run in --output_path by a new one.")
    records("--log_freq", **interval, default=10, help="Log the losses this often.")
    records("--save_freq", **interval, default=1000, help="Write a checkpoint that is kept this often.")
    records("--last_freq", **interval, default=100, help="Replace last.pt this often.")
    records("--eval_freq", type=non_negative_int, default=500, metavar="STEPS",
            help="Segment the monitor's clips this often; 0: never, and no validation.")
    records("--watch_clips", **count, default=4, help="Give the monitor this many training clips.")
    records("--tau", type=positive_float, default=1.0, metavar="X",
            help="Threshold of the monitor, of the targets and of the validation.")
    faults = parser.add_argument_group("finding faults").add_argument
    faults("--overfit", **count, help="Train on the first N clips again and again.")
    faults("--profile", action="store_true", help="Write where steps 3 to 5 spend their time to --output_path/profile.")
    faults("--detect_anomaly", action="store_true", help="Name the operation whose gradient is NaN, which is slow.")
    # fmt: on
    return parser
