"""What eval.py leaves in its folder: reruns, results of other settings, faults."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import eval as eval_program
from model.engine.windows import ENGINES
from tests.conftest import snapshot
from utils.errors import UserError
from utils.png import write_label_png
from utils.results import ResultsFolder


def test_a_rerun_does_only_what_is_missing(davis, tmp_path, run_eval, monkeypatch):
    out = tmp_path / "results"
    arguments = ["--davis_path", davis, "--training_free", "--save_path", out]
    run_eval(*arguments)
    before = snapshot(out)
    (out / "stats/bee.json").unlink()  # as if it had been interrupted there
    done = []
    segment = eval_program.Segmenter.segment
    monkeypatch.setattr(eval_program.Segmenter, "segment", lambda *a, **k: done.append(1) or segment(*a, **k))
    run_eval(*arguments)
    assert len(done) == 1
    assert snapshot(out) == before


def test_results_of_another_version_of_a_video_are_not_reused(davis, tmp_path, run_eval):
    arguments = ["--davis_path", davis, "--training_free", "--save_path", tmp_path / "results"]
    run_eval(*arguments)
    cv2.imwrite(str(davis / "JPEGImages/480p/bee/00003.jpg"), np.zeros((60, 100, 3), np.uint8))
    with pytest.raises(UserError, match="bee .7 frames"):
        run_eval(*arguments)
    run_eval(*arguments, "--overwrite")


def test_data_that_was_moved_is_not_segmented_again(davis, tmp_path, run_eval, monkeypatch):
    out, moved = tmp_path / "results", tmp_path / "elsewhere/DAVIS"
    arguments = ["--training_free", "--save_path", out]
    run_eval(*arguments, "--davis_path", davis)
    scores = out / "scores/davis/per-sequence_results-val.csv"
    before, scored = snapshot(out), scores.read_bytes()
    moved.parent.mkdir()
    davis.rename(moved)
    monkeypatch.setattr(eval_program.Segmenter, "segment", lambda *a, **k: pytest.fail("segmented again"))
    run_eval(*arguments, "--davis_path", moved)
    assert (snapshot(out), scores.read_bytes()) == (before, scored)
    assert json.loads((out / "stats/bee.json").read_text())["root"] == str(moved)
    assert json.loads((out / "settings.json").read_text())["origin"]["root"] == str(davis)


def test_results_of_other_settings_are_not_touched(davis, tmp_path, run_eval):
    out = tmp_path / "results"
    arguments = ["--davis_path", davis, "--training_free", "--save_path", out]
    run_eval(*arguments)
    before = snapshot(out)
    with pytest.raises(UserError, match=r"tau 1\.0 .*2\.0 .*--overwrite"):
        run_eval(*arguments, "--tau", 2)
    assert snapshot(out) == before
    run_eval(*arguments, "--tau", 2, "--sequences", "ant", "--overwrite")
    assert not (out / "bee").exists()
    assert json.loads((out / "settings.json").read_text())["tau"] == 2.0
    assert "fast" not in json.loads((out / "settings.json").read_text())


def test_results_of_another_version_of_the_program_are_not_continued(davis, tmp_path, run_eval):
    out = tmp_path / "results"
    arguments = ["--davis_path", davis, "--training_free", "--save_path", out]
    run_eval(*arguments, "--sequences", "ant")
    settings = json.loads((out / "settings.json").read_text())
    del settings["version"]  # as the first version
    (out / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="made by another version of this program.*--overwrite"):
        run_eval(*arguments)


@pytest.mark.parametrize("changed", [{"shrinkage": 0.7}, {"row_stride": 2}, {"key_pool": 2}])
def test_results_of_another_fast_are_not_mixed_in(davis, tmp_path, run_eval, monkeypatch, changed):
    """What `fast` is may change between versions, so a results folder holds it."""
    out = tmp_path / "results"
    arguments = ["--davis_path", davis, "--training_free", "--save_path", out, "--clustering", "fast"]
    run_eval(*arguments)
    assert json.loads((out / "settings.json").read_text())["fast"]["key_pool"] == 3
    monkeypatch.setitem(ENGINES, "fast", replace(ENGINES["fast"], **changed))
    with pytest.raises(UserError, match="fast.*--overwrite"):
        run_eval(*arguments)


def test_a_folder_of_other_files_is_not_touched(davis, tmp_path, run_eval):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").write_text("precious")
    for extra in ([], ["--overwrite"]):
        with pytest.raises(UserError, match="--save_path .*choose another"):
            run_eval("--davis_path", davis, "--training_free", "--save_path", tmp_path / "home", *extra)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.txt"]


def test_finished_results_that_lack_a_frame(davis, tmp_path, run_eval):
    out = tmp_path / "results"
    run_eval("--davis_path", davis, "--training_free", "--save_path", out)
    (out / "bee/00003.png").unlink()
    with pytest.raises(UserError, match=r"bee/00003\.png: .*results/bee to redo it"):
        run_eval("--davis_path", davis, "--training_free", "--save_path", out)


def cut(path):
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
    ("break_it", "arguments", "message"),
    [
        (None, ["--training_free", "--resolution", "40", "80"], r"--resolution 40 80: .*nearest are 32 80 and 48 80"),
        (None, [], "give either --resume_path CHECKPOINT .* or --training_free"),
        (None, ["--training_free", "--resume_path", "x.pt"], "give either --resume_path"),
        (None, ["--resume_path", "x.pt"], r"x\.pt: .*check the path"),
        (None, ["--training_free", "--sequences", "cow"], "--sequences cow"),
        (None, ["--training_free", "--memory_gb", "0.0001"], r"--memory_gb 0\.0001: .*raise it"),
        (
            lambda d: cut(d / "JPEGImages/480p/ant/00004.jpg"),
            ["--training_free"],
            r"ant/00004\.jpg: not a readable image",
        ),
        (
            lambda d: (d / "Annotations_unsupervised/480p/bee/00000.png").unlink(),
            ["--training_free"],
            "6 annotations for 7",
        ),
        (lambda d: shutil.rmtree(d / "JPEGImages/480p/bee"), ["--training_free"], "480p/bee: .*complete the download"),
        (lambda d: (d / "ImageSets/2017/val.txt").unlink(), ["--training_free"], "ImageSets"),
    ],
)
def test_faults_leave_nothing_half_written(davis, tmp_path, run_eval, break_it, arguments, message):
    if break_it:
        break_it(davis)
    out = tmp_path / "results"
    with pytest.raises(UserError, match=message):
        run_eval("--davis_path", davis, "--save_path", out, *arguments)
    assert not (out / "ant").exists()
    assert not list(out.glob("**/.*"))


def test_results_stay_where_what_should_replace_them_cannot_be_made(davis, tmp_path, run_eval):
    arguments = ["--davis_path", davis, "--training_free", "--save_path", tmp_path / "results", "--overwrite"]
    run_eval(*arguments)
    before = snapshot(tmp_path / "results")
    with pytest.raises(UserError, match="--sequences cow"):
        run_eval(*arguments, "--sequences", "cow")
    assert snapshot(tmp_path / "results") == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that nobody may write")
def test_a_place_that_not_even_root_may_write_is_named(davis, run_eval):
    with pytest.raises(UserError, match=r"--save_path /proc/x: .*choose another folder"):
        run_eval("--davis_path", davis, "--training_free", "--save_path", "/proc/x")


def test_limited_key_frames_are_noted_once(davis, tmp_path, run_eval, capsys):
    """7 frames at --ratio 2 have key frames 0, 2, 4."""
    arguments = ["--davis_path", davis, "--training_free", "--ratio", 2]
    run_eval(*arguments, "--max_key_frames", 3, "--save_path", tmp_path / "all")
    assert "--max_key_frames" not in capsys.readouterr().err
    run_eval(*arguments, "--max_key_frames", 2, "--save_path", tmp_path / "limited")
    assert capsys.readouterr().err.count(
        "note: --max_key_frames 2: limits 2 of 2 videos, such as ant, which has 3 key frames at --ratio 2\n"
    ) == 1  # fmt: skip


def test_a_failed_run_does_not_block_the_corrected_one(davis, tmp_path, run_eval):
    arguments = ["--davis_path", davis, "--training_free", "--save_path", tmp_path / "results"]
    with pytest.raises(UserError, match="--memory_gb"):
        run_eval(*arguments, "--memory_gb", 0.0001)
    run_eval(*arguments, "--ratio", 20)


def test_a_disk_that_fills_up_leaves_nothing_half_written(davis, tmp_path, run_eval, monkeypatch):
    written = []

    def full(path, labels):
        written.append(path)
        if len(written) > 3:
            raise OSError(28, "No space left on device")
        write_label_png(path, labels)

    monkeypatch.setattr("utils.results.write_label_png", full)
    with pytest.raises(OSError, match="No space left"):
        run_eval("--davis_path", davis, "--training_free", "--save_path", tmp_path / "results")
    assert not list((tmp_path / "results").glob("**/*.png"))
    assert not list((tmp_path / "results").glob("**/.*"))


def test_backgrounds_are_listed_but_never_a_foreground(tmp_path):
    entries = [{"id": 1, "score": 0.4}, {"id": 2, "score": 0.0, "background": True}]
    for kind, expected in (("davis", [2]), ("foreground", [])):
        results = ResultsFolder(tmp_path / kind, kinds=[kind], settings={}, origin={})
        results.finish("ant", {"proposals": {kind: entries}})
        assert results.list_background("ant") == expected
