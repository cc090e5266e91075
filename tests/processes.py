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
from multiprocessing.process import BaseProcess
from pathlib import Path

from utils.errors import run_main

ROOT = Path(__file__).resolve().parents[1]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
SECONDS = 200  # that a program may take to end on a busy machine

# A server imports the programs once and forks for each process that is asked for. It has never computed a gradient;
# after that, torch refuses to compute one in a forked process.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["train", "eval"])


STARTED: list[BaseProcess] = []


def start_program(
    program: str, *arguments, stderr: Path, prepare: Callable[[], None] | None = None, **environment: str
) -> BaseProcess:
    """Start `main` of train or eval in a forked process, after `prepare`; its messages go to the file `stderr`."""
    process = FORKED.Process(target=_run, args=(program, [*map(str, arguments)], stderr, prepare, environment))
    process.start()
    STARTED.append(process)
    return process


def kill_started() -> None:
    """Kill the processes that a test has left behind."""
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.join()


def _run(
    program: str, arguments: list[str], stderr: Path, prepare: Callable[[], None] | None, environment: dict[str, str]
) -> None:
    multiprocessing.set_start_method(None, force=True)  # the program's own processes are started as always
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.environ.update(environment)
    if prepare is not None:
        prepare()
    sys.argv = [f"{program}.py", *arguments]
    run_main(importlib.import_module(program).main)


def start_ranks(program: str, *arguments, folder: Path, prepare: Callable[[], None] | None = None) -> list[BaseProcess]:
    """Start `main` of train or eval in two processes that form a group; their messages go to folder/rank0 and rank1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    own = [group | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [
        start_program(program, *arguments, stderr=folder / f"rank{rank}", prepare=prepare, **environment)
        for rank, environment in enumerate(own)
    ]


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


def launch(script: str, *arguments, cwd: Path) -> subprocess.CompletedProcess:
    """Run a launcher as a user does: in a shell, with this interpreter first on the PATH and no GPU."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": ""}
    command = ["bash", str(ROOT / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=cwd, env=environment)


def torchrun(program: str, *arguments) -> None:
    """Run train.py or eval.py in two processes that torchrun starts."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, str(ROOT / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment)
    assert done.returncode == 0, done.stderr


def kill_group(leader: int) -> bool:
    """Kill what is left of a process group; return whether there was anything."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
