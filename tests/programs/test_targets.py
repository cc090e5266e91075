"""Training toward objects: what a run logs and keeps, and targets that cannot be used."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_davis
from utils.errors import UserError


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Folder for a run that later tests copy; filled by the first."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def finished(kept, run_train):
    """A tree of videos and a finished run of four steps toward objects."""
    davis, run = kept / "DAVIS", kept / "run"
    if not run.exists():
        run_train("--basepath", make_davis(davis), "--output_path", run, "--init", "identity", "--targets", "objects")
    return davis, run


def find_target(run: Path) -> Path:
    return next((run / "targets/round_1").rglob("ant.npz"))


def test_the_object_loss_is_logged_and_added(finished):
    lines = [json.loads(line) for line in (finished[1] / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        total = line["loss_semantic"] + line["loss_motion"] + line["loss_object"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
    assert any(line["loss_object"] > 0 for line in lines)


def test_every_video_has_a_file_of_targets(finished):
    folder = finished[1] / "targets/round_1"
    assert {path.name for path in folder.rglob("*.*")} == {"settings.json", "ant.npz", "bee.npz"}
    with np.load(find_target(finished[1])) as content:
        assert content["maps"].shape[:2] == (6, 7)


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda path: path.unlink(), r"ant\.npz: .*missing; restore it"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), r"ant\.npz: damaged .*; restore it"),
        (lambda path: np.savez(path, maps=np.zeros((6, 3, 2, 2), np.int16), is_boundary=np.zeros((3, 2, 2), bool)),
         r"ant\.npz: .*another version of the video; restore its frames"),
    ],
    ids=["missing", "damaged", "other"],
)  # fmt: skip
def test_targets_that_cannot_be_used_are_named(finished, run_train, tmp_path, harm, named):
    davis, run = finished[0], tmp_path / "run"
    shutil.copytree(finished[1], run)
    harm(find_target(run))
    with pytest.raises(UserError, match=named):
        run_train("--basepath", davis, "--output_path", run, "--init", "identity", "--targets", "objects",
                  "--num_train_steps", 6, "--resume_path", "auto")  # fmt: skip


def test_a_run_cannot_change_its_targets(finished, run_train, tmp_path):
    davis, run = finished[0], tmp_path / "run"
    shutil.copytree(finished[1], run)
    with pytest.raises(UserError, match="--targets none"):
        run_train("--basepath", davis, "--output_path", run, "--num_train_steps", 6, "--resume_path", "auto")


def test_targets_of_another_threshold_are_refused_within_a_round(finished, run_train, tmp_path):
    davis, run = finished[0], tmp_path / "run"
    shutil.copytree(finished[1], run)
    with pytest.raises(UserError, match="round_1: .*tau; give that again"):
        run_train("--basepath", davis, "--output_path", run, "--init", "identity", "--targets", "objects",
                  "--num_train_steps", 6, "--resume_path", "auto", "--tau", 0.5)  # fmt: skip


@pytest.mark.parametrize(
    ("key", "named"), [("version", "another version of this program"), ("limits", "limits; give that")]
)
def test_targets_of_an_earlier_round_are_checked_too(finished, run_train, tmp_path, key, named):
    run = tmp_path / "run"
    flags = ("--basepath", finished[0], "--output_path", run, *TOWARD_OBJECTS[:-2], "--rounds", 2)
    run_train(*flags, "--num_train_steps", 4, "--save_freq", 2)
    settings = run / "targets/round_1/settings.json"
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps({name: value for name, value in content.items() if name != key}))
    shutil.rmtree(run / "targets/round_2")
    with pytest.raises(UserError, match=f"round_1: .*{named}"):
        run_train(*flags, "--num_train_steps", 4, "--save_freq", 2, "--resume_path", run / "step_0000002.pt")


TOWARD_OBJECTS = ("--init", "identity", "--targets", "objects", "--num_train_steps", 1)


@pytest.fixture
def begin_again(finished, run_train, tmp_path, capfd):
    """begin_again(*flags): begin a run that was killed before its first checkpoint; whether it found targets anew."""
    davis, run = finished[0], tmp_path / "run"
    shutil.copytree(finished[1], run)
    remove_checkpoints(run)

    def begin(*flags) -> bool:
        before = find_target(run).stat().st_mtime_ns
        capfd.readouterr()
        run_train("--basepath", davis, "--output_path", run, *TOWARD_OBJECTS, *flags)
        anew = find_target(run).stat().st_mtime_ns != before
        assert ("found anew" in capfd.readouterr().err) == anew
        return anew

    return begin


def test_targets_are_kept_if_nothing_that_they_depend_on_has_changed(begin_again):
    assert not begin_again()


@pytest.mark.parametrize(
    "flags",
    [("--temperature", 2), ("--num_heads", 4), ("--image_stats", "reference"), ("--tau", 0.5)],
    ids=["block", "heads", "statistics", "tau"],
)
def test_targets_are_found_anew_if_a_setting_that_they_depend_on_has_changed(begin_again, flags):
    assert begin_again(*flags)


def test_targets_are_found_anew_if_the_frames_have_changed(davis, run_train, tmp_path, capfd):
    common = ("--basepath", davis, "--output_path", tmp_path / "run", *TOWARD_OBJECTS)
    run_train(*common)
    remove_checkpoints(tmp_path / "run")
    for path in (davis / "JPEGImages/480p/ant").iterdir():
        shutil.copy(davis / "JPEGImages/480p/bee" / path.name, path)
    before = find_target(tmp_path / "run").stat().st_mtime_ns
    run_train(*common)
    assert "found anew" in capfd.readouterr().err
    assert find_target(tmp_path / "run").stat().st_mtime_ns != before


def remove_checkpoints(run):
    for path in run.glob("*.pt"):
        path.unlink()


def test_damaged_settings_of_targets(finished, run_train, tmp_path, capfd):
    """They are refused within a round, and targets are found anew where a round begins."""
    davis, run = finished[0], tmp_path / "run"
    shutil.copytree(finished[1], run)
    (run / "targets/round_1/settings.json").write_text("{")
    common = ("--basepath", davis, "--output_path", run, "--init", "identity", "--targets", "objects")
    with pytest.raises(UserError, match=r"settings\.json: .*restore it, or start a new run"):
        run_train(*common, "--num_train_steps", 6, "--resume_path", "auto")
    remove_checkpoints(run)
    run_train(*common, "--num_train_steps", 1)
    assert "found anew" in capfd.readouterr().err
