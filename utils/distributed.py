"""Several processes with the same command line: everything is a no-op without torchrun."""

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any

from utils.errors import UserError

if TYPE_CHECKING:  # slow to import, and scoring does without
    import torch
    from torch import Tensor


def _group() -> ModuleType | None:
    """torch.distributed where this process has joined others."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist is not None and dist.is_available() and dist.is_initialized() else None


def _started_by_torchrun() -> bool:
    """Whether torchrun tells of other processes; a RANK alone, as schedulers leave in the environment, does not."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def start(device: "torch.device | None" = None) -> None:
    """Join the process group that torchrun announces in the environment.

    Between GPUs by nccl, which gives up on a process after two hours: one may be that much later when it has made its
    share of features to keep. Where processes only wait for each other (`device` None) or compute on the CPU, by gloo,
    and for as long as it takes: one may have a long video when the others are done.
    """
    if _started_by_torchrun():
        import torch.distributed as dist

        if device is not None and device.type == "cuda":
            dist.init_process_group("nccl", timeout=timedelta(hours=2))
        else:
            dist.init_process_group("gloo", timeout=timedelta(days=7))


def stop() -> None:
    if dist := _group():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number; before it has joined the others, the one that torchrun gave it."""
    if dist := _group():
        return dist.get_rank()
    return int(os.environ.get("RANK", 0)) if _started_by_torchrun() else 0


def world_size() -> int:
    return dist.get_world_size() if (dist := _group()) else 1


def is_main() -> bool:
    return rank() == 0


def barrier() -> None:
    if dist := _group():
        dist.barrier()


def gather(value: Any) -> list[Any]:
    """The value of every process, in the order of their ranks; a plain picklable value."""
    if not (dist := _group()):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def check_same(value: Any, what: str) -> None:
    """Raises `UserError` where the processes have different values of `what`."""
    values = gather(value)
    if len(set(values)) > 1:
        raise UserError(f"{what} differ: {values}; --output_path must be on a disk that all of them share")


def divide_by_cost(costs: Sequence[float], parts: int) -> list[list[int]]:
    """Indices of items shared out in `parts` of about the same cost: the dearest first, each to who has least to do."""
    dearest = sorted(range(len(costs)), key=lambda index: -costs[index])
    loads, found = [0.0] * parts, [[] for _ in range(parts)]
    for index in dearest:
        least = loads.index(min(loads))
        loads[least] += costs[index]
        found[least].append(index)
    return found


def average_in_place(values: "Iterable[Tensor]") -> None:
    """Replace tensors in place by their mean over processes, in one message: gradients, or values to log."""
    values = list(values)
    if not (dist := _group()) or not values:
        return
    import torch

    flat = torch.cat([value.detach().flatten().float() for value in values])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for value, mean in zip(values, flat.split([value.numel() for value in values]), strict=True):
        value.copy_(mean.view_as(value))


def find_largest(value: float, device: "torch.device") -> float:
    """The largest of all processes' values."""
    if not (dist := _group()):
        return value
    import torch

    shared = torch.tensor(float(value), device=device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return shared.item()


def copy_from_main(values: "Iterable[Tensor]") -> None:
    """Give every process the main one's values, in place."""
    if dist := _group():
        for value in values:
            dist.broadcast(value.detach(), src=0)
