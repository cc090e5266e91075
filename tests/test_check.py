"""`python -m data.check` as it is called."""

import shutil
import sys

import numpy as np
import pytest

from data import check
from tests.layout_trees import FRAMES, TREES
from utils.errors import run_main
from utils.png import write_label_png

LABELS = "Annotations_unsupervised/480p"


@pytest.fixture
def run(monkeypatch, capsys):
    """run(arguments): (exit code, lines of stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["check", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            run_main(check.main)
        captured = capsys.readouterr()
        return exit_.value.code, captured.out.splitlines(), captured.err

    return call


@pytest.fixture
def davis(tmp_path):
    TREES["davis17u"].build(tmp_path)
    return tmp_path


def test_a_whole_dataset(run, davis):
    code, lines, _ = run("--dataset", "davis17u", "--basepath", davis)
    assert code == 0
    assert lines[0].endswith(": no problems")
    assert lines[2].split() == ["2", "8", "8", "4", "18x12", "(2)"]
    code, lines, _ = run("--dataset", "davis17u", "--basepath", davis, "--split", "test-dev", "--videos", "1:2")
    assert code == 0
    assert lines[2].split() == ["1", "4", "0", "0", "18x12", "(1)"]


def test_all_problems_are_named(run, davis):
    frames, ant, bee = davis / "JPEGImages/480p", davis / LABELS / "val-ant", davis / LABELS / "val-bee"
    (frames / "val-ant/00001.jpg").write_bytes(b"no picture")
    write_label_png(ant / "00002.png", np.full((12, 18), 1000))
    write_label_png(ant / "00003.png", np.ones((5, 5), int))
    (bee / "00001.png").unlink()
    code, lines, _ = run("--dataset", "davis17u", "--basepath", davis)
    assert code == 1
    assert lines[-3].endswith(": 4 problems")
    for line, part in zip(
        lines, ("ant/00001.jpg", "ant/00002.png: holds id 1000", "5x5 pixels", "val-bee: 3"), strict=False
    ):
        assert part in line


def test_quick_looks_only_whether_files_are_there(run, davis):
    (davis / "JPEGImages/480p/val-ant/00001.jpg").write_bytes(b"no picture")
    code, lines, _ = run("--dataset", "davis17u", "--basepath", davis, "--quick")
    assert code == 0
    assert lines[2].split() == ["2", "8", "8", "-", "-"]
    shutil.rmtree(davis / LABELS / "val-bee")
    code, lines, _ = run("--dataset", "davis17u", "--basepath", davis, "--quick")
    assert code == 1
    assert "val-bee: no annotations" in lines[0]


def test_one_damaged_record_is_one_problem(run, tmp_path):
    TREES["movi-e"].build(tmp_path)
    shard = tmp_path / "movi_e/256x256/1.0.0/movi_e-validation.tfrecord-00001-of-00002"
    content = shard.read_bytes()
    shard.write_bytes(content[:-100] + b"x" + content[-99:])
    code, lines, _ = run("--dataset", "movi-e", "--basepath", tmp_path)
    assert code == 1
    assert lines[0].endswith("the checksum does not fit; download this file again")
    assert lines[1].endswith(": 1 problem")


def test_bad_flags(run, davis):
    code, lines, errors = run("--dataset", "davis17u")
    assert (code, lines) == (2, [])
    assert "error: --basepath is missing" in errors
    assert run("--dataset", "davis17u", "--basepath", davis, "--videos", "2-3")[0] == 2
    assert run("--dataset", "davis17u", "--basepath", davis, "--annotations", davis)[0] == 2
    assert run("--dataset", "nothing")[0] == 2


def test_sprites_are_not_generated(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, lines, _ = run("--dataset", "sprites")
    assert code == 1
    assert "datasets/sprites: lacks ImageSets/2017/val.txt" in lines[0]
    assert not list(tmp_path.iterdir())


def test_pairs_of_two_folders(run, tmp_path):
    TREES["pairs"].build(tmp_path)
    arguments = ("--dataset", "pairs", "--basepath", tmp_path / "frames", "--annotations", tmp_path / "annotations")
    code, lines, _ = run(*arguments)
    assert code == 0
    assert lines[2].split() == ["2", "6", "4", "4", "18x12", "(2)"]
    shutil.rmtree(tmp_path / "annotations/ant")
    assert run(*arguments)[0] == 1


def test_own_frames(run, tmp_path):
    TREES["video"].build(tmp_path)
    code, lines, _ = run("--dataset", "video", "--basepath", tmp_path / "ant")
    assert code == 0
    assert lines[2].split()[:3] == ["1", str(len(FRAMES)), "0"]
