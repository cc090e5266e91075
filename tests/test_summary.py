"""Results side by side, from what eval.py wrote alone."""

import json
import sys

import cv2
import pytest

from utils import summary
from utils.errors import UserError


def run_summary(monkeypatch, capsys, *arguments) -> list[list[str]]:
    monkeypatch.setattr(sys, "argv", ["summary", *map(str, arguments)])
    capsys.readouterr()
    summary.main()
    return [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]


def test_rows_tell_in_what_results_differ(davis, tmp_path, run_eval, monkeypatch, capsys):
    common = ["--davis_path", davis, "--training_free", "--protocol", "davis", "foreground", "--save_path"]
    run_eval(*common, tmp_path / "a", "--proposals", "merged", "split")
    run_eval(*common, tmp_path / "b", "--proposals", "clusters", "--tau", 0.5)
    head, _, first, second = run_summary(monkeypatch, capsys, "--results", tmp_path / "a", tmp_path / "b")
    assert head[:4] == ["tau", "proposals", "`davis`, J / F / J&F", "`foreground`, J / F / J&F"]
    assert first[:2] == ["1.0", "merged split"]
    assert second[:2] == ["0.5", "clusters"]
    for folder, row in (("a", first), ("b", second)):
        scores = json.loads((tmp_path / folder / "davis/scores/davis/scores-val.json").read_text())["global"]
        assert row[2].startswith(f"{100 * scores['J-Mean']:.1f} / {100 * scores['F-Mean']:.1f} / ")
        stats = [json.loads(path.read_text()) for path in (tmp_path / folder / "stats").glob("*.json")]
        labels = [entry["objects"] or entry["clusters"] for entry in stats]
        assert float(row[4]) == pytest.approx(sum(labels) / len(labels), abs=0.06)
    assert second[7] == "0.000"  # clusters: no objects were made


def test_picture_of_resolutions(davis, tmp_path, run_eval, monkeypatch, capsys):
    common = ["--davis_path", davis, "--training_free", "--protocol", "both"]
    for height, width in ((32, 64), (48, 96)):
        run_eval(*common, "--save_path", tmp_path / f"{height}", "--resolution", height, width)
    picture = tmp_path / "made" / "r.png"
    head, _, first, _ = run_summary(
        monkeypatch, capsys, "--results", tmp_path / "32", tmp_path / "48", "--picture", picture
    )
    assert (head[0], first[0]) == ("resolution", "32 64")
    assert cv2.imread(str(picture)).std() > 5
    run_eval(*common, "--save_path", tmp_path / "tau", "--resolution", 32, 64, "--tau", 2)
    with pytest.raises(UserError, match="differ in resolution alone, not in resolution, tau"):
        run_summary(monkeypatch, capsys, "--results", *(tmp_path / n for n in ("48", "tau")), "--picture", picture)


def test_folders_without_results_are_refused(tmp_path):
    with pytest.raises(UserError, match="no results of eval.py"):
        summary.read_row(tmp_path)
