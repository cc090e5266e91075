"""A run that is killed, asked to stop, crowded or damaged loses nothing."""

import errno
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from shlex import quote

import pytest
import torch

from data.clips import ReadingLimits
from tests.conftest import make_davis
from tests.processes import ROOT, SECONDS, end, pretend_gpus, start_program, start_ranks, wait_for
from utils.errors import UserError
from utils.files import lock_folder
from utils.run.checkpoints import load_tensors

KILLS = 6  # of each kind of run


def same_runs(first: Path, second: Path) -> None:
    first, second = (load_tensors(path / "last.pt") for path in (first, second))
    assert first["step"] == second["step"]
    for key, value in first["blocks"].items():
        assert torch.equal(value, second["blocks"][key]), key
    for index, state in first["optimizer"]["state"].items():
        for key, value in state.items():
            assert torch.equal(value, second["optimizer"]["state"][index][key]), (index, key)


@pytest.mark.parametrize(
    "extra", [("--eval_freq", 5), ("--targets", "objects", "--rounds", 2)], ids=["paper", "objects"]
)
def test_killed_at_random_moments_a_run_ends_bit_for_bit_like_one_never_stopped(tmp_path, tiny_training, extra):
    """Runs are killed until one reaches its end, and further runs are begun until there were KILLS kills."""
    davis, whole = make_davis(tmp_path / "DAVIS"), tmp_path / "whole"
    steps = ["--num_train_steps", 9, "--last_freq", 1, "--save_freq", 3, "--lr", "1e-3", *extra]
    common = [*tiny_training, "--basepath", davis, *steps, "--resume_path", "auto", "--output_path"]
    began = time.perf_counter()
    assert end(start_program("train", *common, whole, stderr=tmp_path / "stderr")) == 0
    seconds = time.perf_counter() - began
    moments = random.Random(0)
    kills, resumed, finished = 0, 0, []
    while kills < KILLS:
        out = tmp_path / f"killed{len(finished)}"
        for attempt in itertools.count():
            resumed += (out / "last.pt").exists()
            began = time.perf_counter()
            process = start_program("train", *common, out, stderr=tmp_path / "stderr")
            process.join(moments.uniform(0.1, 0.9) * seconds if kills < KILLS else SECONDS)
            if process.exitcode is not None:
                assert process.exitcode == 0, (tmp_path / "stderr").read_text()
                if attempt == 0:  # the machine may have been busier at the first run
                    seconds = min(seconds, time.perf_counter() - began)
                break
            process.kill()
            process.join()
            kills += 1
        finished.append(out)
    assert resumed >= KILLS // 2  # the others were killed before their first checkpoint
    expected = read_log(whole)
    assert [record["step"] for record in expected if "loss" in record] == list(range(1, 10))
    for out in finished:
        same_runs(whole, out)
        assert read_log(out) == expected


def read_log(out: Path) -> list[dict]:
    """Read the lines of a log, without what depends on time."""
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    timed = ("clips_per_second", "data_wait_share")
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


@pytest.mark.parametrize(
    ("name", "code"), [("SIGTERM", 75), pytest.param("SIGUSR1", 75, id="USR1"), pytest.param("SIGINT", 130, id="INT")]
)
def test_asked_to_stop_it_saves_and_says_how_to_go_on(tmp_path, tiny_training, run_train, name, code):
    davis, out = make_davis(tmp_path / "DAVIS"), tmp_path / "run"
    common = ["--basepath", davis, "--num_train_steps", 400, "--save_freq", 400, "--eval_freq", 400, "--num_workers", 1]
    arguments = [*tiny_training, *common, "--output_path", out, "--last_freq", 400]
    process = start_program("train", *arguments, stderr=tmp_path / "stderr")
    wait_for(out / "log.jsonl", process)
    time.sleep(0.5)
    os.kill(process.pid, getattr(signal, name))
    exit_code, err = end(process), (tmp_path / "stderr").read_text()
    assert exit_code == code, err
    assert "asked to stop after step" in err
    assert "--resume_path auto" in err
    step = load_tensors(out / "last.pt")["step"]
    assert 0 < step < 400
    run_train("--basepath", davis, "--num_train_steps", step + 2, "--output_path", out, "--resume_path", "auto")
    assert load_tensors(out / "last.pt")["step"] == step + 2


def test_asked_to_stop_while_a_step_is_logged_it_still_saves(davis, tmp_path, run_train, monkeypatch):
    from utils.run.logs import RunLog

    write = RunLog.write

    def write_and_ask(log, step, scalars):
        write(log, step, scalars)
        if step == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(RunLog, "write", write_and_ask)
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


def test_if_no_checkpoint_is_whole_no_new_run_begins(davis, tmp_path, run_train):
    out = tmp_path / "run"
    run_train("--basepath", davis, "--output_path", out)
    for path in out.glob("*.pt"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"last\.pt: .*fetch it again"):
        run_train("--basepath", davis, "--output_path", out, "--resume_path", "auto", "--num_train_steps", 9)


def test_two_runs_do_not_share_a_folder(davis, tmp_path, tiny_training, run_train):
    common, out = ["--basepath", davis, "--output_path", tmp_path / "run"], tmp_path / "run"
    first = start_program("train", *tiny_training, *common, "--num_train_steps", 100_000, stderr=tmp_path / "stderr")
    try:
        wait_for(out / "log.jsonl", first)
        with pytest.raises(UserError, match=f"--output_path {out}: .*process {first.pid} .*another folder"):
            run_train(*common, "--overwrite")
    finally:
        first.kill()
        first.join()
    with lock_folder(out, flag="--output_path"):  # let go of with the process
        pass


def children_of(pid: int) -> list[int]:
    if not Path(f"/proc/{pid}/task/{pid}/children").exists():
        pytest.skip("the system does not tell a process's children here")
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def test_a_reading_process_that_is_killed_ends_the_run(davis, tmp_path, tiny_training):
    out = tmp_path / "run"
    arguments = ["--basepath", davis, "--output_path", out, "--num_train_steps", 100_000, "--num_workers", 1]
    process = start_program("train", *tiny_training, *arguments, stderr=tmp_path / "stderr")
    wait_for(out / "log.jsonl", process)
    os.kill(children_of(process.pid)[0], signal.SIGKILL)
    exit_code, err = end(process), (tmp_path / "stderr").read_text()
    assert exit_code == 2, err
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
    records = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records]
    assert losses[0] == pytest.approx(losses[2], rel=1e-4)
    assert losses[1] == pytest.approx(losses[3], rel=1e-4)
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


def test_profile_writes_a_trace(davis, tmp_path, run_train):
    with pytest.raises(UserError, match="--profile: .*raise --num_train_steps to 5"):
        run_train("--basepath", davis, "--output_path", tmp_path / "run", "--profile")
    run_train("--basepath", davis, "--output_path", tmp_path / "run", "--profile", "--num_train_steps", 6)
    (trace,) = (tmp_path / "run/profile").iterdir()
    assert "matmul" in trace.read_text() or "addmm" in trace.read_text()


@pytest.mark.filterwarnings("ignore:Error detected")
def test_detect_anomaly_names_the_operation(davis, tmp_path, run_train, monkeypatch):
    from model.training import step

    monkeypatch.setattr(step, "motion_loss", lambda attn, *_, **__: (attn * 0).sum().sqrt())
    with pytest.raises(RuntimeError, match="returned nan values"):
        run_train("--basepath", davis, "--output_path", tmp_path / "run", "--detect_anomaly")


def test_a_save_that_fails_leaves_the_whole_checkpoint_and_not_the_damaged_one(davis, tmp_path, run_train, monkeypatch):
    out = tmp_path / "run"
    common = ["--basepath", davis, "--output_path", out, "--last_freq", 1, "--save_freq", 99]
    run_train(*common, "--num_train_steps", 3)
    (out / "step_0000003.pt").unlink()
    (out / "last.pt").write_bytes((out / "last.pt").read_bytes()[:5000])
    before = (out / "previous.pt").read_bytes()
    save = torch.save

    def full(content, path):
        save({}, path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"last\.pt: .*free space"):
        run_train(*common, "--num_train_steps", 5, "--resume_path", "auto")
    assert (out / "previous.pt").read_bytes() == before
    assert (out / "last.pt.damaged").exists()
    monkeypatch.undo()


def test_the_whole_checkpoint_of_the_latest_step_is_resumed_whatever_the_file_times(davis, tmp_path, run_train, capsys):
    out = tmp_path / "run"
    run_train("--basepath", davis, "--output_path", out, "--save_freq", 1, "--num_train_steps", 3)
    for name in ("last.pt", "previous.pt"):
        (out / name).unlink()
    (out / "step_0000001.pt").touch()
    run_train("--basepath", davis, "--output_path", out, "--resume_path", "auto", "--num_train_steps", 4)
    assert "going on from" in (said := capsys.readouterr().err)
    assert "step_0000003.pt, step 3" in said


def test_resuming_at_an_earlier_step_sets_later_checkpoints_aside(davis, tmp_path, run_train, capsys):
    out = tmp_path / "run"
    common = ["--basepath", davis, "--output_path", out, "--save_freq", 1, "--last_freq", 1]
    run_train(*common)
    run_train(*common, "--resume_path", out / "step_0000002.pt", "--num_train_steps", 3)
    assert "last.pt, of step 4, is now last.pt.later: the run goes on from step 2" in capsys.readouterr().err
    steps = {path.name: load_tensors(path)["step"] for path in out.glob("*.pt")}
    assert steps == {
        "last.pt": 3, "step_0000001.pt": 1, "step_0000002.pt": 2, "step_0000003.pt": 3,
    }  # fmt: skip
    assert {path.name for path in out.glob("*.later")} == {
        f"{name}.pt.later" for name in ("last", "previous", "step_0000003", "step_0000004")
    }
    run_train(*common, "--overwrite")
    assert not list(out.glob("*.later"))


def test_a_checkpoint_with_a_read_error_is_not_skipped(davis, tmp_path, run_train, monkeypatch):
    out = tmp_path / "run"
    run_train("--basepath", davis, "--output_path", out, "--save_freq", 1)
    (out / "last.pt").write_bytes(b"")
    load = torch.load

    def unanswered(file, **options):
        if Path(file.name).name == "previous.pt":
            raise OSError(errno.EIO, "Input/output error")
        return load(file, **options)

    monkeypatch.setattr(torch, "load", unanswered)
    with pytest.raises(UserError, match=r"previous\.pt: .*mend that and start again"):
        run_train("--basepath", davis, "--output_path", out, "--resume_path", "auto", "--num_train_steps", 9)


def test_auto_does_not_take_another_run_for_its_own(davis, tmp_path, run_train):
    common = ["--basepath", davis, "--output_path", tmp_path / "run"]
    run_train(*common)
    with pytest.raises(UserError, match="--seed 9: .*0; give that"):
        run_train(*common, "--resume_path", "auto", "--seed", 9)


def test_checkpoints_without_a_last_one_are_a_run_too(davis, tmp_path, run_train):
    common = ["--basepath", davis, "--output_path", tmp_path / "run"]
    run_train(*common)
    for name in ("last.pt", "previous.pt"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match="--output_path .*--resume_path"):
        run_train(*common)


def test_changed_settings_are_reported_on_resuming(davis, tmp_path, run_train, capsys):
    common = ["--basepath", davis, "--output_path", tmp_path / "run"]
    run_train(*common)
    next((davis / "JPEGImages/480p/ant").iterdir()).unlink()
    run_train(*common, "--resume_path", "auto", "--num_train_steps", 6, "--attn_drop", 0, "--batch_size", 2)
    said = capsys.readouterr().err
    assert "resumed with changes: batch_size 1 -> 2, num_train_steps 4 -> 6, attn_drop 0.4 -> 0.0" in said
    assert "the training data are others or were written anew" in said
    assert "clips a step 1 -> 2" in said


def test_leftovers_of_a_kill_are_cleared_away(davis, tmp_path, run_train):
    out = tmp_path / "run"
    run_train("--basepath", davis, "--output_path", out)
    (out / ".last.pt.123.partial").write_bytes(b"half")
    run_train("--basepath", davis, "--output_path", out, "--resume_path", "auto", "--num_train_steps", 5)
    assert not list(out.glob(".*.partial"))


def test_a_fault_of_the_program_in_a_reading_process_keeps_its_traceback(davis, tmp_path, run_train, monkeypatch):
    monkeypatch.setattr("data.clips.ClipDataset.read", lambda *_: 1 / 0)
    monkeypatch.setattr("train.make_monitor", lambda *_: None)
    with pytest.raises(ZeroDivisionError, match="Caught ZeroDivisionError in DataLoader worker process"):
        run_train("--basepath", davis, "--output_path", tmp_path / "run", "--num_workers", 1)


def test_a_reader_that_hangs_does_not_keep_a_run_from_ending(davis, tmp_path, run_train, monkeypatch):
    import train as train_program

    read = train_program.ClipDataset.__getitem__

    def hang(self, index):
        if self.augmentation is not None and index >= 2:
            if index == 2:
                os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(1000)
        return read(self, index)

    monkeypatch.setattr("data.clips.LIMITS", ReadingLimits(batch_timeout=1))
    monkeypatch.setattr(train_program.ClipDataset, "__getitem__", hang)
    began = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        run_train("--basepath", davis, "--output_path", tmp_path / "run", "--num_workers", 1, "--num_train_steps", 9)
    assert ended.value.code == 75
    assert time.monotonic() - began < 30
    assert load_tensors(tmp_path / "run/last.pt")["step"] in (1, 2)


def test_asked_to_stop_a_group_saves_and_ends(davis, tmp_path, tiny_training):
    out = tmp_path / "run"
    arguments = ["--basepath", davis, "--output_path", out, "--num_train_steps", 100_000, "--last_freq", 100_000]
    ranks = start_ranks("train", *tiny_training, *arguments, folder=tmp_path)
    wait_for(out / "log.jsonl", ranks[0])
    time.sleep(0.5)
    os.kill(ranks[1].pid, signal.SIGUSR1)  # one is asked, and both end with the same step
    assert [end(process) for process in ranks] == [75, 75], (tmp_path / "rank0").read_text()
    assert "asked to stop after step" in (tmp_path / "rank0").read_text()
    assert load_tensors(out / "last.pt")["step"] > 0


WAITING = """
import os, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: (open(f"asked{os.environ['RANK']}", "w").close(), sys.exit(75)))
open(f"ready{os.environ['RANK']}", "w").close()
time.sleep(1000)
"""


def test_the_launcher_hands_usr1_on_to_the_processes_of_torchrun(tmp_path):
    """What train.py then does is tested above; here torchrun starts a program that needs no library."""
    (tmp_path / "waiting.py").write_text(WAITING)
    path = f"export PATH={quote(pretend_gpus(2, tmp_path))} CUDA_VISIBLE_DEVICES=0,1"
    command = f'{path}; . {quote(str(ROOT))}/utils/setup.sh requirements.txt; exec "${{LAUNCH[@]}}" waiting.py'
    process = subprocess.Popen(["bash", "-c", command], stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    for rank in range(2):
        wait_for(tmp_path / f"ready{rank}", process)
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert {path.name for path in tmp_path.glob("asked*")} == {"asked0", "asked1"}
