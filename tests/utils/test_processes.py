"""Work shared by processes: results, faults, and their end with the process that they work for."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import pytest

from tests.processes import ROOT, SECONDS, run_in_own_process
from utils.errors import UserError
from utils.processes import run_in_processes


def test_processes_that_share_work_give_what_this_one_would():
    for workers in (1, 2):
        with run_in_processes(pow, [(2, 3), (3, 2), (5, 1)], workers=workers) as answers:
            assert dict(answers) == {0: 8, 1: 9, 2: 5}
    assert run_in_own_process(os.getpid) != os.getpid()
    assert not active_children()


def test_a_fault_in_one_process_does_not_wait_for_the_others():
    began = time.monotonic()
    with (
        pytest.raises(TypeError),
        run_in_processes(time.sleep, [(900,), ("x",)], workers=2) as answers,
    ):
        list(answers)
    assert time.monotonic() - began < SECONDS
    assert not active_children()


def test_a_process_that_is_killed_is_one_line():
    with pytest.raises(UserError, match="--workers: .*memory; lower --workers"):  # noqa: SIM117
        with run_in_processes(os._exit, [(9,), (9,)], workers=2) as answers:
            list(answers)
    with (
        pytest.raises(MemoryError),
        run_in_processes(bytes, [(1 << 60,), (2,)], workers=2) as answers,
    ):
        list(answers)


MAIN_PROGRAM = """
from utils.processes import run_in_processes
print("imported", flush=True)
def square(number):
    return number ** 2
if __name__ == "__main__":
    for work, calls in ((pow, [(2, 3), (3, 2)]), (square, [(2,), (3,)])):
        with run_in_processes(work, calls, workers=2) as answers:
            print(sorted(answers), flush=True)
"""


@pytest.mark.parametrize("command", [["program.py"], ["-m", "program"]], ids=["script", "module"])
def test_processes_import_the_main_program_only_where_it_defines_their_work(tmp_path, command):
    (tmp_path / "program.py").write_text(MAIN_PROGRAM)
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
        timeout=SECONDS, check=True,
    )  # fmt: skip
    before, after = done.stdout.split("[(0, 8), (1, 9)]\n")
    assert before == "imported\n"
    assert after.count("imported") in (1, 2)  # two processes may write at once, or one may do all
    assert after.count("[(0, 4), (1, 9)]") == 1


PARENT = """
import sys, time
from multiprocessing import active_children
from utils.processes import run_in_processes
if __name__ == "__main__":
    with run_in_processes(time.sleep, [(900,), (900,)], workers=2) as answers:
        print(*(process.pid for process in active_children()), flush=True)
        list(answers)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_processes_end_with_the_one_they_work_for(tmp_path, number):
    (tmp_path / "parent.py").write_text(PARENT)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    workers = list(map(int, process.stdout.readline().split()))
    assert len(workers) == 2
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as Ctrl-C
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=SECONDS)
    assert said.count("Traceback") == (number == signal.SIGINT)  # of this small program, none of the others
    deadline = time.monotonic() + SECONDS
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
