"""The pages that eval.py, utils.report and utils.compare write, in a browser."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.browser import Browser
from tests.programs.reports import ODD, read_index, run_compare, run_report
from utils.png import read_label_png, write_label_png

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


def test_the_foreground_is_shown_in_place_of_the_proposals(page, reported):
    open_video(page, reported / "a", "ant")
    (first, *_) = sorted((reported / "a/foreground/ant").glob("*.png"))
    pixels = int((read_label_png(first) > 0).sum())
    assert pixels
    objects = page.run(DRAWN)
    page.press("1")
    page.press("f")
    assert page.wait("views[0].labels.filter(id => id === 255).length") == pixels
    assert page.run("new Set(views[0].labels).size") <= 2
    assert page.run("state.picked === null && document.getElementById('foreground').ariaPressed") == "true"
    colour = page.run("listDrawn(runs[0])[0].colour.join()")
    assert not page.run(f"REPORT.palette.some(each => each.join() === '{colour}')")
    for key in ("0", "Escape"):
        page.press(key)
        page.wait(f"!state.foreground && {DRAWN} === {objects}")
        page.press("f")
    page.press("ArrowRight")
    page.wait(f"{INDEX} === 1")
    assert page.run("views[0].labels.every(id => id === 0 || id === 255)")
    page.press("ArrowLeft")
    page.click("#foreground")
    page.wait(f"{DRAWN} === {objects}")
    page.press("f")
    page.click(".proposals tbody tr")  # a proposal leads back to the proposals
    page.wait("state.picked && !state.foreground")


def test_the_foreground_is_offered_only_where_there_is_one(page, reported):
    open_video(page, reported / "b", "ant")
    assert page.run("document.getElementById('foreground').hidden")
    page.press("f")
    assert not page.run("state.foreground")


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
