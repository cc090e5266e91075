"""A fault ends the program within seconds, with all that it has started: errors, lack of memory, Ctrl-C."""

import ast
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path
from shlex import quote

import pytest
import torch

from data import clips
from tests.conftest import TINY_BACKBONE, TINY_RESOLUTION, make_davis
from tests.processes import ROOT, SECONDS, TORCHRUN, kill_group
from utils.errors import UserError
from utils.processes import run_in_own_process, run_in_processes
from utils.run.checkpoints import load_tensors

# Runs programs in processes of this one, which has the slow imports behind it; they exit as any Python does. Takes
# cases as JSON: name -> [program, what to run before it, arguments]; prints name -> [exit code, stderr, how many
# processes of its session outlived it].
RUNNER = """
import json, os, pathlib, signal, sys, tempfile, time
import torch, train, eval, utils.scoring.__main__, utils.scoring.score, utils.errors
SECONDS = float(sys.argv[1])
torch.set_num_threads(1)

def session(leader):
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found

told = {}
for name, (program, patch, arguments) in json.loads(sys.argv[2]).items():
    with tempfile.TemporaryFile("w+") as said:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(said.fileno(), 2)
            sys.argv = [program, *arguments]
            exec(patch)
            main = {"train.py": train, "eval.py": eval, "scoring": utils.scoring.__main__}[program].main
            utils.errors.run_main(main, lower="--lower")
            sys.exit(0)
        deadline, code = time.monotonic() + SECONDS, None
        while code is None and time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if ended else None
            time.sleep(0.01)
        left = session(pid)
        for process in left:
            os.kill(process, signal.SIGKILL)
        said.seek(0)
        told[name] = [code, said.read(), len(left)]
print(json.dumps(told))
"""
STEP = """
step = train.train_step
def faulty(*arguments, step, **options):
    if step == 2:
        {fault}
    return working(*arguments, step=step, **options)
working, train.train_step = step, faulty
"""
ERROR = "raise ValueError('an edited loss')"
NO_MEMORY = "torch.empty(1 << 50)"
NO_GPU_MEMORY = "raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total')"
IN_READER = "train.ClipDataset.__getitem__ = lambda *_: __import__('numpy').empty(1 << 50); train.make_monitor = print"


def run_cases(cases: dict, *, before: tuple[str, ...] = ()) -> dict:
    command = [*before, sys.executable, "-c", RUNNER, str(SECONDS), json.dumps(cases)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def network(tiny_weights) -> list[str]:
    return ["--backbone", TINY_BACKBONE, "--dino_path", str(tiny_weights), "--resolution", *TINY_RESOLUTION,
            "--device", "cpu"]  # fmt: skip


def training(tiny_weights, davis, out, *more) -> list[str]:
    steps = ["--num_train_steps", 9, "--last_freq", 1, "--log_freq", 1, "--num_workers", 2, "--watch_clips", 1]
    return list(map(str, [*network(tiny_weights), "--basepath", davis, "--output_path", out, *steps, *more]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("faults")
    davis = make_davis(path / "DAVIS")
    shutil.copytree(davis / "Annotations_unsupervised/480p", path / "results")
    return path


@pytest.fixture(scope="module")
def ended(folder, tiny_weights) -> dict:
    def train(name, patch, *more):
        return ["train.py", patch, training(tiny_weights, folder / "DAVIS", folder / name, *more)]

    def evaluate(name, patch):
        paths = ["--davis_path", str(folder / "DAVIS"), "--save_path", str(folder / name), "--training_free"]
        return ["eval.py", patch, [*network(tiny_weights), *paths]]

    score = ["--results", str(folder / "results"), "--davis_path", str(folder / "DAVIS")]
    return run_cases({
        "step": train("step", STEP.format(fault=ERROR)),
        "watch": train("watch", "train.make_monitor = lambda *_: 1 / 0"),
        "memory": train("memory", STEP.format(fault=NO_MEMORY)),
        "memory of the GPU": train("gpu", STEP.format(fault=NO_GPU_MEMORY)),
        "memory of a reader": train("reader", IN_READER),
        "write": evaluate("write", "eval.ResultsFolder.write_video = lambda *_, **__: 1 / 0"),
        "memory of eval": evaluate("memory of eval", f"eval.Segmenter.segment = lambda *_, **__: {NO_MEMORY}"),
        "score": ["scoring", "utils.scoring.score.score_sequence = lambda *_: 1 / 0", score],
        "memory of scoring": ["scoring", f"utils.scoring.score.score_sequence = lambda *_: {NO_MEMORY}", score],
    })  # fmt: skip


@pytest.mark.parametrize("name", ["step", "watch", "write", "score"])
def test_an_error_of_the_program_ends_it_and_all_it_has_started(ended, name):
    code, said, left = ended[name]
    assert code == 1, said
    assert "Traceback" in said
    assert ("ZeroDivisionError" if name != "step" else "ValueError: an edited loss") in said
    assert left == 0


@pytest.mark.parametrize("name", ["step", "memory", "memory of the GPU"])
def test_the_last_checkpoint_is_kept(ended, folder, name):
    assert load_tensors(folder / {"memory of the GPU": "gpu"}.get(name, name) / "last.pt")["step"] == 2


@pytest.mark.parametrize(
    "name", ["memory", "memory of the GPU", "memory of a reader", "memory of eval", "memory of scoring"]
)
def test_lack_of_memory_is_one_line_that_says_what_to_lower(ended, name):
    code, said, left = ended[name]
    assert code == 2, said
    assert "Traceback" not in said
    (line,) = (line for line in said.splitlines() if "error: out of memory " in line)  # a bar may stand before it
    assert line.endswith("; lower --lower")
    assert ("of the GPU (20.00 GiB" in line) == (name == "memory of the GPU")
    assert left == 0


def test_every_program_that_can_run_out_of_memory_says_what_to_lower():
    for path, flag in (
        ("train.py", "--batch_size"),
        ("eval.py", "--memory_gb"),
        ("utils/scoring/__main__.py", "--workers"),
    ):
        assert f'run_main(main, lower="{flag}' in (ROOT / path).read_text()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of memory are those of Unix")
def test_libraries_that_do_not_fit_memory_are_one_line():
    command = f"ulimit -v 2000000 && exec {quote(sys.executable)} eval.py --davis_path x"
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


def test_an_error_in_one_process_of_several_ends_all(folder, tiny_weights, tmp_path):
    fault = f"if distributed.rank() == 1: {ERROR}"
    program = f"import torch, train\nfrom utils import distributed\nfrom utils.errors import run_main\n{STEP}"
    (tmp_path / "faulty.py").write_text(program.format(fault=fault) + "\nrun_main(train.main)\n")
    command = [*TORCHRUN, str(tmp_path / "faulty.py")]
    process = subprocess.Popen(
        [*command, *training(tiny_weights, folder / "DAVIS", tmp_path / "run")],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, start_new_session=True,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=3 * SECONDS)
    finally:
        alive = kill_group(process.pid)
    assert process.returncode == 1
    assert "ValueError: an edited loss" in said
    assert not alive
    assert load_tensors(tmp_path / "run/last.pt")["step"] == 2


def test_processes_that_share_work_give_what_this_one_would():
    for workers in (1, 2):
        with run_in_processes(pow, [(2, 3), (3, 2), (5, 1)], workers=workers, flag="--workers") as answers:
            assert dict(answers) == {0: 8, 1: 9, 2: 5}
    assert run_in_own_process(os.getpid) != os.getpid()
    assert not active_children()


def test_a_fault_in_one_process_does_not_wait_for_the_others():
    began = time.monotonic()
    with (
        pytest.raises(TypeError),
        run_in_processes(time.sleep, [(900,), ("x",)], workers=2, flag="--workers") as answers,
    ):
        list(answers)
    assert time.monotonic() - began < SECONDS
    assert not active_children()


def test_a_process_that_is_killed_is_one_line():
    with pytest.raises(UserError, match="--workers: .*memory; lower --workers"):  # noqa: SIM117
        with run_in_processes(os._exit, [(9,), (9,)], workers=2, flag="--workers") as answers:
            list(answers)
    with (
        pytest.raises(MemoryError),
        run_in_processes(bytes, [(1 << 60,), (2,)], workers=2, flag="--workers") as answers,
    ):
        list(answers)


PARENT = """
import sys, time
from multiprocessing import active_children
from utils.processes import run_in_processes
if __name__ == "__main__":
    with run_in_processes(time.sleep, [(900,), (900,)], workers=2, flag="") as answers:
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


# ------------------------------------------------------------------ shared memory


def small_shared_memory(size: str) -> tuple[str, ...]:
    """The start of a command that runs another one where /dev/shm has this size, as in a container."""
    command = ("unshare", "-m", "bash", "-c", f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"', "--")
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    return command


def logged(out: Path) -> list[dict]:
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [{key: line[key] for key in line if key.startswith("loss")} for line in lines]


def test_too_little_shared_memory_does_not_stop_a_run(folder, tiny_weights, tmp_path):
    def run(name, *more):
        return ["train.py", "", training(tiny_weights, folder / "DAVIS", tmp_path / name, "--batch_size", 4, *more)]

    cases = {"readers": run("a"), "none": run("b", "--num_workers", 0)}
    told = run_cases(cases, before=small_shared_memory("120k"))
    for name in cases:
        code, said, left = told[name]
        assert code == 0, said
        assert "Traceback" not in said
        assert left == 0
        assert ("--shm-size" in said) == (name != "none")
    assert told["readers"][1].count("note: /dev/shm is full") == 1
    assert logged(tmp_path / "a") == logged(tmp_path / "b")


def test_without_any_shared_memory_there_is_one_line_or_less_haste(folder, tiny_weights, tmp_path):
    processes = "from utils.processes import run_in_processes\nprint(0) if __name__ == '__main__' else None\n"
    processes += "with run_in_processes(pow, [(2, 3), (3, 2)], workers=2, flag='--workers') as answers: print(*answers)"
    before = small_shared_memory("4k")
    code, said, left = run_cases(
        {"train": ["train.py", "", training(tiny_weights, folder / "DAVIS", tmp_path / "run")]}, before=before
    )["train"]
    assert (code, left) == (2, 0), said
    assert said.splitlines()[-1].startswith("error: --num_workers 2: ")
    assert "--num_workers 0" in said
    assert "--shm-size" in said
    done = subprocess.run(
        [*before, sys.executable, "-c", processes], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS
    )  # fmt: skip
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
        [sys.executable, "train.py"], [sys.executable, "eval.py"], [sys.executable, "-m", "utils.scoring"],
        [sys.executable, "-m", "data.check"], ["bash", "start_eval.sh"], ["bash", "start_rgb.sh"],
    ],
    ids=lambda command: command[-1],
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
