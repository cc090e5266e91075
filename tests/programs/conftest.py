"""A browser for tests of pages, and results with reports."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.browser import Browser, find_chromium
from tests.conftest import make_davis
from tests.programs.reports import ODD


@pytest.fixture(scope="module")
def browser():
    find_chromium()
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def page(browser):
    """The browser, and afterwards a look at what went wrong in it."""
    browser.errors.clear()
    browser.requests.clear()
    yield browser
    assert not browser.errors
    assert all(url.startswith(("file:", "data:")) for url in browser.requests), "a page must not need the network"


@pytest.fixture(scope="session")
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
