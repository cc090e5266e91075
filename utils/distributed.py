"""Communication between the processes that torchrun starts; without torchrun every function does nothing."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any

from utils.errors import UserError

if TYPE_CHECKING:  # slow to import, and scoring does without
    import torch
    from torch import Tensor


def _group() -> ModuleType | None:
    """Return torch.distributed if this process has joined a group, otherwise None."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist is not None and dist.is_available() and dist.is_initialized() else None


def started_by_torchrun() -> bool:
    """Tell whether torchrun started several processes: it sets WORLD_SIZE and RANK, schedulers may set one alone.

    Raises:
        UserError: both are set and one is no whole number.
    """
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ and _read_number("WORLD_SIZE") > 1


def _read_number(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        raise UserError(f"{name}={os.environ[name]}: no number in the environment; start with torchrun, "
                        f"or unset {name}") from None  # fmt: skip


@contextmanager
def join_group(device: "torch.device | None" = None) -> Iterator[None]:
    """Join the group of processes that torchrun describes in the environment, and leave it at the end.

    GPUs use nccl with a timeout of two hours, since one process may take that much longer to compute its features.
    Processes on the CPU, or that only wait for each other (`device` None), use gloo with a timeout of a week, since one
    may have a long video when the others are done.
    """
    if started_by_torchrun():
        _read_number("RANK")
        import torch.distributed as dist

        if device is not None and device.type == "cuda":
            dist.init_process_group("nccl", timeout=timedelta(hours=2))
        else:
            dist.init_process_group("gloo", timeout=timedelta(days=7))
    try:
        yield
    finally:
        if dist := _group():
            dist.destroy_process_group()


def rank() -> int:
    """Return this process's number; before `join_group` the one that torchrun set."""
    if dist := _group():
        return dist.get_rank()
    return _read_number("RANK") if started_by_torchrun() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if (dist := _group()) else 1


def is_main() -> bool:
    """Tell whether this is the process that prints and writes shared files."""
    return rank() == 0


def barrier() -> None:
    """Wait until all processes have called this."""
    if dist := _group():
        dist.barrier()


def gather(value: Any) -> list[Any]:
    """Collect a picklable value of every process, in the order of ranks."""
    if not (dist := _group()):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def check_same(value: Any, what: str) -> None:
    """Raise `UserError` if the processes have different values of `what`."""
    values = gather(value)
    if len(set(values)) > 1:
        raise UserError(f"{what} differ: {values}; --output_path must be on a disk that all of them share")


def divide_by_cost(costs: Sequence[float], parts: int) -> list[list[int]]:
    """Divide items into `parts` of about the same total cost; return the indices of each part.

    The most expensive items are placed first, each in the part with the lowest cost so far.
    """
    by_cost = sorted(range(len(costs)), key=lambda index: -costs[index])
    loads, found = [0.0] * parts, [[] for _ in range(parts)]
    for index in by_cost:
        least = loads.index(min(loads))
        loads[least] += costs[index]
        found[least].append(index)
    return found


def average_in_place(values: "Iterable[Tensor]") -> None:
    """Replace tensors (gradients, values to log) by their mean over processes, in place and in one message."""
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
    """Return the largest of all processes' values."""
    if not (dist := _group()):
        return value
    import torch

    shared = torch.tensor(float(value), device=device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return shared.item()


def copy_from_main(values: "Iterable[Tensor]") -> None:
    """Copy the main process's tensors to all processes, in place."""
    if dist := _group():
        for value in values:
            dist.broadcast(value.detach(), src=0)
