"""Save a training run, find and check the checkpoint to resume it from, and protect the folder of another run."""

import shutil
from pathlib import Path
from typing import Any

import torch

from utils.errors import UserError
from utils.files import check_writable
from utils.flags.choices import AUTO
from utils.progress import log_line
from utils.run.checkpoints import UnreadableFile, load_checkpoint, save_checkpoint

FORMAT = 1  # of the checkpoints
LAST, PREVIOUS = "last.pt", "previous.pt"  # the newest checkpoint, and the one it replaced
DAMAGED, LATER = ".damaged", ".later"  # added to the names of checkpoints that a resumed run does not continue from
# Flags that must be the same when a run is resumed.
SAME_WHEN_RESUMED = (
    "seed", "backbone", "image_stats", "num_t", "num_heads", "with_cls", "resolution", "num_frames",
    "targets", "rounds",
)  # fmt: skip
# Flags that may change without a note; a change of any other is noted.
FREE_TO_CHANGE = (
    "config", "resume_path", "output_path", "overwrite", "dino_path", "checkpoint_key", "init", "init_path",
    "temperature", "device", "num_workers", "log_freq", "save_freq", "last_freq", "eval_freq", "watch_clips", "tau",
    "profile", "detect_anomaly",
)  # fmt: skip


def save_run(
    output: Path,
    config: dict[str, Any],
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    step: int,
    *,
    origin: dict[str, Any],
    keep: bool = False,
) -> None:
    """Write `last.pt` without the frozen backbone; the `last.pt` before becomes `previous.pt`.

    Args:
        config: the values of all flags.
        origin: plain values that say where the run came from, `backbone` among them.
        keep: also write `step_NNNNNNN.pt`, which later steps leave alone.
    """
    content = {
        "format": FORMAT,
        "step": step,
        "blocks": network.blocks.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "rng": {"seed": config["seed"]},  # with the step, all that the draws of the next step depend on
        "config": make_plain(config),
        **origin,
    }
    if keep:
        save_checkpoint(output / f"step_{step:07d}.pt", content)
    save_checkpoint(output / LAST, content, keep_as=PREVIOUS)


def continues_in(output: Path, resume_path: str | None) -> bool:
    """Tell whether `resume_path` asks to continue a run that is in `output`."""
    asked = resume_path is not None and (resume_path == AUTO or Path(resume_path).resolve().parent == output.resolve())
    return asked and _holds_another_run(output, None)


def find_run(resume_path: str | None, output: Path) -> tuple[dict | None, str | None]:
    """Find the checkpoint to continue from; return its content and path, or (None, None) for a new run.

    `auto` stands for the newest checkpoint in `output`, if there is one, so that the same command begins a run and
    continues it. If `last.pt` is damaged or missing, the newest other checkpoint beside it is taken, with a warning.

    Raises:
        UserError: no such file, or none of them is whole.
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
    loaded = ((*_load_with_step(path), path) for path in others)  # one at a time, there may be many
    step, content, path = max(loaded, key=lambda found: found[0], default=(-1, {}, folder))
    if step < 0:
        raise fault
    log_line(f"warning: {fault}; going on from {path}, step {step}")
    return content, str(path)


def _list_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints in a folder."""
    named = [folder / name for name in (LAST, PREVIOUS)]
    return [path for path in (*named, *sorted(folder.glob("step_*.pt"))) if path.is_file()]


def _load_with_step(path: Path) -> tuple[int, dict]:
    """Read a checkpoint; return its step and content, or (-1, {}) if it is damaged.

    Raises:
        UnreadableFile: it cannot be read, but may be whole.
    """
    try:
        content = load_checkpoint(path)
    except UnreadableFile:
        raise
    except UserError:
        return -1, {}
    return content["step"] if isinstance(content.get("step"), int) else -1, content


def rename_unused_checkpoints(output: Path, *, asked: str | None, found: str | None, step: int) -> None:
    """Rename checkpoints in `output` that the run resumed there does not continue from.

    Otherwise they would be taken for its own. They are a damaged `last.pt`, in place of which `find_run` found another,
    and, if a checkpoint before the last was asked for, of step `step`, all damaged ones and all of later steps.
    """
    if asked is None or found is None or Path(found).resolve().parent != output.resolve():
        return
    if Path(asked).name in (AUTO, LAST):
        if Path(found).name != LAST and (output / LAST).exists():
            (output / LAST).replace(output / f"{LAST}{DAMAGED}")
        return
    for path in _list_checkpoints(output):
        its_step, _ = _load_with_step(path)
        if its_step < 0:
            path.replace(f"{path}{DAMAGED}")
        elif its_step > step:
            path.replace(f"{path}{LATER}")
            log_line(f"{path}, of step {its_step}, is now {path.name}{LATER}: the run goes on from step {step}")


def is_finished(content: dict, *, num_train_steps: int, source: str) -> bool:
    """Tell whether the run of the checkpoint `source` has all of its steps; a note says so if it has."""
    step = content.get("step")
    done = isinstance(step, int) and step >= num_train_steps
    if done:
        log_line(f"already done: {source} is at step {step} of {num_train_steps}")
    return done


def check_run(content: dict, config: dict[str, Any], *, source: str) -> None:
    """Refuse a checkpoint that cannot be continued with the flags of `config`; a note names other changed flags."""
    kinds = {"optimizer": dict, "scaler": dict, "config": dict, "step": int}
    if not all(isinstance(content.get(key), kind) for key, kind in kinds.items()):
        raise UserError(f"--resume_path {source}: holds weights but no run to continue; "
                        "give it as --init_path to start from its weights")  # fmt: skip
    if content.get("format") != FORMAT:
        raise UserError(f"--resume_path {source}: format {content.get('format')}, this program continues "
                        f"{FORMAT}; give it as --init_path to start from its weights")  # fmt: skip
    held, wanted = content["config"], make_plain(config)
    for key in SAME_WHEN_RESUMED:
        if held.get(key) != wanted[key]:
            raise UserError(f"--{key} {wanted[key]}: the run to resume has {held.get(key)}; give that, or start anew "
                            "from its weights with --init_path")  # fmt: skip
    changed = [key for key in wanted if key in held and key not in FREE_TO_CHANGE and held[key] != wanted[key]]
    if changed:
        log_line("resumed with changes: " + ", ".join(f"{key} {held.get(key)} -> {wanted[key]}" for key in changed))


def log_data_changes(content: dict, origin: dict[str, Any]) -> None:
    """Note that a resumed run has other data, or another number of clips a step, than before."""
    words = {"data": "the training data are others or were written anew", "clips_per_step": "clips a step"}
    for key, what in words.items():
        if content.get(key) not in (None, origin[key]):
            detail = "" if key == "data" else f" {content[key]} -> {origin[key]}"
            log_line(f"resumed with changes: {what}{detail}")


def restore_run(
    content: dict, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, *, num_train_steps: int, source: str
) -> int:
    """Restore optimizer and scaler from a checkpoint that passed `check_run`; return its step."""
    try:
        for held, group in zip(content["optimizer"]["param_groups"], optimizer.param_groups, strict=True):
            held["fused"] = group["fused"]  # depends on the device, not on the run
        optimizer.load_state_dict(content["optimizer"])
        if content["scaler"] and scaler.is_enabled():  # empty if the run needed none
            scaler.load_state_dict(content["scaler"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"--resume_path {source}: its optimizer state does not fit ({error}); give it as --init_path"
        ) from error
    if content["step"] >= num_train_steps:
        raise UserError(f"--resume_path {source}: already at step {content['step']} of "
                        f"{num_train_steps}; raise --num_train_steps to go on")  # fmt: skip
    return content["step"]


def check_output(output: Path, *, resume_path: str | Path | None, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, or that holds another run unless `overwrite` is given."""
    if _holds_another_run(output, resume_path) and not overwrite:
        raise UserError(
            f"--output_path {output}: holds a run; continue it with --resume_path {output / LAST}, "
            "choose another folder, or give --overwrite"
        )
    check_writable(output, flag="--output_path")


def prepare_output(output: Path, *, resume_path: str | Path | None, overwrite: bool) -> None:
    """Remove another run in `output` if `overwrite` asks for it, see `check_output`; a resumed run stays."""
    check_output(output, resume_path=resume_path, overwrite=overwrite)
    for path in output.glob(".*.partial"):  # of processes that were killed; the folder is ours alone
        path.unlink()
    if not _holds_another_run(output, resume_path):
        return
    aside = [path for ending in (DAMAGED, LATER) for path in output.glob(f"*.pt{ending}")]
    for path in [*_list_checkpoints(output), *aside, output / "log.jsonl"]:
        path.unlink(missing_ok=True)
    for folder in ("tensorboard", "profile", "targets"):
        shutil.rmtree(output / folder, ignore_errors=True)


def _holds_another_run(output: Path, resume_path: str | Path | None) -> bool:
    in_place = resume_path is not None and Path(resume_path).resolve().parent == output.resolve()
    return not in_place and bool(_list_checkpoints(output))


def make_plain(values: dict[str, Any]) -> dict[str, Any]:
    """Convert values to what JSON and checkpoints keep: tuples become lists, paths text."""
    as_kept = {tuple: list, type(Path()): str}
    return {key: as_kept.get(type(value), lambda same: same)(value) for key, value in values.items()}
