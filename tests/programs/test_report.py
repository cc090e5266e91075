"""The pages that eval.py, utils.report and utils.compare write: their files, and how they work in a browser."""

import base64
import json
import shutil
import sys
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from PIL import Image

from data.own_output import identify_own_output, refuse_own_output
from tests.browser import Browser
from tests.conftest import make_davis
from utils import compare
from utils.errors import UserError
from utils.png import read_label_png, write_label_png
from utils.report import __main__ as report_program
from utils.report.jpegs import LIMITS, choose_pixels, choose_positions
from utils.report.pages import write_report
from utils.report.sources import FolderSource
from utils.scoring.tables import read_scores

ODD = """d'o"g #1 & <b>50%"""  # a name that a user may give a folder


@pytest.fixture(scope="module")
def reported(tiny_network, tmp_path_factory) -> tuple[Path, Path]:
    """A tree of DAVIS and two folders of results with reports; to be read or copied and not to be changed."""
    import eval as eval_program

    folder = tmp_path_factory.mktemp("reported")
    names = ("ant", "bee", ODD)
    davis = make_davis(folder / "DAVIS", sequences=names)
    split = davis / "ImageSets/2017/val.txt"
    split.write_text("ant\nbee\n")
    frames, masks = folder / "clips", folder / "truth"
    for name in names:  # a data set without a split file, which could not list the odd name
        shutil.copytree(davis / "JPEGImages/480p" / name, frames / name)
        shutil.copytree(davis / "Annotations_unsupervised/480p" / name, masks / name)
    with pytest.MonkeyPatch.context() as patch:
        for out, extra in (("a", ["--protocol", "davis", "paper", "foreground"]), ("b", ["--ratio", "3"])):
            arguments = ["--dataset", "pairs", "--basepath", frames, "--annotations", masks, "--training_free",
                         "--workers", 1, "--save_path", folder / out, *extra]  # fmt: skip
            patch.setattr(sys, "argv", ["eval.py", *map(str, [*tiny_network, *arguments])])
            eval_program.main()
    return folder


def read_data(report: Path, name: str) -> dict:
    text = (report / "report/videos" / name / "data.js").read_text()
    return json.loads(text[len("addRun(") : -len(");\n")])


def read_index(report: Path) -> dict:
    text = (report / "report/data.js").read_text()
    return json.loads(text[len("const REPORT = ") : -len(";\n")])


def run_report(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
    report_program.main()


def run_compare(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, arguments)])
    compare.main()


# ------------------------------------------------------------------ files


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
        with pytest.raises(UserError, match=f"--html .*with {name}: holds {name}.*choose another"):
            run_report(monkeypatch, "--results", reported / "a", "--html", out)
        assert (out / name).read_text() == "mine"
    results = tmp_path / "results"
    some = ("--davis_path", davis, "--training_free", "--sequences", "ant", "--save_path", results)
    run_eval(*some)
    assert (results / "index.html").is_file()
    (results / "report/report.json").unlink()
    with pytest.raises(UserError, match="--save_path .*results: holds index.html.*choose another"):
        run_eval(*some, "--overwrite")


def test_a_report_of_other_results_is_refused(reported, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run_report(monkeypatch, "--results", reported / "a", "--html", out)
    before = (out / "report/data.js").read_bytes()
    for run, arguments in (
        (run_report, ("--results", reported / "b")),
        (run_compare, (reported / "a", reported / "b")),
    ):
        with pytest.raises(UserError, match="--html .*out: holds the report of other results.*choose another"):
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
    (("--results", "none"), "--results .*none: no such folder"),
    (("--results", "clips"), r"--results .*clips: holds no folders of label PNGs|an image of mode RGB holds no ids|"
                             "holds no folders"),
    (("--frames", "none"), "--frames .*none: no such folder"),
    (("--frames", "truth/ant"), "--frames .*truth/ant: holds no folder ant"),
    (("--annotations", "none"), "--annotations .*none: no such folder"),
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
    with pytest.raises(UserError, match=r"ant/00002\.png: 100x60 pixels, but its frame has 50x30"):
        run_report(monkeypatch, "--results", reported / "a", "--html", tmp_path / "out", "--frames", frames)
    (frames / "ant/00002.jpg").unlink()
    with pytest.raises(UserError, match=r"--frames .*ant: lacks frame 00002"):
        run_report(monkeypatch, "--results", reported / "a", "--html", tmp_path / "out", "--frames", frames)
    assert not (tmp_path / "out/index.html").exists()
    for flag in ("frames", "annotations", "scores_path"):
        with pytest.raises(UserError, match=f"--{flag}: has no effect without --html"):
            run_report(monkeypatch, "--results", reported / "a", f"--{flag}", reported / "clips")
    with pytest.raises(UserError, match=r"--html: shows one folder.*utils\.compare"):
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
    with pytest.raises(UserError, match="bare: has no report; run eval.py again, or python -m utils.report"):
        run_compare(monkeypatch, reported / "a", bare, "--html", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_frames_of_a_report_are_not_lost(reported, tmp_path, monkeypatch):
    results = tmp_path / "results"
    shutil.copytree(reported / "a", results)
    before = {path: path.read_bytes() for path in (results / "report").rglob("*") if path.is_file()}
    arguments = ("--results", results, "--html", results)
    with pytest.raises(UserError, match="--html .*results: its report shows frames; give --frames"):
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
    with pytest.raises(UserError, match=r"results/.*bee/about\.json: .*; run eval\.py .* --frames"):
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
    with pytest.raises(UserError, match=r"other/.*bee/masks\.jpg: missing; .*eval\.py"):
        run_compare(monkeypatch, reported / "a", other, "--html", tmp_path / "out")


def test_a_report_is_not_taken_for_frames(reported, tmp_path, monkeypatch):
    run_compare(monkeypatch, reported / "a", reported / "b", "--html", tmp_path / "out")
    assert identify_own_output(tmp_path / "out") == "results of eval.py"
    for folder in (reported / "a", tmp_path / "out"):
        with pytest.raises(UserError, match="holds results of eval.py"):
            refuse_own_output(folder / "report/videos/ant")


# ------------------------------------------------------------------ in a browser


ROWS = "[...document.querySelectorAll('#rows a')].map(a => a.textContent)"
INDEX = "Number(document.getElementById('player').dataset.index)"
# Sum of the pixels of the first canvas; a page from the disk may not read the pixels of its image files.
DRAWN = "views[0].image.data.reduce((sum, value) => sum + value, 0)"


def open_video(page: Browser, report: Path, name: str) -> None:
    page.open((report / "report/video.html").resolve().as_uri() + "?" + quote(name, safe=""))
    page.wait(f"{INDEX} === 0")


def test_the_list_is_sorted_and_filtered(page, reported):
    page.open(reported / "a/index.html")
    assert page.run(ROWS) == ["ant", "bee", ODD]
    page.wait("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    values = {video["name"]: video["values"] for video in read_index(reported / "a")["videos"]}
    for key in ("J", "seconds"):
        page.click(f"th[data-key={key}] button")
        assert page.run(ROWS) == sorted(values, key=lambda name: -values[name][key])
        assert page.run(f"document.querySelector('th[data-key={key}]').ariaSort") == "descending"
    page.click("th[data-key=seconds] button")
    assert page.run(ROWS) == sorted(values, key=lambda name: values[name]["seconds"])
    limit = sorted(100 * each["J"] for each in values.values())[1] + 1e-6
    low = [name for name, each in values.items() if 100 * each["J"] < limit]
    for text, expected in {
        "BE": ["bee"], "50%": [ODD], "<b>": [ODD], "wasp": [], f"J<{limit}": low,
    }.items():  # fmt: skip
        page.run(f"document.getElementById('filter').value = {json.dumps(text)}")
        page.run("document.getElementById('filter').dispatchEvent(new Event('input'))")
        assert sorted(page.run(ROWS)) == sorted(expected)
        assert page.run("document.getElementById('nothing').hidden") == bool(expected)


@pytest.mark.parametrize("name", ["ant", ODD])
def test_a_video_plays_steps_and_toggles(page, reported, name):
    page.open(reported / "a/index.html")
    page.run(f"[...document.querySelectorAll('#rows a')].find(a => a.textContent === {json.dumps(name)}).click()")
    page.wait(f"document.title === {json.dumps(name)} && {INDEX} === 0")
    assert page.run("document.querySelector('b, h1 b')") is None  # names are text
    page.press("ArrowRight")
    page.wait(f"{INDEX} === 1")
    page.click("#forward")
    page.wait(f"{INDEX} === 2")
    page.press("ArrowLeft")
    page.wait(f"{INDEX} === 1")
    page.press(" ")
    page.wait(f"{INDEX} === 6")  # to the end
    page.wait("!state.playing")
    page.click("#play")
    page.wait("state.playing || state.index === 6")
    page.press("Home")
    page.wait(f"{INDEX} === 0")
    before = page.run(DRAWN)
    page.press("t")
    page.wait(f"{DRAWN} !== {before}")
    assert page.run("document.getElementById('truth').ariaPressed") == "true"
    page.press("t")
    page.wait(f"{DRAWN} === {before}")
    page.run("document.getElementById('opacity').value = 0")
    page.run("document.getElementById('opacity').dispatchEvent(new Event('input'))")
    page.wait(f"{DRAWN} < {before}")


def test_one_proposal_is_shown_alone(page, reported):
    open_video(page, reported / "a", "ant")
    shown = "new Set(views[0].labels.filter(id => visibility(runs[0], id) === 'full' && id)).size"
    page.press("b")  # background too
    count = page.wait(shown)
    assert count > 1
    page.press(str(page.run("Math.min(...views[0].labels.filter(id => id))")))  # one that this frame has
    page.wait("[...document.querySelectorAll('.proposals button')].some(button => button.ariaPressed === 'true')")
    assert page.run(shown) == 1
    page.press("0")
    page.wait(f"{shown} === {count}")
    page.click(".proposals tbody tr:nth-child(2)")
    assert page.wait("state.picked.id") == 2
    page.click("#all")
    page.wait("state.picked === null")
    page.click(".screen canvas")
    assert page.wait("state.picked.id") == page.run("views[0].labels[30 * 100 + 50]")


def test_clicks_in_a_chart_lead_to_the_frame(page, reported):
    open_video(page, reported / "a", "ant")
    assert page.run("charts.length") == 2
    page.click(".chart svg")  # near its middle
    assert page.wait(INDEX) in (2, 3, 4)


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(page, reported, width):
    page.resize(width, 800)
    page.open(reported / "a/index.html")
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run("document.querySelector('.videos img').getBoundingClientRect().width") > 100
    open_video(page, reported / "a", "bee")
    assert page.run("document.documentElement.scrollWidth") <= width
    page.resize(1280, 800)


def test_a_comparison_shows_both_with_the_largest_difference_first(page, reported, tmp_path, monkeypatch):
    run_compare(monkeypatch, reported / "a", reported / "b", "--html", tmp_path / "out")
    page.open(tmp_path / "out/index.html")
    values = {video["name"]: video["values"] for video in read_index(tmp_path / "out")["videos"]}
    assert page.run(ROWS) == sorted(values, key=lambda name: -abs(values[name]["difference"]))
    open_video(page, tmp_path / "out", ODD)
    assert page.run("views.length") == page.run("panels.length") == 2
    page.press("ArrowRight")
    page.wait(f"{INDEX} === 1")


def test_upright_masks_alone_can_be_seen(page, reported, tmp_path, monkeypatch, capsys):
    """Without frames, truth and scores; and clicks meet the proposal below them though the picture is not as wide."""
    for path in (reported / "a/paper/ant").glob("*.png"):
        write_label_png(tmp_path / "masks/ant" / path.name, read_label_png(path).T)
    run_report(monkeypatch, "--results", tmp_path / "masks", "--html", tmp_path / "out")
    assert "note: no --frames, so masks are shown alone" in capsys.readouterr().err
    page.open(tmp_path / "out/index.html")
    assert page.run(ROWS) == ["ant"]
    open_video(page, tmp_path / "out", "ant")
    assert page.run("document.getElementById('truth').hidden")
    width, height = page.run("(box => [box.width, box.height])(views[0].canvas.getBoundingClientRect())")
    assert width / height == pytest.approx(0.6, abs=0.01)
    assert height < 800
    page.click(".screen canvas")
    assert page.wait("state.picked.id") == page.run("views[0].labels[50 * 60 + 30]")
    page.press("End")
    page.wait(f"{INDEX} === 6")
