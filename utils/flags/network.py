"""Add the flags of backbone and block, which training and evaluation share."""

import argparse

from utils.config import DEFAULT_TEMPERATURE, EMBEDDED_TEMPERATURE, SPRITES_TEMPERATURE
from utils.flags.choices import AUTO
from utils.flags.types import non_negative_int, positive_float, positive_int


def add_network_arguments(parser: argparse.ArgumentParser, *, seed_help: str) -> None:
    """Add the flags of backbone and block, which training and evaluation share.

    Args:
        seed_help: help of --seed, which does not do the same in both.
    """
    add = parser.add_argument_group("network").add_argument
    add(
        "--backbone", default="vit_small_patch8_224.dino", metavar="NAME",
        help="Use this ViT of timm, or with 'embedded' the small one in assets/.",
    )  # fmt: skip
    add(
        "--checkpoint_key", metavar="KEY",
        help="Take this model (teacher, student, ...) of a training checkpoint given as --dino_path.",
    )  # fmt: skip
    add(
        "--image_stats", default="imagenet", choices=("imagenet", "reference"),
        help="Normalise images with ImageNet's statistics or those of the released evaluation.",
    )  # fmt: skip
    add("--num_t", type=positive_int, default=1, metavar="N", help="Stack this many spatio-temporal blocks.")
    add("--num_heads", type=positive_int, default=8, metavar="N", help="Give each block this many attention heads.")
    add(
        "--temperature", type=positive_float, metavar="S",
        help="Sharpness s of the training-free block, q = k = s LayerNorm(features); if not given, "
        f"{DEFAULT_TEMPERATURE:g}, with the embedded backbone {EMBEDDED_TEMPERATURE:g}, on Sprites "
        f"{SPRITES_TEMPERATURE:g}.",
    )  # fmt: skip
    add("--device", default="auto", help="Compute on auto, cpu, cuda (one GPU per process), cuda:1, ...")
    add(
        "--amp", default="none", choices=("none", AUTO, "bf16", "fp16"),
        help="Run the network in mixed precision; auto is bf16 where the processor or GPU has instructions for it.",
    )  # fmt: skip
    add("--seed", type=non_negative_int, default=0, metavar="N", help=seed_help)
