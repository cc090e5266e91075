"""A run that is killed, asked to stop, crowded or damaged loses nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY_BACKBONE, TINY_RESOLUTION, make_davis
from utils.checkpoint import load_tensors
from utils.errors import UserError
from utils.folders import held

ROOT = Path(__file__).parents[1]
KILLS = 20

# Runs train.py again and again, in processes forked after the slow imports, killing each at a random moment. Arguments:
# a whole run's folder, the folder for the others, how many kills, then those of train.py. Prints what happened as JSON.
KILLER = """
import json, os, pathlib, random, signal, sys, time
import train
whole, folder, kills, *arguments = sys.argv[1:]

def start(output):
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.argv = ["train.py", *arguments, "--output_path", str(output), "--resume_path", "auto"]
        code = 1
        try:
            train.main()
            code = 0
        finally:
            os._exit(code)
    return pid

began = time.perf_counter()
assert os.waitpid(start(whole), 0)[1] == 0
seconds = time.perf_counter() - began
random.seed(0)
killed, finished, starts = 0, [], []
while killed < int(kills) or len(starts) > 0:
    output = pathlib.Path(folder) / str(len(finished))
    last = output / "last.pt"
    starts.append(last.exists())
    pid, until = start(output), time.perf_counter() + random.uniform(0.2, 1.0) * seconds
    if killed >= int(kills):
        until = float("inf")
    done = (0, 0)
    while done[0] == 0 and time.perf_counter() < until:
        done = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.002)
    if done[0] == 0:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        killed += 1
    else:
        assert done[1] == 0, (output, done)
        finished.append(sum(starts))
        starts = []
print(json.dumps({"killed": killed, "resumed": finished, "seconds": seconds}))
"""


def tiny(tiny_weights, *arguments) -> list[str]:
    base = ["--backbone", TINY_BACKBONE, "--dino_path", tiny_weights, "--resolution", *TINY_RESOLUTION]
    return [*map(str, [*base, "--num_workers", 0, "--device", "cpu", "--log_freq", 1, *arguments])]


def launch(arguments, *, command=(sys.executable, ROOT / "train.py")) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        list(map(str, [*command, *arguments])), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, cwd=ROOT,
    )  # fmt: skip


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def same_runs(first: Path, second: Path) -> None:
    first, second = (load_tensors(path / "last.pt") for path in (first, second))
    assert first["step"] == second["step"]
    for key, value in first["blocks"].items():
        assert torch.equal(value, second["blocks"][key]), key
    for index, state in first["optimizer"]["state"].items():
        for key, value in state.items():
            assert torch.equal(value, second["optimizer"]["state"][index][key]), (index, key)


def test_killed_at_random_moments_a_run_ends_bit_for_bit_like_one_never_stopped(tmp_path, tiny_weights):
    davis = make_davis(tmp_path / "DAVIS")
    steps = ["--basepath", davis, "--num_train_steps", 40, "--last_freq", 1, "--save_freq", 10, "--eval_freq", 20]
    arguments = [tmp_path / "whole", tmp_path / "killed", KILLS, *tiny(tiny_weights, *steps, "--lr", "1e-3")]
    process = launch(arguments, command=(sys.executable, "-c", KILLER))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    told = json.loads(out.splitlines()[-1])
    assert told["killed"] >= KILLS
    assert sum(told["resumed"]) >= KILLS // 2  # the others were killed before their first checkpoint
    for number in range(len(told["resumed"])):
        same_runs(tmp_path / "whole", tmp_path / "killed" / str(number))
        log = (tmp_path / "killed" / str(number) / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in log] == list(range(41))


@pytest.mark.parametrize(
    ("name", "code"), [("SIGTERM", 75), pytest.param("SIGUSR1", 75, id="USR1"), pytest.param("SIGINT", 130, id="INT")]
)
def test_asked_to_stop_it_saves_and_says_how_to_go_on(tmp_path, tiny_weights, run_train, name, code):
    davis, out = make_davis(tmp_path / "DAVIS"), tmp_path / "run"
    common = ["--basepath", davis, "--num_train_steps", 400, "--save_freq", 400, "--eval_freq", 400, "--num_workers", 1]
    process = launch(tiny(tiny_weights, *common, "--output_path", out, "--last_freq", 400))
    wait_for(out / "log.jsonl", process)
    time.sleep(0.5)
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "asked to stop after step" in err
    assert "--resume_path auto" in err
    step = load_tensors(out / "last.pt")["step"]
    assert 0 < step < 400
    run_train("--basepath", davis, "--num_train_steps", step + 2, "--output_path", out, "--resume_path", "auto")
    assert load_tensors(out / "last.pt")["step"] == step + 2


def test_asked_to_stop_while_a_step_is_logged_it_still_saves(davis, tmp_path, run_train, monkeypatch):
    import train as train_program

    write = train_program.RunLog.write

    def write_and_ask(log, step, scalars):
        write(log, step, scalars)
        if step == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(train_program.RunLog, "write", write_and_ask)
    with pytest.raises(SystemExit) as ended:
        run_train("--basepath", davis, "--output_path", tmp_path / "run", "--num_train_steps", 9)
    assert ended.value.code == 75
    assert load_tensors(tmp_path / "run/last.pt")["step"] == 3


def test_auto_begins_a_run_and_goes_on_with_it(davis, tmp_path, run_train):
    common = ["--basepath", davis, "--lr", 1e-3, "--resume_path", "auto"]
    run_train(*common, "--output_path", tmp_path / "whole")
    run_train(*common, "--output_path", tmp_path / "run", "--save_freq", 2)
    (tmp_path / "run/step_0000004.pt").unlink()
    shutil.copy(tmp_path / "run/step_0000002.pt", tmp_path / "run/last.pt")
    run_train(*common, "--output_path", tmp_path / "run")
    same_runs(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("resume", ["auto", "last.pt"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(davis, tmp_path, run_train, capsys, resume, damage):
    out = tmp_path / "run"
    common = ["--basepath", davis, "--output_path", out, "--last_freq", 1, "--save_freq", 9]
    run_train(*common, "--num_train_steps", 3)
    last = out / "last.pt"
    (out / "step_0000003.pt").unlink()
    whole = last.read_bytes()
    last.unlink()
    if damage != "gone":
        last.write_bytes(whole[: len(whole) // 2 if damage == "cut" else 0])
    capsys.readouterr()
    run_train(*common, "--num_train_steps", 5, "--resume_path", "auto" if resume == "auto" else last)
    said = capsys.readouterr().err
    assert "warning: " in said
    assert "last.pt" in said
    assert "going on from" in said
    assert "previous.pt, step 2" in said
    assert load_tensors(last)["step"] == 5
    assert load_tensors(out / "previous.pt")["step"] == 4


def test_where_no_checkpoint_is_whole_nothing_is_begun_anew(davis, tmp_path, run_train):
    out = tmp_path / "run"
    run_train("--basepath", davis, "--output_path", out)
    for path in out.glob("*.pt"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"last\.pt: .*(damaged|truncated)"):
        run_train("--basepath", davis, "--output_path", out, "--resume_path", "auto", "--num_train_steps", 9)


def test_two_runs_do_not_share_a_folder(tmp_path, tiny_weights):
    davis, out = make_davis(tmp_path / "DAVIS"), tmp_path / "run"
    first = launch(tiny(tiny_weights, "--basepath", davis, "--output_path", out, "--num_train_steps", 100_000))
    try:
        wait_for(out / "log.jsonl", first)
        second = launch(tiny(tiny_weights, "--basepath", davis, "--output_path", out, "--overwrite"))
        _, err = second.communicate(timeout=60)
        assert second.returncode == 2
        assert err.splitlines()[-1].startswith(f"error: --output_path {out}: another run writes there (process ")
    finally:
        first.kill()
        first.communicate()
    with held(out, flag="--output_path"):  # let go of with the process
        pass


def test_a_reading_process_that_is_killed_ends_the_run(tmp_path, tiny_weights):
    davis, out = make_davis(tmp_path / "DAVIS"), tmp_path / "run"
    arguments = ["--basepath", davis, "--output_path", out, "--num_train_steps", 100_000, "--num_workers", 1]
    process = launch(tiny(tiny_weights, *arguments))
    wait_for(out / "log.jsonl", process)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    if not children:
        process.kill()
        pytest.skip("pgrep names no children here")
    os.kill(int(children[0]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert "error: --num_workers: a process that reads frames ended" in err


def test_a_checkpoint_tells_where_it_came_from(davis, tmp_path, run_train):
    run_train("--basepath", davis, "--output_path", tmp_path / "run")
    content = load_tensors(tmp_path / "run/last.pt")
    assert content["command"][0] == "train.py"
    assert content["versions"]["torch"] == str(torch.__version__)
    assert len(content["data"]) == 64
    revision = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert (content["git"] or "").rstrip("+") == revision


def test_overfit_sees_the_same_clips_again_and_again(davis, tmp_path, run_train):
    common = ["--basepath", davis, "--lr", 1e-9, "--min_lr", 0, "--drop", 0, "--attn_drop", 0, "--num_queries", 15]
    run_train(*common, "--output_path", tmp_path / "run", "--overfit", 2)
    records = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()][1:]
    losses = [record["loss"] for record in records]
    assert losses[0] == pytest.approx(losses[2], rel=1e-4)
    assert losses[1] == pytest.approx(losses[3], rel=1e-4)
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


def test_profile_writes_a_trace(davis, tmp_path, run_train):
    with pytest.raises(UserError, match="--profile: looks at steps 3 to 5; raise --num_train_steps to 5"):
        run_train("--basepath", davis, "--output_path", tmp_path / "run", "--profile")
    run_train("--basepath", davis, "--output_path", tmp_path / "run", "--profile", "--num_train_steps", 6)
    (trace,) = (tmp_path / "run/profile").iterdir()
    assert "matmul" in trace.read_text() or "addmm" in trace.read_text()


@pytest.mark.filterwarnings("ignore:Error detected")
def test_detect_anomaly_names_the_operation(davis, tmp_path, run_train, monkeypatch):
    import train as train_program

    monkeypatch.setattr(train_program, "motion_loss", lambda attn, *_, **__: (attn * 0).sum().sqrt())
    with pytest.raises(RuntimeError, match="returned nan values"):
        run_train("--basepath", davis, "--output_path", tmp_path / "run", "--detect_anomaly")
