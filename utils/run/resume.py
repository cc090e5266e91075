"""Save and resume a training run: its checkpoints, options that may change, and its output folder."""

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch

from utils.errors import UserError
from utils.files import check_writable
from utils.progress import log_line
from utils.run.checkpoints import UnreadableFile, load_checkpoint, save_checkpoint

FORMAT = 1  # of the checkpoints
LAST, PREVIOUS = "last.pt", "previous.pt"  # the newest checkpoint and the one before it
DAMAGED, LATER = ".damaged", ".later"  # added to the names of checkpoints that a resumed run does not use
AUTO = "auto"  # as --resume_path: the newest undamaged checkpoint in --output_path, if there is one
# Options that must not change when a run is resumed.
SAME_WHEN_RESUMED = (
    "seed", "backbone", "image_stats", "num_t", "num_heads", "with_cls", "resolution", "num_frames",
)  # fmt: skip
# Options that may change without a message; a change of any other is printed.
FREE_TO_CHANGE = (
    "config", "resume_path", "output_path", "overwrite", "dino_path", "checkpoint_key", "init", "init_path",
    "temperature", "device", "num_workers", "log_freq", "save_freq", "last_freq", "eval_freq", "watch_clips", "tau",
    "profile", "detect_anomaly",
)  # fmt: skip


def save_run(
    output: Path,
    args: argparse.Namespace,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    step: int,
    *,
    origin: dict[str, Any],
    keep: bool = False,
) -> None:
    """Write the checkpoint `last.pt`; the `last.pt` before it becomes `previous.pt`. The backbone is not saved.

    Args:
        origin: plain values that describe where the run came from, including `backbone`.
        keep: also write `step_NNNNNNN.pt`, which later checkpoints do not replace.
    """
    content = {
        "format": FORMAT,
        "step": step,
        "blocks": network.blocks.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "rng": {"seed": args.seed},  # the random numbers of a step depend on this and the step alone
        "config": make_plain(vars(args)),
        **origin,
    }
    if keep:
        save_checkpoint(output / f"step_{step:07d}.pt", content)
    save_checkpoint(output / LAST, content, keep_as=PREVIOUS)


def continues_in(output: Path, resume_path: str | None) -> bool:
    """Tell whether the run to resume is the one in `output`."""
    asked = resume_path is not None and (resume_path == AUTO or Path(resume_path).resolve().parent == output.resolve())
    return asked and _holds_another_run(output, None)


def find_run(resume_path: str | None, output: Path) -> tuple[dict | None, str | None]:
    """Load the checkpoint to resume from; return it and its path, or (None, None) for a new run.

    With `auto` the newest checkpoint in `output` is taken if there is one, so that the same command starts and resumes
    a run. If `last.pt` is damaged or missing, the newest other checkpoint beside it is taken and a warning printed.

    Raises:
        UserError: the file does not exist, or all checkpoints are damaged.
    """
    if resume_path is None:
        return None, None
    if resume_path != AUTO and Path(resume_path).name != LAST:
        return load_checkpoint(resume_path), resume_path
    folder = output if resume_path == AUTO else Path(resume_path).parent
    others = [path for path in _list_checkpoints(folder) if path.name != LAST]
    if resume_path == AUTO and not others and not (folder / LAST).is_file():
        return None, None
    try:
        return load_checkpoint(folder / LAST), str(folder / LAST)
    except UnreadableFile:
        raise
    except UserError as error:
        fault = error
    loaded = ((*_load_with_step(path), path) for path in others)  # a generator: together they may not fit in memory
    step, content, path = max(loaded, key=lambda found: found[0], default=(-1, {}, folder))
    if step < 0:
        raise fault
    log_line(f"warning: {fault}; going on from {path}, step {step}")
    return content, str(path)


def _list_checkpoints(folder: Path) -> list[Path]:
    """List all checkpoints of a run in a folder."""
    named = [folder / name for name in (LAST, PREVIOUS)]
    return [path for path in (*named, *sorted(folder.glob("step_*.pt"))) if path.is_file()]


def _load_with_step(path: Path) -> tuple[int, dict]:
    """Load a checkpoint; return its step, -1 if it is damaged, and its content. Raises `UnreadableFile`."""
    try:
        content = load_checkpoint(path)
    except UnreadableFile:
        raise
    except UserError:
        return -1, {}
    return content["step"] if isinstance(content.get("step"), int) else -1, content


def rename_unused_checkpoints(output: Path, *, asked: str | None, found: str | None, step: int) -> None:
    """Rename checkpoints in `output` that the run resumed there does not use, so that they are not taken for its own.

    Renamed are a damaged `last.pt`, for which `find_run` found a replacement, and, if the run is resumed from an
    earlier checkpoint of step `step`, all damaged ones and those of later steps.

    Args:
        asked: the value of --resume_path.
        found: path of the checkpoint that the run is resumed from.
    """
    if asked is None or found is None or Path(found).resolve().parent != output.resolve():
        return
    if Path(asked).name in (AUTO, LAST):
        if Path(found).name != LAST and (output / LAST).exists():
            (output / LAST).replace(output / f"{LAST}{DAMAGED}")
        return
    for path in _list_checkpoints(output):
        saved_step, _ = _load_with_step(path)
        if saved_step < 0:
            path.replace(f"{path}{DAMAGED}")
        elif saved_step > step:
            path.replace(f"{path}{LATER}")
            log_line(f"{path}, of step {saved_step}, is now {path.name}{LATER}: the run goes on from step {step}")


def is_finished(content: dict, args: argparse.Namespace) -> bool:
    """Tell whether the run of a checkpoint has reached --num_train_steps, and print it."""
    step = content.get("step")
    done = isinstance(step, int) and step >= args.num_train_steps
    if done:
        log_line(f"already done: {args.resume_path} is at step {step} of {args.num_train_steps}")
    return done


def check_run(content: dict, args: argparse.Namespace) -> None:
    """Refuse a checkpoint that cannot be resumed with these options; print which other options have changed."""
    kinds = {"optimizer": dict, "scaler": dict, "config": dict, "step": int}
    if not all(isinstance(content.get(key), kind) for key, kind in kinds.items()):
        raise UserError(f"--resume_path {args.resume_path}: holds weights but no run to continue; "
                        "give it as --init_path to start from its weights")  # fmt: skip
    if content.get("format") != FORMAT:
        raise UserError(f"--resume_path {args.resume_path}: format {content.get('format')}, this program continues "
                        f"{FORMAT}; give it as --init_path to start from its weights")  # fmt: skip
    saved, wanted = content["config"], make_plain(vars(args))
    for key in SAME_WHEN_RESUMED:
        if saved.get(key) != wanted[key]:
            raise UserError(f"--{key} {wanted[key]}: the run to resume has {saved.get(key)}; give that, or start anew "
                            "from its weights with --init_path")  # fmt: skip
    changed = [key for key in wanted if key in saved and key not in FREE_TO_CHANGE and saved[key] != wanted[key]]
    if changed:
        log_line("resumed with changes: " + ", ".join(f"{key} {saved.get(key)} -> {wanted[key]}" for key in changed))


def log_data_changes(content: dict, origin: dict[str, Any]) -> None:
    """Print if a run is resumed with other data or another number of clips a step."""
    words = {"data": "the training data are others or were written anew", "clips_per_step": "clips a step"}
    for key, what in words.items():
        if content.get(key) not in (None, origin[key]):
            detail = "" if key == "data" else f" {content[key]} -> {origin[key]}"
            log_line(f"resumed with changes: {what}{detail}")


def restore_run(
    content: dict, args: argparse.Namespace, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> int:
    """Restore optimizer and scaler from a checkpoint that passed `check_run`; return its step."""
    try:
        for saved, group in zip(content["optimizer"]["param_groups"], optimizer.param_groups, strict=True):
            saved["fused"] = group["fused"]  # depends on the device of this process and not on the run
        optimizer.load_state_dict(content["optimizer"])
        if content["scaler"] and scaler.is_enabled():  # empty if the run did not use one
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
    """Refuse to overwrite another run without --overwrite, and a folder that cannot be written. Changes nothing."""
    if _holds_another_run(output, resume_path) and not overwrite:
        raise UserError(
            f"--output_path {output}: holds a run; continue it with --resume_path {output / LAST}, "
            "choose another folder, or give --overwrite"
        )
    check_writable(output, flag="--output_path")


def prepare_output(
    output: Path, *, resume_path: str | Path | None, overwrite: bool, also: tuple[str, ...] = ()
) -> None:
    """Delete another run in `output` if --overwrite allows it (`check_output`); a run resumed there is left alone.

    Args:
        also: names of further files in `output` that belong to a run and are deleted with it.
    """
    check_output(output, resume_path=resume_path, overwrite=overwrite)
    for path in output.glob(".*.partial"):  # of killed processes; no other process uses the locked folder
        path.unlink()
    if not _holds_another_run(output, resume_path):
        return
    aside = [path for ending in (DAMAGED, LATER) for path in output.glob(f"*.pt{ending}")]
    for path in [*_list_checkpoints(output), *aside, *(output / name for name in ("log.jsonl", *also))]:
        path.unlink(missing_ok=True)
    for folder in ("tensorboard", "profile"):
        shutil.rmtree(output / folder, ignore_errors=True)


def _holds_another_run(output: Path, resume_path: str | Path | None) -> bool:
    in_place = resume_path is not None and Path(resume_path).resolve().parent == output.resolve()
    return not in_place and bool(_list_checkpoints(output))


def make_plain(values: dict[str, Any]) -> dict[str, Any]:
    """Convert values to those that JSON and a checkpoint can hold: tuples become lists, paths text."""
    conversions = {tuple: list, type(Path()): str}
    return {key: conversions.get(type(value), lambda same: same)(value) for key, value in values.items()}
