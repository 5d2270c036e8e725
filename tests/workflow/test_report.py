"""The report of a finished run, opened in a real browser with the network cut off."""

import base64

import pandas as pd
import pytest
import torch
import yaml
from browsers import PROGRAM, browser, opened

TINY = ("--configfile", "config/tiny.yaml")
# Nobody answers there.
CUT_OFF = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
CATEGORIES = {"Table 1", "Figures of the paper", "Sweeps", "Training", "Uncertainty", "Run"}


@pytest.fixture(scope="module")
def page(finished, tmp_path_factory):
    if PROGRAM is None:
        pytest.skip("there is no Chromium (Debian: apt-get install chromium)")
    path = tmp_path_factory.mktemp("report") / "report.html"
    status, output = finished.snakemake("paper", "--report", str(path), *TINY, **CUT_OFF)
    assert status == 0, output
    assert "Missing metadata" not in output
    with browser() as running, opened(running, path) as page:
        yield page


@pytest.fixture(autouse=True)
def at_the_menu(page):
    page.locator("nav ol a").first.click()
    page.get_by_text("Workflow", exact=True).click()


def show(page, category, result):
    """Click on a category and on the eye of a result; returns what is shown."""
    page.locator("nav").get_by_text(category, exact=True).click()
    page.locator("nav tr", has_text=result).locator("a").first.click()
    return page.frame_locator("iframe")


def test_the_first_page_says_what_the_run_is(page):
    assert page.get_by_role("heading", name="Run tiny").is_visible()
    assert page.get_by_text("Simulated: 24 views").is_visible()
    assert page.get_by_text("System Message").count() == 0  # docutils complains on the page
    page.locator("#rulegraph canvas, #rulegraph svg").first.wait_for()
    top = page.get_by_role("heading", name="Run tiny").bounding_box()["y"]
    assert top >= 0  # what is larger than the window begins in it
    page.get_by_text("Sweeps", exact=True).last.click()  # the link in the text
    assert page.get_by_text("Settings that the sweeps choose").is_visible()


def test_the_time_of_each_step_is_drawn(page):
    page.get_by_text("Statistics", exact=True).click()
    for name in ("runtimes", "timeline"):
        page.locator(f"#{name} canvas, #{name} svg").first.wait_for()


def test_every_result_is_shown_in_its_category(page):
    categories = page.evaluate("Object.keys(categories)")
    assert set(categories) >= CATEGORIES
    seen = 0
    for category in categories:
        page.locator("nav ol a").first.click()
        page.locator("nav").get_by_text(category, exact=True).click()
        rows = page.locator("nav tbody tr")
        assert rows.count() > 0
        for index in range(rows.count()):
            rows.nth(index).locator("a").first.click()
            shown = page.locator("img:not(nav img), iframe")
            shown.wait_for()
            if shown.evaluate("each => each.tagName") == "IMG":
                page.wait_for_function("document.querySelector('div.p-3 > img').naturalWidth > 100")
            else:
                cell = page.frame_locator("iframe").locator("td").first
                cell.wait_for()
                assert cell.bounding_box()["width"] > 0
            box = shown.bounding_box()
            assert min(box["width"], box["height"]) > 50
            seen += 1
    paper = page.evaluate("Object.values(results).map(each => each.labels.figure)")
    assert {int(number) for number in paper if number} >= {2, 3, 4, 5, 6, 7, 8, 12}
    assert seen >= len(CATEGORIES) + 10


def test_table_1_has_the_numbers_of_the_run(page, finished):
    table = pd.read_csv(finished.root / "results/tiny/tables/table_1.csv")
    shown = show(page, "Table 1", "Accuracy and work of the methods")
    shown.get_by_role("cell", name="Algebraic").wait_for()
    text = shown.locator("body").inner_text()
    for row in table.itertuples():
        assert row.method in text
        assert f"{row.mse:.4f} ± {row.mse_se:.4f}" in text


def test_the_run_is_described_by_what_made_it(page, finished):
    versions = show(page, "Run", "Versions and machine")
    assert versions.locator("tr", has_text="torch").first.is_visible()
    assert torch.__version__.split("+")[0] in versions.locator("body").inner_text()
    page.locator("nav tr", has_text="Run times").locator("a").first.click()
    times = page.frame_locator("iframe")
    times.get_by_role("cell", name="train", exact=True).first.wait_for()
    said = times.locator("body").inner_text()
    benchmarks = finished.root / "results/tiny/benchmarks"
    jobs = [path.relative_to(benchmarks).with_suffix("") for path in benchmarks.rglob("*.tsv")]
    assert [job for job in jobs if str(job) not in said] == []
    uri = page.evaluate("results['results/tiny/report/configuration.yaml'].data_uri")
    config = yaml.safe_load(base64.b64decode(uri.partition("base64,")[2]))
    assert config["run"] == "tiny"
    assert config["methods"]["ddgm_50"]["K"] == 3
    assert config["measurement"]["noise_std"] == 4.1


def test_the_viewer_of_the_run_shows_its_images(page, finished):
    viewer = finished.root / "results/tiny/viewer.html"
    assert viewer.stat().st_size < 10e6
    with opened(page.context.browser, viewer) as looked:
        looked.wait_for_function("Bokeh.documents.length && Bokeh.documents[0].is_idle")
        looked.keyboard.press("ArrowRight")
        title = "Bokeh.documents[0].get_model_by_name('left_panel').title.text"
        assert looked.evaluate(title).startswith("DDGM, N ≤ 50   MSE 0.")
        grey = "new Set(Bokeh.documents[0].get_model_by_name('left').data.grey[0]).size"
        assert looked.evaluate(grey) > 50
