"""The files of the pages that eval.py, utils.report and utils.compare write."""

import base64
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import eval as eval_program
from data.own_output import identify_own_output, refuse_own_output
from tests.conftest import make_davis
from tests.programs.reports import ODD, read_data, read_index, run_compare, run_report
from utils.errors import UserError
from utils.png import read_label_png, write_label_png
from utils.report.jpegs import LIMITS, choose_pixels, choose_positions
from utils.report.pages import write_report
from utils.report.sources import FolderSource
from utils.scoring.tables import read_scores


def test_the_list_has_the_scores_that_were_written(reported):
    index = read_index(reported / "a")
    assert [video["name"] for video in index["videos"]] == ["ant", "bee", ODD]
    keys = [column["key"] for column in index["columns"]]
    assert keys == ["J", "F", "J&F", "gap", "paper", "foreground", "proposals", "frames", "seconds"]
    scores = {name: read_scores(reported / f"a/{name}/scores/{name}/scores-all.json") for name in ("davis", "paper")}
    for video in index["videos"]:
        assert [picture["label"] for picture in video["pictures"]] == ["Frame", "Ground truth", "Masks"]
        for picture in video["pictures"]:
            assert (reported / "a/report/videos" / video["name"] / picture["file"]).is_file()
        (found,) = (one for one in scores["davis"].sequences if one.sequence == video["name"])
        assert video["values"]["J"] == pytest.approx(found.j_mean)
        assert video["values"]["gap"] == pytest.approx(found.identity.gap)
        stats = json.loads((reported / f"a/stats/{video['name']}.json").read_text())
        assert video["values"]["proposals"] == len(stats["proposals"]["davis"])
        assert video["values"]["seconds"] == pytest.approx(sum(stats["seconds"].values()))
    assert index["facts"][0][:2] == ["J&F", f"{100 * scores['davis'].summary()['J&F-Mean']:.1f}"]


def test_masks_and_areas_are_those_of_the_results(reported, tmp_path):
    data = read_data(reported / "a", "ant")
    labels = [read_label_png(path) for path in sorted((reported / "a/davis/ant").glob("*.png"))]
    assert len(data["masks"]) == len(labels) == data["count"] == 7
    for text, expected in zip(data["masks"], labels, strict=True):
        (tmp_path / "mask.png").write_bytes(base64.b64decode(text))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "mask.png")), expected)
    for proposal in data["proposals"]:
        shares = [float((frame == proposal["id"]).mean()) for frame in labels]
        assert proposal["area"] == pytest.approx(shares, rel=1e-3)
        visible = [index for index, share in enumerate(shares) if share] or [None]  # some have tokens, but no pixel
        assert (proposal["first"], proposal["last"]) == (visible[0], visible[-1])
    for index in range(7):
        with Image.open(reported / f"a/report/videos/ant/{index:05d}.jpg") as image:
            assert image.size == (100, 60)


@pytest.mark.parametrize("protocol", ["davis", "paper", "foreground"])
def test_j_over_time_has_the_mean_that_was_scored(reported, tmp_path, protocol):
    """So the assignment that the page shows is that of the scores."""
    results = tmp_path / "results"
    shutil.copytree(reported / "a" / protocol, results)
    (results / "settings.json").unlink()
    sources = [FolderSource(results / "ant", frames=None, annotations=reported / "truth")]
    write_report(results, sources, flag="--html")
    scores = read_scores(results / f"scores/{protocol}/scores-all.json")
    (found,) = (one for one in scores.sequences if one.sequence == "ant")
    told = read_data(results, "ant")["scores"]
    assert told["protocol"] == protocol
    for object_, expected in zip(told["objects"], found.j, strict=True):
        assert np.mean(object_["j"]) == pytest.approx(expected.mean, abs=1e-4)


def test_a_report_is_completed_and_not_made_again(reported, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(reported / "a", results)

    def write(names, root=reported / "clips"):
        masks = [results / "davis" / name for name in names]
        write_report(results, [FolderSource(m, frames=root, annotations=None) for m in masks], flag="--save_path")
        return {path: path.stat().st_mtime_ns for path in results.glob("report/videos/*/data.js")}

    first = write(["ant", "bee"])
    assert write(["ant"]) == first  # videos of an earlier run stay
    label = results / "davis/bee/00003.png"
    write_label_png(label, np.zeros_like(read_label_png(label)))
    assert {path.parent.name for path, time in write(["ant", "bee"]).items() if first[path] != time} == {"bee"}
    shutil.rmtree(results / "davis/ant")
    assert {path.parent.name for path in write(["bee"])} == {"bee", ODD}
    assert [video["name"] for video in read_index(results)["videos"]] == ["bee", ODD]


def test_a_failed_video_leaves_the_report_as_it_was(reported, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(reported / "a", results)
    before = {path.relative_to(results): path.read_bytes() for path in results.rglob("*") if path.is_file()}
    (results / "davis/bee/00003.png").write_bytes(b"damaged")
    before[Path("davis/bee/00003.png")] = b"damaged"
    masks = FolderSource(results / "davis/bee", frames=reported / "clips", annotations=None)
    with pytest.raises(UserError, match=r"bee/00003\.png: .*write or copy it again"):
        write_report(results, [masks], flag="--save_path")
    assert {path.relative_to(results): path.read_bytes() for path in results.rglob("*") if path.is_file()} == before


def test_size_is_bounded_however_many_frames_there_are():
    assert choose_positions(7) == list(range(7))
    assert choose_positions(5 * LIMITS.frames) == list(range(0, 5 * LIMITS.frames, 5))
    assert choose_pixels([80]) == LIMITS.largest
    assert choose_pixels([67] * 30) == LIMITS.pixels // (30 * 67)
    assert choose_pixels([600] * 100) == LIMITS.smallest


def test_many_proposals_keep_their_ids(tmp_path, monkeypatch):
    labels = np.arange(60 * 100).reshape(60, 100) // 10 + 1
    write_label_png(tmp_path / "many/clip/00000.png", labels)
    run_report(monkeypatch, "--results", tmp_path / "many", "--html", tmp_path / "many")
    data = read_data(tmp_path / "many", "clip")
    assert [proposal["id"] for proposal in data["proposals"]] == list(range(1, 601))
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data["masks"][0]), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(pixels[..., 2] + 256 * pixels[..., 1].astype(int), labels)


# ------------------------------------------------------------------ bad input


def test_files_of_others_are_never_overwritten(reported, tmp_path, monkeypatch, run_eval, davis):
    for name in ("index.html", "report"):
        out = tmp_path / f"with {name}"
        shutil.copytree(reported / "a/davis", out / "masks")
        (out / name).write_text("mine")
        with pytest.raises(UserError, match=f"--html .*with {name}: .*choose another"):
            run_report(monkeypatch, "--results", reported / "a", "--html", out)
        assert (out / name).read_text() == "mine"
    results = tmp_path / "results"
    some = ("--davis_path", davis, "--training_free", "--sequences", "ant", "--save_path", results)
    run_eval(*some)
    assert (results / "index.html").is_file()
    (results / "report/report.json").unlink()
    with pytest.raises(UserError, match="--save_path .*results: .*index.html.*choose another"):
        run_eval(*some, "--overwrite")


def test_a_report_of_other_results_is_refused(reported, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run_report(monkeypatch, "--results", reported / "a", "--html", out)
    before = (out / "report/data.js").read_bytes()
    for run, arguments in (
        (run_report, ("--results", reported / "b")),
        (run_compare, (reported / "a", reported / "b")),
    ):
        with pytest.raises(UserError, match="--html .*out: .*choose another"):
            run(monkeypatch, *arguments, "--html", out)
    assert (out / "report/data.js").read_bytes() == before
    run_report(monkeypatch, "--results", reported / "a", "--html", out)  # the same again is fine


def test_overwriting_results_removes_their_report(davis, tmp_path, run_eval):
    out = tmp_path / "results"
    some = ("--davis_path", davis, "--training_free", "--save_path", out)
    run_eval(*some)
    run_eval(*some, "--sequences", "ant", "--overwrite", "--tau", "0.9")
    assert [video["name"] for video in read_index(out)["videos"]] == ["ant"]


@pytest.mark.parametrize(("change", "message"), [
    (("--results", "none"), "--results .*none: "),
    (("--results", "clips"), r"--results .*clips: holds no folders of label PNGs|an image of mode RGB holds no ids|"
                             "holds no folders"),
    (("--frames", "none"), "--frames .*none: "),
    (("--frames", "truth/ant"), "--frames .*truth/ant: .*folder ant"),
    (("--annotations", "none"), "--annotations .*none: "),
])  # fmt: skip
def test_bad_folders_are_named(reported, tmp_path, monkeypatch, change, message):
    arguments = {"--results": reported / "a", "--html": tmp_path / "out"} | {change[0]: reported / change[1]}
    with pytest.raises(UserError, match=message):
        run_report(monkeypatch, *(part for pair in arguments.items() for part in pair))
    assert not (tmp_path / "out/index.html").exists()


def test_frames_and_truth_must_fit(reported, tmp_path, monkeypatch):
    frames = tmp_path / "frames"
    shutil.copytree(reported / "clips", frames)
    cv2.imwrite(str(frames / "ant/00002.jpg"), np.zeros((30, 50, 3), np.uint8))
    with pytest.raises(UserError, match=r"ant/00002\.png: 100x60 .*50x30"):
        run_report(monkeypatch, "--results", reported / "a", "--html", tmp_path / "out", "--frames", frames)
    (frames / "ant/00002.jpg").unlink()
    with pytest.raises(UserError, match=r"--frames .*ant: .*00002"):
        run_report(monkeypatch, "--results", reported / "a", "--html", tmp_path / "out", "--frames", frames)
    assert not (tmp_path / "out/index.html").exists()
    for flag in ("frames", "annotations", "scores_path"):
        with pytest.raises(UserError, match=f"--{flag}: .*--html"):
            run_report(monkeypatch, "--results", reported / "a", f"--{flag}", reported / "clips")
    with pytest.raises(UserError, match=r"--html: .*utils\.compare"):
        run_report(monkeypatch, "--results", reported / "a", reported / "b", "--html", tmp_path / "out")


@pytest.mark.parametrize(("file", "content"), [
    ("stats/bee.json", "{}"), ("stats/bee.json", "["),
    ("stats/bee.json", '{"proposals": {"davis": [1]}, "seconds": {}}'),
    ("davis/scores/davis/sequences/bee.json", '{"scores": {}}'), ("settings.json", "["),
])  # fmt: skip
def test_damaged_files_are_named(reported, tmp_path, monkeypatch, file, content):
    results = tmp_path / "results"
    shutil.copytree(reported / "a", results)
    (results / file).write_text(content)
    with pytest.raises(UserError, match=f"{file}: .*(again|remove)"):
        run_report(monkeypatch, "--results", results, "--html", tmp_path / "out")
    assert not (tmp_path / "out/index.html").exists()


def test_a_comparison_needs_two_reports(reported, tmp_path, monkeypatch):
    bare = tmp_path / "bare"
    shutil.copytree(reported / "b", bare)
    shutil.rmtree(bare / "report")
    with pytest.raises(UserError, match="bare: .*run eval.py again, or python -m utils.report"):
        run_compare(monkeypatch, reported / "a", bare, "--html", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_frames_of_a_report_are_not_lost(reported, tmp_path, monkeypatch):
    results = tmp_path / "results"
    shutil.copytree(reported / "a", results)
    before = {path: path.read_bytes() for path in (results / "report").rglob("*") if path.is_file()}
    arguments = ("--results", results, "--html", results)
    with pytest.raises(UserError, match="--html .*results: .*give --frames"):
        run_report(monkeypatch, *arguments)
    assert {path: path.read_bytes() for path in (results / "report").rglob("*") if path.is_file()} == before
    run_report(monkeypatch, *arguments, "--frames", reported / "clips")
    assert read_data(results, "ant")["frames"]


DAMAGED = ["{}", "[", "[]", '{"digest": "", "frames": 7, "names": 3, "pictures": []}', '{"digest": "", "frames": 7}']


@pytest.mark.parametrize("content", DAMAGED)
def test_a_video_with_a_damaged_about_is_written_again(reported, tmp_path, monkeypatch, capsys, content):
    results = tmp_path / "results"
    shutil.copytree(reported / "a", results)
    about = results / "report/videos/bee/about.json"
    about.write_text(content)
    with pytest.raises(UserError, match=r"results/.*bee/about\.json: .*eval\.py .* --frames"):
        run_compare(monkeypatch, results, reported / "b", "--html", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    sources = {name: FolderSource(results / "davis" / name, frames=reported / "clips", annotations=None)
               for name in ("ant", "bee")}  # fmt: skip
    write_report(results, [sources["ant"]], flag="--save_path")
    assert "bee left out" in capsys.readouterr().err
    assert [video["name"] for video in read_index(results)["videos"]] == ["ant", ODD]
    write_report(results, [sources["bee"]], flag="--save_path")
    assert json.loads(about.read_text())["names"] == [f"{index:05d}" for index in range(7)]
    assert [video["name"] for video in read_index(results)["videos"]] == ["ant", "bee", ODD]


def test_a_comparison_needs_the_same_frames(reported, tmp_path, monkeypatch):
    other = tmp_path / "other"
    shutil.copytree(reported / "b", other)
    about = other / "report/videos/bee/about.json"
    content = json.loads(about.read_text())
    for names, message in (
        ([*content["names"][:-1], "00009"], "bee: frame 00006 in .*a but frame 00009 in .*other"),
        (content["names"][:-1], "bee: 7 frames in .*a but 6 frames in .*other"),
    ):
        about.write_text(json.dumps(content | {"names": names}))
        with pytest.raises(UserError, match=f"{message}; compare results of the same frames"):
            run_compare(monkeypatch, reported / "a", other, "--html", tmp_path / "out")
        assert not (tmp_path / "out").exists()
    about.write_text(json.dumps(content))
    (other / "report/videos/bee/masks.jpg").unlink()
    with pytest.raises(UserError, match=r"other/.*bee/masks\.jpg: .*eval\.py"):
        run_compare(monkeypatch, reported / "a", other, "--html", tmp_path / "out")


def test_a_report_is_not_taken_for_frames(reported, tmp_path, monkeypatch):
    run_compare(monkeypatch, reported / "a", reported / "b", "--html", tmp_path / "out")
    assert identify_own_output(tmp_path / "out") == "results of eval.py"
    for folder in (reported / "a", tmp_path / "out"):
        with pytest.raises(UserError, match="eval.py"):
            refuse_own_output(folder / "report/videos/ant")


@pytest.fixture(scope="module")
def stopped(tiny_network, tmp_path_factory):
    """A tree of DAVIS, and results that were stopped before their report, so that the frames for it are still there."""
    folder = tmp_path_factory.mktemp("stopped")
    davis, out = make_davis(folder / "DAVIS", sequences=("ant",)), folder / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eval_program, "write_report", None)
        arguments = [*tiny_network, "--davis_path", davis, "--training_free", "--save_path", out, "--workers", 1]
        patch.setattr("sys.argv", ["eval.py", *map(str, arguments)])
        with pytest.raises(TypeError):
            eval_program.main()
    return davis, out


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("poster.png", None), ("poster.png", b"damaged"), ("frames.json", None), ("frames.json", b"{"),
        ("frames.json", b"[]"), ("00000.jpg", None),
    ],
)  # fmt: skip
def test_frames_that_a_stopped_run_left_damaged_are_decoded_again(stopped, tmp_path, run_eval, file, content):
    davis, out = stopped[0], tmp_path / "results"
    shutil.copytree(stopped[1], out)
    path = out / ".frames/ant" / file
    assert path.is_file()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    run_eval("--davis_path", davis, "--training_free", "--save_path", out)
    with Image.open(out / "report/videos/ant/00000.jpg") as image:
        assert image.size == (100, 60)
    assert not (out / ".frames").exists()
