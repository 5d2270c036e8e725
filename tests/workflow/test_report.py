"""The report of a finished run, opened in a real browser with the network cut off."""

import pytest
from browsers import PROGRAM, browser, opened

TINY = ("--configfile", "config/tiny.yaml")
# Nobody answers there.
CUT_OFF = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def report(finished, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    status, output = finished.snakemake("--report", str(path), *TINY, **CUT_OFF)
    assert status == 0, output
    assert "Missing metadata" not in output
    return path


@pytest.fixture
def page(report):
    if PROGRAM is None:
        pytest.skip("there is no Chromium (Debian: apt-get install chromium)")
    with browser() as running, opened(running, report) as page:
        yield page


def open_category(page, name):
    page.locator("nav").get_by_text("menu").or_(page.locator("nav a").first).first.click()
    page.locator("nav").get_by_text(name, exact=True).click()


def test_it_says_what_the_run_is(page):
    assert page.get_by_role("heading", name="Run tiny").is_visible()
    assert page.get_by_text("24 simulated views").is_visible()
    assert page.locator(".system-message, .problematic").count() == 0  # docutils' complaints
    assert page.locator("#rulegraph canvas, #rulegraph svg").first.is_visible()
