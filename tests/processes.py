"""Start the programs in other processes: forked after the slow imports, as ranks of a group, or by a launcher."""

import importlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from utils.errors import UserError, run_main
from utils.processes import end_processes, end_with_parent
from utils.run.signals import block_stop_signals

ROOT = Path(__file__).resolve().parents[1]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
SECONDS = 200  # that a program may take to end on a busy machine

# A server imports the programs once and forks for each process that is asked for. It has never computed a gradient;
# after that, torch refuses to compute one in a forked process.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["train", "eval", "utils.scoring.__main__", "tests.conftest"])

STARTED: list[BaseProcess] = []


def start_program(
    program: str, *arguments, stderr: Path, prepare: Callable[[], None] | None = None, **environment: str
) -> BaseProcess:
    """Start `main` of a program in a forked process, after `prepare`; its messages go to the file `stderr`, what it
    prints to the file of that name and `.out`.

    program: a module, such as "train". The process leads a session, so that what it starts can be found and killed.
    """
    process = FORKED.Process(target=_run, args=(program, [*map(str, arguments)], stderr, prepare, environment))
    process.start()
    STARTED.append(process)
    return process


def kill_started() -> None:
    """Kill the processes that a test has left behind, and what they have started."""
    while STARTED:
        process = STARTED.pop()
        process.kill()
        kill_group(process.pid)
        process.join()


def kill_session(leader: int) -> int:
    """Kill what is left of a session where the system lists it, and return the number of processes."""
    left = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                os.kill(int(stat.parent.name), signal.SIGKILL)
                left += 1
        except OSError:  # it has ended
            continue
    return left


def _run(
    program: str, arguments: list[str], stderr: Path, prepare: Callable[[], None] | None, environment: dict[str, str]
) -> None:
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # the program's own processes are started as always
    for stream, path in ((1, f"{stderr}.out"), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.environ.update(environment)
    if prepare is not None:
        prepare()
    sys.argv = [f"{program}.py", *arguments]
    run_main(importlib.import_module(program).main, lower="--lower")


def start_ranks(program: str, *arguments, folder: Path, prepare: Callable[[], None] | None = None) -> list[BaseProcess]:
    """Start `main` of a program in two processes that form a group; their messages go to folder/rank0 and rank1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    own = [group | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [
        start_program(program, *arguments, stderr=folder / f"rank{rank}", prepare=prepare, **environment)
        for rank, environment in enumerate(own)
    ]


def run_ranks(program: str, *arguments, folder: Path) -> None:
    """Run `main` of a program in two processes that form a group, as torchrun starts them, to a successful end."""
    for rank, process in enumerate(start_ranks(program, *arguments, folder=folder)):
        assert end(process) == 0, (folder / f"rank{rank}").read_text()


def run_in_own_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return `work(*arguments)`, computed in a new process, so that its peak memory can be measured.

    The process imports the main program, in which benchmarks define their work.
    """
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent)
    with end_processes(pool):
        with block_stop_signals():
            future = pool.submit(work, *arguments)
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise UserError("a measurement was ended from outside, mostly for want of memory; use a smaller setting"
                            ) from error  # fmt: skip


def end(process: BaseProcess) -> int:
    """Wait until a process ends, at most SECONDS, and return its exit code."""
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"{process} did not end within {SECONDS} s")
    return process.exitcode


def wait_for(path: Path, process: BaseProcess | subprocess.Popen) -> None:
    """Wait until a process has written a file."""
    deadline = time.monotonic() + SECONDS
    while not path.exists():
        running = process.is_alive() if isinstance(process, BaseProcess) else process.poll() is None
        assert running, f"{process} ended without {path}"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def pretend_gpus(count: int, folder: Path) -> str:
    """Write an `nvidia-smi` that lists `count` GPUs, and return a PATH on which it and this interpreter come first."""
    program = folder / "bin/nvidia-smi"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nfor gpu in $(seq {count}); do echo "GPU $gpu: H200 (UUID: GPU-$gpu)"; done\n')
    program.chmod(0o755)
    return f"{program.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"


def launch(script: str, *arguments, cwd: Path) -> subprocess.CompletedProcess:
    """Run a launcher as a user does: in a shell, with this interpreter first on the PATH and no GPU."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": ""}
    command = ["bash", str(ROOT / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=cwd, env=environment)


def kill_group(leader: int) -> bool:
    """Kill what is left of a process group; return whether there was anything."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
