"""Reuse the memory of working tensors from one window to the next."""

import math
import threading

import torch
from torch import Tensor


class Scratch:
    """Provide uninitialised tensors by name; the same name gives the same memory, enlarged if it is too small.

    On a CPU the memory of large new tensors comes from the system page by page, which takes longer than the arithmetic
    on them. Each thread has memory of its own.
    """

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def __call__(self, name: str, shape: tuple[int, ...], *, like: Tensor) -> Tensor:
        """Return a tensor of `shape`, type and device as `like`, valid until this thread's next call by name."""
        all_held = self._of_thread.__dict__
        size = math.prod(shape)
        held = all_held.get(name)
        if held is None or held.numel() < size or held.dtype != like.dtype or held.device != like.device:
            held = all_held[name] = torch.empty(size, dtype=like.dtype, device=like.device)
        return held[:size].view(shape)
