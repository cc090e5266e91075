"""A training run on the disk: its checkpoints, what stays the same when it is resumed, whose folder it is."""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from utils import distributed
from utils.checkpoint import save_checkpoint
from utils.errors import UserError
from utils.folders import check_writable

FORMAT = 1  # of the checkpoints
# What a run stays with when it is resumed, and what may change but is said.
SAME_WHEN_RESUMED = ("seed", "backbone", "image_stats", "num_t", "num_heads", "with_cls", "resolution", "num_frames")
CHANGE_IS_NOTED = (
    "basepath",
    "gap",
    "batch_size",
    "accumulate",
    "num_train_steps",
    "lr",
    "min_lr",
    "weight_decay",
    "amp",
    "semantic_weight",
    "motion_weight",
    "anchor_weight",
)


def save_run(
    output: Path,
    args: argparse.Namespace,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    step: int,
    *,
    start: torch.nn.ModuleList | None,
    backbone_hash: str,
    keep: bool,
) -> None:
    """Write `last.pt`, and `step_NNNNNNN.pt` where it is to be kept. The frozen backbone is never in it."""
    content = {
        "format": FORMAT,
        "step": step,
        "blocks": network.blocks.state_dict(),
        "start": start.state_dict() if start is not None else None,
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "rng": {"seed": args.seed},  # with the step, all that the draws of the next step depend on
        "config": plain(vars(args)),
        "backbone": {"name": network.backbone.name, "sha256": backbone_hash},
    }
    if keep:
        save_checkpoint(output / f"step_{step:07d}.pt", content)
    save_checkpoint(output / "last.pt", content)


def restore_run(
    content: dict, args: argparse.Namespace, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> int:
    """Continue the run of a checkpoint; returns its step."""
    kinds = {"optimizer": dict, "scaler": dict, "config": dict, "step": int}
    if not all(isinstance(content.get(key), kind) for key, kind in kinds.items()):
        raise UserError(f"--resume_path {args.resume_path}: holds weights but no run to continue; "
                        "give it as --init_path to start from its weights")  # fmt: skip
    if content.get("format") != FORMAT:
        raise UserError(f"--resume_path {args.resume_path}: format {content.get('format')}, this program continues "
                        f"{FORMAT}; give it as --init_path to start from its weights")  # fmt: skip
    held, wanted = content["config"], plain(vars(args))
    for key in SAME_WHEN_RESUMED:
        if held.get(key) != wanted[key]:
            raise UserError(f"--{key} {wanted[key]}: the run to resume has {held.get(key)}; give that, or start anew "
                            "from its weights with --init_path")  # fmt: skip
    changed = [key for key in CHANGE_IS_NOTED if held.get(key) != wanted[key]]
    if changed:
        say("resumed with changes: " + ", ".join(f"{key} {held.get(key)} -> {wanted[key]}" for key in changed))
    try:
        optimizer.load_state_dict(content["optimizer"])
        if content["scaler"] and scaler.is_enabled():  # empty where the run had no need of one
            scaler.load_state_dict(content["scaler"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"--resume_path {args.resume_path}: its optimizer state does not fit ({error}); give it as --init_path"
        ) from error
    if content["step"] >= args.num_train_steps:
        raise UserError(f"--resume_path {args.resume_path}: already at step {content['step']} of "
                        f"{args.num_train_steps}; raise --num_train_steps to go on")  # fmt: skip
    return content["step"]


def check_output(output: Path, *, resume_path: str | Path | None, overwrite: bool) -> None:
    """Refuse to write over another run, unless that is wanted, and a folder that cannot be written; nothing changes."""
    if _holds_another_run(output, resume_path) and not overwrite:
        raise UserError(
            f"--output_path {output}: holds a run; continue it with --resume_path {output / 'last.pt'}, "
            "choose another folder, or give --overwrite"
        )
    check_writable(output, flag="--output_path")


def prepare_output(
    output: Path, *, resume_path: str | Path | None, overwrite: bool, also: tuple[str, ...] = ()
) -> None:
    """Clear another run away where that is wanted, see `check_output`; the run resumed goes on in place.

    Args:
        also: names of files in `output` that the program makes of a run, to be cleared away with it.
    """
    check_output(output, resume_path=resume_path, overwrite=overwrite)
    if not _holds_another_run(output, resume_path):
        return
    for path in [*output.glob("step_*.pt"), *(output / name for name in ("last.pt", "log.jsonl", *also))]:
        path.unlink(missing_ok=True)
    shutil.rmtree(output / "tensorboard", ignore_errors=True)


def _holds_another_run(output: Path, resume_path: str | Path | None) -> bool:
    in_place = resume_path is not None and Path(resume_path).resolve().parent == output.resolve()
    return not in_place and (output / "last.pt").exists()


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values as JSON and a checkpoint keep them: tuples become lists."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def say(message: str) -> None:
    """Print a line to stderr, from the main process only, above any progress bar."""
    if distributed.is_main():
        tqdm.write(message, file=sys.stderr)
