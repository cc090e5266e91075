"""The small backbone and block that ship with the repository; `assets/README.md` is their card."""

from pathlib import Path

EMBEDDED = "embedded"  # what `--backbone` and `--resume_path` call them
ASSETS = Path(__file__).resolve().parent.parent / "assets"
BACKBONE_FILE = ASSETS / "embedded_backbone.safetensors"
BLOCK_FILE = ASSETS / "embedded_block.safetensors"


def checkpoint_path(path: str | None) -> str | None:
    """`path` of a checkpoint as given on the command line, with `embedded` made the file it stands for."""
    return str(BLOCK_FILE) if path == EMBEDDED else path
