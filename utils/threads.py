"""Configure how many threads numeric libraries use and how these wait for each other, before a library is loaded.

By default a thread of OpenMP (used by torch on a CPU) that has finished its part spins until the others have. If
another process occupies the core of one of them, the spinning threads waste time at every small operation: one busy
process makes everything ten to sixty times slower. Here waiting threads sleep instead.

Libraries read these settings from the environment once, when they are loaded. So importing any package of this program
configures them, and this file imports no library:

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
    "GOMP_SPINCOUNT": "0",  # rounds; libgomp: torch for Linux
    "KMP_BLOCKTIME": "0",  # milliseconds; libomp and libiomp5: torch for macOS and Windows, and of conda
    "OPENBLAS_THREAD_TIMEOUT": "4",  # 2^4 cycles, the smallest allowed; NumPy and SciPy
    "OPENCV_THREAD_POOL_ACTIVE_WAIT_MAIN": "0",  # rounds
    "OPENCV_THREAD_POOL_ACTIVE_WAIT_WORKER": "0",
}
OPENMP_RUNTIMES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # each overrides OMP_WAIT_POLICY
# Number of OpenCV's threads: resizing a frame or reading a mask takes less time than waking several.
OPENCV_THREADS = "OPENCV_FOR_THREADS_NUM"
CPU_FOLDER = Path("sys/devices/system/cpu")


def configure_threads() -> None:
    """Set the environment variables of `choose_settings`; those that the user set are not changed."""
    os.environ.update(choose_settings(os.environ))


def choose_settings(environment: Mapping[str, str], *, processes: int | None = None) -> dict[str, str]:
    """Choose the variables that `environment` lacks.

    Args:
        processes: number of processes that share the machine; if not given, torchrun's number, otherwise one.
    """
    wanted = dict(WAITING) | {OPENCV_THREADS: "1"}
    if "OMP_WAIT_POLICY" in environment:
        wanted = {name: value for name, value in wanted.items() if name not in OPENMP_RUNTIMES}
    if torchrun_chose(environment):
        environment = {name: value for name, value in environment.items() if name != "OMP_NUM_THREADS"}
    processes = processes or count_processes(environment)
    if hasattr(os, "sched_getaffinity") or processes > 1:  # on other systems torch chooses the cores itself
        wanted["OMP_NUM_THREADS"] = str(max(count_cores() // processes, 1))
    return {name: value for name, value in wanted.items() if name not in environment}


def count_processes(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of processes that torchrun started on this machine; one without torchrun."""
    said = environment.get("LOCAL_WORLD_SIZE", "")
    return max(int(said), 1) if said.isdigit() else 1


def torchrun_chose(environment: Mapping[str, str]) -> bool:
    """Tell whether torchrun set OMP_NUM_THREADS=1 in `environment`, which it does if the user set nothing.

    If this cannot be found out, as on other systems than Linux, the user is assumed to have set it.
    """
    if environment.get("OMP_NUM_THREADS") != "1" or "TORCHELASTIC_RUN_ID" not in environment:
        return False
    try:  # the environment in which torchrun was started
        given = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return not any(entry.startswith(b"OMP_NUM_THREADS=") for entry in given)


def count_cores(root: Path = Path("/")) -> int:
    """Count the cores that this process may use, hyper-threads once. For the number of computing threads."""
    seen = {_siblings(root / CPU_FOLDER / f"cpu{number}/topology") or str(number) for number in _allowed()}
    return _within_quota(len(seen), root)


def count_cpus(root: Path = Path("/")) -> int:
    """Count the CPUs that this process may use, hyper-threads too. For the number of processes with one thread each."""
    return _within_quota(len(_allowed()), root)


def _allowed() -> set[int]:
    """Return the numbers of the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _siblings(topology: Path) -> str:
    """Read which CPUs form one core, in the kernel's notation; empty if it is unknown."""
    return _read(topology / "core_cpus_list") or _read(topology / "thread_siblings_list")


def _within_quota(count: int, root: Path) -> int:
    """Limit `count` to the number of CPUs, rounded up, that the quotas of control groups allow."""
    return max(min([count, *map(math.ceil, _quotas(root))]), 1)


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quota, in CPUs, of each control group of this process; versions 1 and 2 of Linux's control groups."""
    mounted = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        inside = Path(path.lstrip("/"))
        for group in (inside, *inside.parents):  # in a container the group itself may be mounted
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
