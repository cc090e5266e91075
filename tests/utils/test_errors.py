"""Errors of the system and lack of memory are told from bugs and said in one line."""

import numpy as np
import pytest

from utils.errors import is_out_of_memory, run_main


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        OSError("out of memory when reading image file"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 12 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("unable to mmap 88884960 bytes from file <last.pt>: Cannot allocate memory (12)"),
        RuntimeError("could not create a memory object"),
    ],
)
def test_how_libraries_say_that_memory_ran_out(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [ValueError("out of memory"), OSError(28, "No space"), RuntimeError("size mismatch")])
def test_other_errors_are_no_lack_of_memory(error):
    assert not is_out_of_memory(error)


def test_opencv_says_so_too():
    import cv2

    with pytest.raises(cv2.error) as failed:
        cv2.resize(np.zeros((2, 2), np.uint8), (1 << 30, 1 << 30))
    assert is_out_of_memory(failed.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("can't start new thread"), "no more processes or threads"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "no more processes or threads"),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:1"), "another process"),
    ],
)
def test_lack_of_other_resources_is_one_line(error, words, capsys):
    def fail():
        raise error

    with pytest.raises(SystemExit) as ended:
        run_main(fail, lower="--num_workers")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {words}")
