r"""Distil a large frozen ViT into a small one whose last-layer keys relate to each other as the teacher's do.

What segmentation uses of a backbone are the keys of its last self-attention: LayerNorm, then the attention
of every token to the tokens of other frames. So three things are matched, on the same crop and the same token
grid (the teacher sees the crop at its own patch size, the student at its own):

- keys: LayerNormed student keys against the LayerNormed teacher keys, each of the relation heads (8
  contiguous groups of channels, as the segmentation block splits them) rotated and cut to the student's width
  by a PCA that keeps dot products. No learned projection stands between the student's keys and their use.
- relation: KL between the two attention distributions, queries and keys from a pair of views: two frames of a
  clip, or two crops of a photo.
- tokens: cosine between the teacher's normalised output tokens and a linear map (discarded) of the student's.

The teacher runs once, over augmented pairs kept in shards (safetensors, float16) under --cache; filling it can
be stopped at any time and goes on where it was, and several processes may fill one cache. Training is saved to
OUT/last.pt every --save_minutes. With --resume_path it goes on from there: all that a step draws follows from
--seed and its number, so on a CPU the outcome is that of a run never stopped (where --minutes rules, up to the
clock). Without it, a folder that holds a run is refused, and always one that another process trains in.
An image lying in a sub-folder of DIR is a frame of that clip, one lying directly in DIR is a photo; folders of
annotations are passed over. Every 20th photo and clip of each DIR is held out.

Launch (fills the cache, then trains, then exports OUT/student.safetensors):
    python -m utils.distill --teacher vit_small_patch14_dinov2.lvd142m --teacher_path dinov2_vits14.pth \
        --images train_images train_clips --output_path OUT --cache CACHE
Continue an interrupted run:
    python -m utils.distill ... --resume_path OUT/last.pt
Train on the shards that are there, for an hour, whatever the machine's speed:
    python -m utils.distill ... --skip_cache --minutes 60
Measure an exported student on the held-out pairs:
    python -m utils.distill --evaluate OUT/student.safetensors --cache CACHE
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.stopping import exit_on_interrupt

    exit_on_interrupt()

import argparse
import contextlib
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from utils.checkpoint import STUDENT_KEY, load_metadata, load_tensors, save_checkpoint, save_tensors, tensors_hash
from utils.config import OneLineParser, not_negative_float, not_negative_int, positive_float, positive_int
from utils.device import choose_device
from utils.distill_data import (
    SHARD_PAIRS,
    TEACHER_HASH,
    Cache,
    Stream,
    check_cache_settings,
    describe_held_out,
    encode,
    fill_cache,
    flag_of,
    jitter,
    load_held_out,
    load_teacher,
    mirror,
    normalise,
    shard_bytes,
)
from utils.distill_student import Student, attention, key_targets, select_weights, unit
from utils.errors import UserError, run_main
from utils.folders import held
from utils.logs import Means, cut_log
from utils.muon import Muon
from utils.runs import check_output, goes_on_in, prepare_output

SHARPNESS = (10.0, 60.0)  # of the relation softmax; sqrt(48) = 6.9 is q = k = LayerNorm(key) at head dim 48
LEVEL_SHARE = 0.6  # of the run at the full learning rate, then linear to zero
LONGEST_STEP = 60.0  # seconds; what exceeds it is a suspended process and not counted in --minutes
TOP_K = 30  # neighbours compared in the held-out measure; the paper's number of positives
DEFAULT_STEPS = 6000  # where neither --num_train_steps nor --minutes is given
EXPORTED = "student.safetensors"
# What a run stays with when it is resumed, and what may change but is said.
SAME_WHEN_RESUMED = (
    "teacher", TEACHER_HASH, "images", "patch_size", "small_grid", "large_grid", "embed_dim", "depth", "num_heads",
    "relation_heads",
)  # fmt: skip
CHANGE_IS_NOTED = (
    "seed", "num_train_steps", "minutes", "batch_size", "lr", "muon_lr", "warmup", "weight_decay", "relation_weight",
    "token_weight", "queries", "large_share", "large_share_late", "cache",
)  # fmt: skip

# -------------------------------------------------------------------------------- held-out agreement


@torch.inference_mode()
def agreement(keys: Tensor, taught: Tensor, *, heads: int, every: int = 5) -> dict[str, float]:
    """How alike two sets of LayerNormed keys (K, C) and (K, C') relate to each other; rows 0, `every`, ...

    `sim_corr`: correlation of the cosine similarities; `kl`: between the attention distributions at
    the middle sharpness; `top`: share of the teacher's TOP_K most attended tokens among the student's.
    """
    sharpness = math.sqrt(SHARPNESS[0] * SHARPNESS[1])
    keys, taught = keys[None], taught[None]
    ours, theirs = (attention(x[:, ::every], x, heads=heads, sharpness=sharpness) for x in (keys, taught))
    top = [torch.zeros_like(x).scatter_(-1, x.topk(TOP_K).indices, 1.0) for x in (ours, theirs)]
    cosines = [x[0, ::every] @ x[0].T / x.shape[-1] for x in (keys, taught)]
    others = ~torch.eye(keys.shape[1], dtype=torch.bool, device=keys.device)[::every]
    return {
        "sim_corr": torch.corrcoef(torch.stack([cosine[others] for cosine in cosines]))[0, 1].item(),
        "kl": (theirs * ((theirs + 1e-10).log() - (ours + 1e-10).log())).sum(dim=-1).mean().item(),
        "top": ((top[0] * top[1]).sum(dim=-1).mean() / TOP_K).item(),
    }


def held_out_views(held_out: dict[str, Tensor], device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each held-out pair: images (2, 3, H, W) normalised, the teacher's keys and tokens (2, N, C)."""
    for images, keys, tokens in zip(*(held_out[f"large_{name}"] for name in ("images", "keys", "tokens")), strict=True):
        yield normalise(images.to(device).float() / 255), keys.to(device), tokens.to(device).float()


def mean_scores(scores: list[dict[str, float]], prefix: str) -> dict[str, float]:
    return {f"{prefix}_{name}": sum(of_pair[name] for of_pair in scores) / len(scores) for name in scores[0]}


@torch.inference_mode()
def evaluate(student: Student, held_out: dict[str, Tensor], device, ceiling: bool = False) -> dict[str, float]:
    """Held-out agreement, mean over pairs of views. `ceiling`: of the key targets, not the student."""
    student.eval()
    collected = []
    heads = student.basis.shape[0]
    for images, taught, expected in held_out_views(held_out, device):
        targets = key_targets(taught, student.basis)
        keys, tokens, _ = encode(student.vit, images)
        keys = targets if ceiling else unit(keys)
        scores = agreement(keys.flatten(0, 1), unit(taught).flatten(0, 1), heads=heads)
        scores["key_cos"] = F.cosine_similarity(keys, targets, dim=-1).mean().item()
        scores["key_error"] = ((keys - targets).square().mean() / student.spread).item()
        scores["token_cos"] = F.cosine_similarity(student.to_tokens(tokens), expected, dim=-1).mean().item()
        collected.append(scores)
    student.train()
    return mean_scores(collected, "ceiling" if ceiling else "held")


@torch.inference_mode()
def evaluate_file(path: Path, held_out: dict[str, Tensor], device: torch.device, *, heads: int) -> dict[str, float]:
    """Held-out agreement of an exported student, mean over pairs of views.

    What needs the maps that only training has (`key_cos`, `key_error`, `token_cos`) is left out.

    Raises:
        UserError: no student, or one that does not fit the held-out set or `heads`.
    """
    vit = load_student(path).to(device)
    for name, width in (("student", vit.embed_dim), ("teacher", held_out["large_keys"].shape[-1])):
        if width % heads:
            raise UserError(f"--relation_heads {heads}: does not divide the {width} channels of the {name}")
    collected = []
    for images, taught, _ in held_out_views(held_out, device):
        patch_h, patch_w = vit.patch_embed.patch_size
        if (images.shape[-2] // patch_h) * (images.shape[-1] // patch_w) != taught.shape[1]:
            raise UserError(f"--evaluate {path}: its patch size {patch_h} does not cut held-out views into the "
                            f"teacher's {taught.shape[1]} tokens; give the --cache of its run")  # fmt: skip
        keys = unit(encode(vit, images)[0])
        collected.append(agreement(keys.flatten(0, 1), unit(taught).flatten(0, 1), heads=heads))
    return mean_scores(collected, "held")


def report_file(args: argparse.Namespace, device: torch.device) -> None:
    """Print what the held-out set holds, and how --evaluate agrees with the teacher there."""
    held_out = load_held_out(args.cache)
    print(describe_held_out(args.cache))
    scores = evaluate_file(args.evaluate, held_out, device, heads=args.relation_heads)
    print(json.dumps({name: rounded(value) for name, value in scores.items()}))


def load_student(path: Path) -> VisionTransformer:
    """A ViT that `export` wrote, in float32."""
    if (kwargs := load_metadata(path, STUDENT_KEY)) is None:
        raise UserError(f"{path}: does not say how its ViT is built; give a file made by utils.distill")
    try:
        vit = VisionTransformer(**kwargs)
        vit.load_state_dict({name: value.float() for name, value in load_tensors(path).items()})
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(f"--evaluate {path}: its header does not fit its weights ({detail}); export it anew") from error
    return vit.eval()


# -------------------------------------------------------------------------------- training


def make_optimizers(student: Student, args: argparse.Namespace) -> list[torch.optim.Optimizer]:
    """Muon for the matrices in the blocks, AdamW for the rest; decay on matrices, not on embeddings and vectors."""
    named = list(student.named_parameters())
    inner = {name for name, p in named if p.ndim == 2 and name.startswith("vit.blocks.")}
    plain = {name for name, p in named if p.ndim < 2 or name.endswith(("pos_embed", "cls_token"))}
    groups = [
        {"params": [p for name, p in named if name not in plain | inner], "weight_decay": args.weight_decay},
        {"params": [p for name, p in named if name in plain], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))
    muon = Muon([p for name, p in named if name in inner], lr=args.muon_lr, weight_decay=args.weight_decay)
    return [muon, adamw]


def schedule(step: int, progress: float, args: argparse.Namespace) -> float:
    """Share of the full learning rate: linear warm-up by steps, level, linear to 0 over the last 40 % of progress.

    Level for long, so that a run can be given more steps or minutes when it is resumed.
    """
    return min(1.0, (step + 1) / args.warmup, (1 - progress) / (1 - LEVEL_SHARE))


def save(
    student: Student, optimizers: list[torch.optim.Optimizer], streams: dict[str, Stream], args: argparse.Namespace, *,
    step: int, elapsed: float, means: Means,
) -> None:  # fmt: skip
    """Write OUT/last.pt: weights, optimizers, sums of the log, and with the step and the seed all that later draws
    depend on."""
    state = {
        "student": student.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "step": step,
        "elapsed": elapsed,
        "sums": means.sums,
        "streams": {size: stream.state() for size, stream in streams.items()},
        "student_kwargs": student_kwargs(args),
        "args": as_text(args),
    }
    save_checkpoint(args.output_path / "last.pt", state)


def as_text(args: argparse.Namespace) -> dict[str, str]:
    return {key: str(value) for key, value in vars(args).items()}


def load_run(args: argparse.Namespace) -> dict:
    """The checkpoint at --resume_path, if it is of a run that can go on with these arguments; says what has changed.

    Checkpoints made before an argument or entry was kept in them are taken to agree in it.

    Raises:
        UserError: no checkpoint of this program, or one of another model or other data.
    """
    state = load_tensors(args.resume_path)
    kinds = {"student": dict, "optimizers": list, "step": int, "elapsed": float, "args": dict}
    if not all(isinstance(state.get(key), kind) for key, kind in kinds.items()):
        raise UserError(f"--resume_path {args.resume_path}: holds no run of utils.distill; give the last.pt of one")
    held, wanted = state["args"], as_text(args)
    changes = {key: (held[key], wanted[key]) for key in wanted if held.get(key, wanted[key]) != wanted[key]}
    for key in SAME_WHEN_RESUMED:
        if key in changes:
            before, now = changes[key]
            raise UserError(f"--{flag_of(key)}: is now {now}, the run to resume has {before}; give what it has, or "
                            "start anew without --resume_path")  # fmt: skip
    if changed := [f"{key} {' -> '.join(changes[key])}" for key in CHANGE_IS_NOTED if key in changes]:
        print(f"resumed with changes: {', '.join(changed)}", flush=True)
    return state


def restore(state: dict, student: Student, optimizers, args: argparse.Namespace) -> None:
    """Fill student and optimizers from a checkpoint of `load_run`."""
    try:
        student.load_state_dict(state["student"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(f"--resume_path {args.resume_path}: does not fit these arguments ({detail}); give those of "
                        "its run, or start anew without --resume_path") from error  # fmt: skip


def rounded(value: float) -> float:
    return float(f"{value:.5g}")


def log(args: argparse.Namespace, **values) -> None:
    line = json.dumps({name: rounded(value) if isinstance(value, float) else value for name, value in values.items()})
    print(line, flush=True)
    args.output_path.mkdir(parents=True, exist_ok=True)
    with open(args.output_path / "log.jsonl", "a") as file:
        file.write(line + "\n")


def train_step(
    student: Student,
    optimizers: list[torch.optim.Optimizer],
    batch: dict[str, Tensor],
    args: argparse.Namespace,
    *,
    step: int,
    rng: random.Random,
) -> dict[str, float]:
    """One update of a `batch` as `Cache.batch` gives it; returns the losses.

    Raises:
        UserError: the loss or the gradient is not finite; student and optimizers are then as before.
    """
    if rng.random() < 0.5:
        batch = mirror(batch, rows=batch["images"].shape[-2] // args.patch_size)
    images = jitter(batch["images"].flatten(0, 1).float() / 255)
    batch = batch | {"images": normalise(images).unflatten(0, (-1, 2))}
    sharpness = SHARPNESS[0] * (SHARPNESS[1] / SHARPNESS[0]) ** rng.random()
    losses = student(batch, queries=args.queries, sharpness=sharpness)
    loss = losses["key"] + args.relation_weight * losses["relation"]
    loss = loss + args.token_weight * (losses["token"] + 0.1 * losses["cls"])
    student.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    values = {name: value.item() for name, value in losses.items()} | {"grad_norm": norm.item()}
    if not all(map(math.isfinite, values.values())):
        told = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        raise UserError(f"step {step + 1}: the loss or its gradient is not finite ({told}); lower --lr and --muon_lr, "
                        "and resume from the last checkpoint if there is one")  # fmt: skip
    for optimizer in optimizers:
        optimizer.step()
    return values


def student_kwargs(args: argparse.Namespace) -> dict:
    """What `VisionTransformer(**kwargs)` takes to hold the student; its own grid is the large one."""
    return {
        "img_size": [side * args.patch_size for side in args.large_grid],
        "patch_size": args.patch_size,
        "embed_dim": args.embed_dim,
        "depth": args.depth,
        "num_heads": args.num_heads,
        "num_classes": 0,
        "dynamic_img_size": True,
    }


def build_student(args: argparse.Namespace, cache: Cache, teacher: VisionTransformer) -> Student:
    torch.manual_seed(args.seed)
    sample = cache.batch("small", random.Random(0).sample(cache.pairs("small"), SHARD_PAIRS["small"]))
    student = Student(student_kwargs(args), sample["keys"].shape[-1], args.relation_heads)
    if args.init == "selection":
        select_weights(student.vit, teacher.cpu())
    student.fit(sample["keys"].flatten(0, 2))
    return student


def make_streams(args: argparse.Namespace, cache: Cache, resumed: dict) -> dict[str, Stream]:
    """Batches on either grid, where they were in the run `resumed`; {} where a run starts."""
    pairs = {"small": max(1, args.batch_size // 2), "large": max(1, args.batch_size // 4)}
    # A checkpoint made before their place was kept in it: another order than that of the epochs it has seen.
    unknown = {"epoch": resumed.get("step", 0)}
    states = resumed.get("streams", {})
    return {
        size: Stream(cache, size, pairs=count, seed=args.seed, **states.get(size, unknown))
        for size, count in pairs.items()
    }


def train(args: argparse.Namespace, student: Student, cache: Cache, device: torch.device, resumed: dict) -> None:
    """Train until --num_train_steps or --minutes, whichever comes first; the schedule follows that one.

    Args:
        resumed: the checkpoint of `load_run` to go on from, or {}.
    """
    optimizers = make_optimizers(student, args)
    if resumed:
        restore(resumed, student, optimizers, args)
    step, elapsed = resumed.get("step", 0), resumed.get("elapsed", 0.0)
    streams = make_streams(args, cache, resumed)
    cut_log(args.output_path / "log.jsonl", step)
    log(args, step=step, shards=len(cache.shards), **evaluate(student, cache.held_out, device, ceiling=True))
    saved = before = time.monotonic()
    means = Means(resumed.get("sums"))
    if step >= args.num_train_steps or elapsed >= 60 * args.minutes:
        print(f"nothing left to train: at step {step}, minute {elapsed / 60:.1f}; raise --num_train_steps or --minutes")
    while (progress := max(step / args.num_train_steps, elapsed / (60 * args.minutes))) < 1:
        rng = random.Random(f"{args.seed}/step {step}")
        torch.manual_seed(rng.getrandbits(63))
        share = schedule(step, progress, args)
        for optimizer, rate in zip(optimizers, (args.muon_lr, args.lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * share
        large = rng.random() < (args.large_share if progress < LEVEL_SHARE else args.large_share_late)
        batch = {k: v.to(device) for k, v in streams["large" if large else "small"].next().items()}
        losses = train_step(student, optimizers, batch, args, step=step, rng=rng)
        step += 1
        means.add(losses)
        now = time.monotonic()
        elapsed, before = elapsed + min(now - before, LONGEST_STEP), now
        if step % args.log_every == 0:
            log(args, step=step, seconds=round(elapsed), progress=progress, lr=args.lr * share, **means.read())
        if step % args.eval_every == 0:
            log(args, step=step, **evaluate(student, cache.held_out, device))
        if now - saved >= 60 * args.save_minutes:
            save(student, optimizers, streams, args, step=step, elapsed=elapsed, means=means)
            saved = now
    save(student, optimizers, streams, args, step=step, elapsed=elapsed, means=means)
    log(args, step=step, final=True, **evaluate(student, cache.held_out, device))


def macs(student: VisionTransformer, tokens: int) -> tuple[int, int]:
    """Multiply-adds of one frame of `tokens` patches: (whole model, up to the last layer's keys)."""
    dim, count = student.embed_dim, tokens + 1
    patch = tokens * student.patch_embed.proj.weight.numel()
    blocks = [count * (12 * dim * dim + 2 * count * dim)] * len(student.blocks)
    return patch + sum(blocks), patch + sum(blocks[:-1]) + count * dim * dim


def export(student: Student, args: argparse.Namespace) -> None:
    """Write the ViT alone, float16, timm names; the creation kwargs stand in the file's metadata."""
    kwargs = student_kwargs(args)
    path = args.output_path / EXPORTED
    save_tensors(path, student.vit.state_dict(), key=STUDENT_KEY, metadata=kwargs)
    whole, keys = (2e-9 * count for count in macs(student.vit, math.prod(args.large_grid)))
    print(f"wrote {path}, {path.stat().st_size / 1e6:.2f} MB, for VisionTransformer(**{kwargs})")
    print(f"{whole:.2f} GFLOP a frame at {args.large_grid} tokens, {keys:.2f} to the last keys")


# -------------------------------------------------------------------------------- arguments


class Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The text above as it stands, and the defaults."""


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m utils.distill", description=__doc__, formatter_class=Help, allow_abbrev=False
    )
    grids, patch_size, shards = {"small_grid": [14, 18], "large_grid": [20, 35]}, 8, 128
    shard = shard_bytes(**grids, patch_size=patch_size, width=384)
    data = parser.add_argument_group("teacher and data").add_argument
    data("--teacher", default="vit_small_patch14_dinov2.lvd142m", help="timm name of the frozen ViT")
    data("--teacher_path", type=Path, help="its weights, timm names")
    data("--images", type=Path, nargs="+", metavar="DIR", help="folders of photos and of clips")
    data(
        "--cache", type=Path, required=True,
        help=f"folder for the teacher's targets. Disk: with these grids and a ViT-S as teacher {shard / 1e6:.1f} MB a "
        f"shard, {shard * shards / 1e9:.1f} GB for {shards}. Time: a shard is 80 crops, with DINOv2 ViT-S/14 about 25 "
        f"s on one CPU core, {shards * 25 / 60:.0f} minutes for {shards}; several processes share them",
    )  # fmt: skip
    data("--cache_shards", type=positive_int, default=shards, help="shards to make")
    data("--skip_cache", action="store_true", help="train on the shards that are there, make none")
    data(
        "--small_grid", type=positive_int, nargs=2, default=grids["small_grid"], metavar=("ROWS", "COLUMNS"),
        help="tokens of most views",
    )  # fmt: skip
    data(
        "--large_grid", type=positive_int, nargs=2, default=grids["large_grid"], metavar=("ROWS", "COLUMNS"),
        help="those of the views as at evaluation",
    )  # fmt: skip
    student = parser.add_argument_group("student").add_argument
    student("--patch_size", type=positive_int, default=patch_size)
    student("--embed_dim", type=positive_int, default=192)
    student("--depth", type=positive_int, default=5)
    student("--num_heads", type=positive_int, default=3)
    student("--relation_heads", type=positive_int, default=8, help="heads of the block that will use the keys")
    student(
        "--init", choices=("selection", "scratch"), default="selection",
        help="selection: start from evenly chosen layers, heads and channels of the teacher",
    )  # fmt: skip
    add_training_arguments(parser)
    return parser


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("training").add_argument
    add("--output_path", type=Path, metavar="OUT", help="log, checkpoint and exported student go here")
    add("--resume_path", type=Path, help="last.pt of the run to continue")
    add("--overwrite", action="store_true", help="start anew over the run in --output_path")
    add(
        "--num_train_steps", type=not_negative_int,
        help=f"0: only fill the cache; {DEFAULT_STEPS} where --minutes is not given either",
    )  # fmt: skip
    add("--minutes", type=positive_float, help="train for so long, or to --num_train_steps if that is given and less")
    add("--batch_size", type=positive_int, default=16, help="views a step on the small grid, half of it on the large")
    add("--lr", type=positive_float, default=1e-3, help="of AdamW")
    add("--muon_lr", type=positive_float, default=3e-3, help="of Muon, in AdamW's units")
    add("--warmup", type=positive_int, default=100, help="steps of rising rate; 1: none")
    add("--weight_decay", type=not_negative_float, default=0.05)
    add("--relation_weight", type=not_negative_float, default=1.0)
    add("--token_weight", type=not_negative_float, default=0.5)
    add("--queries", type=positive_int, default=64, help="tokens a pair whose attention is compared")
    add("--large_share", type=up_to_one, default=0.1, help="of steps on the large grid, first 60 %% of the run")
    add("--large_share_late", type=up_to_one, default=0.4, help="the same, last 40 %%")
    add("--seed", type=not_negative_int, default=0)
    add("--log_every", type=positive_int, default=25, help="steps")
    add("--eval_every", type=positive_int, default=250, help="steps")
    add("--save_minutes", type=not_negative_float, default=3.0, help="between writes of last.pt; 0: every step")
    add("--threads", type=not_negative_int, default=0, help="CPU threads, 0: all")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    add = parser.add_argument_group("instead of training").add_argument
    add(
        "--evaluate", type=Path, metavar="STUDENT.safetensors",
        help="print how an exported student agrees with the teacher on the held-out pairs of --cache; of the other "
        "options only --relation_heads, --threads and --device count",
    )  # fmt: skip


def up_to_one(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return float(text)


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Arguments that fit together; `num_train_steps` and `minutes` are infinite where they set no end.

    Raises:
        UserError: a value that cannot be, or something missing.
    """
    args = make_parser().parse_args(argv)
    if args.evaluate:
        return args
    if args.num_train_steps is None:
        args.num_train_steps = DEFAULT_STEPS if args.minutes is None else math.inf
    if args.minutes is None:
        args.minutes = math.inf
    needed = ["teacher_path", "images", *(["output_path"] if args.num_train_steps else [])]
    if missing := [f"--{name}" for name in needed if getattr(args, name) is None]:
        raise UserError(f"{', '.join(missing)}: missing; give it (see python -m utils.distill --help)")
    for flag in ("num_heads", "relation_heads"):
        if args.embed_dim % getattr(args, flag):
            raise UserError(f"--embed_dim {args.embed_dim}: not a multiple of --{flag} {getattr(args, flag)}; "
                            "choose others")  # fmt: skip
    if args.embed_dim < 2 * args.relation_heads:
        raise UserError(f"--embed_dim {args.embed_dim}: less than 2 channels for each of --relation_heads "
                        f"{args.relation_heads}; raise it")  # fmt: skip
    if 2 * math.prod(args.large_grid) < TOP_K:
        rows, columns = args.large_grid
        raise UserError(f"--large_grid {rows} {columns}: two views have fewer than {TOP_K} tokens, of so many the "
                        "held-out measure takes the nearest; enlarge it")  # fmt: skip
    return args


def check_teacher(args: argparse.Namespace, teacher: VisionTransformer) -> None:
    """Raises `UserError` where the student cannot be had from this teacher."""
    if args.embed_dim > teacher.embed_dim:
        raise UserError(f"--embed_dim {args.embed_dim}: wider than the teacher, {teacher.embed_dim}; lower it")
    if teacher.embed_dim % args.relation_heads:
        raise UserError(f"--relation_heads {args.relation_heads}: does not divide the teacher's {teacher.embed_dim} "
                        "channels; choose another number")  # fmt: skip


def main() -> None:
    args = parse_args(sys.argv[1:])
    if args.threads:
        torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    if args.evaluate:
        report_file(args, device)
        return
    teacher = load_teacher(args.teacher, args.teacher_path)
    check_teacher(args, teacher)
    setattr(args, TEACHER_HASH, tensors_hash(teacher.state_dict()))
    output, with_run = args.output_path, args.num_train_steps > 0
    with contextlib.ExitStack() as stack:
        early = with_run and args.resume_path is not None and goes_on_in(output, str(args.resume_path))
        if early:  # before the checkpoint is read: another process may be about to save a newer one
            stack.enter_context(held(output, flag="--output_path"))
        resumed = load_run(args) if args.resume_path else {}
        check_cache_settings(args)
        if with_run:
            check_output(output, resume_path=args.resume_path, overwrite=args.overwrite)
            if not early:
                stack.enter_context(held(output, flag="--output_path"))
            prepare_output(output, resume_path=args.resume_path, overwrite=args.overwrite, also=(EXPORTED,))
        fill_cache(args, teacher, device)
        if with_run:
            cache = Cache(args.cache)
            student = build_student(args, cache, teacher).to(device)
            train(args, student, cache, device, resumed)
            export(student, args)


if __name__ == "__main__":
    run_main(main, lower="--batch_size")
