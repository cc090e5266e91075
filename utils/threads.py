"""Settle how many threads the numeric libraries use, and how these wait for each other, before one is loaded.

OpenMP, which torch computes with on a CPU, by default lets a thread that is done spin until the others are. Where
another process keeps one of them from its core, the spinning ones take the time that it needs, at every small
operation: ten to sixty times slower beside one busy process. Here they sleep instead.

The libraries read these settings from the environment once, when they are loaded. So importing any package of this
program settles them, and this file imports no library:

    import utils                                # first in a program, before torch, numpy and OpenCV
    eval "$(python utils/threads.py 4)"         # in a launcher of four processes
"""

import math
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

WAITING = {
    "OMP_WAIT_POLICY": "PASSIVE",  # every OpenMP runtime
    "GOMP_SPINCOUNT": "0",  # rounds; libgomp: torch for Linux, scikit-learn
    "KMP_BLOCKTIME": "0",  # milliseconds; libomp and libiomp5: torch for macOS and Windows, and of conda
    "OPENBLAS_THREAD_TIMEOUT": "4",  # 2^4 cycles, the least it takes; numpy and SciPy
    "OPENCV_THREAD_POOL_ACTIVE_WAIT_MAIN": "0",  # rounds
    "OPENCV_THREAD_POOL_ACTIVE_WAIT_WORKER": "0",
}
OPENMP_RUNTIMES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # each would win over OMP_WAIT_POLICY
# Resizing a frame and reading a mask take OpenCV less than waking its threads does.
OPENCV_THREADS = "OPENCV_FOR_THREADS_NUM"
CPU_FOLDER = Path("sys/devices/system/cpu")


def configure_threads() -> None:
    """Put into the environment what `choose_settings` gives; a user's own settings stay."""
    os.environ.update(choose_settings(os.environ))


def choose_settings(environment: Mapping[str, str], *, processes: int | None = None) -> dict[str, str]:
    """The variables that `environment` lacks, for one of `processes` that share the machine.

    processes: if not given, as many as torchrun says in `environment`, otherwise one.
    """
    wanted = dict(WAITING) | {OPENCV_THREADS: "1"}
    if "OMP_WAIT_POLICY" in environment:
        wanted = {name: value for name, value in wanted.items() if name not in OPENMP_RUNTIMES}
    if torchrun_chose(environment):
        environment = {name: value for name, value in environment.items() if name != "OMP_NUM_THREADS"}
    processes = processes or count_processes(environment)
    if hasattr(os, "sched_getaffinity") or processes > 1:  # elsewhere torch knows better which cores to use
        wanted["OMP_NUM_THREADS"] = str(max(count_cores() // processes, 1))
    return {name: value for name, value in wanted.items() if name not in environment}


def count_processes(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes torchrun has started on this machine, which share its cores; one without it."""
    said = environment.get("LOCAL_WORLD_SIZE", "")
    return max(int(said), 1) if said.isdigit() else 1


def torchrun_chose(environment: Mapping[str, str]) -> bool:
    """Whether torchrun, not the user, set OMP_NUM_THREADS=1 in `environment`, as it does where the user set nothing.

    Where that cannot be found out, as outside Linux, it counts as the user's.
    """
    if environment.get("OMP_NUM_THREADS") != "1" or "TORCHELASTIC_RUN_ID" not in environment:
        return False
    try:  # what torchrun was started with
        given = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return not any(entry.startswith(b"OMP_NUM_THREADS=") for entry in given)


def count_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use, those that show as several CPUs counted once: for threads that compute."""
    seen = {_siblings(root / CPU_FOLDER / f"cpu{number}/topology") or str(number) for number in _allowed()}
    return _within_quota(len(seen), root)


def count_cpus(root: Path = Path("/")) -> int:
    """CPUs that this process may use: for processes with a thread each."""
    return _within_quota(len(_allowed()), root)


def _allowed() -> set[int]:
    """Numbers of the CPUs that the scheduler may put this process on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _siblings(topology: Path) -> str:
    """The CPUs that are one core together, as the kernel writes them; empty where it does not say."""
    return _read(topology / "core_cpus_list") or _read(topology / "thread_siblings_list")


def _within_quota(count: int, root: Path) -> int:
    """`count`, or as many as the control groups' quota of time keeps busy, the last one in part."""
    return max(min([count, *map(math.ceil, _quotas(root))]), 1)


def _quotas(root: Path) -> Iterator[float]:
    """CPUs' worth of time that each control group around this process may use, of either version of Linux's groups."""
    mounted = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        inside = Path(path.lstrip("/"))
        for group in (inside, *inside.parents):  # in a container what is mounted may be the group itself
            if not controllers:
                limit, _, period = _read(mounted / group / "cpu.max").partition(" ")
            elif "cpu" in controllers.split(","):
                limit = _read(mounted / "cpu" / group / "cpu.cfs_quota_us")
                period = _read(mounted / "cpu" / group / "cpu.cfs_period_us")
            else:
                continue
            if limit.isdigit() and period.isdigit() and int(limit) and int(period):  # neither "max" nor "-1"
                yield int(limit) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


if __name__ == "__main__":
    for name, value in choose_settings(os.environ, processes=int(sys.argv[1])).items():
        print(f"export {name}={value}")
