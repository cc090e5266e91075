"""How threads work is settled before a library that has threads is loaded; how many there are follows the cores."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import pretend_gpus
from utils import threads

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_LIBRARIES = {"utils/requirements.py", "utils/threads.py"}
SOURCES = [
    path
    for pattern in ("*.py", "data/**/*.py", "model/**/*.py", "utils/**/*.py", "tests/benchmarks/*.py")
    for path in ROOT.glob(pattern)
]
NAMES = (path.relative_to(ROOT).as_posix() for path in SOURCES if 'if __name__ == "__main__"' in path.read_text())
PROGRAMS = sorted(set(NAMES) - WITHOUT_LIBRARIES)
# Arguments without which a program is refused before it loads a library.
NEEDED = {
    "data/export.py": ["x", "--format", "coco", "--output_path", "x"],
    "utils/compare.py": ["x", "y"],
    "utils/export.py": ["--checkpoint", "x", "--output_path", "x"],
    "utils/report/__main__.py": ["--results", "x"],
    "utils/scoring/__main__.py": ["--results", "x", "--davis_path", "x"],
    "utils/summary.py": ["--results", "x"],
    "utils/visual.py": ["--results", "x", "--picture", "x.png"],
}
# Runs a program up to the first library with threads, and prints the environment that this is loaded in.
UP_TO_A_LIBRARY = """
import json, os, runpy, sys
class Stop:
    def find_spec(self, name, *_):
        if name in ("torch", "numpy", "cv2", "scipy", "sklearn", "timm", "torchvision"):
            print(json.dumps(dict(os.environ)), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Stop())
sys.path.insert(0, "")
name = sys.argv.pop(1)
if "/" in name:
    runpy.run_module(name.removesuffix(".py").replace("/", "."), run_name="__main__")
else:
    runpy.run_path(name, run_name="__main__")
"""


def bare(**settings):
    """The environment without anything that settles threads, but for `settings`."""
    names = (*threads.WAITING, threads.OPENCV_THREADS, "OMP_NUM_THREADS", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID")
    return {name: value for name, value in os.environ.items() if name not in names} | settings


def run(*command, timeout=120, **settings):
    done = subprocess.run(command, cwd=ROOT, env=bare(**settings), capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done


def environment_of(program, **settings):
    return json.loads(run(sys.executable, "-c", UP_TO_A_LIBRARY, program, *NEEDED.get(program, []), **settings).stdout)


def test_there_are_programs():
    assert {
        "train.py",
        "eval.py",
        "utils/scoring/__main__.py",
        "data/check.py",
        "tests/benchmarks/inference.py",
    } <= set(PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_settles_threads_before_a_library_is_loaded(program):
    environment = environment_of(program)
    for name, value in {**threads.WAITING, threads.OPENCV_THREADS: "1"}.items():
        assert environment[name] == value
    if hasattr(os, "sched_getaffinity"):
        assert environment["OMP_NUM_THREADS"] == str(threads.count_cores())


@pytest.mark.parametrize("package", ["model.objects.upsampling", "data.frames", "utils.clock"])
def test_every_package_settles_threads_too(package):
    code = UP_TO_A_LIBRARY.split("name = ")[0] + f"import {package}"
    environment = json.loads(run(sys.executable, "-c", code).stdout)
    assert environment["GOMP_SPINCOUNT"] == "0"


def test_a_users_own_settings_win():
    own = {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "ACTIVE", "OPENBLAS_THREAD_TIMEOUT": "20"}
    environment = environment_of("eval.py", **own)
    assert own.items() <= environment.items()
    # These would win over the user's word.
    assert not {"GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & set(environment)
    environment = environment_of("train.py", GOMP_SPINCOUNT="1000")
    assert environment["GOMP_SPINCOUNT"] == "1000"
    assert environment["KMP_BLOCKTIME"] == "0"


TELL = """
import utils
import torch
import data.clips
import cv2
class Threads(torch.utils.data.Dataset):
    def __len__(self): return 1
    def __getitem__(self, index): return torch.get_num_threads(), cv2.getNumThreads()
from utils.run.signals import StopRequest
with data.clips.load_batches(Threads(), num_workers=1, stop=StopRequest(), collate_fn=list, batch_size=1) as batches:
    (((torch_threads, opencv_threads),),) = batches
print(torch.get_num_threads(), torch_threads, opencv_threads)
"""


def test_torch_has_as_many_threads_as_cores_and_readers_have_one():
    done = run(sys.executable, "-c", TELL, OMP_DISPLAY_ENV="VERBOSE")
    assert done.stdout.split()[-3:] == [str(threads.count_cores()), "1", "1"]
    if "GOMP" in done.stderr:  # what the OpenMP runtime that torch has loaded says of itself
        assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
        assert "GOMP_SPINCOUNT = '0'" in done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_a_process_that_may_use_one_core_has_one_thread():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import utils"
    assert run(sys.executable, "-c", f"{code}; print(os.environ['OMP_NUM_THREADS'])").stdout == "1\n"


VERSION_2 = {"proc/self/cgroup": "0::/a/b"}
VERSION_1 = {"proc/self/cgroup": "5:memory:/m\n4:cpu,cpuacct:/docker/x\n0::/"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        (VERSION_2 | {"sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 8),
        (VERSION_2 | {"sys/fs/cgroup/a/b/cpu.max": "300000 100000"}, 3),
        (VERSION_2 | {"sys/fs/cgroup/a/b/cpu.max": "250000 100000"}, 3),
        (VERSION_2 | {"sys/fs/cgroup/a/b/cpu.max": "max 100000", "sys/fs/cgroup/a/cpu.max": "200000 100000"}, 2),
        (VERSION_2 | {"sys/fs/cgroup/cpu.max": "20000 100000"}, 1),  # in a container
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "1600000 100000"}, 8),
        (VERSION_1 | {"sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "400000",
                      "sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000"}, 4),
        (VERSION_1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
                      "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000"}, 2),  # in a container
        (VERSION_1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                      "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 8),
    ],
)  # fmt: skip
def test_a_quota_of_time_limits_the_number(files, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "_allowed", lambda: set(range(8)))
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert threads.count_cores(tmp_path) == threads.count_cpus(tmp_path) == expected


@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
def test_a_core_that_shows_as_two_cpus_has_one_thread_to_compute(name, tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "_allowed", lambda: {0, 1, 2, 4, 5})
    for number in range(8):
        folder = tmp_path / threads.CPU_FOLDER / f"cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / name).write_text(f"{number % 4},{number % 4 + 4}\n")
    assert threads.count_cores(tmp_path) == 3
    assert threads.count_cpus(tmp_path) == 5


# A process like torchrun, which sets the number where the user did not, and one of the two that it starts.
TORCHRUN = """
import os, subprocess, sys
os.environ.setdefault("OMP_NUM_THREADS", "1")
env = os.environ | {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2"}
code = ("import os; given = dict(os.environ); from utils import threads; threads.count_cores = lambda: 8; "
        "print({**given, **threads.choose_settings(given)}['OMP_NUM_THREADS'])")
sys.exit(subprocess.run([sys.executable, "-c", code], env=env).returncode)
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the system does not tell torchrun's environment")
@pytest.mark.parametrize(("own", "expected"), [(None, "4"), ("1", "1"), ("7", "7")])
def test_processes_of_torchrun_share_the_cores_unless_the_user_says(own, expected):
    settings = {"OMP_NUM_THREADS": own} if own else {}
    assert run(sys.executable, "-c", TORCHRUN, **settings).stdout.strip() == expected


@pytest.mark.parametrize("own", [{}, {"OMP_NUM_THREADS": "5"}])
def test_launchers_settle_threads(own, tmp_path):
    """For torchrun on two GPUs; the number that a user gives holds, here for one."""
    script = '. utils/setup.sh requirements.txt; echo "${LAUNCH[@]}"; env'
    path = pretend_gpus(1 if own else 2, tmp_path)
    said = run("bash", "-c", script, PATH=path, CUDA_VISIBLE_DEVICES="0,1", **own).stdout.splitlines()
    assert ("torch.distributed.run" in said[0]) == (not own)
    assert {f"{name}={value}" for name, value in threads.WAITING.items()} <= set(said)
    assert f"OMP_NUM_THREADS={own.get('OMP_NUM_THREADS', max(threads.count_cores() // 2, 1))}" in said


@pytest.mark.parametrize(
    ("gpus", "visible", "flags", "expected"),
    [(2, "0,1", "", 2), (4, "2,3", "", 2), (2, "0,1,2,3", "", 2), (2, "2,3", "", 1), (2, "GPU-1,GPU-2", "", 2),
     (0, "0,1", "", 1), (2, "", "", 1), (2, "1", "", 1), (2, "0,1", "--lr 1 --help", 1), (2, "0,1", "-h", 1)],
)  # fmt: skip
def test_launchers_start_a_process_for_each_gpu_that_is_there(gpus, visible, flags, expected, tmp_path):
    script = f'. utils/setup.sh requirements.txt {flags}; echo "${{LAUNCH[@]}}"'
    said = run("bash", "-c", script, PATH=pretend_gpus(gpus, tmp_path), CUDA_VISIBLE_DEVICES=visible).stdout
    assert (f"--nproc_per_node {expected}" in said) == (expected > 1)
    assert ("torch.distributed.run" in said) == (expected > 1)


@pytest.mark.skipif(bool(shutil.which("nvidia-smi")), reason="nvidia-smi is there")
def test_without_nvidia_smi_the_visible_gpus_are_believed():
    script = '. utils/setup.sh requirements.txt; echo "${LAUNCH[@]}"'
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    assert "--nproc_per_node 2" in run("bash", "-c", script, PATH=path, CUDA_VISIBLE_DEVICES="0,1").stdout


def test_a_launcher_prints_its_help_once(tmp_path):
    said = run("bash", "start_eval.sh", "--help", PATH=pretend_gpus(2, tmp_path), CUDA_VISIBLE_DEVICES="0,1").stdout
    assert said.count("usage: eval.py") == 1
