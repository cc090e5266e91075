"""Name keywords of Python where messages of the programs name flags of eval.py."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from utils.errors import UserError
from utils.progress import warn_instead_of_printing

# Flag, with its value where the keyword takes another -> what a caller of `Predictor` gives.
KEYWORDS = {
    "--proposals clusters": "objects=None", "--training_free": "block=None", "--motion none": "motion=False",
    "--resume_path": "block", "--ratio": "key_stride", "--num_t": "num_blocks",
    **{f"--{name}": name for name in (
        "backbone", "dino_path", "checkpoint_key", "image_stats", "num_heads", "temperature", "device", "amp",
        "resolution", "max_objects", "upsampling", "max_key_frames", "tau", "clustering", "clusters", "memory_gb",
        "frame_batch", "feature_cache",
    )},
}  # fmt: skip
FLAG = re.compile("(" + "|".join(map(re.escape, KEYWORDS)) + r")\b")


def name_keywords(message: str) -> str:
    """Replace the flags in a message by keywords; those without one stay."""
    return FLAG.sub(lambda found: KEYWORDS[found[1]], message)


@contextmanager
def raise_with_keywords() -> Iterator[None]:
    """Raise each `UserError` with the names of keywords."""
    try:
        yield
    except UserError as error:
        raise type(error)(name_keywords(str(error))) from error


@contextmanager
def use_keywords() -> Iterator[None]:
    """Raise errors and warn, both with the names of keywords, and print nothing."""
    with raise_with_keywords(), warn_instead_of_printing(name_keywords):
        yield
