"""Distil a large frozen ViT into a small one whose last-layer keys relate to each other as the teacher's do.

What segmentation uses of a backbone are the keys of its last self-attention: LayerNorm, then the attention
of every token to the tokens of other frames. So three things are matched, on the same crop and the same token
grid (the teacher sees the crop at its own patch size, the student at its own):

- keys: LayerNormed student keys against the LayerNormed teacher keys, each of the relation heads (8
  contiguous groups of channels, as the segmentation block splits them) rotated and cut to the student's width
  by a PCA that keeps dot products. No learned projection stands between the student's keys and their use.
- relation: KL between the two attention distributions, queries and keys from a pair of views: two frames of a
  clip, or two crops of a photo.
- tokens: cosine between the teacher's normalised output tokens and a linear map (discarded) of the student's.

The teacher runs once, over augmented pairs kept in shards (safetensors, float16) under --cache; the run can
be stopped at any time and continues where it was, and several processes may fill one cache.
An image lying in a sub-folder of DIR is a frame of that clip, one lying directly in DIR is a photo. Every
20th photo and clip of each DIR is held out.

Launch (fills the cache, then trains, then exports OUT/student.safetensors):
    python -m utils.distill --teacher vit_small_patch14_dinov2.lvd142m --teacher_path dinov2_vits14.pth \
        --images train_images train_clips --output_path OUT --cache CACHE
Continue an interrupted run:
    python -m utils.distill ... --resume_path OUT/last.pt
Train on the shards that are there, for an hour at most, whatever the machine's speed:
    python -m utils.distill ... --skip_cache --minutes 60
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from utils.checkpoint import STUDENT_KEY, load_tensors, save_checkpoint, save_tensors
from utils.device import choose_device
from utils.distill_data import SHARD_PAIRS, Cache, encode, fill_cache, jitter, load_teacher, mirror, normalise
from utils.errors import UserError, run_main
from utils.muon import Muon

SHARPNESS = (10.0, 60.0)  # of the relation softmax; sqrt(48) = 6.9 is q = k = LayerNorm(key) at head dim 48
LEVEL_SHARE = 0.6  # of the run at the full learning rate, then linear to zero
LONGEST_STEP = 60.0  # seconds; what exceeds it is a suspended process and not counted in --minutes
TOP_K = 30  # neighbours compared in the held-out measure; the paper's number of positives

# -------------------------------------------------------------------------------- models


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


def evenly(count: int, total: int) -> Tensor:
    """`count` indices spread over range(total), the last one included."""
    return torch.linspace(0, total - 1, count).round().long()


def select_weights(student: VisionTransformer, teacher: VisionTransformer) -> None:
    """Fill the student with evenly chosen layers, heads and channels of the teacher ("weight selection").

    Patch kernel and position embedding are resampled, LayerScale is folded into the projection before it.
    """
    dim = evenly(student.embed_dim, teacher.embed_dim)
    state, blocks = teacher.state_dict(), student.blocks
    grid = student.patch_embed.grid_size
    kernel = resample_patch_embed(state["patch_embed.proj.weight"], list(student.patch_embed.patch_size))
    prefix = [0, *range(teacher.num_prefix_tokens, state["pos_embed"].shape[1])]
    pos_embed = resample_abs_pos_embed(
        state["pos_embed"][:, prefix], list(grid), list(teacher.patch_embed.grid_size), num_prefix_tokens=1
    )
    new = {
        "cls_token": state["cls_token"][..., dim],
        "pos_embed": pos_embed[..., dim],
        "patch_embed.proj.weight": kernel[dim],
        "patch_embed.proj.bias": state["patch_embed.proj.bias"][dim],
        "norm.weight": state["norm.weight"][dim],
        "norm.bias": state["norm.bias"][dim],
    }
    for i, layer in enumerate(evenly(len(blocks), len(teacher.blocks)).tolist()):
        source = {
            key.removeprefix(f"blocks.{layer}."): value
            for key, value in state.items()
            if key.startswith(f"blocks.{layer}.")
        }
        selected = select_block(source, blocks[i], teacher.blocks[layer], dim)
        new |= {f"blocks.{i}.{key}": value for key, value in selected.items()}
    student.load_state_dict(new)


def select_block(source: dict[str, Tensor], block: nn.Module, teacher: nn.Module, dim: Tensor) -> dict[str, Tensor]:
    """The state of one block from a teacher block's; `dim` are the residual channels kept."""
    attn, wide = block.attn, teacher.attn
    heads, within = evenly(attn.num_heads, wide.num_heads), evenly(attn.head_dim, wide.head_dim)
    inner = (heads[:, None] * wide.head_dim + within).flatten()  # channels of q, of k, of v
    qkv = torch.cat([part * wide.num_heads * wide.head_dim + inner for part in range(3)])
    hidden = evenly(block.mlp.fc1.out_features, teacher.mlp.fc1.out_features)
    one = torch.ones(len(source["norm1.weight"]))
    scale1, scale2 = source.get("ls1.gamma", one), source.get("ls2.gamma", one)
    state = {
        f"{norm}.{part}": source[f"{norm}.{part}"][dim] for norm in ("norm1", "norm2") for part in ("weight", "bias")
    }
    state["attn.qkv.weight"] = source["attn.qkv.weight"][qkv][:, dim]
    state["attn.qkv.bias"] = source["attn.qkv.bias"][qkv]
    state["attn.proj.weight"] = (source["attn.proj.weight"] * scale1[:, None])[dim][:, inner]
    state["attn.proj.bias"] = (source["attn.proj.bias"] * scale1)[dim]
    state["mlp.fc1.weight"] = source["mlp.fc1.weight"][hidden][:, dim]
    state["mlp.fc1.bias"] = source["mlp.fc1.bias"][hidden]
    state["mlp.fc2.weight"] = (source["mlp.fc2.weight"] * scale2[:, None])[dim][:, hidden]
    state["mlp.fc2.bias"] = (source["mlp.fc2.bias"] * scale2)[dim]
    return state


def macs(student: VisionTransformer, tokens: int) -> tuple[int, int]:
    """Multiply-adds of one frame of `tokens` patches: (whole model, up to the last layer's keys)."""
    dim, count = student.embed_dim, tokens + 1
    patch = tokens * student.patch_embed.proj.weight.numel()
    blocks = [count * (12 * dim * dim + 2 * count * dim)] * len(student.blocks)
    return patch + sum(blocks), patch + sum(blocks[:-1]) + count * dim * dim


# -------------------------------------------------------------------------------- targets and losses


def unit(keys: Tensor) -> Tensor:
    """LayerNorm without affine over the last dimension."""
    return F.layer_norm(keys.float(), keys.shape[-1:])


def fit_basis(keys: Tensor, *, dim: int, heads: int) -> Tensor:
    """Per-head maps that bring LayerNormed teacher keys (n, C) to `dim` channels, dot products nearly kept.

    Returns (heads, C/heads, dim/heads). In each head the leading dim/heads - 1 directions (PCA about zero)
    are laid orthogonally to the vector of ones: targets of zero mean are what a LayerNorm can put out.
    """
    by_head = unit(keys).unflatten(-1, (heads, -1)).transpose(0, 1)  # (heads, n, C/heads)
    width = dim // heads
    if width > by_head.shape[-1]:
        raise UserError(f"--embed_dim {dim}: wider than the teacher's {keys.shape[-1]} channels")
    moments = by_head.transpose(1, 2) @ by_head / by_head.shape[1]
    leading = torch.linalg.eigh(moments).eigenvectors.flip(-1)[..., : width - 1]
    ones_first = torch.eye(width)
    ones_first[:, 0] = 1
    zero_mean = torch.linalg.qr(ones_first).Q[:, 1:]  # (width, width - 1), columns orthogonal to ones
    generator = torch.Generator().manual_seed(0)  # a rotation, so that no channel carries the largest direction
    rotation = torch.linalg.qr(torch.randn(width - 1, width - 1, generator=generator)).Q
    return leading @ rotation @ zero_mean.T


def key_targets(keys: Tensor, basis: Tensor) -> Tensor:
    """Teacher keys (..., N, C) -> what the student's LayerNormed keys should be (..., N, D)."""
    by_head = unit(keys).unflatten(-1, (basis.shape[0], -1))
    return unit(torch.einsum("...hc,hcd->...hd", by_head, basis).flatten(-2))


def attention(queries: Tensor, keys: Tensor, *, heads: int, sharpness: float) -> Tensor:
    """Mean over heads of softmax attention between LayerNormed vectors (I, Q, C) and (I, K, C) -> (I, Q, K).

    The logit is `sharpness` times the mean product over a head's channels, whatever their number.
    """
    q, k = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (queries, keys))
    return (q @ k.transpose(-1, -2) * (sharpness / q.shape[-1])).softmax(dim=-1).mean(dim=1)


def attention_kl(student: Tensor, teacher: Tensor, picked: Tensor, *, heads: int, sharpness: float) -> Tensor:
    """KL(teacher || student) of the attention of the `picked` tokens; LayerNormed (I, K, C), C may differ."""
    p, q = (attention(x[:, picked], x, heads=heads, sharpness=sharpness) for x in (teacher, student))
    return (p * ((p + 1e-10).log() - (q + 1e-10).log())).sum(dim=-1).mean()


class Student(nn.Module):
    """The ViT, two linear maps that only training uses, and the map that makes its key targets."""

    def __init__(self, kwargs: dict, teacher_dim: int, heads: int):
        super().__init__()
        dim = kwargs["embed_dim"]
        self.vit = VisionTransformer(**kwargs)
        self.to_tokens, self.to_cls = nn.Linear(dim, teacher_dim), nn.Linear(dim, teacher_dim)
        self.register_buffer("basis", torch.zeros(heads, teacher_dim // heads, dim // heads))
        self.register_buffer("spread", torch.ones(()))  # variance of the key targets about their mean

    @torch.no_grad()
    def fit(self, keys: Tensor) -> None:
        """Fix the key targets from a sample of teacher keys (n, C), and start the student's keys at their mean."""
        dim = self.vit.embed_dim
        self.basis.copy_(fit_basis(keys, dim=dim, heads=self.basis.shape[0]))
        targets = key_targets(keys, self.basis)
        self.spread.copy_(targets.var(dim=0).mean())
        norm, qkv = self.vit.blocks[-1].norm1, self.vit.blocks[-1].attn.qkv
        weight = nn.init.trunc_normal_(torch.empty(dim, dim), std=0.02) / norm.weight.square().mean().sqrt()
        qkv.weight[dim : 2 * dim] = weight
        qkv.bias[dim : 2 * dim] = targets.mean(dim=0) - weight @ norm.bias

    def forward(self, batch: dict[str, Tensor], *, queries: int, sharpness: float) -> dict[str, Tensor]:
        """The losses on a batch of I pairs; `images` (I, 2, 3, H, W) normalised, the rest as in `teach`."""
        keys, tokens, cls = encode(self.vit, batch["images"].flatten(0, 1))
        keys = unit(keys).unflatten(0, (-1, 2))
        error = (keys - key_targets(batch["keys"], self.basis)).square().mean() / self.spread
        both, taught = keys.flatten(1, 2), unit(batch["keys"]).flatten(1, 2)  # (I, 2N, .)
        picked = torch.randperm(both.shape[1], device=both.device)[:queries]
        relation = attention_kl(both, taught, picked, heads=self.basis.shape[0], sharpness=sharpness)
        token = 1 - F.cosine_similarity(self.to_tokens(tokens), batch["tokens"].flatten(0, 1).float(), dim=-1).mean()
        cls = 1 - F.cosine_similarity(self.to_cls(cls), batch["cls"].flatten(0, 1).float(), dim=-1).mean()
        return {"key": error, "relation": relation, "token": token, "cls": cls}


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


@torch.inference_mode()
def evaluate(student: Student, held_out: dict[str, Tensor], device, ceiling: bool = False) -> dict[str, float]:
    """Held-out agreement, mean over pairs of views. `ceiling`: of the key targets, not the student."""
    student.eval()
    sums: dict[str, float] = {}
    heads, pairs = student.basis.shape[0], len(held_out["large_keys"])
    for i in range(pairs):
        taught = held_out["large_keys"][i].to(device)
        targets = key_targets(taught, student.basis)
        images = normalise(held_out["large_images"][i].to(device).float() / 255)
        keys, tokens, _ = encode(student.vit, images)
        keys = targets if ceiling else unit(keys)
        scores = agreement(keys.flatten(0, 1), unit(taught).flatten(0, 1), heads=heads)
        scores["key_cos"] = F.cosine_similarity(keys, targets, dim=-1).mean().item()
        scores["key_error"] = ((keys - targets).square().mean() / student.spread).item()
        expected = held_out["large_tokens"][i].to(device).float()
        scores["token_cos"] = F.cosine_similarity(student.to_tokens(tokens), expected, dim=-1).mean().item()
        sums = {name: sums.get(name, 0.0) + value / pairs for name, value in scores.items()}
    student.train()
    return {f"{'ceiling' if ceiling else 'held'}_{name}": value for name, value in sums.items()}


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


def save(path: Path, student: Student, optimizers, args, *, step: int, elapsed: float) -> None:
    state = {
        "student": student.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "step": step,
        "elapsed": elapsed,
        "student_kwargs": student_kwargs(args),
        "args": {key: str(value) for key, value in vars(args).items()},
    }
    save_checkpoint(path, state)


def resume(path: Path, student: Student, optimizers, args: argparse.Namespace) -> tuple[int, float]:
    """Fill student and optimizer from a checkpoint; returns its step and the seconds trained so far."""
    state = load_tensors(path)
    if state.get("student_kwargs") != student_kwargs(args):
        raise UserError(f"--resume_path {path}: holds another student: {state.get('student_kwargs')}")
    student.load_state_dict(state["student"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return state["step"], state["elapsed"]


def log(args: argparse.Namespace, **values) -> None:
    line = json.dumps({k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in values.items()})
    print(line, flush=True)
    with open(args.output_path / "log.jsonl", "a") as file:
        file.write(line + "\n")


def train_step(student: Student, optimizers, batch: dict[str, Tensor], args: argparse.Namespace) -> dict[str, float]:
    """One update; returns the losses."""
    if random.random() < 0.5:
        batch = mirror(batch, rows=batch["images"].shape[-2] // args.patch_size)
    images = jitter(batch["images"].flatten(0, 1).float() / 255)
    batch = batch | {"images": normalise(images).unflatten(0, (-1, 2))}
    sharpness = SHARPNESS[0] * (SHARPNESS[1] / SHARPNESS[0]) ** random.random()
    losses = student(batch, queries=args.queries, sharpness=sharpness)
    loss = losses["key"] + args.relation_weight * losses["relation"]
    loss = loss + args.token_weight * (losses["token"] + 0.1 * losses["cls"])
    if not torch.isfinite(loss):
        raise FloatingPointError(f"loss is {loss.item()}: {losses}")
    student.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return {name: value.item() for name, value in losses.items()} | {"grad_norm": norm.item()}


def build_student(args: argparse.Namespace, cache: Cache) -> Student:
    sample = cache.batch("small", random.Random(0).sample(range(cache.pair_count("small")), SHARD_PAIRS["small"]))
    student = Student(student_kwargs(args), sample["keys"].shape[-1], args.relation_heads)
    if args.init == "selection":
        select_weights(student.vit, load_teacher(args.teacher, args.teacher_path))
    student.fit(sample["keys"].flatten(0, 2))
    return student


def train(args: argparse.Namespace, device: torch.device) -> Student:
    """Train until --num_train_steps or --minutes, whichever comes first; the schedule follows that one."""
    cache = Cache(args.cache)
    student = build_student(args, cache).to(device)
    optimizers = make_optimizers(student, args)
    step, elapsed = resume(args.resume_path, student, optimizers, args) if args.resume_path else (0, 0.0)
    log(args, step=step, shards=len(cache.shards), **evaluate(student, cache.held_out, device, ceiling=True))
    pairs = {"small": max(1, args.batch_size // 2), "large": max(1, args.batch_size // 4)}
    streams = {size: cache.stream(size, count, args.seed + step) for size, count in pairs.items()}
    saved = before = time.monotonic()
    sums: dict[str, float] = {}  # the losses since the last line of the log; fewer than --log_every after a resume
    summed = 0
    while (progress := max(step / args.num_train_steps, elapsed / (60 * args.minutes))) < 1:
        share = schedule(step, progress, args)
        for optimizer, rate in zip(optimizers, (args.muon_lr, args.lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * share
        large = random.random() < (args.large_share if progress < LEVEL_SHARE else args.large_share_late)
        batch = {k: v.to(device) for k, v in next(streams["large" if large else "small"]).items()}
        losses = train_step(student, optimizers, batch, args)
        step += 1
        sums = {name: sums.get(name, 0.0) + value for name, value in losses.items()}
        summed += 1
        now = time.monotonic()
        elapsed, before = elapsed + min(now - before, LONGEST_STEP), now
        if step % args.log_every == 0:
            means = {name: value / summed for name, value in sums.items()}
            log(args, step=step, seconds=round(elapsed), progress=progress, lr=args.lr * share, **means)
            sums, summed = {}, 0
        if step % args.eval_every == 0:
            log(args, step=step, **evaluate(student, cache.held_out, device))
        if now - saved > 60 * args.save_minutes:
            save(args.output_path / "last.pt", student, optimizers, args, step=step, elapsed=elapsed)
            saved = now
    save(args.output_path / "last.pt", student, optimizers, args, step=step, elapsed=elapsed)
    log(args, step=step, final=True, **evaluate(student, cache.held_out, device))
    return student


def export(student: Student, args: argparse.Namespace) -> None:
    """Write the ViT alone, float16, timm names; the creation kwargs stand in the file's metadata."""
    kwargs = student_kwargs(args)
    path = args.output_path / "student.safetensors"
    save_tensors(path, student.vit.state_dict(), key=STUDENT_KEY, metadata=kwargs)
    whole, keys = (2e-9 * count for count in macs(student.vit, math.prod(args.large_grid)))
    print(f"wrote {path}, {path.stat().st_size / 1e6:.2f} MB, for VisionTransformer(**{kwargs})")
    print(f"{whole:.2f} GFLOP a frame at {args.large_grid} tokens, {keys:.2f} to the last keys")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--teacher", default="vit_small_patch14_dinov2.lvd142m", help="timm name of the frozen ViT")
    add("--teacher_path", type=Path, required=True, help="its weights, timm names")
    add("--images", type=Path, nargs="+", required=True, help="folders of photos and of clips")
    add("--output_path", type=Path, required=True, help="log, checkpoint and exported student go here")
    add("--cache", type=Path, required=True, help="folder for the teacher's targets, about 45 MB a shard")
    add("--cache_shards", type=int, default=128, help="shards to make; each 80 teacher views of two grids")
    add("--skip_cache", action="store_true", help="train on the shards that are there, make none")
    add("--small_grid", type=int, nargs=2, default=[14, 18], help="token rows and columns of most views")
    add("--large_grid", type=int, nargs=2, default=[20, 35], help="those of the views as at evaluation")
    add("--patch_size", type=int, default=8)
    add("--embed_dim", type=int, default=192)
    add("--depth", type=int, default=5)
    add("--num_heads", type=int, default=3)
    add(
        "--init",
        choices=("selection", "scratch"),
        default="selection",
        help="start from the teacher's weights",
    )
    add("--relation_heads", type=int, default=8, help="heads of the block that will use the keys")
    add("--relation_weight", type=float, default=1.0)
    add("--token_weight", type=float, default=0.5)
    add("--queries", type=int, default=64, help="tokens a pair whose attention is compared")
    add(
        "--large_share",
        type=float,
        default=0.1,
        help="share of steps on the large grid, first 60 %% of the run",
    )
    add("--large_share_late", type=float, default=0.4, help="the same, last 40 %%")
    add("--num_train_steps", type=int, default=6000)
    add("--minutes", type=float, default=math.inf, help="train no longer than this; the schedule ends there")
    add(
        "--batch_size",
        type=int,
        default=16,
        help="views a step on the small grid, half of it on the large one",
    )
    add("--lr", type=float, default=1e-3, help="of AdamW")
    add("--muon_lr", type=float, default=3e-3, help="of Muon, in AdamW's units")
    add("--warmup", type=int, default=100, help="steps")
    add("--weight_decay", type=float, default=0.05)
    add("--seed", type=int, default=0)
    add("--resume_path", type=Path, help="last.pt of an interrupted run")
    add("--log_every", type=int, default=25)
    add("--eval_every", type=int, default=250)
    add("--save_minutes", type=float, default=3.0)
    add("--threads", type=int, default=0, help="CPU threads, 0: all")
    add("--device", default="auto")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    device = choose_device(args.device)
    args.output_path.mkdir(parents=True, exist_ok=True)
    fill_cache(args, device)
    if args.num_train_steps > 0:
        export(train(args, device), args)


if __name__ == "__main__":
    run_main(main)
