"""J&F against steps, from what eval.py and train.py wrote alone."""

import sys

import cv2
import pytest

from utils import steps
from utils.errors import UserError


def test_table_and_picture_of_checkpoints(davis, tmp_path, run_train, run_eval, monkeypatch, capsys):
    run = tmp_path / "run"
    run_train("--basepath", davis, "--output_path", run, "--init", "identity", "--temperature", 5, "--save_freq", 2)
    common = ["--davis_path", davis, "--protocol", "both", "--save_path"]
    for step in (2, 4):
        for tau in (0.5, "auto"):
            checkpoint = run / f"step_000000{step}.pt"
            run_eval(*common, tmp_path / f"results/{step}-{tau}", "--resume_path", checkpoint, "--tau", tau)
    run_eval(*common, tmp_path / "results/0", "--training_free", "--temperature", 5, "--tau", 0.5)
    folders = sorted((tmp_path / "results").iterdir())
    monkeypatch.setattr(sys, "argv", ["steps", "--results", *map(str, folders), "--picture", str(tmp_path / "s.png")])
    capsys.readouterr()
    steps.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(row[2], row[3]) for row in rows] == [
        ("fixed tau", "0"), ("fixed tau", "2"), ("fixed tau", "4"), ("tau auto", "2"), ("tau auto", "4"),
    ]  # fmt: skip
    assert all(row[:2] == ["| DAVIS val", f"identity start, lr 1e-05, {run}"] for row in rows)
    assert all(float(row[5]) >= 1 and 0 <= float(row[6]) <= 100 for row in rows)
    assert cv2.imread(str(tmp_path / "s.png")).std() > 5

    run_eval(*common, tmp_path / "strange", "--training_free", "--temperature", 4, "--tau", 0.5)
    with pytest.raises(UserError, match="s = 4.0, where no run began"):
        steps.curves([steps.read_point(folder) for folder in (*folders, tmp_path / "strange")])
    (run / "step_0000004.pt").write_bytes((run / "step_0000002.pt").read_bytes())
    with pytest.raises(UserError, match=r"4-auto: its checkpoint .*step_0000004\.pt is gone or another"):
        steps.read_point(tmp_path / "results/4-auto")
    with pytest.raises(UserError, match="no results of eval.py"):
        steps.read_point(run)
