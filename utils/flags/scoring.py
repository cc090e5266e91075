"""Add the flags of scoring, which eval.py and `python -m utils.scoring` share."""

from collections.abc import Callable
from typing import Any


def add_score_options(add: Callable[..., Any]) -> None:
    """Add the flags of `Options` to a parser or a group, by its `add_argument`."""
    add(
        "--toolkit_exact",
        action="store_true",
        help="Score as the DAVIS toolkits do: 8-bit frame indices in decay; under foreground and oracle without the "
        "first and last frame.",
    )
    add("--first_frame_objects", action="store_true", help="Count only the first frame's objects under slots (SOLV).")
