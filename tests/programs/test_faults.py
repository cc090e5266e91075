"""A fault ends the program within seconds, with all that it has started: errors, lack of memory, Ctrl-C."""

import ast
import ctypes
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shlex import quote

import numpy as np
import pytest
import torch

import train as train_program
from data import clips
from tests.conftest import make_davis
from tests.processes import ROOT, SECONDS, end, kill_session, start_program, start_ranks
from utils.run.checkpoints import load_tensors

PROGRAM = {"train": "train", "eval": "eval", "scoring": "utils.scoring.__main__"}


def training(davis, out, *more) -> list:
    steps = ["--num_train_steps", 9, "--last_freq", 1, "--log_freq", 1, "--num_workers", 2, "--eval_freq", 0]
    return ["--basepath", davis, "--output_path", out, *steps, *more]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a DAVIS tree and perfect results of it."""
    path = tmp_path_factory.mktemp("faults")
    davis = make_davis(path / "DAVIS")
    shutil.copytree(davis / "Annotations_unsupervised/480p", path / "results")
    return path


def sleep_whatever_the_signal() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(900)


def start_stubborn_process_and(prepare: Callable[[], None]) -> None:
    """Start a process for which Python would wait at its exit, then `prepare`."""
    multiprocessing.get_context("fork").Process(target=sleep_whatever_the_signal).start()
    prepare()


@pytest.fixture
def run_faulty(folder, tiny_network, tmp_path):
    """run_faulty(name, prepare): run a program after `prepare`, with another process started; return its exit code, its
    messages, how many processes outlived it."""
    davis, out = folder / "DAVIS", tmp_path / "out"
    arguments = {
        "train": [*tiny_network, *training(davis, out)],
        "eval": [*tiny_network, "--davis_path", davis, "--save_path", out, "--training_free"],
        "scoring": ["--results", folder / "results", "--davis_path", davis],
    }

    def run(name: str, prepare: Callable[[], None]) -> tuple[int, str, int]:
        prepare = partial(start_stubborn_process_and, prepare)
        process = start_program(PROGRAM[name], *arguments[name], stderr=tmp_path / "stderr", prepare=prepare)
        code = end(process)
        return code, (tmp_path / "stderr").read_text(), kill_session(process.pid)

    return run


# ------------------------------------------------------------------ errors of the program, lack of memory


def fail(*_, **__):
    raise ValueError("an edited loss")


def take_all_memory(*_, **__):
    torch.empty(1 << 50)


def take_all_memory_of_the_gpu(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total")


def fail_in(place: str, fault: Callable = fail) -> Callable[[], None]:
    """Give a `prepare` that puts `fault` in the place of a function or method."""
    return partial(pytest.MonkeyPatch().setattr, place, fault)


def fail_in_third_step(fault: Callable = fail) -> None:
    working = train_program.train_step

    def step_or_fail(*arguments, step, **options):
        return (fault if step == 2 else working)(*arguments, step=step, **options)

    train_program.train_step = step_or_fail


def take_all_memory_in_a_reader() -> None:
    train_program.ClipDataset.__getitem__ = lambda *_: np.empty(1 << 50)
    train_program.make_monitor = print


@pytest.mark.parametrize(("program", "prepare"), [
    pytest.param("train", fail_in_third_step, id="step"),
    pytest.param("train", fail_in("train.make_monitor"), id="monitor"),
    pytest.param("eval", fail_in("eval.ResultsFolder.write_video"), id="write"),
    pytest.param("scoring", fail_in("utils.scoring.score.score_sequence"), id="score"),
])  # fmt: skip
def test_an_error_of_the_program_ends_it_and_all_it_has_started(run_faulty, tmp_path, request, program, prepare):
    code, said, left = run_faulty(program, prepare)
    assert code == 1, said
    assert "Traceback" in said
    assert "ValueError: an edited loss" in said
    assert left == 0
    if request.node.callspec.id == "step":
        assert load_tensors(tmp_path / "out/last.pt")["step"] == 2


@pytest.mark.parametrize(("program", "prepare"), [
    pytest.param("train", partial(fail_in_third_step, take_all_memory), id="step"),
    pytest.param("train", partial(fail_in_third_step, take_all_memory_of_the_gpu), id="step on a GPU"),
    pytest.param("train", take_all_memory_in_a_reader, id="reader"),
    pytest.param("eval", fail_in("eval.Segmenter.segment", take_all_memory), id="eval"),
    pytest.param("scoring", fail_in("utils.scoring.score.score_sequence", take_all_memory), id="scoring"),
])  # fmt: skip
def test_lack_of_memory_is_one_line_that_says_what_to_lower(run_faulty, tmp_path, request, program, prepare):
    code, said, left = run_faulty(program, prepare)
    assert code == 2, said
    assert "Traceback" not in said
    (line,) = (line for line in said.splitlines() if "error: out of memory " in line)  # a bar may stand before it
    assert line.endswith("; lower --lower")
    case = request.node.callspec.id
    assert ("of the GPU (20.00 GiB" in line) == (case == "step on a GPU")
    assert left == 0
    if case.startswith("step"):
        assert load_tensors(tmp_path / "out/last.pt")["step"] == 2


def test_every_program_that_can_run_out_of_memory_says_what_to_lower():
    for path, flag in (
        ("train.py", "--batch_size"),
        ("eval.py", "--memory_gb"),
        ("utils/scoring/__main__.py", "--workers"),
    ):
        assert f'run_main(main, lower="{flag}' in (ROOT / path).read_text()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of memory are those of Unix")
def test_libraries_that_do_not_fit_memory_are_one_line():
    command = f"ulimit -v 2000000 && exec {quote(sys.executable)} eval.py --davis_path ."
    ended = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: out of memory")
    assert ended.stderr.count("\n") == 1


def test_a_checkpoint_that_does_not_fit_memory_is_not_called_damaged(davis, tmp_path, run_train, monkeypatch):
    common = ["--basepath", davis, "--output_path", tmp_path / "run", "--last_freq", 1]
    run_train(*common)

    def load(*_, **__):
        torch.empty(1 << 50)

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(RuntimeError, match="allocate"):
        run_train(*common, "--resume_path", "auto", "--num_train_steps", 9)
    assert not list((tmp_path / "run").glob("*.damaged"))


# ------------------------------------------------------------------ several processes


def fail_in_third_step_of_the_second_process() -> None:
    if os.environ["RANK"] == "1":
        fail_in_third_step()


def test_an_error_in_one_process_of_several_ends_all(folder, tiny_network, tmp_path):
    arguments = [*tiny_network, *training(folder / "DAVIS", tmp_path / "run")]
    prepare = fail_in_third_step_of_the_second_process
    first, second = start_ranks("train", *arguments, folder=tmp_path, prepare=prepare)
    assert (end(first), end(second)) == (2, 1)
    assert "ValueError: an edited loss" in (tmp_path / "rank1").read_text()
    assert "error: another process of this run has ended" in (tmp_path / "rank0").read_text()
    assert kill_session(first.pid) == kill_session(second.pid) == 0
    assert load_tensors(tmp_path / "run/last.pt")["step"] == 2


# ------------------------------------------------------------------ shared memory


@pytest.fixture(scope="module")
def small_shared_memory() -> list[str]:
    """The start of a command that runs another one where /dev/shm has 4 kB, as a container's may be small."""
    command = ["unshare", "-m", "bash", "-c", 'mount -t tmpfs -o size=4k tmpfs /dev/shm && exec "$@"', "--"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    return command


def shrink_shared_memory(size: str) -> None:
    """Give this process a /dev/shm of its own and of this size, as `unshare -m` and `mount` do."""
    new_mounts, private_and_recursive = 0x20000, 0x44000
    system = ctypes.CDLL(None, use_errno=True)
    for failed in (
        system.unshare(new_mounts),
        system.mount(b"none", b"/", None, private_and_recursive, None),
        system.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, f"size={size}".encode()),
    ):
        assert not failed, os.strerror(ctypes.get_errno())


def logged(out: Path) -> list[dict]:
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [{key: line[key] for key in line if key.startswith("loss")} for line in lines]


@pytest.mark.usefixtures("small_shared_memory")
def test_too_little_shared_memory_does_not_stop_a_run(folder, tiny_network, tmp_path, run_train):
    arguments = training(folder / "DAVIS", tmp_path / "a", "--batch_size", 4)
    prepare = partial(shrink_shared_memory, "120k")
    process = start_program("train", *tiny_network, *arguments, stderr=tmp_path / "stderr", prepare=prepare)
    code, said = end(process), (tmp_path / "stderr").read_text()
    assert code == 0, said
    assert "Traceback" not in said
    assert kill_session(process.pid) == 0
    assert "--shm-size" in said
    assert said.count("note: /dev/shm is full") == 1
    run_train(*training(folder / "DAVIS", tmp_path / "b", "--batch_size", 4, "--num_workers", 0))
    assert logged(tmp_path / "a") == logged(tmp_path / "b")


@pytest.mark.usefixtures("small_shared_memory")
def test_without_any_shared_memory_training_names_num_workers(run_faulty):
    code, said, left = run_faulty("train", partial(shrink_shared_memory, "4k"))
    assert (code, left) == (2, 0), said
    assert said.splitlines()[-1].startswith("error: --num_workers 2: ")
    assert "--num_workers 0" in said
    assert "--shm-size" in said


def test_without_any_shared_memory_one_process_does_the_work(small_shared_memory):
    code = "from utils.processes import run_in_processes\nprint(0) if __name__ == '__main__' else None\n"
    code += "with run_in_processes(pow, [(2, 3), (3, 2)], workers=2) as answers: print(*answers)"
    command = [*small_shared_memory, sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.stdout.splitlines()[-1] == "(0, 8) (1, 9)"
    assert done.stderr.startswith("note: --workers: ")


def test_a_batch_for_which_there_is_no_room_goes_through_the_pipe(monkeypatch):
    send = clips.BatchSender(torch.stack)
    items = [torch.arange(3), torch.arange(3)]
    shared, content = send(items)
    assert shared
    assert torch.equal(pickle.loads(content), torch.stack(items))

    def full(_):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(clips.ForkingPickler, "dumps", full)
    for _ in range(2):
        shared, content = send(items)
        assert not shared
        assert torch.equal(pickle.loads(content), torch.stack(items))


# ------------------------------------------------------------------ Ctrl-C in the first seconds

FILES = [*ROOT.glob("*.py"), *(path for part in ("data", "model", "utils") for path in (ROOT / part).rglob("*.py"))]
PROGRAMS = [path for path in FILES if "\n    run_main(main" in path.read_text()]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_program_ends_quietly_from_its_first_line_on(path):
    first = ast.parse(path.read_text()).body[1]  # after the docstring
    assert isinstance(first, ast.If)
    assert ast.unparse(first.test) == "__name__ == '__main__'"
    assert "guard_imports()" in ast.unparse(first)


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "train.py"], [sys.executable, "eval.py"], [sys.executable, "-m", "data.check"],
        [sys.executable, "-m", "utils.scoring", "--results", "x", "--davis_path", "x"], ["bash", "start_eval.sh"],
        ["bash", "start_rgb.sh"],
    ],
    ids=["train", "eval", "check", "scoring", "start_eval", "start_rgb"],
)  # fmt: skip
def test_ctrl_c_while_it_imports_is_one_word(command, tmp_path):
    for name in ("torch", "numpy", "cv2", "tqdm"):  # in whose place something slow is found
        slow = f"import time\nopen({str(tmp_path / 'importing')!r}, 'w').close()\ntime.sleep(100)\n"
        (tmp_path / f"{name}.py").write_text(slow)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PATH": path, "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + SECONDS
    while not (tmp_path / "importing").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C: to the launcher and what it has started
    _, said = process.communicate(timeout=SECONDS)
    assert said == b"interrupted\n"
    assert process.returncode == 130


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_program_whose_output_is_closed_ends_well(closed):
    run = "from utils.errors import exit_at_once, run_main; run_main(lambda: None); exit_at_once()"
    command = f"{quote(sys.executable)} -c {quote(run)} {closed}"
    assert subprocess.run(["bash", "-c", command], cwd=ROOT).returncode == 0
