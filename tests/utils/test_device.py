"""Which device is chosen, and what is said where it cannot be."""

import pytest
import torch

from utils import device
from utils.device import choose_amp, choose_device
from utils.errors import UserError


@pytest.fixture
def gpus(monkeypatch):
    """Let torch count that many GPUs that cannot be used: `gpus(2)`."""
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)

    def pretend(count: int) -> None:
        def refuse(*_, **__):
            raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported ...")

        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch, "empty", refuse)

    return pretend


@pytest.mark.parametrize("name", ["mps", "xla", "meta", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cpu:7", ""])
def test_other_devices_are_refused(name, gpus):
    gpus(2)
    with pytest.raises(UserError, match="^--device .*give auto, cpu, cuda or cuda:0$") as caught:
        choose_device(name)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("count", "name", "message"),
    [
        (0, "cuda", "--device cuda: .*no GPU.*give --device cpu"),
        (0, "cuda:9", "--device cuda:9: .*no GPU.*give --device cpu"),
        (2, "cuda:9", "--device cuda:9: GPU 9 .*give cuda:0 to cuda:1"),
        (2, "cuda:1", "--device cuda:1: GPU 1 cannot be used"),
        (1, "auto", "--device auto: GPU 0 cannot be used"),
    ],
)
def test_gpus_that_are_not_there_or_cannot_be_used(count, name, message, gpus):
    gpus(count)
    with pytest.raises(UserError, match=message) as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)
    assert "CUDA error" not in str(caught.value)


def test_more_processes_than_gpus(gpus, monkeypatch):
    gpus(2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="GPU 2 is wanted of 2.*at most 2 processes"):
        choose_device("auto")


def test_the_cpu(gpus):
    gpus(0)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("features", "chosen"),
    [
        ("flags : fpu avx2 fma avx512f avx512_bf16 sse4_2", "bf16"),
        ("flags : fpu avx512f amx_bf16 amx_tile", "bf16"),
        ("flags : fpu avx2 fma avx512f avx512_bf16_not", "none"),
        (None, "none"),
    ],
)
def test_auto_precision_is_bf16_where_the_processor_has_instructions_for_it(tmp_path, monkeypatch, features, chosen):
    if features is not None:
        (tmp_path / "cpuinfo").write_text(features)
    monkeypatch.setattr(device, "CPU_FEATURES", tmp_path / "cpuinfo")
    assert choose_amp("auto", torch.device("cpu")) == chosen
    assert choose_amp("fp16", torch.device("cpu")) == "fp16"


@pytest.mark.parametrize(("emulated", "chosen"), [(False, "bf16"), (True, "none")])
def test_auto_precision_of_a_gpu(monkeypatch, emulated, chosen):
    supported = lambda including_emulation=True: including_emulation or not emulated  # noqa: E731
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert choose_amp("auto", torch.device("cuda")) == chosen
