import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.files import LOCK, create_folder, find_leftovers, lock_folder, write_atomically

ROOT = Path(__file__).parents[2]
# Locks the folder, forks a child that outlives its parent, as readers of training clips may, and waits.
HOLD = """
import os, sys, time, pathlib
from utils.files import lock_folder
with lock_folder(pathlib.Path(sys.argv[1]), flag=""):
    if child := os.fork():
        print(child, flush=True)
    time.sleep(120)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of `tmp_path / "run"`; its first line of output is the id of its child."""
    command = [sys.executable, "-c", HOLD, tmp_path / "run"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        process.child = int(process.stdout.readline())
        yield process
        process.kill()
        os.kill(process.child, signal.SIGKILL)


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path, holder):
    for _ in range(2):  # being refused does not erase the name
        with (
            pytest.raises(UserError, match=f"--save_path .*run: .*process {holder.pid} on .*another folder"),
            lock_folder(tmp_path / "run", flag="--save_path"),
        ):
            pass
    holder.kill()
    holder.wait()
    os.kill(holder.child, 0)  # the child is still there
    with lock_folder(tmp_path / "run", flag="--save_path"):
        assert f"process {os.getpid()} on" in (tmp_path / "run" / LOCK).read_text()


def test_a_lock_leaves_nothing_behind(tmp_path):
    with lock_folder(tmp_path / "new/run", flag=""):
        pass
    assert not (tmp_path / "new/run").exists()
    with lock_folder(tmp_path / "run", flag=""):
        (tmp_path / "run/result").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["result"]


def test_a_file_system_without_locks_refuses_nobody(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with lock_folder(tmp_path, flag=""), lock_folder(tmp_path, flag=""):
        pass
    assert not list(tmp_path.iterdir())


def count_up(folder: Path, times: int) -> None:
    for _ in range(times):
        while True:
            try:
                with lock_folder(folder, flag=""):
                    number = int((folder / "number").read_text())
                    (folder / "number").write_text(str(number + 1))
                break
            except UserError:
                continue


def test_one_process_at_a_time_holds_a_lock_that_is_removed_each_time(tmp_path):
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=count_up, args=(tmp_path, 100)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert (tmp_path / "number").read_text() == "300"


@pytest.mark.parametrize("durable", [False, True])
def test_a_failed_write_leaves_the_old_file_alone(tmp_path, durable):
    path = tmp_path / "a/file"
    with write_atomically(path, durable=durable) as temporary:
        temporary.write_text("old")
        assert find_leftovers(path) == [temporary]
    with pytest.raises(TypeError), write_atomically(path, durable=durable) as temporary:
        temporary.open("w").writelines(["half", None])
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False])
def test_the_file_that_is_replaced_can_be_kept(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: os.stat("/nowhere"))
    for text in ("first", "second", "third"):
        with write_atomically(tmp_path / "last", keep_as="previous") as temporary:
            temporary.write_text(text)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"last": "third", "previous": "second"}


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def fail():
        with create_folder(tmp_path / "a/out", flag="--out") as folder:
            (folder / "one").write_text("1")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert list((tmp_path / "a").iterdir()) == []
    with create_folder(tmp_path / "a/out", flag="--out") as folder:
        (folder / "one").write_text("1")
        assert not (tmp_path / "a/out").exists()
    assert [path.name for path in (tmp_path / "a").rglob("*")] == ["out", "one"]


def test_an_existing_folder_is_kept(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in (".", "link"):
        with pytest.raises(UserError, match="--out .*: "), create_folder(tmp_path / name, flag="--out"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
