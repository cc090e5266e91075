"""Shapes of videos: kept where nobody asked for a resolution, and told where they are not."""

import json
import math
from fractions import Fraction

import cv2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import eval as eval_program
from data.resolution import ResolutionRule, fit_resolution, measure_shape_change
from tests.conftest import make_davis, moving_disk
from tests.data.video_files import write_video
from utils.progress import STAGES, FrameBar, report_progress


def measure_error(fitted, shape, budget):
    pixels = math.log(math.prod(fitted) / math.prod(budget))
    return math.log(measure_shape_change(fitted, shape)) ** 2 + pixels**2


@settings(deadline=None)
@example(budget=(44, 53), patch=8, shape=(212, 532))  # two resolutions are equally near
@given(
    budget=st.tuples(st.integers(20, 60), st.integers(20, 60)), patch=st.sampled_from([8, 14, 16]),
    shape=st.tuples(st.integers(100, 4000), st.integers(100, 4000)).filter(lambda s: 1 / 4 <= s[0] / s[1] <= 4),
)  # fmt: skip
def test_fitted_resolutions_have_the_shape_and_the_pixels(budget, patch, shape):
    budget = (budget[0] * patch, budget[1] * patch)
    fitted = fit_resolution(budget, shape, patch_size=(patch, patch))
    assert all(side % patch == 0 and side > 0 for side in fitted)
    assert abs(math.log(math.prod(fitted) / math.prod(budget))) < 0.08
    assert measure_shape_change(fitted, shape) < 1.08
    turned = fit_resolution(budget[::-1], shape[::-1], patch_size=(patch, patch))
    assert measure_error(turned, shape[::-1], budget) == pytest.approx(measure_error(fitted, shape, budget))


@given(shape=st.tuples(st.integers(1, 10_000), st.integers(1, 10_000)))
def test_any_shape_gets_a_resolution(shape):
    fitted = fit_resolution((160, 280), shape, patch_size=(8, 8))
    assert min(fitted) >= 8
    assert math.prod(fitted) < 1.6 * 160 * 280 or max(shape) / min(shape) > 300


@pytest.mark.parametrize(("budget", "shape", "patch", "expected"), [
    ((160, 280), (160, 280), 8, (160, 280)),
    ((160, 280), (1080, 1920), 8, (160, 280)),  # as near as multiples of 8 come to 16:9
    ((160, 280), (640, 360), 8, (280, 160)),
    ((280, 490), (480, 854), 14, (280, 490)),
    ((320, 480), (400, 400), 8, (392, 392)),
])  # fmt: skip
def test_resolutions_of_usual_shapes(budget, shape, patch, expected):
    assert fit_resolution(budget, shape, patch_size=(patch, patch)) == expected


def test_data_sets_keep_their_resolution_unless_it_squashes():
    rule = ResolutionRule((320, 480), (8, 8), explicit=False, fit_every_video=False)
    assert rule.choose((480, 854)) == (320, 480)
    assert rule.describe_changes({"bear": (480, 854)}) is None
    assert measure_shape_change(rule.choose((1280, 720)), (1280, 720)) < 1.08
    note = rule.describe_changes({"bear": (480, 854), "phone": (1280, 720)})
    assert note.startswith("--resolution 320 480: would change the shape of 1 of 2 videos")
    assert "phone" in note


def test_a_resolution_given_by_the_user_is_kept_with_a_note():
    rule = ResolutionRule((160, 280), (8, 8), explicit=True, fit_every_video=True)
    assert rule.choose((640, 360)) == (160, 280)
    assert "1 of 1 videos, by up to a factor of 3.11 (phone, 640x360)" in rule.describe_changes({"phone": (640, 360)})
    assert rule.describe_changes({"clip": (360, 640)}) is None


def portrait(tmp_path, rate=Fraction(10)):
    frames = [moving_disk(index, size=(160, 96), seed=0)[0] for index in range(5)]
    return write_video(tmp_path / "phone.mp4", frames, rate=rate)


def test_own_portrait_video_keeps_its_shape_and_rate(tmp_path, run_eval, monkeypatch, capfd):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("eval:\n  dataset: video\n  training_free: true\n  resolution: [96, 160]\n")
    path = portrait(tmp_path, Fraction(30000, 1001))
    given = eval_program.make_parser().parse
    monkeypatch.setattr("sys.argv", [])

    def without_flag(self, argv):  # conftest's command line gives one
        place = argv.index("--resolution")
        return given.__func__(self, argv[:place] + argv[place + 3 :])

    with monkeypatch.context() as patch:
        patch.setattr(type(eval_program.make_parser()), "parse", without_flag)
        run_eval("--config", recipe, "--basepath", path, "--save_path", tmp_path / "fitted")
    assert json.loads((tmp_path / "fitted/stats/phone.json").read_text())["resolution"] == [160, 96]
    held = json.loads((tmp_path / "fitted/settings.json").read_text())
    assert (held["resolution"], held["fit_resolution"]) == ([96, 160], True)
    shown = capfd.readouterr().err
    assert "note: --resolution" not in shown
    assert "phone: features 0/" in shown
    capture = cv2.VideoCapture(str(tmp_path / "fitted/overlays/phone.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(30000 / 1001)
    capture.release()
    run_eval("--config", recipe, "--basepath", path, "--save_path", tmp_path / "asked", "--resolution", 96, 160)
    assert json.loads((tmp_path / "asked/stats/phone.json").read_text())["resolution"] == [96, 160]
    assert not json.loads((tmp_path / "asked/settings.json").read_text())["fit_resolution"]
    (line,) = [line for line in capfd.readouterr().err.split("\n") if "note: " in line]
    assert "--resolution 96 160: changes the shape of 1 of 1 videos" in line


def test_training_says_which_videos_it_squashes(tmp_path, run_train, capfd):
    make_davis(tmp_path / "videos", sequences=("ant",))
    make_davis(tmp_path / "videos/more", sequences=("tall",), size=(100, 60))
    run_train("--basepath", tmp_path / "videos", "--output_path", tmp_path / "run", "--num_train_steps", 1)
    (line,) = [line for line in capfd.readouterr().err.split("\n") if "note: " in line]
    assert "--resolution 48 80: changes the shape of 1 of 2 videos by more than a factor of 1.25" in line
    assert "tall of 100x60" in line


# The bar


def test_bar_names_video_stage_and_time_left(capsys, monkeypatch):
    monkeypatch.setattr("utils.progress.LOG_INTERVAL", 0)  # every stage is a line
    with FrameBar([10, 5]) as bar:
        bar.start("ant", 10)
        for stage in STAGES:
            assert list(report_progress("abc", stage, bar)) == ["a", "b", "c"]
        bar("clustering", 0)  # again, at another threshold: the bar does not go back
        assert bar.bar.n == pytest.approx(10 * (1 - STAGES["writing"]) + 3 * STAGES["writing"])
        bar.start("bee", 5)
        assert bar.bar.n == 10
    shown = capsys.readouterr().err
    for stage in STAGES:
        assert f"1/2 ant: {stage} 0/10" in shown
    assert "15/15 frames" in shown
    with FrameBar([1], shown=False) as bar:
        bar.start("ant", 1)
        bar("features", 1)
    assert capsys.readouterr().err == ""
