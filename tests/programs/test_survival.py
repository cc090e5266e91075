"""A run that is killed, asked to stop, crowded or damaged loses nothing."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from shlex import quote

import pytest
import torch

from data.clips import ReadingLimits
from tests.conftest import TINY_BACKBONE, TINY_RESOLUTION, make_davis
from utils.errors import UserError
from utils.files import lock_folder
from utils.run.checkpoints import load_tensors

ROOT = Path(__file__).parents[2]
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
    began = time.perf_counter()
    pid, until = start(output), began + random.uniform(0.2, 1.0) * seconds
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
        if len(starts) == 1:  # the machine may have been busier at the first run
            seconds = min(seconds, time.perf_counter() - began)
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
    whole = [told_of(line) for line in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in whole] == list(range(41))
    assert sum(told["resumed"]) >= KILLS // 2  # the others were killed before their first checkpoint
    for number in range(len(told["resumed"])):
        same_runs(tmp_path / "whole", tmp_path / "killed" / str(number))
        log = (tmp_path / "killed" / str(number) / "log.jsonl").read_text().splitlines()
        assert [told_of(line) for line in log] == whole


def told_of(line: str) -> dict:
    """What a line of the log says, but for what depends on time."""
    return {key: value for key, value in json.loads(line).items() if key not in ("clips_per_second", "data_wait_share")}


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


def test_where_no_checkpoint_is_whole_nothing_is_begun_anew(davis, tmp_path, run_train):
    out = tmp_path / "run"
    run_train("--basepath", davis, "--output_path", out)
    for path in out.glob("*.pt"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"last\.pt: .*cut short.*fetch it again"):
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
    with lock_folder(out, flag="--output_path"):  # let go of with the process
        pass


def children_of(pid: int) -> list[int]:
    if not Path(f"/proc/{pid}/task/{pid}/children").exists():
        pytest.skip("the system does not tell a process's children here")
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def test_a_reading_process_that_is_killed_ends_the_run(tmp_path, tiny_weights):
    davis, out = make_davis(tmp_path / "DAVIS"), tmp_path / "run"
    arguments = ["--basepath", davis, "--output_path", out, "--num_train_steps", 100_000, "--num_workers", 1]
    process = launch(tiny(tiny_weights, *arguments))
    wait_for(out / "log.jsonl", process)
    os.kill(children_of(process.pid)[0], signal.SIGKILL)
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
    with pytest.raises(UserError, match="No space left"):
        run_train(*common, "--num_train_steps", 5, "--resume_path", "auto")
    assert (out / "previous.pt").read_bytes() == before
    assert (out / "last.pt.damaged").exists()
    monkeypatch.undo()


def test_of_what_is_whole_the_latest_step_is_taken_whatever_the_file_times(davis, tmp_path, run_train, capsys):
    out = tmp_path / "run"
    run_train("--basepath", davis, "--output_path", out, "--save_freq", 1, "--num_train_steps", 3)
    for name in ("last.pt", "previous.pt"):
        (out / name).unlink()
    (out / "step_0000001.pt").touch()
    run_train("--basepath", davis, "--output_path", out, "--resume_path", "auto", "--num_train_steps", 4)
    assert "going on from" in (said := capsys.readouterr().err)
    assert "step_0000003.pt, step 3" in said


def test_of_a_run_taken_up_at_an_earlier_step_the_later_ones_are_set_aside(davis, tmp_path, run_train, capsys):
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


def test_a_checkpoint_that_cannot_be_read_just_now_is_not_passed_over(davis, tmp_path, run_train, monkeypatch):
    out = tmp_path / "run"
    run_train("--basepath", davis, "--output_path", out, "--save_freq", 1)
    (out / "last.pt").write_bytes(b"")
    load = torch.load

    def unanswered(file, **options):
        if Path(file.name).name == "previous.pt":
            raise OSError(errno.EIO, "Input/output error")
        return load(file, **options)

    monkeypatch.setattr(torch, "load", unanswered)
    with pytest.raises(UserError, match=r"previous\.pt: cannot be read .*mend that and start again"):
        run_train("--basepath", davis, "--output_path", out, "--resume_path", "auto", "--num_train_steps", 9)


def test_auto_does_not_take_another_run_for_its_own(davis, tmp_path, run_train):
    common = ["--basepath", davis, "--output_path", tmp_path / "run"]
    run_train(*common)
    with pytest.raises(UserError, match="--seed 9: the run to resume has 0"):
        run_train(*common, "--resume_path", "auto", "--seed", 9)


def test_checkpoints_without_a_last_one_are_a_run_too(davis, tmp_path, run_train):
    common = ["--basepath", davis, "--output_path", tmp_path / "run"]
    run_train(*common)
    for name in ("last.pt", "previous.pt"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match="holds a run"):
        run_train(*common)


def test_what_changes_is_said(davis, tmp_path, run_train, capsys):
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


def test_usr1_to_torchrun_saves_and_ends(tmp_path, tiny_weights):
    davis, out = make_davis(tmp_path / "DAVIS"), tmp_path / "run"
    arguments = tiny(tiny_weights, "--basepath", davis, "--output_path", out, "--num_train_steps", 100_000)
    path = f'export PATH={quote(str(Path(sys.executable).parent))}:"$PATH" CUDA_VISIBLE_DEVICES=0,1'
    root = quote(str(ROOT))
    launcher = f"{path}; . {root}/utils/setup.sh requirements.txt"
    command = ("bash", "-c", f'{launcher}; exec "${{LAUNCH[@]}}" {root}/train.py "$@"', "--")
    process = launch([*arguments, "--last_freq", 100_000], command=command)
    wait_for(out / "log.jsonl", process)
    time.sleep(1)
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "asked to stop after step" in err
    assert load_tensors(out / "last.pt")["step"] > 0


def test_names_that_are_not_utf8_are_no_fault(tmp_path):
    from utils.run.provenance import hash_videos

    videos = {os.fsdecode(b"caf\xe9"): [Path("a.jpg")], "b": [Path("c.jpg")]}
    assert len(hash_videos(videos)) == 64
    assert hash_videos({"a": [Path("b"), Path("c")]}) != hash_videos({"a": [Path("b")], "c": []})


def test_versions_are_those_of_what_is_asked_for():
    from utils.run.provenance import SCORING, list_versions

    assert list_versions().items() >= list_versions(SCORING).items()
    assert list_versions(SCORING).keys() == {"python", "numpy", "opencv", "scipy"}
    command = "import sys, utils.scoring.score; from utils.run.provenance import *; list_versions(SCORING)"
    command += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"  # slow to import, and scoring does without


def test_the_revision_of_another_repository_is_not_taken_for_ours(tmp_path, monkeypatch):
    from utils.run import provenance as origin

    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr(origin, "REPOSITORY", tmp_path / "inside")
    (tmp_path / "inside").mkdir()
    assert origin.read_git_revision() is None


def test_a_rank_without_others_is_that_of_the_main_process(monkeypatch):
    from utils import distributed

    monkeypatch.setenv("RANK", "3")
    assert distributed.is_main()
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert distributed.rank() == 3


def test_processes_that_would_begin_at_different_steps_are_refused(monkeypatch):
    from utils import distributed

    monkeypatch.setattr(distributed, "gather", lambda value: [value, 3])
    distributed.check_same(3, "steps")
    with pytest.raises(UserError, match=r"steps differ: \[4, 3\]; --output_path must be on a disk"):
        distributed.check_same(4, "steps")
