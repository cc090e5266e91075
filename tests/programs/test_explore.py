"""eval.py --explore: what it keeps in a folder of results, and the section "Attention" of the report in a browser."""

import json
import re
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.clustering import symmetric_kl
from tests.browser import Browser
from tests.conftest import make_davis, snapshot
from tests.explanations import read_centres, read_rows
from utils import compare
from utils.errors import UserError
from utils.report import __main__ as report_program
from utils.report import jpegs
from utils.results import RESERVED

INDEX = "Number(document.getElementById('player').dataset.index)"


@pytest.fixture(scope="module")
def explored(tiny_network, tmp_path_factory) -> Path:
    """A tree of DAVIS and results of two clips with what explains them; to be read or copied and not to be changed.

    Two of the three key frames, 2 and 4, are not among the frames that the report shows.
    """
    import eval as eval_program

    folder = tmp_path_factory.mktemp("explored")
    make_davis(folder / "DAVIS")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpegs, "LIMITS", replace(jpegs.LIMITS, frames=3))
        arguments = ["--davis_path", folder / "DAVIS", "--training_free", "--ratio", 2, "--workers", 1, "--explore",
                     "--save_path", folder / "a"]  # fmt: skip
        patch.setattr(sys, "argv", ["eval.py", *map(str, [*tiny_network, *arguments])])
        eval_program.main()
    return folder


def read_attention(report: Path) -> dict:
    """Name of each video -> pictures of its key frames."""
    text = (report / "report/data.js").read_text()
    videos = json.loads(text[len("const REPORT = ") : -len(";\n")])["videos"]
    return {video["name"]: video.get("attention") for video in videos}


# ------------------------------------------------------------------ files


def test_results_without_it_are_completed(davis, tmp_path, run_eval, capsys):
    out = tmp_path / "results"
    some = ("--davis_path", davis, "--training_free", "--save_path", out)
    run_eval(*some, "--sequences", "ant")
    masks = snapshot(out)
    assert read_attention(out) == {"ant": None}
    assert not (out / "explore").exists()
    capsys.readouterr()
    run_eval(*some, "--explore")
    said = capsys.readouterr().err
    assert "note: --explore: ant is segmented again" in said
    assert "bee is segmented again" not in said
    assert said.count("note: --explore keeps about") == 1
    assert masks.items() <= snapshot(out).items()
    assert {path.name for path in (out / "explore").iterdir()} == {"ant", "bee"}
    pictures = ["00000.jpg"]
    assert read_attention(out) == {"ant": pictures, "bee": pictures}
    before = {path: path.stat().st_mtime_ns for path in (out / "explore").rglob("*.js")}
    for extra in (["--explore"], []):  # nothing is left to do, and the section stays without the flag
        run_eval(*some, *extra)
        assert {path: path.stat().st_mtime_ns for path in (out / "explore").rglob("*.js")} == before
        assert read_attention(out) == {"ant": pictures, "bee": pictures}
    (out / "explore/ant/query_00002.js").unlink()
    run_eval(*some, "--explore")
    assert (out / "explore/ant/query_00002.js").is_file()
    run_eval(*some, "--overwrite", "--tau", 0.9)
    assert not (out / "explore").exists()


def test_there_is_nothing_to_explore_in_masks_of_others(davis, tmp_path, run_eval):
    with pytest.raises(UserError, match="--explore: .*--predictions .*; give one of the two"):
        run_eval("--davis_path", davis, "--training_free", "--predictions", tmp_path, "--explore")


def test_what_is_too_large_is_refused_before_the_run(davis, tmp_path, run_eval, monkeypatch):
    out = tmp_path / "results"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(UserError, match="--explore: .*--save_path .*free space, or leave out"):
        run_eval("--davis_path", davis, "--training_free", "--save_path", out, "--explore")
    assert not out.exists()


def test_a_video_cannot_be_named_as_the_folder(davis, tmp_path, run_eval):
    (davis / "JPEGImages/480p/ant").rename(davis / "JPEGImages/480p/explore")
    with pytest.raises(UserError, match="video 'explore': .*rename the video"):
        run_eval("--dataset", "video", "--basepath", davis / "JPEGImages/480p", "--training_free", "--save_path",
                 tmp_path / "results")  # fmt: skip


def test_a_video_can_have_any_name_where_there_are_two_kinds_of_masks(tmp_path, run_eval, capsys):
    names = ("foreground", *sorted(RESERVED))
    davis, out = make_davis(tmp_path / "DAVIS", sequences=names, num_frames=2), tmp_path / "results"
    for more, segments in (([], True), ([], False), (["--overwrite", "--tau", 0.9], True)):
        run_eval("--dataset", "video", "--basepath", davis / "JPEGImages/480p", "--training_free", "--save_path", out,
                 "--protocol", "davis", "foreground", "--explore", *more)  # fmt: skip
        assert ("segmenting" in capsys.readouterr().err) == segments
        for name in names:
            for kind in ("davis", "foreground"):
                assert len(list((out / kind / name).glob("*.png"))) == 2
            assert (out / f"overlays/{name}.mp4").is_file()
            assert (out / f"report/videos/{name}").is_dir()


def test_other_pages_of_the_results(explored, tmp_path, monkeypatch):
    """A report in another folder can be explored; a comparison, which has two runs, not."""
    results = explored / "a"
    monkeypatch.setattr(jpegs, "LIMITS", replace(jpegs.LIMITS, frames=3))
    frames = explored / "DAVIS/JPEGImages/480p"
    for name, extra, expected in (
        ("with", ("--frames", frames), ["00000.jpg", "key_00002.jpg", "key_00004.jpg"]),
        ("without", (), []),
    ):
        arguments = ["report", "--results", results, "--html", tmp_path / name, *extra]
        monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
        report_program.main()
        assert read_attention(tmp_path / name) == {"ant": expected, "bee": expected}
        files = {path.name for path in (tmp_path / name / "report/videos/ant/attention").iterdir()}
        assert {"clusters.js", "key_00002.js", "query_00003.js"} <= files
        assert all((tmp_path / name / "report/videos/ant" / file).is_file() for file in expected)
    monkeypatch.setattr(sys, "argv", ["compare", str(results), str(results), "--html", str(tmp_path / "both")])
    compare.main()
    assert read_attention(tmp_path / "both") == {"ant": None, "bee": None}
    assert not list((tmp_path / "both").rglob("attention"))
    assert not list((tmp_path / "both").rglob("key_*.jpg"))
    assert (tmp_path / "both/report/videos/ant/00002.jpg").is_file()


# ------------------------------------------------------------------ in a browser


def open_video(page: Browser, report: Path, name: str) -> None:
    page.open((report / "report/video.html").resolve().as_uri() + "?" + name)
    page.wait(f"{INDEX} === 0")


def open_section(page: Browser) -> None:
    page.click("#attention summary")
    page.wait("explorer.point && explorer.near.canvas.dataset.done === 'true'")


def test_data_are_loaded_when_the_section_is_opened(page, explored):
    open_video(page, explored / "a", "ant")
    assert not [url for url in page.requests if "/attention/" in url]
    assert not page.run("document.getElementById('attention').hidden")
    open_section(page)
    loaded = [url.rpartition("/")[2] for url in page.requests if "/attention/" in url]
    assert loaded == ["clusters.js", "key_00000.js", "key_00002.js", "key_00004.js", "query_00000.js"]


def test_a_click_shows_what_a_token_attends_to(page, explored):
    kept = explored / "a/explore/ant"
    open_video(page, explored / "a", "ant")
    open_section(page)
    before = page.run("explorer.point.token")
    page.press("ArrowRight")
    page.wait(f"{INDEX} === 1")  # frame 3 of the video
    page.click(".screen canvas", at=(0.1, 0.9))
    page.wait("explorer.point.position === 3 && explorer.near.canvas.dataset.done === 'true'")
    token = page.run("explorer.point.token")
    assert token == 2 * 5 != before  # of 3 x 5
    assert page.run("state.picked") is None
    shares = page.run("explorer.maps.map(map => Number(map.canvas.dataset.share))")
    assert sum(shares) == pytest.approx(1, abs=1e-9)
    row, centres = read_rows(kept, 3)[token], read_centres(kept)
    assert page.run("[...explorer.point.row]") == pytest.approx(row.tolist(), abs=1e-7)
    assert shares == pytest.approx(row.view(3, -1).sum(1).tolist(), abs=1e-6)
    expected = symmetric_kl(row[None], centres)[0]
    assert page.run("[...explorer.point.distances]") == pytest.approx(expected.tolist(), abs=1e-4)
    rows = read_rows(kept, 3)
    near = int((symmetric_kl(rows, row[None])[:, 0] <= 1).sum())
    assert page.run("Number(explorer.near.canvas.dataset.near)") == near
    captions = page.run("[...document.querySelectorAll('#attention-maps b')].map(node => node.textContent)")
    assert len(captions) == 3
    assert page.run("document.querySelectorAll('#attention-distances .own').length") == 1
    told = page.run("[...document.querySelectorAll('#attention-distances li > span')].map(node => node.textContent)")
    assert len(told) == min(len(centres), 6)
    columns = 5
    labels, pixels = page.run("[...queriesOf.get(3).labels]"), np.reshape(page.run("[...views[0].labels]"), (60, 100))
    for words in told:
        cluster, proposal = re.fullmatch(r"Cluster (\d+)(?: own)?(?: · +proposal (\d+))?", words).groups()
        members = [place for place, label in enumerate(labels) if label == int(cluster)]
        counts = Counter(int(pixels[place // columns * 20 + 10, place % columns * 20 + 10]) for place in members)
        assert counts[int(proposal or 0)] == max(counts.values(), default=0)
    assert "farther than τ" in page.run("document.getElementById('attention-note').textContent")
    drawn = "explorer.maps[0].canvas.getContext('2d')"
    assert page.run(f"{drawn} !== null && explorer.maps[0].picture.naturalWidth > 0")
    page.click("#attention-maps canvas", at=(0.99, 0.01))  # in key frame 0: a token of that frame
    page.wait("explorer.point.position === 0 && explorer.point.token === 4")
    assert page.run(INDEX) == 0


def test_near_rows_are_found_by_a_part_of_their_columns(page, explored):
    """Column by column, rows are left out as soon as they are known to be far."""
    kept, tau = explored / "a/explore/bee", 0.3
    open_video(page, explored / "a", "bee")
    open_section(page)
    rows = read_rows(kept, 0)
    distances = symmetric_kl(rows, rows)
    page.run("one = (() => { const rows = explorer.rows; return {tokens: rows.tokens, width: Infinity, "
             "attendTo: (...given) => rows.attendTo(...given)}; })()")  # fmt: skip
    compared = 0
    for token in range(len(rows)):
        near, count = page.run(
            f"(() => {{ const search = new NearRows(one, queriesOf.get(0), Float64Array.from({rows[token].tolist()}), "
            f"{tau}); let count = 0; while (!search.isDone) {{ count += search.open.length; search.advance(); }} "
            "return [search.open, count]; })()"
        )
        compared += count
        clear = (distances[token] - tau).abs() > 1e-3
        expected = (distances[token] <= tau).nonzero()[:, 0].tolist()
        assert [other for other in near if clear[other]] == [other for other in expected if clear[other]]
        assert token in near
    assert 0 < (distances <= tau).sum() - len(rows) < distances.numel() - len(rows)
    assert compared < 0.8 * rows.numel() * len(rows)


def test_pointing_tells_cluster_and_distances(page, explored):
    open_video(page, explored / "a", "ant")
    open_section(page)
    page.run("views[0].hover({clientX: views[0].canvas.getBoundingClientRect().x + 5,"
             "clientY: views[0].canvas.getBoundingClientRect().y + 5})")  # fmt: skip
    told = page.run("views[0].tip.textContent")
    assert "to its centre" in told
    assert "τ 1.00" in told
    page.click("#attention summary")  # closed again: a click picks a proposal
    page.wait("!explorer.isOpen")
    page.press("b")
    page.click(".screen canvas")
    assert page.wait("state.picked && state.picked.id")


@pytest.mark.parametrize("width", [390, 1280])
def test_the_section_fits_the_window(page, explored, width):
    page.resize(width, 800)
    open_video(page, explored / "a", "bee")
    open_section(page)
    assert page.run("document.documentElement.scrollWidth") <= width
    page.resize(1280, 800)


def test_without_frames_it_is_drawn_on_grey(page, explored, tmp_path, monkeypatch):
    monkeypatch.setattr(jpegs, "LIMITS", replace(jpegs.LIMITS, frames=3))
    monkeypatch.setattr(sys, "argv", ["report", "--results", str(explored / "a"), "--html", str(tmp_path / "out")])
    report_program.main()
    open_video(page, tmp_path / "out", "bee")
    open_section(page)
    pixel = page.run("[...explorer.maps[0].canvas.getContext('2d').getImageData(1, 1, 1, 1).data]")
    assert pixel[3] == 255
    assert pixel[:3] != [120, 120, 120]  # there is a heat map over the grey


def test_a_file_that_is_gone_is_named_in_the_page(browser, explored, tmp_path):
    shutil.copytree(explored / "a", tmp_path / "out")
    (tmp_path / "out/report/videos/ant/attention/key_00002.js").unlink()
    open_video(browser, tmp_path / "out", "ant")
    browser.click("#attention summary")
    browser.wait("document.getElementById('attention-message').textContent.includes('key_00002.js: cannot be read')")


def test_results_without_it_have_no_such_section(page, explored, tmp_path):
    shutil.copytree(explored / "a", tmp_path / "out")
    data = tmp_path / "out/report/data.js"
    data.write_text(data.read_text().replace('"attention": [', '"other": ['))
    open_video(page, tmp_path / "out", "ant")
    assert page.run("document.getElementById('attention').hidden")
