"""Take one optimizer step of the block: losses, optimizer, schedule, seeds (docs/method.md, section 3)."""

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from model.losses import attention_entropy, motion_loss, object_loss, semantic_loss
from model.network import SpatioTemporalNetwork
from model.training.targets import ClipTargets
from utils import distributed
from utils.device import autocast
from utils.errors import UserError

OBJECT_QUERIES = 256  # tokens of a clip that the object loss is computed at
NOT_FINITE_MEND = "lower --lr or use --amp none, and resume from the last checkpoint if there is one"


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What the steps of a training run depend on beside its clips and weights. Fields are named as the flags are.

    resolution: (height, width) of the clips in pixels. num_frames: frames of a clip (T).
    batch_size: clips per process and forward pass. accumulate: forward passes per step.
    num_train_steps: steps of the run. lr, min_lr: learning rate at its start and end.
    weight_decay: on matrices. clip_grad: largest norm of the gradient.
    semantic_weight, motion_weight: of the two losses. num_queries: token positions per step that both losses use.
    amp: precision of the network, a key of `utils.device.AMP_DTYPES`. seed: of everything random.
    """

    resolution: tuple[int, int]
    num_frames: int
    batch_size: int
    accumulate: int
    num_train_steps: int
    lr: float
    min_lr: float
    weight_decay: float
    clip_grad: float
    semantic_weight: float
    motion_weight: float
    num_queries: int
    amp: str
    seed: int


def train_step(
    network: SpatioTemporalNetwork,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batches: list[Tensor],
    *,
    step: int,
    settings: TrainSettings,
    targets: list[list[ClipTargets]] | None = None,
) -> dict[str, float]:
    """Take one optimizer step over one or more batches of clips.

    All randomness derives from (seed, step, rank), so that a resumed run repeats the steps of an uninterrupted run.

    Args:
        batches: frames (B, T, 3, H, W) uint8 of each forward pass; their gradients are averaged.
        step: steps done before this one.
        targets: of the clips of each batch; None without the object loss.

    Returns:
        Values to log by name: losses, entropy of the attention, gradient norm; means over all processes.

    Raises:
        UserError: a loss or a gradient is not finite.
    """
    device = next(network.parameters()).device
    network.train()
    torch.manual_seed(seed_of(settings.seed, step, 1 + distributed.rank()))
    height, width = network.backbone.grid_size(*settings.resolution)
    same_everywhere = torch.Generator().manual_seed(seed_of(settings.seed, step, 0))
    queries = torch.randperm(height * width, generator=same_everywhere)[: settings.num_queries].to(device)
    rng = np.random.default_rng((settings.seed, step, distributed.rank()))
    totals: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=device))
    for frames, clips in zip(batches, targets or [None] * len(batches), strict=True):
        losses = compute_losses(
            network, frames.to(device, non_blocking=True), queries, settings, targets=clips, rng=rng
        )
        scaler.scale(losses["loss"] / len(batches)).backward()
        for name, value in losses.items():
            totals[name] = totals[name] + value.detach() / len(batches)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    distributed.average_in_place([*(p.grad for p in parameters), *totals.values()])
    scaler.unscale_(optimizer)
    totals["grad_norm"] = nn.utils.clip_grad_norm_(parameters, settings.clip_grad)
    values = dict(zip(totals, torch.stack(list(totals.values())).tolist(), strict=True))  # a GPU is waited for once
    if not math.isfinite(values["loss"]):
        parts = (f"{name.removeprefix('loss_')} {value:.4g}" for name, value in values.items() if "loss_" in name)
        raise UserError(f"step {step + 1}: the loss is not finite ({', '.join(parts)}); {NOT_FINITE_MEND}")
    if not math.isfinite(values["grad_norm"]):
        if not scaler.is_enabled():  # a scaler leaves the step out and lowers its scale
            raise UserError(f"step {step + 1}: the gradient is not finite; {NOT_FINITE_MEND}")
        del values["grad_norm"]
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return values


def compute_losses(
    network: SpatioTemporalNetwork, frames: Tensor, queries: Tensor, settings: TrainSettings, *,
    targets: list[ClipTargets] | None = None, rng: np.random.Generator | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Compute the losses of a batch of clips.

    Args:
        frames: (B, T, 3, H, W) uint8.
        queries: (n,) token positions within a frame that the paper's two losses use.
        targets: of each clip, for the object loss; None to leave it out.
        rng: draws the queries of the object loss.

    Returns:
        Scalars: `loss`, its parts `loss_semantic`, `loss_motion` and, with targets, `loss_object`, and the
        `attention_entropy`.
    """
    with autocast(frames.device, settings.amp):
        tokens, attn = network(frames)
    tokens, attn = tokens.float(), attn.float()
    semantic = semantic_loss(attn, tokens, queries)
    motion = motion_loss(attn, queries, num_frames=settings.num_frames)
    loss = settings.semantic_weight * semantic + settings.motion_weight * motion
    parts = {"loss_semantic": semantic, "loss_motion": motion}
    if targets is not None:
        parts["loss_object"] = compute_object_loss(attn, targets, rng)
        loss = loss + parts["loss_object"]
    return {
        "loss": loss,
        **parts,
        "attention_entropy": attention_entropy(attn, queries, num_frames=settings.num_frames),
    }


def compute_object_loss(attn: Tensor, targets: list[ClipTargets], rng: np.random.Generator) -> Tensor:
    """Average the object loss over clips, at up to `OBJECT_QUERIES` tokens of each: attn (B, T*N, T*N) -> scalar."""
    losses = []
    for rows, clip in zip(attn, targets, strict=True):
        queries = clip.draw_queries(OBJECT_QUERIES, rng)
        same, different = (mask.to(attn.device) for mask in clip.compare(queries))
        losses.append(object_loss(rows[torch.from_numpy(queries).to(attn.device)], same, different))
    return torch.stack(losses).mean()


def make_optimizer(network: SpatioTemporalNetwork, *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Make AdamW for the blocks, with weight decay on matrices only; fused where torch has a fused AdamW."""
    parameters = list(network.blocks.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, fused=parameters[0].device.type in ("cpu", "cuda"))


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, settings: TrainSettings) -> float:
    """Set the learning rate of a step for all parameters, and return it."""
    rate = learning_rate(step, settings)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Compute the learning rate of a step: a cosine from `lr` down to `min_lr`, or `lr` throughout if that is lower."""
    progress, end = step / max(settings.num_train_steps, 1), min(settings.min_lr, settings.lr)
    return end + (settings.lr - end) * 0.5 * (1 + math.cos(math.pi * progress))


def clips_per_step(settings: TrainSettings) -> int:
    """Count the clips of an optimizer step over all processes."""
    return settings.batch_size * settings.accumulate * distributed.world_size()


def seed_of(*numbers: int) -> int:
    """Derive one 63-bit seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1
