"""A browser for tests of pages."""

import pytest

from tests.browser import Browser, find_chromium


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
