"""Everything that depends on the kind of device: choice, precision, synchronisation, memory."""

import contextlib
import os
import re
import resource
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from utils.distributed import started_by_torchrun
from utils.errors import UserError
from utils.flags.choices import AUTO

AMP_DTYPES = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}
CPU_FEATURES = Path("/proc/cpuinfo")  # on Linux; only some releases of torch tell them
BF16_FEATURES = {"avx512_bf16", "amx_bf16", "bf16"}  # the last on ARM


def choose_device(name: str = AUTO) -> torch.device:
    """Choose the CPU or a GPU by the value of --device.

    `auto` is this process's GPU (LOCAL_RANK under torchrun) if there is one, otherwise the CPU.

    Raises:
        UserError: the device is of another kind or does not exist, or several processes would share it.
    """
    if name not in (AUTO, "cpu", "cuda") and not re.fullmatch(r"cuda:\d{1,4}", name):
        raise UserError(f"--device {name}: only the CPU and CUDA GPUs are supported; give auto, cpu, cuda or cuda:0")
    if name.startswith("cuda:") and started_by_torchrun():
        raise UserError(f"--device {name}: several processes cannot share it; give --device cuda, or one process")
    if name == "cpu" or (name == AUTO and not torch.cuda.is_available()):
        return torch.device("cpu")
    index = int(name[5:]) if name.startswith("cuda:") else int(os.environ.get("LOCAL_RANK", 0))
    count = torch.cuda.device_count()
    if count == 0:
        raise UserError(f"--device {name}: PyTorch finds no GPU here; give --device cpu")
    if index >= count:
        raise UserError(f"--device {name}: GPU {index} is wanted of {count}, counted from 0; give cuda:0 to "
                        f"cuda:{count - 1}, and with torchrun at most {count} processes")  # fmt: skip
    device = torch.device("cuda", index)
    try:
        torch.empty(1, device=device)
    except RuntimeError as error:
        raise UserError(f"--device {name}: GPU {index} cannot be used, it may be full or taken; "
                        "see nvidia-smi, or give another or --device cpu") from error  # fmt: skip
    torch.cuda.set_device(device)
    return device


def choose_amp(name: str, device: torch.device) -> str:
    """Choose the precision by the value of --amp, a key of `AMP_DTYPES` or `auto`.

    `auto` is bf16 where the device has instructions for it, otherwise none: without them bf16 is slower than float32.
    """
    if name != AUTO:
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "none"
    try:
        features = CPU_FEATURES.read_text().split()
    except OSError:  # another system
        return "none"
    return "none" if BF16_FEATURES.isdisjoint(features) else "bf16"


def autocast(device: torch.device, amp: str) -> AbstractContextManager:
    """Return the context of mixed precision for a value of --amp, a key of `AMP_DTYPES`."""
    dtype = AMP_DTYPES[amp]
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all its work, so that time measurements are right."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_gb(device: torch.device) -> float:
    """Return the peak memory of this process in GB (1e9 bytes): of the GPU's allocator, or resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
