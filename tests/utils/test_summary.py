"""Results side by side, from what eval.py wrote alone."""

import json
import math
import sys

import cv2
import pytest

from tests.benchmarks.inference import STAGES
from utils import summary
from utils.errors import UserError
from utils.report.tables import STAGE_GROUPS


def run_summary(monkeypatch, capsys, *arguments) -> list[list[str]]:
    monkeypatch.setattr(sys, "argv", ["summary", *map(str, arguments)])
    capsys.readouterr()
    summary.main()
    return [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]


def test_rows_show_in_which_settings_results_differ(davis, tmp_path, run_eval, monkeypatch, capsys):
    common = ["--davis_path", davis, "--training_free", "--protocol", "davis", "foreground", "--save_path"]
    run_eval(*common, tmp_path / "a", "--proposals", "merge", "split", "--clusters", "any")
    run_eval(*common, tmp_path / "b", "--proposals", "clusters", "--tau", 0.5)
    head, _, first, second = run_summary(monkeypatch, capsys, "--results", tmp_path / "a", tmp_path / "b")
    assert head[:4] == ["tau", "proposals", "`davis`, J / F / J&F", "`foreground`, J / F / J&F"]
    assert first[:2] == ["1.0", "merge split"]
    assert second[:2] == ["0.5", "clusters"]
    for folder, row in (("a", first), ("b", second)):
        scores = json.loads((tmp_path / folder / "davis/scores/davis/scores-val.json").read_text())["global"]
        assert row[2].startswith(f"{100 * scores['J-Mean']:.1f} / {100 * scores['F-Mean']:.1f} / ")
        stats = [json.loads(path.read_text()) for path in (tmp_path / folder / "stats").glob("*.json")]
        labels = [entry["objects"] or entry["clusters"] for entry in stats]
        assert float(row[4]) == pytest.approx(sum(labels) / len(labels), abs=0.06)
        frames = sum(entry["frames"] for entry in stats)
        assert row[8] == f"{sum(entry['seconds'].get('objects', 0.0) for entry in stats) / frames:.3f}"
        value, low, high = (float(x.strip("[],")) for x in row[2].split(" / ")[2].split())
        assert low <= value <= high
        assert (low, high) != (value, value)
    assert second[8] == "0.000"  # clusters: no objects were made


def test_every_stage_is_counted_once():
    assert sorted(stage for stages in STAGE_GROUPS.values() for stage in stages) == sorted([*STAGES, "draw"])


def test_rows_of_other_sequences_or_of_a_cache(davis, tmp_path, run_eval, monkeypatch, capsys):
    common = ["--davis_path", davis, "--training_free", "--feature_cache", tmp_path / "kept", "--save_path"]
    run_eval(*common, tmp_path / "a")
    run_eval(*common, tmp_path / "b", "--tau", 0.5)
    rows = run_summary(monkeypatch, capsys, "--results", tmp_path / "a", tmp_path / "b")[2:]
    assert float(rows[0][4]) > 0
    assert rows[1][4] == ""  # made before: no seconds of the backbone
    run_eval(*common, tmp_path / "one", "--sequences", "ant")
    with pytest.raises(UserError, match="a and one .*davis"):
        run_summary(monkeypatch, capsys, "--results", tmp_path / "a", tmp_path / "one")
    row = summary.read_row(tmp_path / "one")
    assert all(map(math.isnan, row.scores["davis"][3:]))
    (tmp_path / "one/stats/bee.json").write_text((tmp_path / "a/stats/bee.json").read_text())
    with pytest.raises(UserError, match="bee .*score all anew"):
        summary.read_row(tmp_path / "one")


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
    rows = [summary.read_row(tmp_path / name) for name in ("48", "32")]
    quality, cost = summary.draw_resolutions(rows, picture).axes
    drawn = {bars.get_label(): bars.lines[0].get_ydata().tolist() for bars in quality.containers}
    assert drawn["paper"] == [row.scores["paper"][2] for row in (rows[1], rows[0])]
    assert len(cost.collections) == len(STAGE_GROUPS)
    rows[0].seconds["backbone"] = None  # features from a cache
    assert len(summary.draw_resolutions(rows, picture).axes) == 1
    run_eval(*common, "--save_path", tmp_path / "tau", "--resolution", 32, 64, "--tau", 2)
    with pytest.raises(UserError, match="resolution, tau"):
        run_summary(monkeypatch, capsys, "--results", *(tmp_path / n for n in ("48", "tau")), "--picture", picture)


def test_folders_without_results_are_refused(tmp_path):
    with pytest.raises(UserError, match="settings.json: no such file; .*--save_path of eval.py"):
        summary.read_row(tmp_path)
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(UserError, match="^--results .*stats/"):
        summary.read_row(tmp_path)
