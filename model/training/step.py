"""Take one optimizer step of the block: losses, optimizer, schedule, seeds (docs/method.md, section 3)."""

import argparse
import math
from collections import defaultdict

import numpy as np
import torch
from torch import Tensor, nn

from model.losses import attention_entropy, motion_loss, semantic_loss
from model.network import SpatioTemporalNetwork
from utils import distributed
from utils.device import autocast
from utils.errors import UserError

NOT_FINITE_MEND = "lower --lr or use --amp none, and resume from the last checkpoint if there is one"


def train_step(
    args: argparse.Namespace,
    network: SpatioTemporalNetwork,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batches: list[Tensor],
    *,
    step: int,
) -> dict[str, float]:
    """Take one optimizer step over the forward passes of several batches.

    All random numbers are drawn from (seed, step, rank), so that a resumed run repeats an uninterrupted one.

    Args:
        batches: frames (B, T, 3, H, W) uint8 each.
        step: number of the step, from 0.

    Returns:
        Losses and other values to log, averaged over all processes.

    Raises:
        UserError: the loss, or without a scaler the gradient, is not finite.
    """
    device = next(network.parameters()).device
    network.train()
    torch.manual_seed(seed_of(args.seed, step, 1 + distributed.rank()))
    height, width = network.backbone.grid_size(*args.resolution)
    same_everywhere = torch.Generator().manual_seed(seed_of(args.seed, step, 0))
    sample = torch.randperm(height * width, generator=same_everywhere)[: args.num_queries].to(device)
    totals: dict[str, float] = defaultdict(float)
    for frames in batches:
        losses = _losses(args, network, frames.to(device, non_blocking=True), sample)
        if not torch.isfinite(losses["loss"]):
            semantic, motion = losses["loss_semantic"], losses["loss_motion"]
            raise UserError(f"step {step + 1}: the loss is not finite (semantic {semantic:.4g}, motion {motion:.4g}); "
                            f"{NOT_FINITE_MEND}")  # fmt: skip
        scaler.scale(losses["loss"] / len(batches)).backward()
        for name, value in losses.items():
            totals[name] += value.item() / len(batches)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    _average(parameters, totals)
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(parameters, args.clip_grad).item()
    if math.isfinite(norm):
        totals["grad_norm"] = norm
    elif not scaler.is_enabled():  # a scaler leaves the step out and lowers its scale
        raise UserError(f"step {step + 1}: the gradient is not finite; {NOT_FINITE_MEND}")
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return totals


def _losses(
    args: argparse.Namespace, network: SpatioTemporalNetwork, frames: Tensor, sample: Tensor
) -> dict[str, Tensor]:
    """Compute the scalars `loss`, its two parts and the entropy of the attention; `frames` as in `train_step`."""
    with autocast(frames.device, args.amp):
        tokens, attn = network(frames)
    tokens, attn = tokens.float(), attn.float()
    semantic = semantic_loss(attn, tokens, sample)
    motion = motion_loss(attn, sample, num_frames=args.num_frames)
    loss = args.semantic_weight * semantic + args.motion_weight * motion
    entropy = attention_entropy(attn, sample, num_frames=args.num_frames)
    return {"loss": loss, "loss_semantic": semantic, "loss_motion": motion, "attention_entropy": entropy}


def _average(parameters: list[nn.Parameter], totals: dict[str, float]) -> None:
    """Replace gradients and values to log by their means over processes, in one message."""
    if distributed.world_size() == 1:
        return
    logged = torch.tensor(list(totals.values()), device=parameters[0].device)
    distributed.average_in_place([*(p.grad for p in parameters), logged])
    totals.update(zip(totals, logged.tolist(), strict=True))


def make_optimizer(network: SpatioTemporalNetwork, *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Build AdamW for the blocks, fused where torch supports it; weight decay on matrices only."""
    parameters = list(network.blocks.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, fused=parameters[0].device.type in ("cpu", "cuda"))


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, args: argparse.Namespace) -> float:
    """Set the `learning_rate` of a step for all parameters and return it."""
    rate = learning_rate(step, args)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def learning_rate(step: int, args: argparse.Namespace) -> float:
    """Compute the learning rate of a step: linear warm-up, then a cosine from --lr to --min_lr."""
    if step < args.warmup_steps:
        return args.lr * (step + 1) / args.warmup_steps
    progress = (step - args.warmup_steps) / max(args.num_train_steps - args.warmup_steps, 1)
    return args.min_lr + (args.lr - args.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def clips_per_step(args: argparse.Namespace) -> int:
    """Count the clips of an optimizer step over all processes."""
    return args.batch_size * args.accumulate * distributed.world_size()


def seed_of(*numbers: int) -> int:
    """Derive one 63-bit seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1
